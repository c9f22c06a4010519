"""The sockets of this network namespace, as /proc/net lists them; it opens none."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_TCP_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class ProcSocket:
    """A socket by what it is bound to."""

    ip: IPv4Address | IPv6Address
    """An IPv4 address also where an IPv6 socket is bound to it."""
    port: int
    inode: str
    """By which the process that holds it has it among its descriptors."""


def bound_sockets(transport: str) -> Iterator[ProcSocket]:
    """Every socket of `udp`, or every one of `tcp` that listens; none of a family that the kernel doesn't have."""
    for table in (transport, f"{transport}6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if transport == "tcp" and fields[3] != _TCP_LISTEN:
                continue
            ip, _, port = fields[1].partition(":")
            yield ProcSocket(_address(ip), int(port, 16), fields[9])


def _address(text: str) -> IPv4Address | IPv6Address:
    # Words of 32 bits as this machine has them in memory.
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    ip = ip_address(b"".join(struct.pack("=I", word) for word in words))
    return ip if ip.version == 4 else ip.ipv4_mapped or ip
