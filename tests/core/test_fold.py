import tracemalloc
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import ledger
from proxy.core.fold import EVICTED_FIRST, MOST_EVENTS, Fold
from proxy.core.kept import MOST_MEMBERS, VALUES_BYTES, Folded
from proxy.core.ledger import DROPPED, FOLDED
from proxy.core.statsd import read

NOW = 1000.0
PLENTY = 10**9


class Folding(Fold):
    """A fold with a ledger of its own, that takes and gives text."""

    def __init__(self, most_bytes: int = PLENTY, age: float = 600.0) -> None:
        self.counts = [0] * ledger.BLOCK
        super().__init__(most_bytes, age, self.counts)

    def fold(self, *lines: str, now: float = NOW) -> None:
        for line in lines:
            parsed = read(line.encode())
            assert parsed is not None
            if not self.add_known(line.encode()):
                self.add(parsed, line.encode(), now)

    def drain(self) -> list[str]:
        return [text for entry in self.release(10**9) for text in entry.text().decode().split("\n")]

    def evicted(self) -> dict[str, int]:
        return {kind: n for kind in EVICTED_FIRST if (n := self.counts[DROPPED[f"evicted_{kind}"]])}


def folded(*lines: str) -> list[str]:
    fold = Folding()
    fold.fold(*lines)
    assert fold.counts[FOLDED] == fold.lines == len(lines)
    result = fold.drain()
    assert fold.lines == fold.size_bytes == 0
    return result


def test_counters_are_summed_for_each_rate_and_set_of_tags() -> None:
    lines = ["a:1|c", "a:2|c", "a:1|c|@0.1", "a:5|c|@0.1", "a:1|c|#x:1", "a:3|c|#x:1|c:pod-1", "a:1|c|#x:1"]
    assert folded(*lines) == ["a:3|c", "a:6|c|@0.1", "a:2|c|#x:1", "a:3|c|#x:1|c:pod-1"]


def test_decimals_are_summed_without_noise_and_packed_values_too() -> None:
    assert folded("a:0.1|c", "a:0.2|c", "a:-1.3|c") == ["a:-1.0|c"]
    assert folded("a:1:2:3|c|@0.5", "a:4|c|@0.5") == ["a:10|c|@0.5"]


@pytest.mark.parametrize("line", ["a:x|c", "a:1:x|c", "a:nan|g", "a:1|kv", "a:1|c|T1700000000", "a:1|c:2|g"])
def test_what_can_t_be_summed_is_kept_as_it_is(line: str) -> None:
    assert folded("a:1|c", line, line) == ["a:1|c", line, line]


@pytest.mark.parametrize(
    ("lines", "released"),
    [
        (["a:5|g", "a:3.140|g"], ["a:3.140|g"]),
        (["a:+5|g", "a:-3|g"], ["a:+2|g"]),
        (["a:+5|g", "a:-7|g"], ["a:-2|g"]),
        (["a:5|g", "a:-3|g", "a:+0.5|g"], ["a:2.5|g"]),
        (["a:5|g", "a:-3|g", "a:7|g"], ["a:7|g"]),
        (["a:5|g", "a:-8|g"], ["a:0|g", "a:-3|g"]),
        (["a:5|g|#x", "a:-8|g|#x"], ["a:0|g|#x", "a:-3|g|#x"]),
        (["a:5|g", "a:-8|g", "a:+8|g"], ["a:5|g"]),
        (["a:1:2:+3|g"], ["a:5|g"]),
        (["a:5|g", "a:6|g|#x"], ["a:5|g", "a:6|g|#x"]),
    ],
)
def test_gauges_end_where_the_server_s_would(lines: list[str], released: list[str]) -> None:
    assert folded(*lines) == released


def test_sets_are_united() -> None:
    lines = ["u:1|s", "u:2|s", "u:1|s", "u:http://x|s", "u:1|s|#x"]
    assert sorted(folded(*lines)) == ["u:1|s", "u:1|s|#x", "u:2|s", "u:http://x|s"]


def test_a_set_holds_a_bounded_number_of_members() -> None:
    fold = Folding()
    fold.fold(*(f"u:{number}|s" for number in range(MOST_MEMBERS + 5)), "u:0|s")
    assert fold.evicted() == {"set": 5}
    assert fold.counts[FOLDED] == fold.lines == MOST_MEMBERS + 1
    assert len(fold.drain()) == MOST_MEMBERS


