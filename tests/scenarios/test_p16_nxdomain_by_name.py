"""P16: NXDOMAIN is kept by name and class, NODATA by name, type and class (RFC 2308 5)."""

from tests.fakes import World, reply, soa

ALIAS = "alias.example 60 CNAME gone.example."


async def test_nxdomain_of_a_answers_aaaa_without_asking(world: World) -> None:
    await world.start()
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa()])
    first = await world.ask("no.example", "A")
    second = await world.ask("no.example", "AAAA")
    assert [first.rcode(), second.rcode()] == [3, 3]
    assert world.upstream.questions() == [("no.example", "A")]


async def test_nxdomain_of_any_type_answers_every_other_one(world: World) -> None:
    await world.start()
    world.upstream.answer("no.example", "TXT", rcode="NXDOMAIN", authority=[soa()])
    await world.ask("no.example", "TXT")
    for rtype in ("A", "AAAA", "MX", "TYPE65400"):
        answer = await world.ask("no.example", rtype)
        assert answer.rcode() == 3
        assert answer.authority
    assert world.upstream.questions() == [("no.example", "TXT")]


async def test_nxdomain_says_nothing_of_names_above_or_below(world: World) -> None:
    await world.start()
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa()])
    world.upstream.answer("www.no.example", "A", "www.no.example 60 A 192.0.2.1")
    world.upstream.answer("example", "A", "example 60 A 192.0.2.2")
    await world.ask("no.example")
    assert (await world.ask("www.no.example")).answer
    assert (await world.ask("example")).answer


async def test_nodata_of_a_leaves_aaaa_to_be_asked(world: World) -> None:
    await world.start()
    world.upstream.answer("half.example", "A", authority=[soa()])
    world.upstream.answer("half.example", "AAAA", "half.example 60 AAAA 2001:db8::1")
    assert not (await world.ask("half.example", "A")).answer
    assert (await world.ask("half.example", "AAAA")).answer
    assert world.upstream.questions() == [("half.example", "A"), ("half.example", "AAAA")]


async def test_nodata_is_kept_for_its_own_type(world: World) -> None:
    await world.start()
    world.upstream.answer("half.example", "A", authority=[soa()])
    for _ in range(3):
        answer = await world.ask("half.example", "A")
        assert (answer.rcode(), answer.answer, len(answer.authority)) == (0, [], 1)
    assert world.upstream.questions() == [("half.example", "A")]


async def test_a_denied_alias_still_has_its_cname(world: World) -> None:
    await world.start()
    world.upstream.answer("alias.example", "A", ALIAS, rcode="NXDOMAIN", authority=[soa()])
    world.upstream.answer("alias.example", "CNAME", ALIAS)
    await world.ask("alias.example", "A")
    assert (await world.ask("alias.example", "TXT")).rcode() == 3
    answer = await world.ask("alias.example", "CNAME")
    assert (answer.rcode(), len(answer.answer)) == (0, 1)


async def test_what_an_alias_leads_to_is_not_denied_along_with_it(world: World) -> None:
    await world.start()
    world.upstream.answer("alias.example", "A", ALIAS, rcode="NXDOMAIN", authority=[soa()])
    world.upstream.answer("gone.example", "A", "gone.example 60 A 192.0.2.1")
    await world.ask("alias.example", "A")
    assert (await world.ask("gone.example", "A")).answer


async def test_an_answer_with_ttl_0_displaces_a_denial_for_ever(world: World) -> None:
    await world.start()
    world.upstream.answer("new.example", "A", rcode="NXDOMAIN", authority=[soa(minimum=10)])
    await world.ask("new.example", "A")
    world.clock.advance(11)
    world.upstream.answer("new.example", "A", "new.example 0 A 192.0.2.1")
    assert (await world.ask("new.example", "A")).answer
    assert (await world.ask("new.example", "A")).answer
    world.upstream.on_any(lambda query: reply(query, rcode="SERVFAIL"))
    world.upstream.answer("new.example", "A", rcode="SERVFAIL")
    for rtype in ("A", "TXT"):
        assert (await world.ask("new.example", rtype)).rcode() == 2


async def test_an_answer_with_ttl_0_displaces_nodata_for_ever(world: World) -> None:
    await world.start()
    world.upstream.answer("new.example", "A", authority=[soa(minimum=10)])
    await world.ask("new.example", "A")
    world.clock.advance(11)
    world.upstream.answer("new.example", "A", "new.example 0 A 192.0.2.1")
    assert (await world.ask("new.example", "A")).answer
    world.upstream.answer("new.example", "A", rcode="SERVFAIL")
    assert (await world.ask("new.example", "A")).rcode() == 2


async def test_a_name_that_comes_into_being_is_there_for_every_type(world: World) -> None:
    await world.start()
    world.upstream.answer("new.example", "A", rcode="NXDOMAIN", authority=[soa(minimum=10)])
    await world.ask("new.example", "A")
    world.clock.advance(11)
    world.upstream.answer("new.example", "A", "new.example 60 A 192.0.2.1")
    world.upstream.answer("new.example", "MX", authority=[soa()])
    assert (await world.ask("new.example", "A")).answer
    assert (await world.ask("new.example", "MX")).rcode() == 0
