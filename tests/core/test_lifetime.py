"""What an answer is, and how long it may be kept: the table at the top of `lifetime`, row by row."""

import dns.flags
import dns.message
import pytest

from proxy.core.lifetime import Kind, Verdict, judge
from proxy.core.message import Answer, scan_answer, ttl_offsets
from tests.fakes import question, reply, soa


def judged(response: dns.message.Message, max_ttl: int = 3600, negative_max_ttl: int = 30) -> Verdict:
    answer = scan_answer(response.to_wire(max_size=65535))
    assert isinstance(answer, Answer)
    return judge(answer, max_ttl, negative_max_ttl)


def shown(verdict: Verdict) -> list[int]:
    """The TTLs that a client sees at age 0."""
    data = verdict.sections.data
    return [int.from_bytes(data[at : at + 4], "big") for at in ttl_offsets(data)]


A = question("a.example")


def test_data_lives_for_its_lowest_ttl() -> None:
    verdict = judged(reply(A, "a.example 60 A 192.0.2.1", additional=["b.example 20 A 192.0.2.2"]))
    assert (verdict.kind, verdict.lifetime, shown(verdict)) == (Kind.POSITIVE, 20, [60, 20])


def test_a_long_ttl_is_capped_in_what_is_shown_too() -> None:
    verdict = judged(reply(A, "a.example 86400 A 192.0.2.1"))
    assert (verdict.lifetime, shown(verdict)) == (3600, [3600])


def test_a_ttl_with_its_top_bit_set_is_capped() -> None:
    wire = bytearray(reply(A, "a.example 60 A 192.0.2.1").to_wire())
    wire[-10:-6] = b"\x80\0\0\1"
    answer = scan_answer(bytes(wire))
    assert isinstance(answer, Answer)
    assert judge(answer, 3600, 30).lifetime == 3600


def test_a_ttl_of_zero_is_passed_on_and_not_kept() -> None:
    verdict = judged(reply(A, "a.example 0 A 192.0.2.1"))
    assert (verdict.kind, verdict.lifetime, shown(verdict)) == (Kind.POSITIVE, 0, [0])


def test_records_of_a_set_share_the_lowest_ttl() -> None:
    verdict = judged(reply(A, "a.example 60 A 192.0.2.1", "a.example 10 A 192.0.2.2", "a.example 90 TXT x"))
    assert shown(verdict) == [10, 10, 90]
    assert verdict.lifetime == 10


@pytest.mark.parametrize(
    ("ttl", "minimum", "cap", "lifetime"), [(20, 60, 30, 20), (60, 20, 30, 20), (60, 60, 30, 30), (0, 60, 30, 0)]
)
@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
def test_a_denial_lives_for_the_least_of_soa_minimum_and_cap(
    rcode: str, ttl: int, minimum: int, cap: int, lifetime: int
) -> None:
    verdict = judged(reply(A, rcode=rcode, authority=[soa(ttl=ttl, minimum=minimum)]), negative_max_ttl=cap)
    assert verdict.kind is (Kind.NXDOMAIN if rcode == "NXDOMAIN" else Kind.NODATA)
    assert (verdict.lifetime, shown(verdict)) == (lifetime, [lifetime])


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
def test_a_denial_without_soa_is_not_kept(rcode: str) -> None:
    assert judged(reply(A, rcode=rcode)).lifetime == 0


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "NOTAUTH"])
def test_an_error_is_a_failure(rcode: str) -> None:
    verdict = judged(reply(A, rcode=rcode))
    assert (verdict.kind, verdict.lifetime) == (Kind.FAILURE, 0)


def test_a_truncated_answer_is_not_kept() -> None:
    verdict = judged(reply(A, "a.example 60 A 192.0.2.1", flags=dns.flags.TC))
    assert (verdict.kind, verdict.lifetime) == (Kind.TRUNCATED, 0)


def test_a_chain_is_followed_to_its_end() -> None:
    chain = ["a.example 60 CNAME b.example", "b.example 50 CNAME c.example"]
    whole = judged(reply(A, *chain, "c.example 40 A 192.0.2.1"))
    assert (whole.kind, whole.lifetime, whole.chained) == (Kind.POSITIVE, 40, True)
    other = judged(reply(A, *chain, "d.example 40 A 192.0.2.1"))
    assert other.kind is Kind.NODATA


def test_a_chain_that_ends_in_a_denied_name_is_a_denial_of_it() -> None:
    verdict = judged(reply(A, "a.example 60 CNAME b.example", rcode="NXDOMAIN", authority=[soa()]))
    assert (verdict.kind, verdict.lifetime, verdict.chained) == (Kind.NXDOMAIN, 30, True)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(["a.example 60 CNAME a.example"], id="to itself"),
        pytest.param(["a.example 60 CNAME b.example", "b.example 60 CNAME a.example"], id="in a circle"),
        pytest.param(["a.example 60 CNAME b.example", "a.example 60 CNAME c.example"], id="a fork"),
    ],
)
def test_a_broken_chain_is_passed_on_and_not_kept(records: list[str]) -> None:
    assert judged(reply(A, *records, authority=[soa()])).lifetime == 0


def test_a_cname_asked_for_is_data() -> None:
    verdict = judged(reply(question("a.example", "CNAME"), "a.example 60 CNAME a.example"))
    assert (verdict.kind, verdict.lifetime, verdict.chained) == (Kind.POSITIVE, 60, False)


def test_a_referral_from_who_does_not_recurse_is_a_failure() -> None:
    response = reply(A, authority=["example 60 NS ns.example"])
    assert judged(response).kind is Kind.NODATA
    response.flags &= ~dns.flags.RA
    assert judged(response).kind is Kind.FAILURE


def test_a_dname_that_makes_the_name_too_long_is_passed_on() -> None:
    verdict = judged(reply(A, "example 60 DNAME long.example", rcode="YXDOMAIN"))
    assert (verdict.kind, verdict.lifetime, verdict.sections.rcode) == (Kind.NODATA, 0, 6)


def test_the_opt_record_is_left_out_with_what_stands_behind_it() -> None:
    edns = question("a.example", use_edns=0)
    wire = reply(edns, "a.example 60 A 192.0.2.1").to_wire()
    behind = bytearray(wire + b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\2")
    behind[11] += 1
    for message in (wire, bytes(behind)):
        answer = scan_answer(message)
        assert isinstance(answer, Answer)
        verdict = judge(answer, 3600, 30)
        assert (verdict.sections.counts, shown(verdict), verdict.lifetime) == ((1, 0, 0), [60], 60)


def test_authentic_data_stays_marked() -> None:
    assert judged(reply(A, "a.example 60 A 192.0.2.1", flags=dns.flags.AD)).sections.authentic
    assert not judged(reply(A, "a.example 60 A 192.0.2.1")).sections.authentic
