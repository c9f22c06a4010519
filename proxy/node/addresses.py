"""Addresses of this machine over rtnetlink, and the link that holds those of listeners. It blocks.

What it adds carries a mark, so that a later run knows it again; what does not, it never removes.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from proxy.node.nft import NodeError
from proxy.node.plan import Address

PROTO = 83
"""IFA_PROTO of our addresses; kernels before 5.18 forget it, and then only the link tells."""
KIND = "dummy"
"""IFLA_INFO_KIND of a link that we make; not every kernel has it."""
ALIAS = "sidestep"
"""IFLA_IFALIAS of a link that we made."""
_IFF_UP = 0x1
_SCOPE_HOST = 254
_IFA_F_NODAD = 0x02
_FOR_EVER = 0xFFFFFFFF
_IPV6_LINK_LOCAL = ip_network("fe80::/10")


def present() -> tuple[Address, ...]:
    """Every address of this network namespace. Raises NodeError."""
    with _netlink("read the addresses") as route:
        links = {link["index"]: link for link in route.get_links()}
        entries = list(route.get_addr())
        # From 5.18 on loopback's own addresses have one, so a kernel that shows none knows none.
        proto_is_known = any(entry.get_attr("IFA_PROTO") for entry in entries)
        found = []
        for entry in entries:
            link = links.get(entry["index"])
            if link is None:
                continue  # it went while we looked
            ip = _ip(entry)
            # The kernel gives a link its fe80 address by itself, with a shorter prefix.
            whole = entry["prefixlen"] == (128 if ":" in ip else 32)
            ours = entry.get_attr("IFA_PROTO") == PROTO if proto_is_known else whole and _is_ours(link)
            found.append(Address(ip, link.get_attr("IFLA_IFNAME"), ours, bool(link["flags"] & _IFF_UP)))
        return tuple(found)


def usable_interface(name: str) -> str:
    """The interface that will hold addresses: `name`, or `lo` where it can't be made. It is made by `add`."""
    with _netlink(f"look for the interface {name}") as route:
        if route.link_lookup(ifname=name):
            return name
        return name if _can_be_made(route) else "lo"


def add(ip: str, interface: str) -> None:
    """Give this machine the address; the interface is made if it is missing. Raises NodeError."""
    with _netlink(f"add the address {ip} to {interface}") as route:
        index = _index(route, interface)
        try:
            if ":" in ip:
                # Deprecated: never the source of anything that does not ask for it.
                route.addr(
                    "add",
                    index=index,
                    address=ip,
                    prefixlen=128,
                    proto=PROTO,
                    flags=_IFA_F_NODAD,
                    preferred=0,
                    valid=_FOR_EVER,
                )
            else:
                # Of this host: else interfaces without an address of their own would send from it.
                route.addr("add", index=index, address=ip, prefixlen=32, proto=PROTO, scope=_SCOPE_HOST)
        except NetlinkError as error:
            if error.code == errno.EACCES and ":" in ip:
                advice = f"set the sysctl net.ipv6.conf.{interface}.disable_ipv6 to 0 or don't listen on {ip}"
                raise NodeError(f"cannot add the address {ip}: IPv6 is disabled on {interface}; {advice}") from error
            if error.code != errno.EEXIST:
                raise


def remove(address: Address) -> None:
    """Take the address away; nothing if it is gone. Raises NodeError."""
    with _netlink(f"remove the address {address.ip} from {address.interface}") as route:
        for index in route.link_lookup(ifname=address.interface):
            try:
                route.addr("del", index=index, address=address.ip, prefixlen=128 if ":" in address.ip else 32)
            except NetlinkError as error:
                if error.code != errno.EADDRNOTAVAIL:
                    raise


def remove_empty_links() -> list[str]:
    """Take interfaces away that we made, under whatever name, and that hold no address any more; which they were.

    Raises NodeError.
    """
    with _netlink("remove the interfaces that we made") as route:
        # The kernel gives every link an address in fe80::/10 by itself.
        holding = {entry["index"] for entry in route.get_addr() if ip_address(_ip(entry)) not in _IPV6_LINK_LOCAL}
        links = [link for link in route.get_links() if _is_ours(link) and link["index"] not in holding]
        for link in links:
            route.link("del", index=link["index"])
        return [link.get_attr("IFLA_IFNAME") for link in links]


def our_links(interface: str) -> set[str]:
    """Interfaces that we made, and `interface` if it is yet to be made. Raises NodeError."""
    with _netlink("look for the interfaces that we made") as route:
        links = {link.get_attr("IFLA_IFNAME"): link for link in route.get_links()}
    return {name for name, link in links.items() if _is_ours(link)} | {interface} - links.keys()


def _ip(entry: Any) -> str:
    """The local end of a point-to-point address is IFA_LOCAL."""
    return str(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"))


def _is_ours(link: Any) -> bool:
    return bool(link.get_attr("IFLA_IFALIAS") == ALIAS and link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == KIND)


def _can_be_made(route: Any) -> bool:
    """Whether the kernel can make such a link: it makes one and takes it away."""
    name = f"sstep{secrets.token_hex(5)}"  # 15 bytes are the most
    try:
        route.link("add", ifname=name, kind=KIND)
    except NetlinkError as error:
        if error.code == errno.EOPNOTSUPP:
            return False
        raise
    for index in route.link_lookup(ifname=name):
        route.link("del", index=index)
    return True


def _index(route: Any, interface: str) -> int:
    found = route.link_lookup(ifname=interface)
    if not found:
        route.link("add", ifname=interface, kind=KIND)
        found = route.link_lookup(ifname=interface)
        route.link("set", index=found[0], IFLA_IFALIAS=ALIAS)
    route.link("set", index=found[0], state="up")
    return int(found[0])


@contextmanager
def _netlink(what: str) -> Iterator[Any]:
    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        if error.code in (errno.EPERM, errno.EACCES):
            advice = "it takes root or CAP_NET_ADMIN; grant it or set node.manage: false"
            raise NodeError(f"cannot {what}: {advice}") from error
        raise NodeError(f"cannot {what}: {os.strerror(error.code)}") from error
    except OSError as error:
        raise NodeError(f"cannot {what}: {error.strerror or error}") from error
