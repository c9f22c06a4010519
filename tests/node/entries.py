"""Conntrack entries made by hand, in the network namespace that this runs in, for tables of any size.

`python -m tests.node.entries COUNT DESTINATION TARGET`: so many UDP flows from as many clients in 10.128.0.0/9.
"""

import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

from proxy.node import conntrack_wire as wire

_NEW, _CREATE = 0x100, 0x400
_CONFIRMED, _DST_NAT, _DST_NAT_DONE, _SRC_NAT_DONE = 1 << 3, 1 << 5, 1 << 8, 1 << 7
_BATCH = 200
CLIENTS = int(ip_address("10.128.0.0"))


def clients(count: int) -> Iterator[str]:
    """So many `ip:port`, each another one."""
    for number in range(count):
        yield f"{ip_address(CLIENTS + number // 50)}:{10000 + number % 50}"


def create(flows: Iterable[tuple[str, str, str]], timeout: int = 600) -> None:
    """An entry for each source, destination and target."""
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)) as netlink:
        batch: list[bytes] = []
        for source, destination, target in flows:
            batch.append(_request(source, destination, target, timeout))
            if len(batch) == _BATCH:
                _send(netlink, batch)
                batch.clear()
        if batch:
            _send(netlink, batch)


def count() -> int:
    """How many entries of any protocol the table has."""
    return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())


def _send(netlink: socket.socket, batch: list[bytes]) -> None:
    netlink.sendall(b"".join(batch))
    waiting = len(batch)
    while waiting:
        answer = netlink.recv(65536)
        for kind, _, begin, end in wire.messages(answer):
            failed = wire.error_number(answer, begin, end)
            assert (kind, failed) == (wire.NLMSG_ERROR, 0), f"errno {failed}"
            waiting -= 1


def _request(source: str, destination: str, target: str, timeout: int) -> bytes:
    status = _CONFIRMED | _SRC_NAT_DONE | (_DST_NAT_DONE | _DST_NAT if target != destination else 0)
    body = _tuple(1, source, destination) + _tuple(2, target, source)
    body += _attribute(3, struct.pack("!I", status)) + _attribute(7, struct.pack("!I", timeout))
    family = socket.AF_INET6 if source.startswith("[") else socket.AF_INET
    flags = wire.NLM_F_REQUEST | wire.NLM_F_ACK | _CREATE
    return wire.HEADER.pack(20 + len(body), _NEW, flags, 0, 0) + struct.pack("=BBH", family, 0, 0) + body


def _tuple(kind: int, source: str, destination: str) -> bytes:
    (source_ip, source_port), (ip, port) = _parts(source), _parts(destination)
    first = 1 if len(ip) == 4 else 3
    ips = _attribute(first, source_ip) + _attribute(first + 1, ip)
    proto = _attribute(1, b"\x11") + _attribute(2, source_port) + _attribute(3, port)
    return _attribute(kind | 0x8000, _attribute(0x8001, ips) + _attribute(0x8002, proto))


def _parts(address: str) -> tuple[bytes, bytes]:
    host, _, port = address.rpartition(":")
    return ip_address(host.strip("[]")).packed, struct.pack("!H", int(port))


def _attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


if __name__ == "__main__":
    create((client, sys.argv[2], sys.argv[3]) for client in clients(int(sys.argv[1])))
