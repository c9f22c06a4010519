"""The few DNS messages that the lab's own server and questioner need. Pure."""

import struct
from dataclasses import dataclass

TYPES = {"A": 1, "AAAA": 28, "TXT": 16, "SRV": 33, "PTR": 12}
_NAMES = {number: name for name, number in TYPES.items()}
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5

_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
"""Type, class, TTL, length of what follows."""
_SOA, _OPT = 6, 41
_QR_RD_RA = 0x8180
_TC = 0x0200
_WITHOUT_EDNS_BYTES = 512
_SOA_RDATA = b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, 5)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it came."""

    id: int
    name: str
    kind: str
    edns_bytes: int
    """0 without EDNS."""
    end: int
    """Where its question section ends."""


def question(id: int, name: str, kind: str, edns_bytes: int = 0) -> bytes:
    """Recursion desired; with an OPT record when a size is given."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".") if label)
    entry = labels + b"\0" + struct.pack("!HH", TYPES[kind], 1)
    opt = b"\0" + _RECORD.pack(_OPT, edns_bytes, 0, 0) if edns_bytes else b""
    return _HEADER.pack(id, 0x0100, 1, 0, 0, 1 if opt else 0) + entry + opt


def asked(wire: bytes) -> Asked:
    """What a query asks. Raises ValueError for what isn't one."""
    try:
        id, flags, questions, _, _, additional = _HEADER.unpack_from(wire)
        if flags & 0x8000 or questions != 1:
            raise ValueError("not a query")
        labels, at = [], _HEADER.size
        while size := wire[at]:
            labels.append(wire[at + 1 : at + 1 + size].decode("ascii", "replace"))
            at += size + 1
        kind = int.from_bytes(wire[at + 1 : at + 3], "big")
        end = at + 5
        edns_bytes = 0
        if additional and wire[end] == 0 and wire[end + 1 : end + 3] == _OPT.to_bytes(2, "big"):
            edns_bytes = max(_WITHOUT_EDNS_BYTES, int.from_bytes(wire[end + 3 : end + 5], "big"))
    except (struct.error, IndexError):
        raise ValueError("cut short") from None
    return Asked(id, ".".join(labels).lower(), _NAMES.get(kind, str(kind)), edns_bytes, end)


def answer(wire: bytes, query: Asked, rcode: int, addresses: int, ttl: int, *, stream: bool) -> bytes:
    """The reply to a query; A and AAAA have so many addresses, other types none. Truncated where it doesn't fit."""
    records, authority = b"", b""
    if rcode == NOERROR and query.kind in ("A", "AAAA"):
        records = b"".join(_address(query.kind, number, ttl) for number in range(addresses))
    if rcode == NXDOMAIN or (rcode == NOERROR and not records):
        authority = struct.pack("!H", 0xC000 | _last_label(wire)) + _RECORD.pack(_SOA, 1, 5, len(_SOA_RDATA))
        authority += _SOA_RDATA
    opt = b"\0" + _RECORD.pack(_OPT, 1232, 0, 0) if query.edns_bytes else b""
    entry = wire[_HEADER.size : query.end]
    room = 65535 if stream else query.edns_bytes or _WITHOUT_EDNS_BYTES
    flags, counts = _QR_RD_RA | rcode, (addresses if records else 0, 1 if authority else 0)
    if _HEADER.size + len(entry) + len(records) + len(authority) + len(opt) > room:
        flags, counts, records, authority = flags | _TC, (0, 0), b"", b""
    return _HEADER.pack(query.id, flags, 1, *counts, 1 if opt else 0) + entry + records + authority + opt


def read_answer(wire: bytes) -> tuple[int, int, int, bool]:
    """ID, rcode, number of answers, and whether it is truncated. Raises ValueError for what is no reply."""
    if len(wire) < _HEADER.size:
        raise ValueError("cut short")
    id, flags, _, answers, _, _ = _HEADER.unpack_from(wire)
    if not flags & 0x8000:
        raise ValueError("not a reply")
    return id, flags & 15, answers, bool(flags & _TC)


def _address(kind: str, number: int, ttl: int) -> bytes:
    host = number + 1
    if kind == "A":
        rdata = bytes([10, 200, host >> 8, host & 255])
    else:
        rdata = b"\xfd\x00\x02\x00" + bytes(10) + host.to_bytes(2, "big")
    return b"\xc0\x0c" + _RECORD.pack(TYPES[kind], 1, ttl, len(rdata)) + rdata


def _last_label(wire: bytes) -> int:
    """Where the last label of the question's name begins: the name of the zone that knows it isn't there."""
    at = last = _HEADER.size
    while size := wire[at]:
        last, at = at, at + size + 1
    return last
