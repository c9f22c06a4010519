"""Who has a port: from the address in /proc/net to the inode to the process that holds it.

Only tells people; another user's processes stay unknown without root.
"""

import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

PROC = Path("/proc")
_TCP_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Owner:
    """The holder of a port; `pid` and `name` are None where they cannot be known."""

    pid: int | None
    name: str | None

    def __str__(self) -> str:
        if self.pid is None:
            return "a process that only root may see"
        return f"{self.name} (pid {self.pid})"


def port_owner(host: str, port: int, transport: str) -> Owner | None:
    """The process whose socket is in the way of binding this address, or None if there is none (any more)."""
    inodes = _inodes_in_the_way(ip_address(host.partition("%")[0]), port, transport)
    if not inodes:
        return None
    pid = _holder(inodes)
    if pid is None:
        return Owner(None, None)
    try:
        return Owner(pid, (PROC / str(pid) / "comm").read_text().strip())
    except OSError:
        return Owner(None, None)


def _inodes_in_the_way(host: IPv4Address | IPv6Address, port: int, transport: str) -> set[str]:
    inodes = set()
    for table in (transport, f"{transport}6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, bound_port = fields[1].partition(":")
            if int(bound_port, 16) != port or (transport == "tcp" and fields[3] != _TCP_LISTEN):
                continue
            if _collides(host, _kernel_address(address)):
                inodes.add(fields[9])
    return inodes


def _collides(wanted: IPv4Address | IPv6Address, bound: IPv4Address | IPv6Address) -> bool:
    # An IPv6 wildcard also holds IPv4 unless it is IPV6_V6ONLY, which /proc/net does not tell.
    if bound == wanted or (bound.is_unspecified and bound.version >= wanted.version):
        return True
    return wanted.is_unspecified and wanted.version == bound.version


def _kernel_address(text: str) -> IPv4Address | IPv6Address:
    """/proc/net prints addresses as 32-bit words in host byte order."""
    words = (int(text[start : start + 8], 16) for start in range(0, len(text), 8))
    packed = b"".join(socket.htonl(word).to_bytes(4, "big") for word in words)
    address = ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address


def _holder(inodes: set[str]) -> int | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(os.readlink(descriptor) in wanted for descriptor in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue  # not ours to see, or just gone
    return None
