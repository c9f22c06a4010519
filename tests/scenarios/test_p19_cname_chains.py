"""P19: CNAME chains pass in order; what loops or forks is not kept (RFC 1034 3.6.2, RFC 2181 10.1)."""

import pytest

from tests.fakes import World

LONG = [f"n{i}.example 60 CNAME n{i + 1}.example." for i in range(12)]


async def test_a_long_chain_passes_whole_and_in_order_fresh_and_cached(world: World) -> None:
    await world.start()
    world.upstream.answer("n0.example", "A", *LONG, "n12.example 60 A 192.0.2.1")
    for _ in range(3):
        answer = await world.ask("n0.example", use_edns=0, payload=1232)
        assert [rrset.name.to_text() for rrset in answer.answer] == [f"n{i}.example." for i in range(13)]
    assert len(world.upstream.questions()) == 1


async def test_the_shortest_link_bounds_the_whole_chain(world: World) -> None:
    await world.start(stale=0)
    chain = ("www.example 5 CNAME lb.example.", "lb.example 86400 A 192.0.2.1")
    world.upstream.answer("www.example", "A", *chain)
    await world.ask("www.example")
    world.clock.advance(4.5)
    await world.ask("www.example")
    assert len(world.upstream.questions()) == 1
    world.clock.advance(1.5)
    await world.ask("www.example")
    assert len(world.upstream.questions()) == 2


@pytest.mark.parametrize(
    "lines",
    [
        ("www.example 60 CNAME lb.example.", "lb.example 60 CNAME www.example."),
        ("www.example 60 CNAME www.example.",),
        ("www.example 60 CNAME a.example.", "www.example 60 CNAME b.example.", "a.example 60 A 192.0.2.1"),
    ],
    ids=["loop", "self", "fork"],
)
async def test_what_loops_or_forks_is_not_kept(world: World, lines: tuple[str, ...]) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", *lines)
    for _ in range(2):
        assert (await world.ask("www.example")).rcode() == 0
    assert len(world.upstream.questions()) == 2


async def test_a_cname_without_its_target_is_no_denial(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 CNAME lb.example.")
    for _ in range(2):
        answer = await world.ask("www.example")
        assert (answer.rcode(), len(answer.answer)) == (0, 1)
    assert len(world.upstream.questions()) == 2


async def test_a_synthesised_cname_follows_its_dname(world: World) -> None:
    await world.start()
    chain = (
        "example 60 DNAME example.net.",
        "www.example 60 CNAME www.example.net.",
        "www.example.net 60 A 192.0.2.1",
    )
    world.upstream.answer("www.example", "A", *chain)
    for _ in range(2):
        answer = await world.ask("www.example")
        assert [rrset.rdtype for rrset in answer.answer] == [39, 5, 1]
    assert len(world.upstream.questions()) == 1


async def test_targets_of_a_chain_are_not_kept_under_their_own_names(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 CNAME lb.example.", "lb.example 60 A 192.0.2.1")
    world.upstream.answer("lb.example", "A", "lb.example 60 A 192.0.2.9")
    await world.ask("www.example")
    assert "192.0.2.9" in (await world.ask("lb.example")).answer[0].to_text()


async def test_a_chain_for_a_question_of_type_cname_is_just_one_record(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "CNAME", "www.example 60 CNAME lb.example.")
    for _ in range(2):
        assert len((await world.ask("www.example", "CNAME")).answer) == 1
    assert len(world.upstream.questions()) == 1
