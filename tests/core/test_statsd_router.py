from collections.abc import Sequence
from dataclasses import replace

import pytest

from proxy.core import ledger
from proxy.core.batches import Outgoing
from proxy.core.ledger import COUNTED, DROPPED, DROPS, FOLDED, FORWARDED, LEVEL, RECEIVED
from proxy.core.policy import RelayPolicy
from proxy.core.statsd_router import (
    DEFAULT_LIMIT,
    MOST_CARRIED,
    MOST_MALFORMED,
    MOST_NAMES,
    RELEASE_INTERVAL,
    RELEASE_LINES,
    StatsdRouter,
)

NOW = 1000.0
A, B, C = "192.0.2.1:8125", "192.0.2.2:8125", "192.0.2.3:8125"
NAMES = [f"metric{number}" for number in range(60)]


class Relaying(StatsdRouter):
    """A router with a ledger of its own, that takes and gives text."""

    def __init__(self, *endpoints: str, spread: str = "name", **settings: int | float) -> None:
        self.counts = memoryview(bytearray(8 * ledger.BLOCK)).cast("Q")
        self.policy = RelayPolicy("statsd", 0, "statsd", spread, endpoints, **settings)  # type: ignore[arg-type]
        super().__init__(self.policy, self.counts)

    def get(self, *datagrams: str, source: str = "198.51.100.1", now: float = NOW) -> None:
        for datagram in datagrams:
            self.receive(datagram.encode(), source, now)

    def send(self) -> list[tuple[str, str]]:
        """Take all and send it: endpoint and line of each."""
        taken = self.take()
        for outgoing in taken:
            self.sent(outgoing)
        return lines_of(taken)

    def release(self, now: float) -> list[tuple[str, str]]:
        self.expire(now)
        return self.send()

    def to(self, *datagrams: str, source: str = "198.51.100.1") -> str:
        self.get(*datagrams, source=source)
        (endpoint,) = {endpoint for endpoint, _ in self.send()}
        return endpoint

    def fail(self, *endpoints: str, now: float = NOW) -> list[tuple[str, str]]:
        """Take all; what goes to these endpoints is not sent. What was."""
        taken = self.take()
        for outgoing in taken:
            if outgoing.endpoint in endpoints:
                self.unsent(outgoing, now)
            else:
                self.sent(outgoing)
        return lines_of([outgoing for outgoing in taken if outgoing.endpoint not in endpoints])

    def ledger(self) -> dict[str, int]:
        assert ledger.unaccounted(self.counts) == 0
        named = {"received": RECEIVED, "forwarded": FORWARDED, "folded": FOLDED, **{d: DROPPED[d] for d in DROPS}}
        return {name: count for name, offset in named.items() if (count := self.counts[offset])}


def lines_of(taken: Sequence[Outgoing]) -> list[tuple[str, str]]:
    return [(each.endpoint, line) for each in taken for line in each.payload.decode().split("\n")]


# Lines


@pytest.mark.parametrize(
    "datagram",
    ["a:1|c", "a:1|c\n", "a:1|c\r\n", "\n\na:1|c\n\n", "a:1|c|@0.1|#x:y|c:z", "_e{1,1}:t|x", "_sc|n|0", "a,b=c:1|zz"],
)
def test_a_line_passes_byte_for_byte_however_often_it_comes(datagram: str) -> None:
    router = Relaying(A)
    for _ in range(3):
        router.get(datagram)
        assert router.send() == [(A, datagram.strip())]
    assert router.ledger() == {"received": 3, "forwarded": 3}


def test_lines_of_many_datagrams_leave_in_few() -> None:
    router = Relaying(A, B)
    router.get(*[f"{name}:1|c\n{name}:2|g" for name in NAMES])
    taken = router.take()
    assert len(taken) == 2
    assert sum(each.lines for each in taken) == 120
    assert len(lines_of(taken)) == 120
    assert router.take() == []


def test_nothing_comes_of_empty_lines() -> None:
    router = Relaying(A)
    router.get("", "\n", "\r\n", "\n\n")
    assert router.send() == []
    assert router.ledger() == {}


def test_garbage_is_dropped_alone_and_a_sample_is_kept() -> None:
    router = Relaying(A)
    router.receive(b"a:1|c\n\x00\xff\x1b[31m\nb:1|c\nno type:1\n" + b"x" * 500, "198.51.100.1", NOW)
    assert router.send() == [(A, "a:1|c"), (A, "b:1|c")]
    assert router.ledger() == {"received": 5, "forwarded": 2, "malformed": 3}
    assert router.malformed() == ["\\x00\\xff\\x1b[31m", "no type:1", "x" * 200 + "…"]
    router.get(*[f"garbage {number}" for number in range(50)])
    assert router.malformed() == [f"garbage {number}" for number in range(50 - MOST_MALFORMED, 50)]


