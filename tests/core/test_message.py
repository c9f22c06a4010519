"""Scanning what arrives and patching what goes out, byte for byte."""

import struct

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import pytest

from proxy.core.lifetime import judge
from proxy.core.message import (
    AD,
    CD,
    RA,
    RD,
    TC,
    Answer,
    Ede,
    Malformed,
    Query,
    Rcode,
    Refusal,
    Sections,
    question_to_upstream,
    read_name,
    respond,
    respond_error,
    respond_refusal,
    scan_answer,
    scan_query,
    ttl_offsets,
)
from tests.fakes import question, reply, soa

NAME = b"\x01a\x07example\x00"
QUESTION = NAME + b"\0\1\0\1"


def header(flags: int = RD, *counts: int) -> bytes:
    """A header with these counts, one question and nothing else where none are given."""
    return struct.pack(">HHHHHH", 0x1234, flags, *(counts or (1, 0, 0, 0)))


def record(owner: bytes = b"\xc0\x0c", rtype: int = 1, rdata: bytes = b"\xc0\0\2\1", ttl: int = 60) -> bytes:
    return owner + struct.pack(">HHIH", rtype, 1, ttl, len(rdata)) + rdata


def opt(size: int = 1232, ttl: int = 0, options: bytes = b"") -> bytes:
    return b"\0" + struct.pack(">HHIH", 41, size, ttl, len(options)) + options


def answer_with(*records: bytes, rcode: int = 0, additional: tuple[bytes, ...] = ()) -> bytes:
    counts = (1, len(records), 0, len(additional))
    return header(0x8180 | rcode, *counts) + QUESTION + b"".join(records) + b"".join(additional)


def scanned(query: dns.message.Message) -> Query:
    found = scan_query(query.to_wire())
    assert isinstance(found, Query)
    return found


def kept(response: dns.message.Message) -> Sections:
    """What the cache would keep of it."""
    found = scan_answer(response.to_wire(max_size=65535))
    assert isinstance(found, Answer)
    return judge(found, 3600, 30).sections


def many(query: dns.message.Message, count: int = 100, **keywords: object) -> Sections:
    name = query.question[0].name.to_text()
    return kept(reply(query, *(f"{name} 60 A 192.0.2.{n}" for n in range(count)), **keywords))  # type: ignore[arg-type]


# Questions


def test_a_plain_question_is_read() -> None:
    query = scan_query(header() + b"\x01A\x07eXample\x00" + b"\0\x1c\0\1")
    assert isinstance(query, Query)
    assert (query.name, query.qtype, query.qclass) == (NAME, 28, 1)
    assert (query.edns, query.do, query.payload_size, query.edns_options) == (False, False, 512, False)


@pytest.mark.parametrize(
    ("advertised", "taken"), [(0, 512), (511, 512), (512, 512), (1000, 1000), (1232, 1232), (4096, 1232)]
)
def test_the_size_a_client_takes_lies_within_512_and_1232(advertised: int, taken: int) -> None:
    assert scanned(question("a.example", use_edns=0, payload=advertised)).payload_size == taken


def test_do_and_options_are_seen() -> None:
    query = scanned(
        question("a.example", use_edns=0, want_dnssec=True, options=[dns.edns.CookieOption(b"1" * 8, b"")])
    )
    assert (query.edns, query.do, query.edns_options) == (True, True, True)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(header(RD, 0, 0, 0, 0), id="no question"),
        pytest.param(header(RD, 2, 0, 0, 0) + QUESTION * 2, id="two questions"),
        pytest.param(header(RD, 1, 1, 0, 0) + QUESTION + record(), id="an answer"),
        pytest.param(header(RD, 1, 0, 1, 0) + QUESTION + record(), id="an authority"),
        pytest.param(header(), id="nothing behind the header"),
        pytest.param(header() + NAME, id="no type"),
        pytest.param(header() + QUESTION[:-1], id="half a class"),
        pytest.param(header() + b"\xc0\x0c\0\1\0\1", id="a pointer to itself"),
        pytest.param(header() + b"\x01a\xc0\x0c\0\1\0\1", id="a pointer"),
        pytest.param(header() + b"\x40" + b"a" * 64 + b"\0\0\1\0\1", id="a label of 64"),
        pytest.param(header() + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", id="a name of 257"),
        pytest.param(header() + QUESTION + b"\0", id="something behind"),
        pytest.param(header(RD, 1, 0, 0, 1) + QUESTION, id="a missing record"),
        pytest.param(header(RD, 1, 0, 0, 1) + QUESTION + opt()[:-1], id="half an OPT"),
        pytest.param(header(RD, 1, 0, 0, 2) + QUESTION + opt() * 2, id="two OPTs"),
        pytest.param(header(RD, 1, 0, 0, 1) + QUESTION + b"\x01a" + opt(), id="an OPT with a name"),
        pytest.param(header(RD, 1, 0, 0, 1) + QUESTION + opt(options=b"\0\3\0"), id="half an option"),
        pytest.param(header(RD, 1, 0, 0, 1) + QUESTION + opt(options=b"\0\3\0\5abcd"), id="an option too long"),
    ],
)
def test_a_broken_question_is_a_format_error(wire: bytes) -> None:
    found = scan_query(wire)
    assert isinstance(found, Refusal)
    assert found.rcode is Rcode.FORMERR
    response = respond_refusal(wire, found)
    assert dns.message.from_wire(response).rcode() == Rcode.FORMERR
    assert response[:2] == wire[:2]


