"""The kernel's conntrack table over netlink: flows to some addresses, and the deletion of exact ones.

It reads the table of the network namespace that it runs in, changes nothing that it wasn't given, and judges nothing.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar
from typing import Protocol as Interface

from proxy.core.flows import Flow, Protocol
from proxy.node import conntrack_wire as wire

TRIES = 4
"""How often an interrupted dump is begun."""
MOST_FILTERED = 16
"""For more addresses one dump of all is cheaper than one for each: the kernel walks its whole table every time."""
_ANSWER_BYTES = 65536
"""Two of the largest pieces that the kernel makes of a dump."""
_PATIENCE = 30.0
_INTERRUPTED = (errno.EINTR, errno.ENOBUFS, errno.EAGAIN)

T = TypeVar("T")


class ConntrackError(Exception):
    """The table can't be read or changed; the text says why and what to do."""


class NetlinkSocket(Interface):
    """What of a socket is used."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class _Interrupted(ConntrackError):
    """The kernel dropped a part of its answer."""


@dataclass(frozen=True, slots=True)
class Dump(Generic[T]):
    """What one look at the table found."""

    found: tuple[T, ...]
    read: int
    """Entries that the kernel sent; it filters most of the others by itself."""
    interrupted: int
    """How often the kernel broke off or said that its table changed under the dump, which was then begun again."""
    whole: bool
    """False if it was interrupted to the last; it may lack entries, and none of it is wrong."""


def open_netlink() -> NetlinkSocket:
    """A socket to this network namespace's netfilter. Raises ConntrackError."""
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, wire.NETLINK_NETFILTER)
        opened.settimeout(_PATIENCE)
        opened.bind((0, 0))
    except OSError as error:
        raise _explained(error.errno or 0) from error
    return opened


def dump(
    addresses: Sequence[str] | None,
    concerns: Callable[[str], bool],
    keep: Callable[[Flow], T | None],
    protocol: Protocol = "UDP",
    connect: Callable[[], NetlinkSocket] = open_netlink,
    *,
    sources: bool = False,
) -> Dump[T]:
    """What `keep` makes of each flow to an `ip:port` that `concerns` says yes to, but for None.

    `addresses` are all those, or None if they can't be told; few of them are looked up by the kernel. Memory is
    bounded by what is kept. With `sources` it is flows from those addresses, and `keep` gets some others, too.
    Raises ConntrackError.
    """
    known = concerns if addresses is None or sources else frozenset(addresses).__contains__
    found: dict[tuple[int, str, str], T] = {}
    read = interrupted = 0
    whole = True
    for family, address in _requests(addresses):
        for _ in range(TRIES):
            with closing(connect()) as netlink:
                netlink.sendall(wire.dump_request(family, protocol, address, sources=sources))
                entries, complete = _one_dump(netlink, protocol, known, keep, found)
            read += entries
            if complete:
                break
            interrupted += 1
        else:
            whole = False
    return Dump(tuple(found.values()), read, interrupted, whole)


def delete(flows: Iterable[Flow], connect: Callable[[], NetlinkSocket] = open_netlink) -> Iterator[bool]:
    """Delete each of these entries when it is asked for; False if it was gone, or another one has its place.

    Raises ConntrackError.
    """
    with closing(connect()) as netlink:
        for number, flow in enumerate(flows, 1):
            netlink.sendall(wire.delete_request(flow, number))
            failed = _acknowledged(_received(netlink))
            if failed not in (0, errno.ENOENT):
                raise _explained(failed)
            yield not failed


def _requests(addresses: Sequence[str] | None) -> Iterator[tuple[int, str | None]]:
    if addresses is not None and len(addresses) <= MOST_FILTERED:
        ports = {address.rpartition(":")[2]: address for address in addresses if address.startswith("[")}
        for address in addresses:
            if not address.startswith("["):
                yield socket.AF_INET, address
        for address in ports.values():  # of IPv6 the kernel looks up the port only
            yield socket.AF_INET6, address
        return
    for family, bracket in ((socket.AF_INET, False), (socket.AF_INET6, True)):
        if addresses is None or any(address.startswith("[") == bracket for address in addresses):
            yield family, None


def _one_dump(
    netlink: NetlinkSocket,
    protocol: Protocol,
    concerns: Callable[[str], bool],
    keep: Callable[[Flow], T | None],
    found: dict[tuple[int, str, str], T],
) -> tuple[int, bool]:
    """How many entries came, and whether they were all; what is kept goes into `found`."""
    read = 0
    consistent = True
    while True:
        try:
            answer = _received(netlink)
        except _Interrupted:
            return read, False
        for kind, flags, begin, end in wire.messages(answer):
            consistent &= not flags & wire.NLM_F_DUMP_INTR
            if kind in (wire.NLMSG_DONE, wire.NLMSG_ERROR):
                failed = wire.error_number(answer, begin, end)
                if failed and failed not in _INTERRUPTED:
                    raise _explained(failed)
                return read, consistent and not failed
            if kind == wire.NLMSG_OVERRUN:
                return read, False
            read += 1
            flow = wire.entry(kind, answer, begin, end, protocol, concerns)
            kept = None if flow is None else keep(flow)
            if flow is not None and kept is not None:
                found[flow.id, flow.source, flow.destination] = kept


def _received(netlink: NetlinkSocket) -> bytes:
    try:
        answer = netlink.recv(_ANSWER_BYTES)
    except TimeoutError as error:
        raise ConntrackError(f"the kernel did not answer within {_PATIENCE:g} s") from error
    except OSError as error:
        if error.errno in _INTERRUPTED:
            raise _Interrupted(f"the kernel broke off its answer: {os.strerror(error.errno or 0)}") from error
        raise _explained(error.errno or 0) from error
    if not answer:
        raise ConntrackError("the kernel's answer was empty")
    return answer


def _acknowledged(answer: bytes) -> int:
    for kind, _, begin, end in wire.messages(answer):
        if kind == wire.NLMSG_ERROR:
            return wire.error_number(answer, begin, end)
    raise ConntrackError("the kernel acknowledged nothing")


def _explained(number: int) -> ConntrackError:
    what = "cannot read or change the conntrack table"
    if number in (errno.EPERM, errno.EACCES):
        return ConntrackError(f"{what}: it takes root or CAP_NET_ADMIN, in the node's network namespace")
    if number in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
        advice = "the kernel has no nf_conntrack_netlink; try: modprobe nf_conntrack_netlink"
        return ConntrackError(f"{what} ({os.strerror(number)}): {advice}")
    return ConntrackError(f"{what}: {os.strerror(number)}")