@pytest.mark.parametrize("spread", ["name", "name+tags", "source", "packet", "all"])
def test_garbage_stays_garbage_beside_names_and_types_that_are_known(spread: str) -> None:
    router = Relaying(A, spread=spread)
    router.get("a:1|c\nb:1|c|#x")
    router.send()
    garbage = ["a:|c", ":1|c", "a", "a:1", "a:1|", "c", "b|c:1|c|#x", "a\0:1|c", "b|c|#x", "a|c:1|c"]
    router.get(*garbage)
    assert router.send() == []
    assert router.ledger() == {"received": 12, "forwarded": 2, "malformed": 10}


def test_what_it_remembers_is_bounded() -> None:
    router = Relaying(A)
    for number in range(0, MOST_NAMES + 5032, 100):
        router.get("\n".join(f"name{number + n}:1|c|#tag:{number + n}" for n in range(100)))
        router.send()
    assert router.counts[FORWARDED] == MOST_NAMES + 5032
    assert len(router._slots) <= MOST_NAMES
    assert len(router._passing) <= MOST_NAMES


# Spread


def test_a_name_keeps_its_endpoint_whatever_its_type_and_tags() -> None:
    router = Relaying(A, B, C)
    homes = {name: router.to(f"{name}:1|c") for name in NAMES}
    assert set(homes.values()) == {A, B, C}
    for name, home in homes.items():
        assert router.to(f"{name}:1|g|#x", f"{name},x=y:1|c", f"{name}:3|ms|@0.1", source="198.51.100.9") == home


def test_with_tags_a_name_may_have_many() -> None:
    router = Relaying(A, B, C, spread="name+tags")
    homes = [router.to(f"a:1|c|#x:{number},y") for number in range(60)]
    assert set(homes) == {A, B, C}
    assert [router.to(f"a:7|g|@0.5|#y,x:{number}") for number in range(60)] == homes


def test_a_source_keeps_its_endpoint() -> None:
    router = Relaying(A, B, C, spread="source")
    sources = [f"198.51.100.{number}" for number in range(60)]
    homes = [router.to(*[f"{name}:1|c" for name in NAMES[:5]], source=source) for source in sources]
    assert set(homes) == {A, B, C}
    assert [router.to("a:1|c\n_sc|n|0\nb:1|kv", source=source) for source in sources] == homes


def test_packets_take_turns_and_keep_their_lines_together() -> None:
    router = Relaying(A, B, C, spread="packet")
    homes = [router.to("\n".join(f"{name}:1|c" for name in NAMES)) for _ in range(6)]
    assert sorted(homes) == sorted([A, B, C] * 2)
    assert len(set(homes[:3])) == 3


def test_a_copy_goes_to_all_and_counts_once() -> None:
    router = Relaying(A, B, C, spread="all")
    router.get("a:1|c\nb:1|c")
    assert sorted(router.send()) == sorted((each, line) for each in (A, B, C) for line in ("a:1|c", "b:1|c"))
    assert router.ledger() == {"received": 2, "forwarded": 2}


def test_a_copy_counts_when_one_arrives_and_is_folded_when_none_does() -> None:
    router = Relaying(A, B, spread="all")
    router.get("a:1|c")
    router.fail(A)
    assert router.ledger() == {"received": 1, "forwarded": 1}
    router.get("a:2|c")
    router.fail(A, B)
    assert router.ledger() == {"received": 2, "forwarded": 1, "folded": 1}
    assert sorted(router.release(NOW)) == [(A, "a:2|c"), (B, "a:2|c")]
    assert router.counts[COUNTED["released"]] == 1


def test_a_copy_that_only_some_paths_take_goes_to_those() -> None:
    router = Relaying(A, B, spread="all")
    router.set_limit(A, 20)
    router.set_limit(B, 40)
    router.get("a:1|c\n" + "b" * 30 + ":1|c\n" + "c" * 50 + ":1|c")
    assert sorted(router.send()) == [(A, "a:1|c"), (B, "a:1|c"), (B, "b" * 30 + ":1|c")]
    assert router.ledger() == {"received": 3, "forwarded": 2, "oversize": 1}


