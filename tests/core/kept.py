"""Verdicts and questions for tests of what is kept, without an upstream."""

from proxy.core import local_names
from proxy.core.cache import Cache, Entry, Variant
from proxy.core.lifetime import Kind, Verdict
from proxy.core.message import RD, SOA, A, Query, Rcode, Sections, respond, scan_query

LIMIT = 1232


def data(rtype: int = A, size: int = 4, ttl: int = 60) -> bytes:
    """One record with `size` bytes of data, owned by the question's name."""
    return (
        b"\xc0\x0c"
        + rtype.to_bytes(2, "big")
        + b"\0\1"
        + ttl.to_bytes(4, "big")
        + size.to_bytes(2, "big")
        + bytes(size)
    )


def verdict(kind: Kind = Kind.POSITIVE, lifetime: int = 60, rtype: int = A, size: int = 4) -> Verdict:
    """What `judge` would say of an answer with one record."""
    if kind is Kind.POSITIVE:
        return Verdict(kind, lifetime, Sections(data(rtype, size, lifetime), (1, 0, 0), Rcode.NOERROR, False), False)
    rcode = Rcode.NXDOMAIN if kind is Kind.NXDOMAIN else Rcode.NOERROR
    return Verdict(kind, lifetime, Sections(data(SOA, 22 + size, lifetime), (0, 1, 0), rcode, False), False)


def query(name: bytes, qtype: int = A, edns: bool = False) -> Query:
    """A question for a name in wire format, with ID 0."""
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0" if edns else b""
    head = b"\0\0" + RD.to_bytes(2, "big") + b"\0\1\0\0\0\0\0" + bytes((edns,))
    found = scan_query(head + name + qtype.to_bytes(2, "big") + b"\0\1" + opt)
    assert isinstance(found, Query)
    return found


def add_variant(cache: Cache, entry: Entry, asked: Query, now: float) -> None:
    """Keep a ready answer the way the resolver does."""
    age = int(now - entry.stored_at)
    message = respond(asked, entry.sections, LIMIT, age=age)
    cache.add_variant(entry, asked.wire[2:], Variant(entry, message, asked.question_end, age, 0))


def name(text: str) -> bytes:
    """A name in wire format."""
    return local_names.wire_name(text)