def test_the_longest_name_is_no_error() -> None:
    name = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\0"
    assert len(name) == 255
    assert isinstance(scan_query(header() + name + b"\0\1\0\1"), Query)


@pytest.mark.parametrize("opcode", [dns.opcode.IQUERY, dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE])
def test_another_opcode_is_not_implemented_and_comes_back(opcode: dns.opcode.Opcode) -> None:
    wire = header(RD | opcode << 11) + QUESTION
    found = scan_query(wire)
    assert isinstance(found, Refusal)
    response = respond_refusal(wire, found)
    assert response[2] >> 3 & 15 == opcode
    assert response[3] & 15 == Rcode.NOTIMP
    assert response[12:] == QUESTION


def test_a_later_edns_version_is_bad_and_ours_is_0() -> None:
    wire = header(RD, 1, 0, 0, 1) + QUESTION + opt(ttl=1 << 16)
    found = scan_query(wire)
    assert isinstance(found, Refusal)
    response = dns.message.from_wire(respond_refusal(wire, found))
    assert (response.rcode(), response.edns) == (Rcode.BADVERS, 0)


# Names


def test_a_name_is_followed_through_pointers_and_lowered() -> None:
    wire = bytes(12) + b"\x03Www" + b"\x01A\0" + b"\x01b\xc0\x10" + b"\x01c\xc0\x13"
    assert read_name(wire, 23) == (b"\x01c\x01b\x01a\0", 27)


@pytest.mark.parametrize(
    ("wire", "at"),
    [
        pytest.param(bytes(12) + b"\xc0\x0c", 12, id="to itself"),
        pytest.param(bytes(12) + b"\xc0\x0e\0", 12, id="forward"),
        pytest.param(bytes(12) + b"\xc0\x02", 12, id="into the header"),
        pytest.param(bytes(12) + b"\xc0\x0e\xc0\x0c", 14, id="in a circle"),
        pytest.param(bytes(12) + b"\x03a\xc0\x0c\0", 14, id="into a label that goes on behind it"),
        pytest.param(bytes(12) + b"\xc0", 12, id="half of one"),
        pytest.param(bytes(12) + b"\x80\0", 12, id="no pointer but a reserved label"),
        pytest.param(bytes(12) + b"\x05abc", 12, id="a label that ends too early"),
    ],
)
def test_a_pointer_must_lead_to_something_that_ended_before_it(wire: bytes, at: int) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  the module's own, an IndexError: the scanners take any
        read_name(wire, at)


@pytest.mark.parametrize(("pointers", "accepted"), [(127, True), (128, False)])
def test_a_chain_has_no_more_pointers_than_a_name_has_labels(pointers: int, accepted: bool) -> None:
    """Else 64 KiB of pointers to pointers keep a worker busy for seconds."""
    start = len(header() + QUESTION + record(rdata=b""))
    chain = [struct.pack(">H", 0xC000 | start + 2 * hop) for hop in range(pointers)]
    wire = answer_with(record(rtype=10, rdata=b"\0\0" + b"".join(chain[:-1])), record(owner=chain[-1]))
    assert isinstance(scan_answer(wire), Answer) is accepted


MOST_LABELS = b"\1a" * 127 + b"\0"


def test_names_of_a_question_take_no_more_work_than_one_message_is_worth() -> None:
    """160 pointers to 127 labels fit into 2 KiB, and once took 3.5 ms."""
    pointing = [record(owner=b"\xc0\x0c", rdata=b"") for _ in range(160)]
    wire = header(RD, 1, 0, 0, 160) + MOST_LABELS + b"\0\1\0\1" + b"".join(pointing)
    assert isinstance(scan_query(wire), Refusal)
    wire = header(RD, 1, 0, 0, 5) + MOST_LABELS + b"\0\1\0\1" + b"".join(pointing[:5])
    assert isinstance(scan_query(wire), Query)