def test_only_names_of_an_endpoint_that_is_gone_move() -> None:
    router = Relaying(A, B, C)
    homes = {name: router.to(f"{name}:1|c") for name in NAMES}
    router.set_usable([A, C])
    moved = {name: router.to(f"{name}:1|c") for name in NAMES}
    assert all(moved[name] == home for name, home in homes.items() if home != B)
    router.set_usable([A, B, C])
    assert {name: router.to(f"{name}:1|c") for name in NAMES} == homes


# Sizes


def test_datagrams_are_filled_up_to_the_path_of_each_endpoint() -> None:
    router = Relaying(A, B)
    router.set_limit(A, 200)
    router.get(*[f"{name}:1|c" for name in NAMES])
    taken = router.take()
    assert sum(each.lines for each in taken) == 60
    to_a = [len(each.payload) for each in taken if each.endpoint == A]
    assert len(to_a) > 1
    assert all(150 < size <= 200 for size in to_a[:-1])
    assert [each for each in taken if each.endpoint == B and len(each.payload) <= DEFAULT_LIMIT]


def test_a_line_that_no_datagram_holds_is_dropped() -> None:
    router = Relaying(A)
    router.set_limit(A, 100)
    long = "a" * 97 + ":1|c"
    router.get(f"b:1|c\n{long}\n{long[1:]}\nc:1|c")
    assert router.send() == [(A, "b:1|c"), (A, long[1:]), (A, "c:1|c")]
    assert router.ledger() == {"received": 4, "forwarded": 3, "oversize": 1}


def test_a_limit_is_known_before_its_endpoint_is_usable_and_stays_while_the_policy_has_it() -> None:
    router = Relaying(A, B)
    router.set_usable([A])
    router.set_limit(B, 10)
    router.set_usable([B])
    router.get("a.long.name:1|c")
    assert router.send() == []
    router.configure(replace(router.policy, endpoints=(A,)))
    router.configure(replace(router.policy, endpoints=(B,)))
    router.get("a.long.name:1|c")
    assert router.send() == [(B, "a.long.name:1|c")]


# Sending


def test_what_is_not_sent_goes_to_the_endpoint_that_is_next() -> None:
    router = Relaying(A, B, C)
    router.get(*[f"{name}:1|c" for name in NAMES])
    direct = router.fail(A)
    assert router.deadline() == NOW
    carried = router.send()
    assert len(direct) + len(carried) == 60
    assert {endpoint for endpoint, _ in carried} == {B, C}
    router.set_usable([B, C])
    for endpoint, line in carried:
        assert router.to(line) == endpoint
    assert "folded" not in router.ledger()


def test_what_is_not_sent_is_folded_when_there_is_no_other_and_sent_later() -> None:
    router = Relaying(A)
    router.get("a:1|c\na:2|c|@0.5\n_sc|n|0")
    assert router.fail(A) == []
    assert router.ledger() == {"received": 3, "folded": 3}
    assert router.counts[LEVEL["fold_lines"]] == 3
    assert router.release(router.deadline() or 0) == [(A, "a:1|c"), (A, "a:2|c|@0.5"), (A, "_sc|n|0")]
    assert router.ledger() == {"received": 3, "folded": 3}
    assert router.counts[LEVEL["fold_lines"]] == router.counts[LEVEL["fold_bytes"]] == 0
    assert router.counts[COUNTED["released"]] == 3


def test_what_a_path_no_longer_takes_goes_the_same_way_in_smaller_datagrams() -> None:
    router = Relaying(A)
    router.get(*[f"{name}:1|c" for name in NAMES])
    (outgoing,) = router.take()
    router.set_limit(A, 100)
    router.unsent(outgoing, NOW)
    taken = router.take()
    assert len(taken) > 5
    assert all(len(each.payload) <= 100 for each in taken)
    assert lines_of(taken) == [(A, f"{name}:1|c") for name in NAMES]


