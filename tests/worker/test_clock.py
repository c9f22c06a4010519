"""One timer for a core that wants to be looked at at many times."""

import asyncio

from proxy.worker.clock import Alarm, LoopClock
from tests.fakes import WAIT, ManualClock


class Rung:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.at: list[float] = []
        self.alarm = Alarm(self.clock, lambda: self.at.append(self.clock.now()))


def test_it_rings_at_the_earliest_time_asked_for():
    rung = Rung()
    for when in (1005.0, 1002.0, None, 1003.0):
        rung.alarm.ring_at(when)
    rung.clock.advance(10.0)
    assert rung.at == [1002.0]


def test_it_can_be_asked_again_once_it_rang():
    rung = Rung()
    rung.alarm.ring_at(1001.0)
    rung.clock.advance(1.0)
    rung.alarm.ring_at(1004.0)
    rung.clock.advance(10.0)
    assert rung.at == [1001.0, 1004.0]


def test_it_is_silent_when_it_was_taken_back():
    rung = Rung()
    rung.alarm.cancel()
    rung.alarm.ring_at(1001.0)
    rung.alarm.cancel()
    rung.clock.advance(10.0)
    assert rung.at == []


async def test_the_loops_clock_calls_back_for_times_to_come_and_past():
    clock = LoopClock(asyncio.get_running_loop())
    rung = asyncio.Event()
    clock.call_at(clock.now() + 3600, rung.set).cancel()
    clock.call_at(clock.now() - 1, rung.set)
    async with asyncio.timeout(WAIT):
        await rung.wait()
