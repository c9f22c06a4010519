"""`python -m proxy.lab.full_table COUNT`: so many established UDP flows in the conntrack table of this namespace.

They are made over netlink, as fast as the kernel takes them, and last ten minutes. The kernel makes no room for a new
flow by dropping one that is established.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing

_NETLINK_NETFILTER = 12
_NEW, _REQUEST, _CREATE = 0x100, 0x1, 0x400  # IPCTNL_MSG_CT_NEW
_SEEN_REPLY, _ASSURED, _CONFIRMED, _SNAT_DONE, _DNAT_DONE = 1 << 1, 1 << 2, 1 << 3, 1 << 7, 1 << 8
_NESTED = 0x8000
_SECONDS = 600
_AT_ONCE = 500
_FROM, _TO = b"\x0a\x80\x00\x00", b"\x0a\xff\x00\x01"


def requests(count: int) -> Iterator[bytes]:
    """A request for each flow: from 10.128.0.0/9, another client for each 60,000 of them, to 10.255.0.1."""
    status = _SEEN_REPLY | _ASSURED | _CONFIRMED | _SNAT_DONE | _DNAT_DONE
    lasting = _attribute(3, struct.pack("!I", status)) + _attribute(7, struct.pack("!I", _SECONDS))
    for number in range(count):
        client = int.from_bytes(_FROM) + number // 60000
        source, port = client.to_bytes(4), 1024 + number % 60000
        body = _ends(1, source, _TO, port, 9) + _ends(2, _TO, source, 9, port) + lasting
        header = struct.pack("=IHHII", 20 + len(body), _NEW, _REQUEST | _CREATE, 0, 0)
        yield header + struct.pack("=BBH", socket.AF_INET, 0, 0) + body


def _ends(direction: int, source: bytes, destination: bytes, source_port: int, port: int) -> bytes:
    ips = _attribute(1, source) + _attribute(2, destination)
    ports = _attribute(1, bytes([socket.IPPROTO_UDP]))
    ports += _attribute(2, struct.pack("!H", source_port)) + _attribute(3, struct.pack("!H", port))
    return _attribute(direction | _NESTED, _attribute(1 | _NESTED, ips) + _attribute(2 | _NESTED, ports))


def _attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def main() -> None:
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)) as netlink:
        batch: list[bytes] = []
        for request in requests(int(sys.argv[1])):
            batch.append(request)
            if len(batch) == _AT_ONCE:
                netlink.send(b"".join(batch))
                batch.clear()
        if batch:
            netlink.send(b"".join(batch))


if __name__ == "__main__":
    main()
