"""P24: DO and CD have data of their own, DO is copied, AD only for who set AD or DO (RFC 3225, RFC 6840 5.7-5.9)."""

import dns.edns
import dns.flags
import dns.message

from tests.fakes import World, question, reply

SIGNATURE = "www.example 60 RRSIG A 8 2 60 20300101000000 20200101000000 1 example. AAAA"


def signed(query: dns.message.Message) -> dns.message.Message:
    """Signatures for who asks with DO; authentic in any case."""
    signatures = [SIGNATURE] if query.ednsflags & dns.flags.DO else []
    return reply(query, "www.example 60 A 192.0.2.1", *signatures, flags=dns.flags.AD)


async def test_do_and_plain_questions_have_entries_of_their_own(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", signed)
    for _ in range(3):
        assert len((await world.ask("www.example", want_dnssec=True)).answer) == 2
        assert len((await world.ask("www.example", use_edns=0)).answer) == 1
        assert len((await world.ask("www.example")).answer) == 1
    assert len(world.upstream.questions()) == 2


async def test_cd_has_an_entry_of_its_own_and_is_asked_with_cd(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", signed)
    plain, unchecked = question("www.example"), question("www.example")
    unchecked.flags |= dns.flags.CD
    for _ in range(3):
        assert not (await world.exchange(plain)).flags & dns.flags.CD
        assert (await world.exchange(unchecked)).flags & dns.flags.CD
    assert [bool(asked.flags & dns.flags.CD) for asked in world.upstream.asked] == [False, True]


async def test_do_is_copied_into_every_answer(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", signed)
    for name in ("www.example", "www.example", "localhost", "fails.example", "fails.example"):
        assert (await world.ask(name, want_dnssec=True)).ednsflags == dns.flags.DO
        assert (await world.ask(name, use_edns=0)).ednsflags == 0


async def test_ad_is_for_who_asked_for_it(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", signed)
    wants_ad = question("www.example")
    wants_ad.flags |= dns.flags.AD
    for _ in range(3):
        assert (await world.exchange(wants_ad)).flags & dns.flags.AD
        assert (await world.ask("www.example", want_dnssec=True)).flags & dns.flags.AD
        assert not (await world.ask("www.example")).flags & dns.flags.AD
        assert not (await world.ask("www.example", use_edns=0)).flags & dns.flags.AD


async def test_ad_is_never_made_up(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    wants_ad = question("www.example", want_dnssec=True)
    wants_ad.flags |= dns.flags.AD
    for _ in range(3):
        assert not (await world.exchange(wants_ad)).flags & dns.flags.AD


async def test_cookies_split_nothing_and_leave_no_ready_made_answers(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    for number in range(50):
        cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, number.to_bytes(8, "big"))
        answer = await world.ask("www.example", use_edns=0, options=[cookie])
        assert (len(answer.answer), answer.options) == (1, ())
    assert len(world.upstream.questions()) == 1
    assert len(world.worker.resolver.cache.variants) == 0


async def test_letter_cases_share_an_entry_and_a_bounded_number_of_ready_made_answers(world: World) -> None:
    await world.start()
    world.upstream.answer("wwwwwwww.example", "A", "wwwwwwww.example 60 A 192.0.2.1")
    for number in range(40):
        name = "".join("Ww"[number >> bit & 1] for bit in range(8)) + ".example"
        for _ in range(2):
            answer = await world.ask(name)
            assert answer.question[0].name.to_text() == name + "."
    assert len(world.upstream.questions()) == 1
    assert len(world.worker.resolver.cache.variants) <= 4


async def test_unknown_edns_flags_are_not_copied(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    for _ in range(3):
        assert (await world.ask("www.example", use_edns=0, ednsflags=0x4FFF)).ednsflags == 0
