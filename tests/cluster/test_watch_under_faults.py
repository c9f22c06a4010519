"""Changes and faults in random order: whatever came between, the end is what the server has."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.api_server import endpoint_slice
from tests.cluster.fake_api_server import FakeApiServer, answer, hang, refuse, stream
from tests.cluster.following import QUICK, following

TIMING = replace(QUICK, answer=0.2, first_word=0.2, silence=0.5, first_backoff=0.002, most_backoff=0.02)
ANSWERS = (
    refuse(410, "Expired"),
    refuse(429, "TooManyRequests", retry_after="0"),
    refuse(500, "InternalError"),
    refuse(401, "Unauthorized"),
    answer(b"<html></html>"),
    answer(b"{}"),
    stream(),
    stream(b'{"type": "ADDED", "object": {"ki', cut=True),
    stream(b'{"type": "ERROR", "object": {"kind": "Status", "code": 410}}\n'),
    stream(b'{"type": "ERROR", "object": {"kind": "Status", "code": 500}}\n'),
    hang,
)
LINES = (b"garbage\n", b'{"type": "ADDED"}\n', b'{"type": "ADDED", "object": []}\n', b'{"type": "MODI')


class Mishaps:
    """Does one thing after the other to a server, drawn from a seed."""

    def __init__(self, server: FakeApiServer, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._number = 0

    async def happen(self) -> None:
        server, draw = self._server, self._random
        match draw.randrange(9):
            case 0:
                server.end_watches()
            case 1:
                await server.compact()
            case 2:
                await server.stop()
                await self._change()
                await server.start()
            case 3:
                server.answer_next(draw.choice(ANSWERS), times=draw.randrange(1, 4))
                server.end_watches()
            case 4:
                server.say(draw.choice(LINES))
            case 5:
                await server.rotate_token()
            case 6:
                server.bookmark()
            case _:
                await self._change()

    async def _change(self) -> None:
        name = f"statsd-{self._random.randrange(4)}"
        kept = {body["metadata"]["name"] for body in self._server.slices("monitoring", frozenset({"statsd"}))}
        if name in kept and len(kept) > 1 and self._random.random() < 0.4:
            await self._server.delete("EndpointSlice", "monitoring", name)
        else:
            self._number += 1
            await self._server.put(endpoint_slice(name, [f"10.1.{self._number // 250}.{self._number % 250 + 1}"]))


@pytest.mark.parametrize("seed", range(8))
async def test_it_ends_with_what_the_server_has_and_is_never_empty_before(tmp_path: Path, seed: int) -> None:
    server = FakeApiServer(tmp_path)
    await server.start()
    await server.put(endpoint_slice("statsd-0", ["10.9.0.1"]))
    mishaps = Mishaps(server, seed)
    async with following(server.access, timing=TIMING) as follower:
        await follower.synced()
        for _ in range(60):
            asked = len(server.seen)
            await mishaps.happen()
            if seed % 2:  # Half of the runs leave time to meet each mishap.
                await follower.until(lambda asked=asked: len(server.seen) > asked or server.watches)
        expected = {
            address
            for body in server.slices("monitoring", frozenset({"statsd"}))
            for endpoint in body["endpoints"]
            for address in endpoint["addresses"]
        }
        await follower.knows(*expected)
        assert all(follower.history)
    await server.stop()
