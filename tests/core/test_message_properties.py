"""Any bytes, and any well-formed message: our scanner beside dnspython."""

from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset
import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.lifetime import judge
from proxy.core.message import (
    Answer,
    Query,
    Refusal,
    question_to_upstream,
    respond,
    scan_answer,
    scan_query,
)
from tests.fuzz_scanner import check, check_answer, check_query
from tests.wires import corpus

hypothesis.settings.register_profile("wires", deadline=None, max_examples=120)
settings = hypothesis.settings.get_profile("wires")

labels = st.binary(min_size=1, max_size=63)


@st.composite
def names(draw: st.DrawFn) -> dns.name.Name:
    """Any name, of any bytes, up to the longest."""
    drawn: list[bytes] = []
    for label in draw(st.lists(st.one_of(st.sampled_from([b"a", b"B", b"example"]), labels), max_size=8)):
        if sum(len(one) + 1 for one in (*drawn, label)) < 255:
            drawn.append(label)
    return dns.name.Name([*drawn, b""])


octets = st.integers(0, 255)
addresses = st.tuples(octets, octets, octets, octets).map(lambda parts: ".".join(map(str, parts)))


@st.composite
def rdatas(draw: st.DrawFn) -> dns.rdata.Rdata:
    """Data of types with names to compress, with names not to, and without."""
    name = draw(names()).to_text()
    texts: dict[str, str] = {
        "A": draw(addresses),
        "AAAA": f"2001:db8::{draw(st.integers(0, 0xFFFF)):x}",
        "CNAME": name,
        "NS": name,
        "PTR": name,
        "DNAME": name,
        "MX": f"{draw(octets)} {name}",
        "SRV": f"1 2 {draw(octets)} {name}",
        "SOA": f"{name} host.example. 1 2 3 4 {draw(st.integers(0, 2**31 - 1))}",
        "TXT": '"some text" "more"',
        "HTTPS": f"1 {name} alpn=h2",
        "NAPTR": f'1 1 "u" "x" "!^.*$!y!" {name}',
        "TYPE65280": f"\\# {draw(st.sampled_from(['0', '3 00c00c', '2 c0ff']))}",
    }
    rtype = draw(st.sampled_from(sorted(texts)))
    return dns.rdata.from_text("IN", rtype, texts[rtype])


ttls = st.integers(0, 2**31 - 1)


@st.composite
def queries(draw: st.DrawFn) -> dns.message.Message:
    """Any question that a stub may send."""
    keywords: dict[str, Any] = {}
    if draw(st.booleans()):
        codes = st.integers(20, 65535)  # the known ones have a form of their own
        options = st.builds(dns.edns.GenericOption, codes, st.binary(max_size=40))
        keywords = {
            "use_edns": 0,
            "payload": draw(st.integers(0, 65535)),
            "want_dnssec": draw(st.booleans()),
            "options": draw(st.lists(options, max_size=3)),
            "pad": draw(st.sampled_from([0, 128])),
        }
    rtype = draw(st.sampled_from(["A", "AAAA", "SRV", "HTTPS", "ANY", "TYPE65280"]))
    query = dns.message.make_query(draw(names()), rtype, **keywords)
    query.id = draw(st.integers(0, 65535))
    query.flags = draw(st.sampled_from([0, dns.flags.RD, dns.flags.RD | dns.flags.AD | dns.flags.CD]))
    return query


@st.composite
def answers(draw: st.DrawFn) -> dns.message.Message:
    """Any reply, compressed as dnspython does it."""
    query = draw(queries())
    response = dns.message.make_response(query, recursion_available=True, our_payload=1232)
    response.set_rcode(draw(st.sampled_from([dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL])))
    owners = st.one_of(st.just(query.question[0].name), names())
    for section in response.sections[1:]:
        for data in draw(st.lists(rdatas(), max_size=4)):
            section.append(dns.rrset.from_rdata(draw(owners), draw(ttls), data))
    return response


def whole(message: dns.message.Message) -> bytes:
    return message.to_wire(max_size=65535)


def wire_of(name: dns.name.Name) -> bytes:
    return name.to_wire().lower()


@settings
@given(st.binary(max_size=600))
def test_no_bytes_make_it_raise(wire: bytes) -> None:
    check(wire)
    check(b"\0\1\x81\x80\0\1\0\1\0\0\0\1" + wire)
    check(b"\0\1\1\0\0\1\0\0\0\0\0\1" + wire)


@settings
@given(st.sampled_from(corpus()), st.data())
def test_no_change_of_a_message_makes_it_raise(wire: bytes, data: st.DataObject) -> None:
    changed = bytearray(wire)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(wire) - 1), octets), max_size=6)):
        changed[at] = value
    check(bytes(changed))


