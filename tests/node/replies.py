"""What a kernel says about conntrack, made by hand, and a socket that says it."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from proxy.core.flows import Flow
from proxy.node import conntrack_wire as wire

_GIVEN = Flow("10.244.1.9:4000", "10.96.0.20:8125", "10.244.1.7:8125", 7, False, 29.0, 5, 1_700_000_000.0)


def flow(
    source: str = _GIVEN.source, destination: str = _GIVEN.destination, target: str = _GIVEN.target, **changed: object
) -> Flow:
    return replace(_GIVEN, source=source, destination=destination, target=target, **changed)


def entry(given: Flow, *, flags: int = 2, zone: int = 0, tuple_zone: int = 0, more: bytes = b"") -> bytes:
    """The message that tells of this flow."""
    protocol = {"UDP": 17, "TCP": 6}[given.protocol]
    body = _tuple(1, given.source, given.destination, protocol, tuple_zone)
    body += _tuple(2, given.target, given.source, protocol, tuple_zone)
    if zone:
        body += nested(18, struct.pack("!H", zone))
    body += nested(3, struct.pack("!I", 2 if given.answered else 0)) + nested(
        7, struct.pack("!I", int(given.expires))
    )
    if given.packets is not None:
        body += nested(9, nested(1, struct.pack("!Q", given.packets)) + nested(2, struct.pack("!Q", 99)))
    if given.started is not None:
        body += nested(20, nested(1, struct.pack("!Q", round(given.started * 1e9))))
    body += more + nested(12, struct.pack("!I", given.id))
    family = 10 if given.source.startswith("[") else 2
    return wire.HEADER.pack(20 + len(body), 0x100, flags, 1, 0) + struct.pack("=BBH", family, 0, 0) + body


def done(number: int = 0, flags: int = 2) -> bytes:
    """The end of a dump, with an errno."""
    return wire.HEADER.pack(20, wire.NLMSG_DONE, flags, 1, 0) + struct.pack("=i", -number)


def error(number: int) -> bytes:
    """A refusal, or with 0 an acknowledgement."""
    return wire.HEADER.pack(36, wire.NLMSG_ERROR, 0, 1, 0) + struct.pack("=i", -number) + bytes(16)


def nested(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def _tuple(kind: int, source: str, destination: str, protocol: int, zone: int) -> bytes:
    (source_ip, source_port), (ip, port) = _parts(source), _parts(destination)
    first = 1 if len(ip) == 4 else 3
    ips = nested(first, source_ip) + nested(first + 1, ip)
    proto = nested(1, bytes([protocol])) + nested(2, source_port) + nested(3, port)
    inner = nested(0x8001, ips) + nested(0x8002, proto)
    return nested(0x8000 | kind, inner + (nested(3, struct.pack("!H", zone)) if zone else b""))


def _parts(address: str) -> tuple[bytes, bytes]:
    host, _, port = address.rpartition(":")
    return ip_address(host.strip("[]")).packed, struct.pack("!H", int(port))


class ScriptedKernel:
    """Connections that get what the script says: for each, what is received one after the other."""

    def __init__(self, *connections: Sequence[bytes | OSError]) -> None:
        self._connections = [list(answers) for answers in connections]
        self.sent: list[bytes] = []
        self.opened = 0
        self.closed = 0
        self._answers: list[bytes | OSError] = []

    def connect(self) -> "ScriptedKernel":
        self._answers = self._connections[self.opened]
        self.opened += 1
        return self

    def sendall(self, data: bytes, /) -> None:
        self.sent.append(data)

    def recv(self, size: int, /) -> bytes:
        answer = self._answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        assert len(answer) <= size
        return answer

    def close(self) -> None:
        self.closed += 1
