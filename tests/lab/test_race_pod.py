"""Two processes that ask at one moment, over loopback; whether their halves meet in a kernel is a scenario's part."""

import os
import threading
from pathlib import Path

import pytest

from proxy.lab.race_pod import Start
from proxy.lab.traffic import Traffic
from tests import peers
from tests.lab.inside import Here

needs_two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a race takes two CPUs")


def test_nobody_goes_on_before_the_other_is_there() -> None:
    start = Start(2)
    both = [
        threading.Thread(target=lambda side=side: [start.together(side, turn) for turn in range(2)])
        for side in (0, 1)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    first = [start.sent_ns(0, side) for side in (0, 1)]
    second = [start.sent_ns(1, side) for side in (0, 1)]
    assert 0 < max(first) <= min(second) or 0 < min(first) < max(second)
    assert all(before < after for before, after in zip(first, second, strict=True))


def test_who_waits_for_nobody_is_told_so() -> None:
    with pytest.raises(TimeoutError, match="the other process"):
        Start(1).together(0, 0, limit=0)


@needs_two_cpus
def test_each_half_has_a_row_with_its_answer(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{peers.free_port('0.0.0.0')}"
    with Traffic(tmp_path) as traffic:
        server = traffic.dns_server(Here("dns"), listen, addresses=2)
        racing = traffic.race(Here("client"), listen, name="race.example.com", rounds=3)
        racing.start()
        racing.wait(30)
        server.finish()
        halves = racing.questions()
        assert [one.kind for one in halves] == ["A", "AAAA"] * 3
        assert len({one.number for one in halves}) == 6
        assert all((one.rcode, one.answers) == (0, 2) and one.answered_ns > one.at_ns > 0 for one in halves)
        assert sorted(kind for _, kind, _ in server.asked()) == ["A"] * 3 + ["AAAA"] * 3
        ports = {line.split()[-1] for line in server.log.read_text().splitlines()}
        assert ports == {"udp"}


@needs_two_cpus
def test_a_half_that_nobody_answers_is_lost(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{peers.free_port('0.0.0.0')}"
    with Traffic(tmp_path) as traffic:
        traffic.dns_server(Here("dns"), listen).silent()
        racing = traffic.race(Here("client"), listen, name="race.example.com", rounds=2)
        racing.start()
        racing.wait(30)
        assert [(one.answered_ns, one.rcode) for one in racing.questions()] == [(0, -1)] * 4