def test_names_of_an_answer_take_no_more_work_than_one_message_is_worth() -> None:
    """64 KiB of pointers to 126 labels once took 0.3 s."""
    pointing = [record(owner=b"\xc0\x0e", rtype=2, rdata=b"\xc0\x0e") for _ in range(4600)]
    wire = header(0x8180, 1, 4600, 0, 0) + MOST_LABELS + b"\0\2\0\1" + b"".join(pointing)
    assert scan_answer(wire) is Malformed.BROKEN
    wire = header(0x8180, 1, 4000, 0, 0) + QUESTION + record(owner=b"\xc0\x0e") * 4000
    assert isinstance(scan_answer(wire), Answer)


# Answers


def test_an_answer_is_read_to_its_last_record() -> None:
    wire = answer_with(record(), record(rtype=65280, rdata=b""), additional=(opt(ttl=1 << 24),), rcode=1)
    found = scan_answer(wire)
    assert isinstance(found, Answer)
    assert [(r.rtype, r.section, r.end - r.rdata_at) for r in found.records] == [(1, 0, 4), (65280, 0, 0), (41, 2, 0)]
    assert (found.name, found.qtype, found.edns, found.rcode) == (NAME, 1, True, 17)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(header(0x8180)[:11], id="half a header"),
        pytest.param(answer_with(record()) + b"\0", id="something behind"),
        pytest.param(answer_with(record())[:-1], id="half a record"),
        pytest.param(answer_with(record(rdata=b"\1\2\3")), id="an address of three bytes"),
        pytest.param(answer_with(record(rtype=28)), id="an IPv6 address of four bytes"),
        pytest.param(answer_with(record(rtype=5, rdata=b"\xc0\x0c\0")), id="a CNAME with something behind"),
        pytest.param(answer_with(record(rtype=5, rdata=b"\xc0\xff")), id="a CNAME that points forward"),
        pytest.param(answer_with(record(rtype=6, rdata=b"\0\0" + bytes(19))), id="a short SOA"),
        pytest.param(answer_with(opt()), id="an OPT among the answers"),
        pytest.param(answer_with(additional=(opt(), opt())), id="two OPTs"),
        pytest.param(header(0x8180, 2, 0, 0, 0) + QUESTION * 2, id="two questions"),
        pytest.param(header(0x8180, 0, 0, 0, 0), id="no question, yet no error"),
        pytest.param(header(0x8181, 0, 0, 0, 0) + b"\0", id="no question and something behind"),
        pytest.param(header(0x8181, 0, 0, 0, 1), id="no question and a missing record"),
        pytest.param(header(0x8181, 0, 0, 0, 1) + record(), id="no question and a pointer to it"),
    ],
)
def test_a_broken_answer_is_none(wire: bytes) -> None:
    assert scan_answer(wire) is Malformed.BROKEN


def test_a_question_is_no_answer() -> None:
    assert scan_answer(header() + QUESTION) is Malformed.NOT_A_RESPONSE
    assert scan_answer(header(0x8180 | 4 << 11) + QUESTION) is Malformed.NOT_A_RESPONSE


def test_a_bare_header_may_refuse() -> None:
    found = scan_answer(header(0x8181, 0, 0, 0, 0))
    assert isinstance(found, Answer)
    assert (found.rcode, found.name) == (Rcode.FORMERR, b"")


def test_a_name_that_lies_in_a_ttl_is_broken() -> None:
    """As the TTL ages the name would become another, or none."""
    in_ttl = len(header() + QUESTION) + 6
    wire = answer_with(record(ttl=0x01610000), record(owner=struct.pack(">H", 0xC000 | in_ttl)))
    assert scan_answer(wire) is Malformed.BROKEN


def test_a_label_that_holds_a_ttl_is_broken() -> None:
    """It starts in the owner's last label and ends in the RDATA."""
    owner = b"\1\x0d\0"
    within = len(header() + QUESTION) + 1
    wire = answer_with(record(owner=owner, rdata=b"\x7f\0\0\0"), record(owner=struct.pack(">H", 0xC000 | within)))
    assert scan_answer(wire) is Malformed.BROKEN


# Answers to clients


def test_the_id_and_the_question_go_back_as_they_came() -> None:
    query = question("wWw.ExAmPlE")
    found = scanned(query)
    response = respond(found, many(query, 1), 512)
    assert response[:2] == query.to_wire()[:2]
    assert response[12 : found.question_end] == query.to_wire()[12:]


