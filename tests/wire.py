"""DNS messages put together byte by byte, for what no library would write."""

import dns.name

IN = 1
RD = 0x0100
QR, RA = 0x8000, 0x0080
COOKIE, EDE, NSID, ECS, KEEPALIVE, PADDING = 10, 15, 3, 8, 11, 12
"""EDNS options (RFC 6891 9's registry)."""


def header(message_id: int = 0x1234, flags: int = RD, *, qd: int = 1, an: int = 0, ns: int = 0, ar: int = 0) -> bytes:
    """Twelve bytes with these counts."""
    return b"".join(number.to_bytes(2, "big") for number in (message_id, flags, qd, an, ns, ar))


def asked(name: str | bytes = "www.example", rtype: int = 1, rclass: int = IN) -> bytes:
    """A question entry; a name given as bytes stays as it is."""
    wire = name if isinstance(name, bytes) else dns.name.from_text(name).to_wire()
    assert wire is not None
    return wire + rtype.to_bytes(2, "big") + rclass.to_bytes(2, "big")


def record(owner: bytes, rtype: int, ttl: int, rdata: bytes, rclass: int = IN) -> bytes:
    """One record; the owner is in wire format, or a pointer (`b"\\xc0\\x0c"` is the question's name)."""
    fields = rtype.to_bytes(2, "big") + rclass.to_bytes(2, "big") + ttl.to_bytes(4, "big")
    return owner + fields + len(rdata).to_bytes(2, "big") + rdata


def opt(size: int = 1232, *options: bytes, version: int = 0, flags: int = 0, owner: bytes = b"\0") -> bytes:
    """An OPT record (RFC 6891 6.1.2)."""
    return record(owner, 41, version << 16 | flags, b"".join(options), size)


def option(code: int, data: bytes = b"") -> bytes:
    """An EDNS option."""
    return code.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


def query(*additional: bytes, name: str | bytes = "www.example", rtype: int = 1, flags: int = RD) -> bytes:
    """A question with these additional records."""
    return header(flags=flags, ar=len(additional)) + asked(name, rtype) + b"".join(additional)


def answering(query_wire: bytes, *records: bytes, flags: int = QR | RD | RA) -> bytes:
    """A reply to `query_wire`, which has one question, with these records as its answer section."""
    end = 12
    while query_wire[end]:
        end += query_wire[end] + 1
    message_id = int.from_bytes(query_wire[:2], "big")
    return header(message_id, flags, an=len(records)) + query_wire[12 : end + 5] + b"".join(records)


def flags_of(wire: bytes) -> int:
    """The second two bytes."""
    return int.from_bytes(wire[2:4], "big")


def rcode_of(wire: bytes) -> int:
    """The header's part of it."""
    return wire[3] & 15


def counts_of(wire: bytes) -> tuple[int, int, int, int]:
    """Of question, answer, authority and additional."""
    return tuple(int.from_bytes(wire[at : at + 2], "big") for at in (4, 6, 8, 10))  # type: ignore[return-value]
