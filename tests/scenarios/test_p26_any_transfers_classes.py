"""P26: ANY gets one HINFO, transfers are refused, and no class but IN is served from IN data (RFC 8482, RFC 1035)."""

import dns.rdatatype
import pytest

from tests.fakes import World, question


async def test_any_is_one_hinfo_record(world: World) -> None:
    await world.start()
    for name in ("www.example", "localhost"):
        answer = await world.ask(name, "ANY")
        assert [rrset.rdtype for rrset in answer.answer] == [dns.rdatatype.HINFO]
        assert '"RFC8482"' in answer.answer[0][0].to_text()
    assert world.upstream.asked == []


async def test_any_says_nothing_of_what_is_kept(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example", "A")
    assert [rrset.rdtype for rrset in (await world.ask("www.example", "ANY")).answer] == [dns.rdatatype.HINFO]
    assert (await world.ask("www.example", "A")).answer[0].rdtype == dns.rdatatype.A


@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
async def test_a_transfer_is_refused_over_both_transports(world: World, rtype: str) -> None:
    await world.start()
    assert (await world.ask("example", rtype)).rcode() == 5
    assert (await world.ask_tcp(question("example", rtype)))[0].rcode() == 5
    assert world.upstream.asked == []


@pytest.mark.parametrize("rdclass", ["CH", "ANY", "HS"])
async def test_another_class_is_refused_whatever_is_kept_for_in(world: World, rdclass: str) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    await world.ask("www.example")
    answer = await world.ask("www.example", rdclass=rdclass)
    assert (answer.rcode(), answer.answer) == (5, [])
    assert len(world.upstream.asked) == 1


async def test_the_version_of_the_server_is_not_told(world: World) -> None:
    await world.start()
    assert (await world.ask("version.bind", "TXT", rdclass="CH")).rcode() == 5
    assert world.upstream.asked == []


@pytest.mark.parametrize("rtype", ["TKEY", "TSIG", "MAILA", "MAILB"])
async def test_types_that_are_no_data_are_not_implemented(world: World, rtype: str) -> None:
    await world.start()
    assert (await world.ask("example", rtype)).rcode() == 4
    assert world.upstream.asked == []