@pytest.mark.parametrize("flags", [0, RD, CD, RD | CD, RD | AD, 0x0400 | 0x0200 | 0x0040 | 15])
def test_flags_of_a_response_are_ours_but_rd_and_cd(flags: int) -> None:
    query = scan_query(header(flags) + QUESTION)
    assert isinstance(query, Query)
    response = respond(query, Sections(b"", (0, 0, 0), Rcode.NXDOMAIN, False), 512)
    assert int.from_bytes(response[2:4], "big") == 0x8000 | RA | flags & (RD | CD) | Rcode.NXDOMAIN


@pytest.mark.parametrize(
    ("wants", "authentic", "said"), [("", True, False), ("ad", True, True), ("do", True, True), ("ad", False, False)]
)
def test_authentic_data_is_said_only_to_who_understands(wants: str, authentic: bool, said: bool) -> None:
    query = question("a.example", want_dnssec=wants == "do")
    if wants == "ad":
        query.flags |= dns.flags.AD
    response = respond(scanned(query), Sections(b"", (0, 0, 0), 0, authentic), 512)
    assert bool(response[3] & AD) is said


def test_only_a_client_with_edns_gets_an_opt() -> None:
    sections = Sections(b"", (0, 0, 0), 0, False)
    plain = dns.message.from_wire(respond(scanned(question("a.example")), sections, 512, ede=Ede.OTHER))
    edns = dns.message.from_wire(
        respond(scanned(question("a.example", want_dnssec=True)), sections, 1232, ede=Ede.STALE_ANSWER)
    )
    assert plain.edns == -1
    assert (edns.edns, edns.payload, edns.ednsflags) == (0, 1232, dns.flags.DO)
    assert [(o.otype, int(o.code)) for o in edns.options] == [(15, 3)]


def test_an_error_may_say_why_in_words() -> None:
    query = scanned(question("a.example", use_edns=0))
    response = dns.message.from_wire(respond_error(query, Rcode.SERVFAIL, Ede.OTHER, b"no such luck"))
    assert response.options[0].text == "no such luck"


@pytest.mark.parametrize("limit", [512, 513, 800, 1232])
def test_what_does_not_fit_is_cut_at_a_record(limit: int) -> None:
    query = question("a.example", use_edns=0)
    response = respond(scanned(query), many(query), limit)
    parsed = dns.message.from_wire(response)
    assert limit - 16 < len(response) <= limit
    assert parsed.flags & dns.flags.TC
    assert len(parsed.answer[0]) == int.from_bytes(response[6:8], "big") > 20


def test_additional_records_go_first_and_silently() -> None:
    query = question("a.example")
    more = [f"ns{n}.example. 60 A 192.0.2.{n}" for n in range(40)]
    response = respond(scanned(query), many(query, 5, additional=more), 512)
    parsed = dns.message.from_wire(response)
    assert not parsed.flags & TC
    assert len(parsed.answer[0]) == 5
    assert 0 < len(parsed.additional) < 40


def test_ttls_are_lowered_by_the_age_and_never_below_zero() -> None:
    query = question("a.example")
    sections = kept(
        reply(query, "a.example. 60 A 192.0.2.1", authority=[soa()], additional=["b.example. 5 A 192.0.2.2"])
    )
    parsed = dns.message.from_wire(respond(scanned(query), sections, 512, age=7))
    assert [rrset.ttl for section in parsed.sections[1:] for rrset in section] == [53, 293, 0]


def test_every_ttl_is_found_behind_compressed_and_plain_owners() -> None:
    data = record() + record(b"\x01b\xc0\x0c", 5, b"\x01x\0") + record(b"\x01z\0", 65280, b"")
    assert [data[at : at + 4] for at in ttl_offsets(data)] == [b"\0\0\0\x3c"] * 3


# Questions to upstreams


@pytest.mark.parametrize(("do", "cd"), [(False, False), (True, False), (False, True), (True, True)])
def test_an_upstream_is_asked_what_the_client_asked(do: bool, cd: bool) -> None:
    parsed = dns.message.from_wire(question_to_upstream(b"\x01A\0\0\x1c\0\1", edns=True, do=do, cd=cd))
    assert parsed.question[0].to_text() == "A. IN AAAA"
    assert (parsed.edns, parsed.payload, bool(parsed.ednsflags & dns.flags.DO)) == (0, 1232, do)
    assert parsed.flags == RD | AD | (CD if cd else 0)


def test_an_upstream_that_chokes_on_edns_is_asked_without() -> None:
    assert dns.message.from_wire(question_to_upstream(QUESTION, edns=False, do=True, cd=False)).edns == -1
