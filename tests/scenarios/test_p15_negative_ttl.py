"""P15: a denial is kept for the least of the SOA's TTL, its MINIMUM and the cap, and shows that (RFC 2308 5)."""

import dns.message
import pytest

from tests import wire
from tests.fakes import World, soa, ttls

CASES = {
    "ttl": (7, 300, 30, 7),
    "minimum": (300, 7, 30, 7),
    "cap": (3600, 3600, 30, 30),
    "all alike": (9, 9, 9, 9),
    "minimum of 2": (60, 2, 30, 2),
    "minimum beyond what is a TTL": (60, 2**32 - 1, 30, 30),
}


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "NOERROR"])
@pytest.mark.parametrize(("ttl", "minimum", "cap", "kept"), CASES.values(), ids=CASES.keys())
async def test_the_least_of_three_counts_and_shows_at_once(
    world: World, rcode: str, ttl: int, minimum: int, cap: int, kept: int
) -> None:
    await world.start(negative_max_ttl=cap, stale=0, prefetch=False)
    world.upstream.answer("no.example", "MX", rcode=rcode, authority=[soa(ttl=ttl, minimum=minimum)])
    first = await world.ask("no.example", "MX")
    assert (ttls(first), first.authority[0][0].minimum) == ([kept], minimum)
    world.clock.advance(kept - 0.5)
    for _ in range(3):
        last = await world.ask("no.example", "MX")
        assert (ttls(last), last.authority[0][0].minimum) == ([1], minimum)
    assert len(world.upstream.asked) == 1
    world.clock.advance(0.5)
    assert ttls(await world.ask("no.example", "MX")) == [kept]
    assert len(world.upstream.asked) == 2


@pytest.mark.parametrize(
    ("ttl", "minimum", "cap"), [(0, 60, 30), (60, 0, 30), (60, 60, 0)], ids=["ttl", "minimum", "cap"]
)
async def test_none_at_all_is_not_kept(world: World, ttl: int, minimum: int, cap: int) -> None:
    await world.start(negative_max_ttl=cap)
    world.upstream.answer("no.example", "MX", rcode="NXDOMAIN", authority=[soa(ttl=ttl, minimum=minimum)])
    for asked in (1, 2):
        answer = await world.ask("no.example", "MX")
        assert (answer.rcode(), ttls(answer)) == (3, [0])
        assert len(world.upstream.asked) == asked


async def test_a_ttl_with_the_top_bit_is_capped(world: World) -> None:
    await world.start(negative_max_ttl=30)
    timers = b"".join(number.to_bytes(4, "big") for number in (1, 2, 3, 4, 2**31))
    authority = wire.record(b"\xc0\x0f", 6, 2**32 - 1, b"\xc0\x0f\xc0\x0f" + timers)

    def denying(query: dns.message.Message) -> bytes:
        wired = bytearray(wire.answering(query.to_wire(), authority, flags=wire.QR | wire.RA | 3))
        wired[6:10] = b"\0\0\0\1"
        return bytes(wired)

    world.upstream.on("no.example", "A", denying)
    assert ttls(await world.ask("no.example")) == [30]
    world.clock.advance(10)
    assert ttls(await world.ask("no.example")) == [20]


async def test_a_question_for_the_soa_is_no_denial_and_neither_touches_the_other(world: World) -> None:
    await world.start(negative_max_ttl=30, max_ttl=3600)
    world.upstream.answer("example", "SOA", soa(ttl=900, minimum=5))
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa(ttl=900, minimum=5)])
    assert ttls(await world.ask("example", "SOA")) == [900]
    assert ttls(await world.ask("no.example")) == [5]
    world.clock.advance(4)
    assert ttls(await world.ask("example", "SOA")) == [896]
    assert ttls(await world.ask("no.example")) == [1]


async def test_every_record_of_a_denial_shows_no_more_than_is_left(world: World) -> None:
    await world.start(negative_max_ttl=30)
    proof = "example 10 NSEC a.example. A NS SOA"
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa(ttl=300, minimum=300), proof])
    assert ttls(await world.ask("no.example")) == [30, 10]
    world.clock.advance(9)
    assert ttls(await world.ask("no.example")) == [21, 1]
    world.clock.advance(1)
    await world.ask("no.example")
    assert len(world.upstream.questions()) == 2


async def test_the_cap_of_positive_answers_bounds_denials_too(world: World) -> None:
    await world.start(negative_max_ttl=30, max_ttl=10)
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa(ttl=300, minimum=300)])
    assert ttls(await world.ask("no.example")) == [10]
