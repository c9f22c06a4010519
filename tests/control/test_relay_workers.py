"""Relay workers under supervision: what their deaths leave in the ledger, and what they are told."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from proxy.control.relay_state import ledger_of
from proxy.control.relay_workers import RelayWorkers
from proxy.control.sockets import ListenSockets, relay_transports
from proxy.core import ledger
from proxy.core.policy import RelayPolicy
from tests.control.eventually import eventually
from tests.control.test_workers import free_address

SLEEPER = (sys.executable, "-c", "import time; time.sleep(3600)")
"""A worker that does nothing but live."""


class Run:
    def __init__(self) -> None:
        self.address = free_address()
        self.sockets = ListenSockets("udp[].listen", relay_transports)
        self.workers = RelayWorkers(self.sockets, "json", SLEEPER)

    def configure(self, *names: str, count: int = 1) -> None:
        self.sockets.open([self.address], count)
        blocks = self.workers.blocks(names)
        relays = [RelayPolicy(name, blocks[name], "statsd", "name") for name in names]
        self.workers.configure(relays, {self.address: names[0]}, count)

    async def start(self, *names: str, count: int = 1) -> None:
        self.configure(*names, count=count)
        self.task = asyncio.ensure_future(self.workers.run())
        await eventually(lambda: all(slot.child for slot in self.workers.active))

    def counts(self, name: str, slot: int = 0) -> memoryview:
        return ledger.block(self.workers.slots[slot].counts, self.workers.blocks([name])[name])

    async def kill(self, slot: int = 0) -> None:
        child = self.workers.slots[slot].child
        assert child is not None
        restarts = self.workers.slots[slot].restarts
        child.kill()
        await eventually(lambda: self.workers.slots[slot].restarts > restarts)

    async def stop(self) -> None:
        self.workers.kill()
        await self.task
        self.workers.close()
        self.sockets.close()


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    run = Run()
    yield run
    await run.stop()


async def test_what_a_dead_worker_had_taken_and_folded_is_counted_as_lost_with_it(run: Run) -> None:
    await run.start("statsd")
    counts = run.counts("statsd")
    counts[ledger.RECEIVED], counts[ledger.FORWARDED], counts[ledger.FOLDED] = 100, 60, 30
    counts[ledger.DROPPED["malformed"]] = 3
    counts[ledger.LEVEL["fold_lines"]] = 20
    await run.kill()
    total = run.workers.ledger("statsd")
    assert (total[ledger.FOLDED], total[ledger.DROPPED["worker_died"]]) == (10, 27)
    assert total[ledger.LEVEL["fold_lines"]] == 0
    assert ledger.unaccounted(total) == 0


async def test_what_is_shown_balances_while_a_worker_has_lines_in_hand(run: Run) -> None:
    await run.start("statsd")
    counts = run.counts("statsd")
    counts[ledger.RECEIVED], counts[ledger.FORWARDED], counts[ledger.FOLDED] = 100, 60, 30
    counts[ledger.DROPPED["malformed"]] = 3
    shown = ledger_of(run.workers.ledger("statsd"))
    assert shown == {"received": 93, "forwarded": 60, "folded": 30, "dropped": {"malformed": 3}}


async def test_totals_are_those_of_all_workers_that_there_were(run: Run) -> None:
    await run.start("statsd", count=2)
    for slot in range(2):
        counts = run.counts("statsd", slot)
        counts[ledger.RECEIVED] = counts[ledger.FORWARDED] = 5
    await run.kill(1)
    run.configure("statsd", count=1)
    assert run.workers.ledger("statsd")[ledger.RECEIVED] == 10


async def test_a_relay_keeps_its_block_over_reloads(run: Run) -> None:
    await run.start("one", "two")
    run.counts("two")[ledger.RECEIVED] = 7
    run.configure("two")
    assert run.workers.ledger("two")[ledger.RECEIVED] == 7


async def test_more_names_than_blocks_cost_the_counts_of_one_that_is_gone(run: Run) -> None:
    await run.start("kept", *(f"old-{number}" for number in range(ledger.BLOCKS - 1)))
    run.counts("kept")[ledger.RECEIVED] = 7
    run.counts("old-0")[ledger.RECEIVED] = 9
    run.configure("kept")
    run.configure("kept", "new")
    assert run.workers.ledger("new")[ledger.RECEIVED] == 0
    assert run.workers.ledger("kept")[ledger.RECEIVED] == 7


async def test_a_full_configuration_may_name_every_relay_anew_again_and_again(run: Run) -> None:
    names = [[f"{turn}-{number}" for number in range(ledger.MOST_RELAYS)] for turn in range(4)]
    await run.start(*names[0])
    for turn in names[1:]:
        run.configure(*turn)
        assert len({run.workers.blocks(turn)[name] for name in turn}) == ledger.MOST_RELAYS


async def test_a_relay_that_comes_back_keeps_its_block_from_one_that_is_new(run: Run) -> None:
    await run.start("kept", *(f"old-{number}" for number in range(ledger.BLOCKS - 1)))
    run.configure("kept")
    blocks = run.workers.blocks(["kept", "old-0", "new"])
    assert len({blocks[name] for name in ("kept", "old-0", "new")}) == 3
