"""The active probe, against scripted upstreams on loopback."""

import asyncio
import os
import socket

import pytest

from proxy.worker.probe import probe
from tests.worker.test_upstream import MESSAGE, answer_to, closed_port, udp_upstream

LONG = 60.0
SHORT = 0.01


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_returns_the_reply(host):
    with udp_upstream(host) as upstream:
        answering = asyncio.ensure_future(upstream.answer())
        reply = await probe(upstream.address, MESSAGE, LONG)
        await answering
        assert reply is not None
        assert reply[2:] == answer_to(MESSAGE)[2:]


async def test_it_asks_with_an_id_of_its_own():
    with udp_upstream() as upstream:
        probes = [asyncio.ensure_future(probe(upstream.address, MESSAGE, LONG)) for _ in range(5)]
        questions = [await upstream.question() for _ in probes]
        assert len({message[:2] for message, _ in questions}) > 1
        for message, client in questions:
            upstream.sock.sendto(answer_to(message), client)
        assert {reply[:2] for reply in await asyncio.gather(*probes)} == {m[:2] for m, _ in questions}


async def test_it_waits_on_after_replies_that_cannot_be_the_answer():
    with udp_upstream() as upstream:
        probing = asyncio.ensure_future(probe(upstream.address, MESSAGE, LONG))
        message, client = await upstream.question()
        right = answer_to(message)
        for reply in (bytes([right[0] ^ 1]) + right[1:], right[:11], message, right):
            upstream.sock.sendto(reply, client)
        assert await probing == right


async def test_it_gives_up_on_silence():
    with udp_upstream() as upstream:
        assert await probe(upstream.address, MESSAGE, SHORT) is None


@pytest.mark.parametrize("address", [closed_port(socket.SOCK_DGRAM), "[fe80::1%gone0]:53", "255.255.255.255:53"])
async def test_it_gives_up_on_what_cannot_be_reached(address):
    assert await probe(address, MESSAGE, SHORT) is None


async def test_it_leaves_nothing_open():
    with udp_upstream() as upstream:
        before = os.listdir("/proc/self/fd")
        await probe(upstream.address, MESSAGE, SHORT)
        cancelled = asyncio.ensure_future(probe(upstream.address, MESSAGE, LONG))
        await upstream.question()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        while os.listdir("/proc/self/fd") != before:  # noqa: ASYNC110 - a transport closes in a later turn
            await asyncio.sleep(0)