@settings
@given(queries())
def test_a_question_is_read_as_dnspython_reads_it(query: dns.message.Message) -> None:
    wire = whole(query)
    found = scan_query(wire)
    assert isinstance(found, Query)
    check_query(found)
    asked = query.question[0]
    assert (found.name, found.qtype, found.qclass) == (wire_of(asked.name), asked.rdtype, asked.rdclass)
    assert found.edns is (query.edns == 0)
    assert found.do is bool(query.ednsflags & dns.flags.DO)
    assert found.edns_options is bool(query.options or query.pad)
    assert found.payload_size == (min(max(query.payload, 512), 1232) if found.edns else 512)


@settings
@given(answers())
def test_an_answer_is_read_as_dnspython_reads_it(response: dns.message.Message) -> None:
    wire = whole(response)
    found = scan_answer(wire)
    assert isinstance(found, Answer)
    check_answer(found)
    parsed = dns.message.from_wire(wire, one_rr_per_rrset=True)
    expected = [
        (section, wire_of(rrset.name), rrset.rdtype, rrset.ttl)
        for section, rrsets in enumerate(parsed.sections[1:])
        for rrset in rrsets
    ]
    assert [(r.section, r.owner, r.rtype, r.ttl) for r in found.records if r.rtype != 41] == expected
    assert (found.rcode, found.edns) == (response.rcode(), response.edns == 0)


@settings
@given(answers(), st.binary(min_size=1, max_size=40))
def test_nothing_is_read_outside_a_message(response: dns.message.Message, behind: bytes) -> None:
    """It neither reads on into what lies behind, nor accepts less than all."""
    wire = whole(response)
    larger = wire + behind
    inside, outside = scan_answer(larger[: len(wire)]), scan_answer(larger)
    assert inside == scan_answer(wire)
    assert not isinstance(outside, Answer)
    for cut in {len(wire) - 1, len(wire) // 2, 12}:
        if cut < len(wire):
            assert not isinstance(scan_answer(wire[:cut]), Answer)


@settings
@given(queries(), st.data())
def test_what_passes_as_a_question_passes_with_dnspython(query: dns.message.Message, data: st.DataObject) -> None:
    """But for records beside the OPT and options in it: dnspython looks into those, we pass them by."""
    wire = bytearray(whole(query))
    for at, value in data.draw(st.lists(st.tuples(st.integers(4, len(wire) - 1), octets), max_size=2)):
        wire[at] = value
    found = scan_query(bytes(wire))
    if isinstance(found, Query) and wire[11] == found.edns:
        try:
            parsed = dns.message.from_wire(bytes(wire))
        except (dns.exception.DNSException, ValueError):
            assert found.edns_options
            return
        assert wire_of(parsed.question[0].name) == found.name


@settings
@given(answers(), queries(), st.sampled_from([512, 700, 1232, 65535]), st.integers(0, 2**31))
def test_a_response_is_what_dnspython_calls_one(
    response: dns.message.Message, other: dns.message.Message, limit: int, age: int
) -> None:
    answer = scan_answer(whole(response))
    assert isinstance(answer, Answer)
    verdict = judge(answer, 3600, 30)
    asked = dns.message.make_query(response.question[0].name, response.question[0].rdtype)
    asked.flags, asked.id = other.flags, other.id
    if other.edns == 0:
        asked.use_edns(0, other.ednsflags, other.payload)
    query = scan_query(whole(asked))
    assert isinstance(query, Query)
    wire = respond(query, verdict.sections, limit, age=age)
    assert len(wire) <= limit
    assert wire[:2] == query.wire[:2]
    assert wire[12 : query.question_end] == query.wire[12 : query.question_end]
    parsed = dns.message.from_wire(wire, one_rr_per_rrset=True)
    assert asked.is_response(parsed)
    assert parsed.edns == asked.edns
    given_records = dns.message.from_wire(whole(response), one_rr_per_rrset=True)
    for before, after in zip(given_records.sections[1:], parsed.sections[1:], strict=True):
        assert [r.to_rdataset() for r in after] == [r.to_rdataset() for r in before][: len(after)]
        for old, new in zip(before, after, strict=False):
            assert new.ttl <= max(0, min(old.ttl, 3600) - age)
    if not parsed.flags & dns.flags.TC:
        assert [len(section) for section in parsed.sections[:3]] == [len(s) for s in given_records.sections[:3]]


@settings
@given(names(), st.booleans(), st.booleans(), st.booleans())
def test_a_question_to_an_upstream_passes_with_dnspython(name: dns.name.Name, edns: bool, do: bool, cd: bool) -> None:
    wire = question_to_upstream(name.to_wire() + b"\0\x1c\0\1", edns=edns, do=do, cd=cd)
    parsed = dns.message.from_wire(wire)
    assert parsed.question[0].name.labels == name.labels
    assert not isinstance(scan_query(wire), Refusal)
