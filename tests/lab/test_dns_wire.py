"""The lab's DNS messages as another library reads them."""

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.lab import dns_wire


def test_a_question_is_one_to_others() -> None:
    read = dns.message.from_wire(dns_wire.question(7, "www.example.", "AAAA", 1232))
    assert (read.id, read.question[0].to_text(), read.payload) == (7, "www.example. IN AAAA", 1232)
    assert dns.message.from_wire(dns_wire.question(7, "www.example", "A")).edns == -1


@given(st.integers(0, 65535), st.sampled_from(["A", "AAAA", "SRV"]), st.sampled_from([0, 512, 4096]))
def test_a_server_reads_what_was_asked(id: int, kind: str, edns_bytes: int) -> None:
    asked = dns_wire.asked(dns_wire.question(id, "a.WWW.example", kind, edns_bytes))
    assert (asked.id, asked.name, asked.kind, asked.edns_bytes) == (id, "a.www.example", kind, edns_bytes)


def reply(kind: str = "A", rcode: int = 0, addresses: int = 1, edns_bytes: int = 0, stream: bool = False) -> bytes:
    wire = dns_wire.question(1, "www.example", kind, edns_bytes)
    return dns_wire.answer(wire, dns_wire.asked(wire), rcode, addresses, 5, stream=stream)


def test_an_answer_has_addresses_of_its_kind() -> None:
    read = dns.message.from_wire(reply("AAAA", addresses=2))
    assert [str(one) for one in read.answer[0]] == ["fd00:200::1", "fd00:200::2"]
    read = dns.message.from_wire(reply("A", addresses=300, stream=True))
    assert len({str(one) for one in read.answer[0]}) == 300


def test_a_name_without_records_has_its_zone_beside_it() -> None:
    for kind, rcode in (("SRV", dns_wire.NOERROR), ("A", dns_wire.NXDOMAIN)):
        read = dns.message.from_wire(reply(kind, rcode))
        assert (read.rcode(), read.answer) == (rcode, [])
        assert read.authority[0].to_text().startswith("example. 5 IN SOA")


def test_an_answer_that_does_not_fit_is_truncated() -> None:
    assert dns_wire.read_answer(reply(addresses=250)) == (1, 0, 0, True)
    assert dns_wire.read_answer(reply(addresses=250, edns_bytes=4096)) == (1, 0, 250, False)
    assert len(reply(addresses=250, edns_bytes=4096)) > 4000
    assert dns_wire.read_answer(reply(addresses=250, stream=True)) == (1, 0, 250, False)
    assert dns.message.from_wire(reply(addresses=250)).flags & dns.flags.TC


@given(st.binary(max_size=60))
def test_noise_is_a_value_error_or_a_question(wire: bytes) -> None:
    for read in (dns_wire.asked, dns_wire.read_answer):
        try:
            read(wire)
        except ValueError:
            pass


def test_replies_are_no_questions_and_questions_no_replies() -> None:
    with pytest.raises(ValueError, match="not a query"):
        dns_wire.asked(reply())
    with pytest.raises(ValueError, match="not a reply"):
        dns_wire.read_answer(dns_wire.question(1, "a", "A"))
