"""Whether an address leads back to one of our own listeners."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from proxy.settings.units import split_address


def own_listener(address: str, listeners: Iterable[str]) -> str | None:
    """The listener that would receive what is sent to `address`; all are `ip:port` as `parse_address` spells them.

    A listener on every address is meant by any address that this machine has now.
    """
    # Not parsed unless it must be: a change of a thousand endpoints asks a thousand times, with each listener.
    host, _, port = address.rpartition(":")
    everywhere = f"[::]:{port}" if host.startswith("[") else f"0.0.0.0:{port}"
    for listener in listeners:
        if listener == address or (listener == everywhere and _is_here(split_address(address)[0])):
            return listener
    return None


def _is_here(ip: IPv4Address | IPv6Address) -> bool:
    if ip.is_loopback:
        return True
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    # Towards its own address a machine's source is the same. Nothing is sent, and unlike with bind() the sysctl
    # ip_nonlocal_bind doesn't mislead.
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(ip), 9))
            return str(sock.getsockname()[0]).partition("%")[0] == str(ip).partition("%")[0]
    except OSError:
        return False
