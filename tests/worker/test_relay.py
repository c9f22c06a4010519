"""Several relays in one worker: which listener feeds which, while the configuration changes."""

import asyncio
import resource
from collections.abc import AsyncIterator

import pytest

from proxy.core import ledger
from proxy.core.policy import RelayPolicy
from proxy.worker.channel import Listener
from proxy.worker.relay import RelayWorker
from tests.fakes import ManualClock
from tests.worker.relaying import PROBE, Peer, bound

FIRST = Listener(1, "", "udp", "first")
SECOND = Listener(2, "", "udp", "second")


class World:
    def __init__(self) -> None:
        self.memory = memoryview(bytearray(ledger.SLOTS * 8)).cast("Q")
        self.worker = RelayWorker(asyncio.get_running_loop(), ManualClock(), self.memory)
        self.endpoint = Peer(bound("127.0.0.1"))
        self.sockets = {listener.id: bound("127.0.0.1") for listener in (FIRST, SECOND)}
        self.clients = {number: Peer(bound("127.0.0.1")) for number in self.sockets}
        for number, client in self.clients.items():
            client.sock.connect(self.sockets[number].getsockname())

    def policy(self, name: str, block: int, mode: str = "statsd") -> RelayPolicy:
        spread = "name" if mode == "statsd" else "source"
        return RelayPolicy(name, block, mode, spread, endpoints=(self.endpoint.address,), probe=PROBE)

    def block(self, number: int) -> dict[str, int]:
        counts = ledger.block(self.memory, number)
        return {name: counts[at] for name, at in {"received": 0, "forwarded": 1, "folded": 2}.items() if counts[at]}

    async def send(self, number: int, datagram: bytes) -> None:
        """To one of the listeners, and wait until it was read."""
        client = self.clients[number]
        client.sock.send(datagram)
        client.sock.send(PROBE.encode())
        await client.received(len(client.got) + 1)

    def close(self) -> None:
        self.worker.close()
        for sock in self.sockets.values():
            sock.close()
        for peer in (self.endpoint, *self.clients.values()):
            peer.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    world.close()


async def test_each_relay_has_its_listeners_and_its_part_of_the_ledger(world: World):
    world.worker.configure([world.policy("first", 0), world.policy("second", 5, "datagram")], [])
    world.worker.listen(FIRST, world.sockets[1])
    world.worker.listen(SECOND, world.sockets[2])
    assert world.worker.listening == [1, 2]
    await world.send(1, b"n:1|c\nm:1|c")
    await world.send(2, b"opaque")
    assert world.block(0) == {"received": 2, "forwarded": 2}
    assert world.block(5) == {"received": 1, "forwarded": 1}
    assert [state.name for state in world.worker.states()] == ["first", "second"]


async def test_a_listener_follows_when_its_relay_has_another_name(world: World):
    world.worker.configure([world.policy("first", 0)], [])
    world.worker.listen(FIRST, world.sockets[1])
    await world.send(1, b"n:1|c")
    world.worker.configure([world.policy("second", 1)], [Listener(1, "", "udp", "second")])
    await world.send(1, b"n:1|c")
    assert world.block(0) == world.block(1) == {"received": 1, "forwarded": 1}


async def test_a_listener_follows_when_its_relay_has_another_mode(world: World):
    world.worker.configure([world.policy("first", 0)], [])
    world.worker.listen(FIRST, world.sockets[1])
    await world.send(1, b"n:1|c\r\nm:1|c")
    world.worker.configure([world.policy("first", 0, "datagram")], [FIRST])
    await world.send(1, b"n:1|c\r\nm:1|c")
    world.endpoint.read()
    assert b"n:1|c\r\nm:1|c" in world.endpoint.got
    assert world.block(0) == {"received": 3, "forwarded": 3}


async def test_what_waits_at_a_listener_that_goes_is_still_relayed(world: World):
    world.worker.configure([world.policy("first", 0), world.policy("second", 1)], [])
    world.worker.listen(FIRST, world.sockets[1])
    world.worker.listen(SECOND, world.sockets[2])
    for number in (1, 2):
        world.clients[number].sock.send(b"n%d:1|c" % number)
    world.worker.configure([world.policy("first", 0)], [])
    assert world.worker.listening == []
    assert world.block(0) == world.block(1) == {"received": 1, "forwarded": 1}
    await world.endpoint.received(2)
    assert sorted(world.endpoint.got) == [b"n1:1|c", b"n2:1|c"]


async def test_sessions_leave_half_of_the_descriptors_to_others(world: World):
    assert world.worker._budget.left == resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