def test_timers_are_sent_value_by_value_as_they_came() -> None:
    lines = ["t:1.50|ms", "t:2|ms", "t:1.50|ms", "t:1:2:3|h|@0.1|#x", "t:3|ms|@0.1", "t:nonsense|ms"]
    assert Counter(folded(*lines)) == Counter(lines)


def test_timers_take_little_more_than_their_digits() -> None:
    fold = Folding()
    fold.fold(*["a.name.that.is.long:123|ms|#tag:one,tag:two"] * 10_000)
    assert fold.size_bytes < 10_000 * 6
    assert fold.drain() == ["a.name.that.is.long:123|ms|#tag:one,tag:two"] * 10_000


def test_values_join_the_newest_of_their_name_while_older_ones_leave() -> None:
    fold = Folding()
    first = VALUES_BYTES // 2 + 1
    fold.fold(*["t:1|ms"] * first, "t:2|ms")
    assert len(fold.release(first)) == first
    fold.fold("t:3|ms")
    assert [(value.value, value.lines) for value in fold.newest(10)] == [("3 (last of 2)", 2)]


def test_lines_with_a_time_of_their_own_keep_their_order() -> None:
    lines = [f"a:{number}|g|T17000000{number:02}" for number in (7, 3, 5)]
    assert folded("a:1|g", *lines) == ["a:1|g", *lines]


def test_events_are_kept_in_a_ring() -> None:
    fold = Folding()
    lines = [f"_e{{4,1}}:{number:04}|x" for number in range(MOST_EVENTS + 3)]
    fold.fold(*lines)
    assert fold.evicted() == {"event": 3}
    assert fold.drain() == lines[3:]


def test_sums_are_evicted_last_and_the_oldest_of_a_kind_first() -> None:
    fold = Folding()
    for number in range(10):
        fold.fold(
            f"t{number}:1|ms",
            f"t{number}:2|ms",
            f"u{number}:1|s",
            f"_e{{2,1}}:e{number}|x",
            f"o{number}:1|kv",
            f"g{number}:1|g",
            f"c{number}:1|c",
            now=NOW + number,
        )
    kinds = []
    while fold.lines:
        before = dict(fold.evicted())
        fold.configure(fold.size_bytes - 1, 600.0)
        kinds += [kind for kind, lines in fold.evicted().items() if lines > before.get(kind, 0)]
        if kinds[-1] == "gauge" and kinds[-2] != "gauge":
            assert [value.name for value in fold.newest(100) if value.kind == "gauge"] == [
                f"g{number}" for number in range(1, 10)
            ]
    assert list(dict.fromkeys(kinds)) == ["timer", "set", "event", "other", "gauge", "counter"]
    assert fold.evicted() == {"timer": 20, "set": 10, "event": 10, "other": 10, "gauge": 10, "counter": 10}
    assert fold.counts[FOLDED] == 0


def test_what_is_too_old_goes_by_when_it_began() -> None:
    fold = Folding(age=60.0)
    fold.fold("a:1|c", now=NOW)
    fold.fold("b:1|c", "t:1|ms", now=NOW + 10)
    fold.fold("a:1|c", now=NOW + 59)
    assert fold.deadline() == NOW + 60
    fold.expire(NOW + 59.9)
    assert fold.lines == 4
    fold.expire(NOW + 60)
    assert fold.evicted() == {"counter": 2}
    assert fold.deadline() == NOW + 70
    fold.expire(NOW + 70)
    assert fold.evicted() == {"counter": 3, "timer": 1}
    assert fold.deadline() is None


def test_old_timer_values_go_before_newer_ones_of_the_same_name() -> None:
    fold = Folding(age=60.0)
    many = VALUES_BYTES // 2 + 1
    fold.fold(*["t:1|ms"] * many, now=NOW)
    fold.fold("t:2|ms", now=NOW + 30)
    fold.expire(NOW + 61)
    assert fold.drain() == ["t:2|ms"]
    assert fold.evicted() == {"timer": many}


