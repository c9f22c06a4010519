"""P11: a client's cookie is ignored, never answered, never forwarded (RFC 7873 5.2, RFC 9018)."""

import dns.message
import pytest

from tests import wire
from tests.fakes import World, reply

WWW = "www.example 60 A 192.0.2.1"


def cookie(number: int, size: int = 8) -> bytes:
    """An OPT with a cookie of its own."""
    return wire.opt(1232, wire.option(wire.COOKIE, number.to_bytes(size, "big")))


async def test_a_hundred_cookies_are_one_question_and_fill_nothing(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    await world.exchange_wire(wire.query(cookie(0)))
    world.worker.write_gauges()
    cache = world.worker.resolver.cache
    size = cache.bytes
    for number in range(100):
        answer = await world.exchange_wire(wire.query(cookie(number)))
        assert answer.endswith(wire.opt(1232))
        assert wire.counts_of(answer) == (1, 1, 0, 1)
    assert (len(world.upstream.asked), len(cache.variants), cache.bytes) == (1, 0, size)


async def test_spellings_do_not_fill_the_cache_either(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    letters = "wwwexample"
    sizes = []
    for number in range(100):
        spelled = "".join(c.upper() if number >> i & 1 else c for i, c in enumerate(letters))
        await world.exchange_wire(wire.query(name=f"{spelled[:3]}.{spelled[3:]}"))
        sizes.append(world.worker.resolver.cache.bytes)
    assert len(world.upstream.asked) == 1
    assert sizes[10:] == [sizes[-1]] * 90


async def test_no_cookie_goes_upstream_in_any_try(world: World) -> None:
    await world.start(upstreams=2)
    for upstream in world.upstreams:
        upstream.answer("www.example", "A", rcode="SERVFAIL")
    await world.exchange_wire(wire.query(cookie(1)))
    assert [asked.options for upstream in world.upstreams for asked in upstream.asked] == [()] * 2


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 40, 41, 200])
async def test_the_length_of_a_cookie_does_not_matter(world: World, size: int) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    for _ in range(2):
        answer = await world.exchange_wire(wire.query(cookie(1, size)))
        assert (wire.rcode_of(answer), wire.counts_of(answer)[1]) == (0, 1)


async def test_an_upstream_s_cookie_reaches_nobody(world: World) -> None:
    await world.start()

    def with_cookie(query: dns.message.Message) -> bytes:
        wired = bytearray(wire.answering(query.to_wire(), wire.record(b"\xc0\x0c", 1, 60, b"\1\2\3\4")))
        wired[11] = 1
        return bytes(wired) + cookie(0xAAAAAAAAAAAA, 24)

    world.upstream.on_any(with_cookie)
    for additional in (cookie(1), cookie(2), wire.opt(), wire.opt()):
        assert b"\xaa\xaa" not in await world.exchange_wire(wire.query(additional))
    await world.exchange_wire(wire.query(name="other.example"))
    assert [asked.options for asked in world.upstream.asked] == [(), ()]


@pytest.mark.usefixtures("in_order")
async def test_badcookie_from_an_upstream_is_a_failed_try(world: World) -> None:
    await world.start(upstreams=2)

    def badcookie(query: dns.message.Message) -> bytes:
        wired = bytearray(wire.answering(query.to_wire(), flags=wire.QR | wire.RA | 7))
        wired[11] = 1
        return bytes(wired) + b"\0\0\x29\4\xd0\1\0\0\0\0\0"

    world.upstreams[0].on_any(badcookie)
    world.upstreams[1].answer("www.example", "A", WWW)
    assert (await world.ask("www.example")).answer


async def test_a_yxrrset_is_not_what_badcookie_becomes(world: World) -> None:
    await world.start()
    world.upstream.on_any(lambda query: reply(query, rcode="BADCOOKIE"))
    assert (await world.ask("www.example", use_edns=0)).rcode() == 2
