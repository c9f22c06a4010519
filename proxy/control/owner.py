"""Who has a port: from the address in /proc/net to the inode to the process that holds it.

Only tells people; another user's processes stay unknown without root.
"""

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from proxy.node.proc_sockets import bound_sockets

PROC = Path("/proc")


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
    wanted = ip_address(host.partition("%")[0])
    inodes = {one.inode for one in bound_sockets(transport) if one.port == port and _collides(wanted, one.ip)}
    if not inodes:
        return None
    pid = _holder(inodes)
    if pid is None:
        return Owner(None, None)
    try:
        return Owner(pid, (PROC / str(pid) / "comm").read_text().strip())
    except OSError:
        return Owner(None, None)


def _collides(wanted: IPv4Address | IPv6Address, bound: IPv4Address | IPv6Address) -> bool:
    # An IPv6 wildcard also holds IPv4 unless it is IPV6_V6ONLY, which /proc/net does not tell.
    if bound == wanted or (bound.is_unspecified and bound.version >= wanted.version):
        return True
    return wanted.is_unspecified and wanted.version == bound.version


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