def test_it_never_takes_more_than_it_may() -> None:
    fold = Folding(most_bytes=20_000)
    for number in range(1000):
        fold.fold(f"c{number % 50}:1|c", f"t{number}:1|ms", f"u:{number}|s", f"o:{number}|kv", f"g{number}:1|g")
        assert fold.size_bytes <= 20_000
    assert fold.counts[FOLDED] == fold.lines
    assert fold.lines + sum(fold.evicted().values()) == 5000
    assert "counter" not in fold.evicted()


def kinds_of_load(number: int) -> dict[str, Iterable[str]]:
    numbers = range(number)
    return {
        "counters": (f"app.requests.{n}:1|c|#env:prod,region:eu-west-1" for n in numbers),
        "short counters": (f"a{n}:1|c" for n in numbers),
        "decimals": (f"a{n}:1.{n}|c" for n in numbers),
        "gauges": (f"app.level.{n}:{n}|g|#env:prod" for n in numbers),
        "one set": (f"users:{n}|s" for n in numbers),
        "sets": (f"users{n % 100}:{n}|s" for n in numbers),
        "one timer": (f"app.latency:{n % 1000}|ms" for n in numbers),
        "timers": (f"app.latency.{n}:{n}|ms|#env:prod" for n in numbers),
        "others": (f"app.{n}:1|c|T1700000000" for n in numbers),
    }


@pytest.mark.parametrize("load", kinds_of_load(0))
@pytest.mark.parametrize("number", [500, 6000])
def test_what_it_says_to_take_is_what_it_takes(load: str, number: int) -> None:
    fold = Folding()
    lines = list(kinds_of_load(number)[load])
    tracemalloc.start()
    try:
        fold.fold(*lines)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken * 0.8 < fold.size_bytes < taken * 1.7


LINES = st.lists(
    st.builds(
        "{}:{}|{}".format,
        st.sampled_from("abc"),
        st.sampled_from(["1", "0.5", "-3", "+2", "7", "1:2"]),
        st.sampled_from(["c", "g", "s", "ms", "c|@0.1", "g|#x", "kv"]),
    ),
    max_size=30,
)


@given(LINES, LINES, st.integers(0, 20))
def test_what_was_not_sent_counts_as_older_than_what_came_since(
    before: list[str], since: list[str], most: int
) -> None:
    straight, interrupted = Folding(), Folding()
    straight.fold(*before, *since)
    interrupted.fold(*before)
    released = interrupted.release(most)
    interrupted.fold(*since)
    interrupted.put_back(released)
    assert interrupted.lines == straight.lines
    assert interrupted.counts == straight.counts
    assert Counter(interrupted.drain()) == Counter(straight.drain())
    assert interrupted.lines == interrupted.size_bytes == 0


def test_gauges_are_released_first_and_no_more_than_wanted() -> None:
    fold = Folding()
    fold.fold("t:1|ms", "t:2|ms", "u:1|s", "u:2|s", "c:1|c", "g:1|g", "h:1|g")
    released = [fold.release(2) for _ in range(4)]
    assert [[entry.kind for entry in each] for each in released] == [
        ["gauge", "gauge"],
        ["counter", "set"],
        ["set", "timer"],
        ["timer"],
    ]
    assert fold.release(2) == []


def test_people_see_what_is_folded_the_newest_last() -> None:
    fold = Folding()
    for number, line in enumerate(
        ["a:1|c|@0.1", "g:5|g|#x", "h:+2|g", "u:1|s", "t:1.5|ms", "_e{1,2}:t|xy", "bad\xa0:1|kv", "a:2|c|@0.1"]
    ):
        fold.fold(line, now=NOW + number)
    fold.fold("u:2|s", "t:2|ms", now=NOW + 20)
    assert fold.newest(100) == [
        Folded("a", "counter", "3", "c|@0.1", 2),
        Folded("g", "gauge", "5", "g|#x", 1),
        Folded("h", "gauge", "+2", "g", 1),
        Folded("u", "set", "2 different", "s", 2),
        Folded("t", "timer", "2 (last of 2)", "ms", 2),
        Folded("_e:t", "event", "_e{1,2}:t|xy", "", 1),
        Folded("bad\\xa0", "other", "bad\\xa0:1|kv", "", 1),
    ]
    assert [value.name for value in fold.newest(2)] == ["_e:t", "bad\\xa0"]
    assert fold.newest(0) == []
