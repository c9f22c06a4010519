"""Which addresses have a UDP socket in this network namespace; it opens none."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_TABLES = (Path("/proc/net/udp"), Path("/proc/net/udp6"))


def bound_addresses() -> frozenset[str]:
    """Every `ip:port` that a UDP socket is bound to. An IPv6 socket on all addresses counts for IPv4 as well."""
    return frozenset(
        address for table in _TABLES if table.exists() for address in _addresses(table.read_text().splitlines()[1:])
    )


def _addresses(lines: list[str]) -> Iterator[str]:
    for line in lines:
        ip, _, port = line.split()[1].partition(":")
        # Words of 32 bits as this machine has them in memory.
        packed = b"".join(struct.pack("=I", int(ip[at : at + 8], 16)) for at in range(0, len(ip), 8))
        number = int(port, 16)
        if len(packed) == 4:
            yield f"{socket.inet_ntop(socket.AF_INET, packed)}:{number}"
        else:
            yield f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{number}"
            if not any(packed):
                yield f"0.0.0.0:{number}"
