"""Every response is made and counted in one place."""

import dns.message
import pytest

from proxy.core import counters
from proxy.core.cache import Entry
from proxy.core.counters import ANSWERED
from proxy.core.lifetime import STALE_TTL, Kind
from proxy.core.message import Ede, Rcode, Refusal
from proxy.core.replies import Replies
from tests.core.asking import FakeClient
from tests.core.kept import name, query, verdict
from tests.fakes import ede_codes

ASKED = query(name("a.example"), edns=True)


@pytest.mark.parametrize(("proto", "largest"), [("udp", 1232), ("tcp", 65535)])
def test_only_a_datagram_is_cut(proto: str, largest: int) -> None:
    counts = [0] * counters.SLOTS
    sections = verdict(rtype=16, size=3000).sections
    response = Replies(counts).answer(ASKED, FakeClient(proto=proto), "upstream", sections)
    assert len(response) <= largest
    assert bool(response[2] & 2) is (proto == "udp")
    assert counts[ANSWERED.slot(proto, "upstream", "A", "NOERROR")] == 1


@pytest.mark.parametrize(("kind", "ede"), [(Kind.POSITIVE, Ede.STALE_ANSWER), (Kind.NXDOMAIN, Ede.STALE_NXDOMAIN)])
def test_stale_data_says_that_it_is(kind: Kind, ede: Ede) -> None:
    counts = [0] * counters.SLOTS
    kept = verdict(kind, lifetime=60)
    entry = Entry(b"")
    entry.fill(kind, kept.sections, False, kept.lifetime, 0.0)
    wire = Replies(counts).stale(ASKED, FakeClient(), entry)
    assert STALE_TTL.to_bytes(4, "big") in wire[ASKED.question_end :]
    assert wire[-2:] == ede.to_bytes(2, "big")
    assert sum(n for labels, n in ANSWERED.samples(counts) if labels[1] == "stale") == 1


def test_an_error_says_why() -> None:
    counts = [0] * counters.SLOTS
    response = dns.message.from_wire(Replies(counts).error(ASKED, FakeClient(), Rcode.SERVFAIL, Ede.NETWORK_ERROR))
    assert (response.rcode(), ede_codes(response)) == (Rcode.SERVFAIL, [23])
    assert counts[ANSWERED.slot("udp", "error", "A", "SERVFAIL")] == 1


def test_what_is_no_question_is_counted_without_a_type() -> None:
    counts = [0] * counters.SLOTS
    response = Replies(counts).refusal(bytes(12), Refusal(Rcode.FORMERR), FakeClient())
    assert response == b"\0\0\x80\x81" + bytes(8)
    assert counts[ANSWERED.slot("udp", "error", "other", "FORMERR")] == 1