def test_a_bounded_number_of_lines_waits_for_another_endpoint() -> None:
    router = Relaying(A, B)
    datagram = "\n".join(f"{name}:1|c" for name in NAMES)
    for _ in range(MOST_CARRIED // 60 + 20):
        router.get(datagram)
        router.fail(A, B)
    assert router.counts[FOLDED] > MOST_CARRIED
    router.send()
    assert router.counts[RECEIVED] == router.counts[FOLDED] + router.counts[FORWARDED]
    assert router.counts[FORWARDED] <= MOST_CARRIED


def test_what_waits_for_an_endpoint_that_goes_is_placed_again_or_folded() -> None:
    router = Relaying(A, B)
    router.get(*[f"{name}:1|c" for name in NAMES])
    router.set_usable([B])
    assert sorted(router.send()) == sorted((B, f"{name}:1|c") for name in NAMES)
    router.get(*[f"{name}:1|c" for name in NAMES])
    router.set_usable([])
    assert router.take() == []
    assert router.ledger() == {"received": 120, "forwarded": 60, "folded": 60}


# Folding


def test_without_an_endpoint_lines_are_folded_and_shown() -> None:
    router = Relaying()
    router.get("a:1|c\na:2|c")
    router.get("b:5|g", "nonsense", now=NOW + 1)
    assert router.take() == []
    assert router.ledger() == {"received": 4, "folded": 3, "malformed": 1}
    assert [(each.name, each.value, each.lines) for each in router.folded(10)] == [("a", "3", 2), ("b", "5", 1)]
    assert router.counts[LEVEL["fold_lines"]] == 3
    assert router.counts[LEVEL["fold_bytes"]] > 0


def test_with_no_room_to_fold_lines_are_dropped_for_want_of_an_endpoint() -> None:
    router = Relaying(fold_bytes=0)
    router.get("a:1|c\nb:5|g")
    assert router.take() == []
    assert router.ledger() == {"received": 2, "no_endpoint": 2}


def test_the_fold_is_released_at_a_steady_pace() -> None:
    router = Relaying()
    router.get(*[f"m{number}:1|c\nm{number}:1|c" for number in range(RELEASE_LINES * 3 - 10)])
    router.set_usable([])
    router.configure(replace(router.policy, endpoints=(A, B)))
    released = []
    now = NOW
    while (due := router.deadline()) is not None:
        assert due >= now
        now = due
        released.append(len(router.release(now)))
        assert router.release(now + RELEASE_INTERVAL / 2) == []
    assert released == [RELEASE_LINES, RELEASE_LINES, RELEASE_LINES - 10]
    assert now == pytest.approx(NOW + 2 * RELEASE_INTERVAL)
    assert router.counts[COUNTED["released"]] == RELEASE_LINES * 3 - 10
    assert router.ledger() == {"received": 1180, "folded": 1180}


def test_what_is_released_goes_where_its_name_lives() -> None:
    router = Relaying(A, B, C)
    homes = {f"{name}:1|c": router.to(f"{name}:1|c") for name in NAMES}
    router.set_usable([])
    router.get(*homes)
    router.set_usable([A, B, C])
    assert {line: endpoint for endpoint, line in router.release(NOW)} == homes


def test_a_released_gauge_never_comes_after_a_newer_one() -> None:
    router = Relaying(A)
    router.get("g:0|g\nc:1|c")
    router.send()
    router.set_usable([])
    router.get("g:1|g")
    router.set_usable([A])
    router.get("g:2|g\ng:1|c\nother:7|g\ng:3|g")
    assert router.send() == [(A, "g:1|c"), (A, "other:7|g")]
    assert router.release(NOW) == [(A, "g:3|g")]
    router.get("g:4|g")
    assert router.send() == [(A, "g:4|g")]
    assert router.ledger() == {"received": 8, "forwarded": 5, "folded": 3}
    assert b"g" in router._passing


def test_nor_does_one_that_is_folded_while_its_endpoint_stays() -> None:
    router = Relaying(A)
    router.get("g:0|g")
    router.send()
    router.get("g:1|g")
    router.fail(A)
    router.get("g:2|g")
    assert router.send() == []
    assert router.release(NOW + 1) == [(A, "g:2|g")]


def test_what_is_about_to_be_released_is_folded_again_when_the_last_endpoint_goes() -> None:
    router = Relaying()
    router.get("g:5|g\nc:1|c")
    router.configure(replace(router.policy, endpoints=(A,)))
    router.expire(NOW)
    router.set_usable([])
    router.get("g:-1|g\nc:2|c")
    assert router.take() == []
    router.set_usable([A])
    assert router.release(NOW + 1) == [(A, "g:4|g"), (A, "c:3|c")]
    assert router.ledger() == {"received": 4, "folded": 4}


def test_what_is_about_to_be_released_is_folded_once_when_its_endpoint_goes() -> None:
    router = Relaying(A, B)
    homes = {name: router.to(f"{name}:1|c") for name in NAMES}
    gone = [name for name, home in homes.items() if home == A]
    router.set_usable([])
    router.get(*[f"{name}:1|c" for name in gone])
    router.set_usable([A, B])
    assert router.to(*[f"{name}:1|g" for name in gone]) == A
    router.expire(NOW)
    router.get(*[f"{name}:2|c" for name in gone])
    router.set_usable([B])
    assert router.send() == [(B, f"{name}:2|c") for name in gone]
    assert router.release(NOW + 1) == [(B, f"{name}:1|c") for name in gone]
    assert router.counts[LEVEL["fold_lines"]] == router.counts[LEVEL["fold_bytes"]] == 0


def test_what_is_released_goes_ahead_of_what_came_in_the_same_wake_up() -> None:
    router = Relaying()
    router.get("a:1|c")
    router.configure(replace(router.policy, endpoints=(A,)))
    router.get("a:2|c")
    assert router.release(NOW) == [(A, "a:1|c"), (A, "a:2|c")]
    assert router.ledger() == {"received": 2, "forwarded": 1, "folded": 1}


def test_a_gauge_below_zero_arrives_as_two_lines_in_one_datagram() -> None:
    router = Relaying()
    router.get("g:5|g", "g:-8|g")
    router.configure(replace(router.policy, endpoints=(A,)))
    router.expire(NOW)
    (outgoing,) = router.take()
    assert outgoing.payload == b"g:0|g\ng:-3|g"
    router.unsent(outgoing, NOW)
    router.get("g:+1|g")
    assert router.release(NOW + 1) == [(A, "g:0|g"), (A, "g:-2|g")]


def test_what_is_released_and_not_sent_is_folded_still() -> None:
    router = Relaying()
    router.get("a:1|c", "a:2|c", "t:1|ms")
    router.configure(replace(router.policy, endpoints=(A, B)))
    router.expire(NOW)
    assert router.fail(A, B) == []
    assert router.ledger() == {"received": 3, "folded": 3}
    assert router.counts[LEVEL["fold_lines"]] == 3
    assert [line for _, line in router.release(NOW + 1)] == ["a:3|c", "t:1|ms"]
    assert router.counts[LEVEL["fold_lines"]] == 0


def test_what_is_released_and_too_long_is_dropped() -> None:
    router = Relaying()
    router.get("a" * 100 + ":1|c", "b:1|c")
    router.configure(replace(router.policy, endpoints=(A,)))
    router.set_limit(A, 50)
    assert router.release(NOW) == [(A, "b:1|c")]
    assert router.ledger() == {"received": 2, "folded": 1, "oversize": 1}
    assert router.counts[LEVEL["fold_lines"]] == 0


def test_what_is_folded_too_long_is_evicted() -> None:
    router = Relaying(fold_age=60)
    router.get("a:1|c", now=NOW)
    assert router.deadline() == NOW + 60
    router.expire(NOW + 60)
    assert router.ledger() == {"received": 1, "evicted_counter": 1}
    assert router.deadline() is None


# Policies


def test_new_endpoints_are_usable_at_once_and_ejected_ones_stay_ejected() -> None:
    router = Relaying(A, B)
    router.set_usable([A])
    router.configure(replace(router.policy, endpoints=(A, B, C)))
    router.get(*[f"{name}:1|c" for name in NAMES])
    assert {endpoint for endpoint, _ in router.send()} == {A, C}


def test_the_fold_stays_when_endpoints_and_spread_change() -> None:
    router = Relaying()
    router.get("a:1|c")
    for spread in ("source", "all", "packet", "name+tags"):
        router.configure(replace(router.policy, spread=spread))
        router.get("a:1|c")
    router.configure(replace(router.policy, spread="name", endpoints=(A,)))
    assert router.release(NOW) == [(A, "a:5|c")]


def test_another_spread_holds_from_the_next_line_on() -> None:
    router = Relaying(A, B, C)
    router.get(*[f"{name}:1|c" for name in NAMES])
    router.send()
    router.configure(replace(router.policy, spread="all"))
    router.get("a:1|c")
    assert sorted(router.send()) == [(A, "a:1|c"), (B, "a:1|c"), (C, "a:1|c")]


def test_a_source_over_its_budget_loses_lines_and_no_other_does() -> None:
    router = Relaying(A, lines_per_second=10)
    router.get(*["a:1|c\nb:1|c"] * 20)
    router.get("c:1|c", source="198.51.100.2")
    assert len(router.send()) == 11
    assert router.ledger() == {"received": 41, "forwarded": 11, "rate_limited": 30}


def test_a_budget_outlives_a_change_of_endpoints_and_ends_when_it_is_turned_off() -> None:
    router = Relaying(A, datagrams_per_second=1)
    router.get("a:1|c")
    router.configure(replace(router.policy, endpoints=(B,)))
    router.get("a:1|c")
    assert router.send() == [(B, "a:1|c")]
    assert router.ledger() == {"received": 2, "forwarded": 1, "rate_limited": 1}
    router.configure(replace(router.policy, datagrams_per_second=0))
    router.get("a:1|c")
    assert router.send() == [(A, "a:1|c")]
