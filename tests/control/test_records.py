"""Records for people."""

import dns.message
import dns.rrset

from proxy.control.records import records


def answer(*rrsets: dns.rrset.RRset) -> bytes:
    response = dns.message.make_response(dns.message.make_query("web.example", "A"))
    response.answer.extend(rrsets)
    return response.to_wire()


def test_a_record_is_a_line() -> None:
    shown = records(answer(dns.rrset.from_text("web.example.", 30, "IN", "A", "192.0.2.7")))
    assert [line.split() for line in shown] == [["web.example.", "30", "IN", "A", "192.0.2.7"]]


def test_what_dnslib_cannot_read_is_shown_as_bytes() -> None:
    wire = answer(dns.rrset.from_text("\\255.example.", 30, "IN", "A", "192.0.2.7"))
    (shown,) = records(wire)
    assert wire.hex() in shown
