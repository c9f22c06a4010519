"""What dnslib 0.9.26 got wrong, as inputs of our scanner: each packet once crashed it or was changed by it."""

import struct

import dns.message

from proxy.core.lifetime import judge
from proxy.core.message import Answer, Malformed, Query, Refusal, respond, scan_answer, scan_query

QUERY_HEADER = struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 0)
QUERY_HEADER_WITH_OPT = struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 1)
ANSWER_HEADER = struct.pack(">HHHHHH", 1, 0x8180, 1, 1, 0, 0)
QUESTION = b"\x01a\x07example\0\0\1\0\1"


def test_two_pointers_in_a_circle_hidden_in_a_label_are_broken() -> None:
    """dnslib: RecursionError, 10 ms of CPU each."""
    hidden = b"\x3f" + b"\xc0\x0f\xc0\x0d" + b"x" * 59  # a label that holds the two pointers, at 13 and 15
    query = QUERY_HEADER + hidden + b"\xc0\x0d\0\1\0\1"
    assert isinstance(scan_query(query), Refusal)
    answer = ANSWER_HEADER + hidden + b"\0\0\1\0\1" + b"\xc0\x0d" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes(4)
    assert len(answer) < 654
    assert scan_answer(answer) is Malformed.BROKEN


def test_bytes_that_are_no_utf_8_are_no_matter() -> None:
    """dnslib: UnicodeDecodeError from the parser, or later from str() and pack()."""
    name = b"\x04\xff\xfe\x80\xc3\x03\xe2\x28\xa1\0"
    query = scan_query(QUERY_HEADER + name + b"\0\1\0\1")
    assert isinstance(query, Query)
    rdata = b"\x05\xff\xfe\xfd\xc0\x80"
    answer = scan_answer(
        ANSWER_HEADER + name + b"\0\x10\0\1" + b"\xc0\x0c" + struct.pack(">HHIH", 16, 1, 9, 6) + rdata
    )
    assert isinstance(answer, Answer)
    assert respond(query, judge(answer, 3600, 30).sections, 512).endswith(rdata)


def test_a_label_of_eight_bit_bytes_is_kept_byte_for_byte() -> None:
    """dnslib: rejected. Names are octets (RFC 2181 11), and only A to Z have another case."""
    name = bytes((4, 0xC4, 0xD6, 0xDC, 0x41)) + b"\0"
    query = scan_query(QUERY_HEADER + name + b"\0\1\0\1")
    assert isinstance(query, Query)
    assert query.name == bytes((4, 0xC4, 0xD6, 0xDC, 0x61)) + b"\0"
    assert query.wire[12 : query.question_end - 4] == name


def test_a_name_of_1280_octets_is_broken() -> None:
    """dnslib: accepted."""
    name = (b"\x3f" + b"x" * 63) * 20 + b"\0"
    assert isinstance(scan_query(QUERY_HEADER + name + b"\0\1\0\1"), Refusal)
    assert scan_answer(struct.pack(">HHHHHH", 1, 0x8180, 1, 0, 0, 0) + name + b"\0\1\0\1") is Malformed.BROKEN


def test_an_empty_last_option_is_seen() -> None:
    """dnslib: an NSID request (RFC 5001 2.1) lost its option: 44 bytes in, 40 out."""
    opt = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 4) + struct.pack(">HH", 3, 0)
    query = scan_query(QUERY_HEADER_WITH_OPT + QUESTION + opt)
    assert isinstance(query, Query)
    assert query.edns_options


def test_a_record_without_data_is_passed_on() -> None:
    """dnslib: the whole message was rejected."""
    empty = b"\xc0\x0c" + struct.pack(">HHIH", 65280, 1, 60, 0)
    answer = scan_answer(ANSWER_HEADER + QUESTION + empty)
    query = scan_query(QUERY_HEADER + QUESTION)
    assert isinstance(answer, Answer)
    assert isinstance(query, Query)
    assert respond(query, judge(answer, 3600, 30).sections, 512).endswith(empty)


def test_bytes_behind_the_message_are_an_error() -> None:
    """dnslib: accepted."""
    assert isinstance(scan_query(QUERY_HEADER + QUESTION + b"junk"), Refusal)
    whole = ANSWER_HEADER + QUESTION + b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes(4)
    assert isinstance(scan_answer(whole), Answer)
    assert scan_answer(whole + b"junk") is Malformed.BROKEN


def test_a_dot_within_a_label_stays_within_it() -> None:
    """dnslib: through text, `a.b` as one label became two."""
    name = b"\x03a.b\x07example\0"
    query = scan_query(QUERY_HEADER + name + b"\0\1\0\1")
    assert isinstance(query, Query)
    assert query.name == name
    answer = scan_answer(struct.pack(">HHHHHH", 1, 0x8180, 1, 0, 0, 0) + name + b"\0\1\0\1")
    assert isinstance(answer, Answer)
    response = dns.message.from_wire(respond(query, judge(answer, 3600, 30).sections, 512))
    assert response.question[0].name.labels == (b"a.b", b"example", b"")
