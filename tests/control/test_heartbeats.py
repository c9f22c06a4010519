"""Who stands still, by the clock alone."""

from collections.abc import Callable

from proxy.control.heartbeats import HEARTBEAT_LIMIT, START_LIMIT, TICK, Heartbeats


def first_time(heartbeats: Heartbeats, start: float, condition: Callable[[], bool]) -> float:
    """When the condition first holds, with ticks on time."""
    now = start
    while not condition():
        now += TICK
        heartbeats.tick(now)
        assert now < start + 60
    return now


def test_a_reading_worker_is_replaced_after_two_seconds_without_a_beat() -> None:
    heartbeats = Heartbeats(100.0)
    stopped = first_time(heartbeats, 100.0, lambda: heartbeats.stands_still(100.0, reading=True))
    assert HEARTBEAT_LIMIT < stopped - 100.0 <= HEARTBEAT_LIMIT + TICK


def test_a_starting_worker_is_given_longer() -> None:
    heartbeats = Heartbeats(100.0)
    stopped = first_time(heartbeats, 100.0, lambda: heartbeats.stands_still(100.0, reading=False))
    assert START_LIMIT < stopped - 100.0 <= START_LIMIT + TICK


def test_a_beating_worker_is_never_replaced() -> None:
    heartbeats = Heartbeats(100.0)
    for step in range(100):
        now = 100.0 + step * TICK
        heartbeats.tick(now)
        assert not heartbeats.stands_still(now - TICK, reading=True)


def test_after_being_stopped_itself_control_gives_workers_their_time_anew() -> None:
    heartbeats = Heartbeats(100.0)
    heartbeats.tick(160.0)
    assert not heartbeats.stands_still(100.0, reading=True)
    stopped = first_time(heartbeats, 160.0, lambda: heartbeats.stands_still(100.0, reading=True))
    assert HEARTBEAT_LIMIT < stopped - 160.0 <= HEARTBEAT_LIMIT + TICK
