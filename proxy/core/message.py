"""DNS messages as bytes: scan what arrived, never rebuild it; patch what may change.

Nothing here raises for what a peer sent: a scan returns a value that says what it is. Upstream bytes pass through;
only the ID, the flags, the TTLs and the OPT record differ between what came in and what goes out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

HEADER_SIZE = 12
OWN_PAYLOAD_SIZE = 1232
"""What we advertise, and the most that a UDP answer may have (RFC 9715 3.1): no fragments on a 1280-byte path."""
SMALLEST_PAYLOAD_SIZE = 512
"""RFC 1035 4.2.1; an advertised size below it means 512 (RFC 6891 6.2.3)."""
LARGEST_MESSAGE = 65535
MOST_LABELS = 127
"""In 255 octets, each with its length byte (RFC 1035 2.3.4)."""
_ONE_NAME = range(2 * MOST_LABELS + 1)
"""Labels and pointers, and the root."""
_ALL_NAMES = 1024
"""Labels and pointers in all names behind a question; an answer may have one more for each of its bytes."""

A, NS, CNAME, SOA, PTR, HINFO, AAAA, OPT, ANY = 1, 2, 5, 6, 12, 13, 28, 41, 255
IN = 1

QR, TC, RD, RA, AD, CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE = 0x7800
DO = 0x8000


class Rcode(IntEnum):
    """RFC 1035 4.1.1 and RFC 6891 9 (BADVERS needs the OPT record's upper bits)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Ede(IntEnum):
    """The extended errors that we give (RFC 8914 4)."""

    OTHER = 0
    STALE_ANSWER = 3
    CACHED_ERROR = 13
    NOT_READY = 14
    STALE_NXDOMAIN = 19
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    NO_REACHABLE_AUTHORITY = 22
    NETWORK_ERROR = 23


_HEADER = Struct(">HHHHHH")
_COUNTS = Struct(">HHHH")
_TYPE_CLASS = Struct(">HH")
_RECORD = Struct(">HHIH")  # type, class, TTL, RDLENGTH behind the owner name
_TAKEN = b"\1" * _RECORD.size
_TTL = Struct(">I")
_OPT = Struct(">BHHBBHH")  # root, type, payload size, extended rcode, version, flags, RDLENGTH
_EDE = Struct(">HHH")


class _FormatError(Exception):
    """The bytes are no DNS message; never leaves this module."""


@dataclass(slots=True)
class Query:
    """A question as a client sent it."""

    wire: bytes
    flags: int
    question_end: int
    name: bytes
    """In wire format and lower case: length bytes are below 64, so lowering can't touch them."""
    qtype: int
    qclass: int
    edns: bool
    payload_size: int
    """What fits into one datagram to this client: 512 without EDNS, else what it said, within 512 and 1232."""
    do: bool
    edns_options: bool
    """It carries EDNS options (a cookie, padding): its bytes won't come twice."""

    @property
    def do_cd(self) -> int:
        """Bit 0 is DO, bit 1 is CD: what sets cache entries of one name and type apart."""
        return self.do | (self.flags & CD) >> 3


@dataclass(slots=True)
class Refusal:
    """A question that gets an error without anybody being asked; `query` where that much could be read."""

    rcode: Rcode
    query: Query | None = None


@dataclass(slots=True)
class Record:
    """One record of an answer, by position; `owner` is in lower-case wire format."""

    section: int
    owner: bytes
    rtype: int
    rclass: int
    ttl: int
    start: int
    ttl_at: int
    rdata_at: int
    end: int


@dataclass(slots=True)
class Answer:
    """An upstream's reply, well-formed down to the last record."""

    wire: bytes
    flags: int
    rcode: int
    name: bytes
    qtype: int
    qclass: int
    question_end: int
    records: list[Record]
    edns: bool


def read_name(
    wire: bytes, at: int, taken: bytes | bytearray = b"", steps: Iterable[int] = _ONE_NAME
) -> tuple[bytes, int]:
    """The lower-case name at `at` with compression undone, and where the next field starts.

    What a pointer leads to must lie before it altogether (RFC 1035 4.1.4: a prior occurrence): a chain ends, and what
    is cut off behind can't change it. Nor may it pass through a byte marked in `taken`: a name
    in a TTL would change as that ages. Each label and pointer takes one of `steps`, an iterator where all names of a
    message share them: a record of 12 bytes may point at 127 labels, and 64 KiB of those cost 0.3 s.
    """
    labels = bytearray()
    after = -1
    lowest = at
    boundary = len(wire)
    pointers = 0
    for _ in steps:
        length = wire[at]
        if taken and taken[at]:
            raise _FormatError
        if length == 0:
            labels.append(0)
            return bytes(labels).lower(), after if after >= 0 else at + 1
        if length < 64:
            end = at + 1 + length
            labels += wire[at:end]
            if end >= boundary or len(labels) > 254 or (taken and taken.find(1, at, end) >= 0):
                raise _FormatError
            at = end
        elif length >= 192:
            target = (length & 63) << 8 | wire[at + 1]
            if after < 0:
                after = at + 2
            pointers += 1
            if not HEADER_SIZE <= target < lowest or at + 1 >= boundary or pointers > MOST_LABELS:
                raise _FormatError
            boundary = lowest
            at = lowest = target
        else:
            raise _FormatError
    raise _FormatError


def scan_query(wire: bytes) -> Query | Refusal:
    """What a client asks. The caller has dropped anything below 12 bytes or with QR set (it may be an answer)."""
    _id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(wire)
    if flags & OPCODE:
        refused = _scan(wire, flags, additionals) if questions == 1 else None
        return Refusal(Rcode.NOTIMP, refused.query if isinstance(refused, Refusal) else refused)
    if questions != 1 or answers or authorities:  # RFC 9619
        return Refusal(Rcode.FORMERR)
    return _scan(wire, flags, additionals)


def _scan(wire: bytes, flags: int, additionals: int) -> Query | Refusal:
    at = HEADER_SIZE
    try:
        while length := wire[at]:
            if length > 63:  # a pointer could only point into the header
                return Refusal(Rcode.FORMERR)
            at += length + 1
        at += 1
        if at - HEADER_SIZE > 255:
            return Refusal(Rcode.FORMERR)
        name = wire[HEADER_SIZE:at].lower()
        qtype, qclass = _TYPE_CLASS.unpack_from(wire, at)
    except Exception:  # IndexError or struct.error: it ends too early
        return Refusal(Rcode.FORMERR)
    end = at + 4
    query = Query(wire, flags, end, name, qtype, qclass, False, SMALLEST_PAYLOAD_SIZE, False, False)
    if additionals == 0:
        return query if end == len(wire) else Refusal(Rcode.FORMERR, query)
    return _scan_additionals(query, end, additionals)


def _scan_additionals(query: Query, at: int, additionals: int) -> Query | Refusal:
    wire = query.wire
    version = 0
    steps = iter(range(_ALL_NAMES))
    try:
        for _ in range(additionals):
            owner, at = read_name(wire, at, steps=steps)
            rtype, rclass, ttl, length = _RECORD.unpack_from(wire, at)
            at += 10 + length
            if at > len(wire):
                raise _FormatError
            if rtype == OPT:
                if query.edns or owner != b"\0" or not _options_well_formed(wire, at - length, at):
                    return Refusal(Rcode.FORMERR, query)  # RFC 6891 6.1.1
                query.edns = True
                query.payload_size = min(max(rclass, SMALLEST_PAYLOAD_SIZE), OWN_PAYLOAD_SIZE)
                query.do = bool(ttl & DO)
                query.edns_options = length > 0
                version = ttl >> 16 & 0xFF
        if at != len(wire):
            raise _FormatError
    except Exception:
        return Refusal(Rcode.FORMERR, query)
    return Refusal(Rcode.BADVERS, query) if version else query


def _options_well_formed(wire: bytes, at: int, end: int) -> bool:
    while at < end:
        if at + 4 > end:
            return False
        at += 4 + (wire[at + 2] << 8 | wire[at + 3])
    return at == end


class Malformed(IntEnum):
    """Why bytes from an upstream are no answer."""

    NOT_A_RESPONSE = 1
    BROKEN = 2


def scan_answer(wire: bytes) -> Answer | Malformed:
    """An upstream's reply, every record looked at: one broken record and there is no answer at all."""
    if len(wire) < HEADER_SIZE:
        return Malformed.BROKEN
    _id, flags, questions, *counts = _HEADER.unpack_from(wire)
    if not flags & QR or flags & OPCODE:
        return Malformed.NOT_A_RESPONSE
    try:
        return _read_answer(wire, flags, questions, counts)
    except Exception:  # _FormatError, IndexError, struct.error: broken somewhere
        return Malformed.BROKEN


def _read_answer(wire: bytes, flags: int, questions: int, counts: list[int]) -> Answer:
    rcode = flags & 15
    name, qtype, qclass, at = b"", 0, 0, HEADER_SIZE
    # Old servers return a bare header with FORMERR (RFC 6891 7); the ID and the address vouch for it.
    if questions or any(counts[:2]) or rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
        name, at = read_name(wire, HEADER_SIZE)
        if questions != 1 or at - HEADER_SIZE != len(name):
            raise _FormatError
        qtype, qclass = _TYPE_CLASS.unpack_from(wire, at)
        at += 4
    answer = Answer(wire, flags, rcode, name, qtype, qclass, at, [], False)
    steps = iter(range(_ALL_NAMES + len(wire)))
    taken = bytearray(len(wire))
    if name:  # a denial is passed on for every type
        taken[at - 4 : at] = _TAKEN[:4]
    for section, count in enumerate(counts):
        for _ in range(count):
            start = at
            if wire[at] == 0xC0 and wire[at + 1] == HEADER_SIZE and name:
                owner, at = name, at + 2
            else:
                owner, at = read_name(wire, at, taken, steps)
            rtype, rclass, ttl, length = _RECORD.unpack_from(wire, at)
            taken[at : at + 10] = _TAKEN
            end = at + 10 + length
            if end > len(wire) or not _rdata_well_formed(wire, rtype, at + 10, end, taken, steps):
                raise _FormatError
            if rtype == OPT:
                if answer.edns or section != 2 or owner != b"\0":
                    raise _FormatError
                answer.edns = True
                answer.rcode |= (ttl >> 24) << 4
            answer.records.append(Record(section, owner, rtype, rclass, ttl, start, at + 4, at + 10, end))
            at = end
    if at != len(wire):
        raise _FormatError
    return answer


_NAMES_IN_RDATA = {NS: 0, CNAME: 0, PTR: 0, 39: 0, 15: 2, 33: 6}  # DNAME, MX, SRV: bytes before the one name
_FIXED_RDATA = {A: 4, AAAA: 16}


def _rdata_well_formed(wire: bytes, rtype: int, at: int, end: int, taken: bytearray, steps: Iterable[int]) -> bool:
    """Only the types that are followed or that a stub copies blindly are looked into (RFC 3597)."""
    fixed = _FIXED_RDATA.get(rtype)
    if fixed is not None:
        return end - at == fixed
    before = _NAMES_IN_RDATA.get(rtype)
    if before is not None:
        return read_name(wire, at + before, taken, steps)[1] == end
    if rtype == SOA:
        at = read_name(wire, read_name(wire, at, taken, steps)[1], taken, steps)[1]
        return at + 20 == end
    if rtype == OPT:
        return _options_well_formed(wire, at, end)
    return True


@dataclass(slots=True)
class Sections:
    """What of an answer is kept and passed on: all behind the question, without OPT, TTLs already capped.

    Compression pointers inside count from the start of a message whose question has the same length, so these
    bytes fit behind the question of anyone who asks for the same name, whatever its letter case.
    """

    data: bytes
    counts: tuple[int, int, int]
    rcode: int
    authentic: bool
    """The upstream said AD."""
    truncated: bool = False


def ttl_offsets(data: bytes) -> Iterator[int]:
    """Where the TTLs stand in `Sections.data`, which has been scanned before."""
    at = 0
    end = len(data)
    while at < end:
        while length := data[at]:
            if length >= 192:
                at += 1
                break
            at += length + 1
        at += 5
        yield at
        at += 6 + (data[at + 4] << 8 | data[at + 5])


def question_to_upstream(name_and_type: bytes, *, edns: bool, do: bool, cd: bool) -> bytes:
    """A message that asks an upstream; its ID is 0 until the transport sets one.

    AD is set so that the reply says whether the data is authentic (RFC 6840 5.7); our own OPT, no foreign option.
    """
    flags = RD | AD | (CD if cd else 0)
    message = _HEADER.pack(0, flags, 1, 0, 0, 1 if edns else 0) + name_and_type
    if edns:
        message += _OPT.pack(0, OPT, OWN_PAYLOAD_SIZE, 0, 0, DO if do else 0, 0)
    return message


def respond(
    query: Query,
    sections: Sections,
    limit: int,
    *,
    age: int = 0,
    ttl: int | None = None,
    ede: Ede | None = None,
    ede_text: bytes = b"",
) -> bytes:
    """The answer to `query`: its ID and question byte for byte, TTLs lowered by `age` or all set to `ttl`.

    `limit` is the most bytes that the client takes. What doesn't fit loses its additional records first; when
    that isn't enough whole records go and TC is set (RFC 2181 9). EDE goes only to clients with EDNS (RFC 8914).
    """
    wire = query.wire
    data = sections.data
    counts = sections.counts
    flags = _response_flags(query, sections)
    opt = _opt(query, sections.rcode, ede, ede_text) if query.edns else b""
    room = limit - query.question_end - len(opt)
    if len(data) > room:
        data, counts, complete = _fit(data, counts, room)
        if not complete:
            flags |= TC
    out = bytearray(wire[: query.question_end])
    _TTL.pack_into(out, 2, flags << 16 | 1)  # flags and QDCOUNT in one write
    out[6:12] = _counts(counts, opt)
    base = query.question_end
    out += data
    out += opt
    if ttl is not None:
        for offset in ttl_offsets(data):
            _TTL.pack_into(out, base + offset, ttl)
    elif age:
        for offset in ttl_offsets(data):
            left = int.from_bytes(data[offset : offset + 4], "big") - age
            _TTL.pack_into(out, base + offset, left if left > 0 else 0)
    return bytes(out)


def respond_error(query: Query, rcode: Rcode, ede: Ede | None = None, ede_text: bytes = b"") -> bytes:
    """An answer with nothing but the question and, for an EDNS client, an OPT that may say why."""
    return respond(query, Sections(b"", (0, 0, 0), rcode, False), LARGEST_MESSAGE, ede=ede, ede_text=ede_text)


def respond_refusal(wire: bytes, refusal: Refusal) -> bytes:
    """The error for a question that can't be served; with empty sections where no question could be read."""
    if refusal.query is not None:
        return respond_error(refusal.query, refusal.rcode)
    flags = int.from_bytes(wire[2:4], "big")
    flags = flags & (OPCODE | RD) | QR | RA | refusal.rcode
    return wire[:2] + flags.to_bytes(2, "big") + bytes(8)


def _response_flags(query: Query, sections: Sections) -> int:
    flags = query.flags & (OPCODE | RD | CD) | QR | RA | (sections.rcode & 15)
    if sections.authentic and (query.do or query.flags & AD):  # RFC 6840 5.8
        flags |= AD
    return flags | TC if sections.truncated else flags


def _counts(counts: tuple[int, int, int], opt: bytes) -> bytes:
    answers, authorities, additionals = counts
    return bytes(
        (
            answers >> 8,
            answers & 255,
            authorities >> 8,
            authorities & 255,
            (additionals + bool(opt)) >> 8,
            (additionals + bool(opt)) & 255,
        )
    )


_PLAIN_OPT = {do: _OPT.pack(0, OPT, OWN_PAYLOAD_SIZE, 0, 0, DO if do else 0, 0) for do in (False, True)}


def _opt(query: Query, rcode: int, ede: Ede | None, text: bytes) -> bytes:
    if ede is None and rcode < 16:
        return _PLAIN_OPT[query.do]
    option = b"" if ede is None else _EDE.pack(15, 2 + len(text), ede) + text
    return _OPT.pack(0, OPT, OWN_PAYLOAD_SIZE, rcode >> 4, 0, DO if query.do else 0, len(option)) + option


def _fit(data: bytes, counts: tuple[int, int, int], room: int) -> tuple[bytes, tuple[int, int, int], bool]:
    """Whole records that fit, their counts, and whether only additional records were left out."""
    kept = [0, 0, 0]
    end = 0
    ttls = ttl_offsets(data)
    for section, count in enumerate(counts):
        for _ in range(count):
            at = next(ttls)
            after = at + 6 + (data[at + 4] << 8 | data[at + 5])
            if after > room:
                return data[:end], (kept[0], kept[1], kept[2]), section == 2
            end = after
            kept[section] += 1
    return data, counts, True
