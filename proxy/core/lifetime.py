"""How long may an answer be kept, and what is it at all: classified once, purely, for everybody.

| limit | value | reason |
| --- | --- | --- |
| positive TTL | `max_ttl`, 1 h unless set | shown in the first answer already |
| TTL with the top bit set | `max_ttl` | RFC 8767 4 (RFC 2181 8 would make it 0) |
| TTL 0 | passed on, not kept | RFC 1035 3.2.1 |
| negative TTL | min(SOA TTL, SOA MINIMUM, `negative_max_ttl`) | RFC 2308 5 |
| negative without SOA | passed on, not kept | RFC 2308 5 |
| failure | 1 s, doubling to 30 s while it lasts | RFC 9520 3.2 (1 s to 5 min) |
| failure while stale data is served | 30 s | RFC 8767 5, the failure recheck timer |
| stale data | `stale`, 1 d unless set, with TTL 30 | RFC 8767 5 (1 to 3 days, 30 s) |
"""

from dataclasses import dataclass
from enum import Enum

from proxy.core.message import AD, CNAME, NS, OPT, RA, SOA, TC, Answer, Rcode, Record, Sections, read_name

FIRST_FAILURE_TTL = 1
LONGEST_FAILURE_TTL = 30
STALE_RECHECK = 30
STALE_TTL = 30

_RRSIG = 46
_YXDOMAIN = 6
_TTL_BYTES = 4


class Kind(Enum):
    """What an answer says about its question."""

    POSITIVE = "positive"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    FAILURE = "failure"
    TRUNCATED = "truncated"


@dataclass(slots=True)
class Verdict:
    """An answer made ready for keeping and for passing on; `lifetime` in whole seconds, 0 for "don't keep"."""

    kind: Kind
    lifetime: int
    sections: Sections
    chained: bool
    """The answer holds a CNAME, so an NXDOMAIN speaks of the chain's end (RFC 6604)."""


def judge(answer: Answer, max_ttl: int, negative_max_ttl: int) -> Verdict:
    """Classify a well-formed answer to the question that was asked (the caller has compared the questions)."""
    chain = _Chain(answer)
    kind = _kind(answer, chain)
    sections, lowest = _keepable(answer, max_ttl)
    lifetime = 0 if lowest is None else lowest
    if kind in (Kind.NODATA, Kind.NXDOMAIN):
        soa = next((r for r in answer.records if r.section == 1 and r.rtype == SOA), None)
        lifetime = 0 if soa is None else min(lifetime, _lower_soa(answer, soa, sections, negative_max_ttl))
    elif kind is not Kind.POSITIVE:
        lifetime = 0
    if chain.broken or answer.rcode == _YXDOMAIN:
        lifetime = 0
    return Verdict(kind, lifetime, sections, chain.length > 0)


def _kind(answer: Answer, chain: "_Chain") -> Kind:
    if answer.flags & TC:
        return Kind.TRUNCATED
    if answer.rcode == Rcode.NXDOMAIN:
        return Kind.NXDOMAIN
    if answer.rcode == _YXDOMAIN:
        return Kind.NODATA  # a DNAME made the name too long (RFC 6672 2.2): the client must see it
    if answer.rcode != Rcode.NOERROR:
        return Kind.FAILURE
    if any(r.section == 0 and r.rtype == answer.qtype and r.owner == chain.end for r in answer.records):
        return Kind.POSITIVE
    if not answer.flags & RA and not chain.length and _is_referral(answer):
        return Kind.FAILURE  # no recursion to be had there; a stub would call it lame
    return Kind.NODATA


def _is_referral(answer: Answer) -> bool:
    types = {r.rtype for r in answer.records if r.section == 1}
    return NS in types and SOA not in types


class _Chain:
    """The CNAME chain from the question's name; `broken` when it loops or forks (RFC 1034 3.6.2, 2181 10.1)."""

    def __init__(self, answer: Answer) -> None:
        self.end = answer.name
        self.length = 0
        self.broken = False
        if answer.qtype == CNAME:
            return
        targets: dict[bytes, bytes] = {}
        for record in answer.records:
            if record.section == 0 and record.rtype == CNAME:
                target = _target(answer, record)
                self.broken |= targets.setdefault(record.owner, target) != target
        seen = {self.end}
        while (target := targets.get(self.end, b"")) and not self.broken:
            self.end = target
            self.length += 1
            self.broken |= target in seen
            seen.add(target)


def _target(answer: Answer, record: Record) -> bytes:
    return read_name(answer.wire, record.rdata_at)[0]


def _keepable(answer: Answer, max_ttl: int) -> tuple[Sections, int | None]:
    """The sections without OPT, each RRset under its lowest TTL (RFC 2181 5.2), and the lowest TTL of all.

    An OPT that isn't last takes the additional records behind it along: they're optional, and moving them
    would break the compression pointers among them.
    """
    base = answer.question_end
    counts = [0, 0, 0]
    end = base
    lowest: dict[tuple[bytes, int, int], int] = {}
    kept: list[tuple[Record, tuple[bytes, int, int]]] = []
    for record in answer.records:
        if record.rtype == OPT:
            break
        counts[record.section] += 1
        end = record.end
        rrset = (record.owner, record.rtype, record.start if record.rtype == _RRSIG else -1)
        ttl = min(record.ttl, max_ttl, lowest.get(rrset, max_ttl))
        lowest[rrset] = ttl
        kept.append((record, rrset))
    data = bytearray(answer.wire[base:end])
    for record, rrset in kept:
        if record.ttl != lowest[rrset]:
            _set_ttl(data, record, base, lowest[rrset])
    sections = Sections(
        bytes(data),
        (counts[0], counts[1], counts[2]),
        answer.rcode,
        bool(answer.flags & AD),
        bool(answer.flags & TC),
    )
    return sections, min(lowest.values(), default=None)


def _lower_soa(answer: Answer, soa: Record, sections: Sections, negative_max_ttl: int) -> int:
    """Show the negative TTL in the SOA record, where stubs read it, and return it."""
    minimum = int.from_bytes(answer.wire[soa.end - _TTL_BYTES : soa.end], "big")
    data = bytearray(sections.data)
    at = soa.ttl_at - answer.question_end
    ttl = min(int.from_bytes(data[at : at + _TTL_BYTES], "big"), minimum, negative_max_ttl)
    _set_ttl(data, soa, answer.question_end, ttl)
    sections.data = bytes(data)
    return ttl


def _set_ttl(data: bytearray, record: Record, base: int, ttl: int) -> None:
    at = record.ttl_at - base
    data[at : at + _TTL_BYTES] = ttl.to_bytes(_TTL_BYTES, "big")
