"""Whatever happens to endpoints and sends: each line ends in one place, and what is folded is not lost."""

from collections import Counter
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.core import ledger
from proxy.core.batches import Outgoing
from proxy.core.ledger import COUNTED, DROPPED, FOLDED, FORWARDED, LEVEL, RECEIVED
from proxy.core.policy import RelayPolicy
from proxy.core.statsd_router import StatsdRouter

ENDPOINTS = [f"192.0.2.{number}:8125" for number in range(4)]
SUBSETS = st.lists(st.sampled_from(ENDPOINTS), unique=True)
SPREADS = ["name", "name+tags", "source", "packet", "all"]
NAMES = st.sampled_from(["a", "b", "c", "much.longer.name.of.a.metric"])
TAGS = st.sampled_from(["", "|#env:a", "|#env:b,x", "|@0.1", "|@0.5|#env:a"])

FEW_TAGS = st.sampled_from(["", "", "|#env:a"])

COUNTERS = st.builds("{}:1|c{}".format, NAMES, TAGS)
GAUGES = st.builds(
    "{}:{}|g{}".format, NAMES, st.sampled_from(["0", "5", "7.25", "+1", "-3", "+0.5", "-1e1"]), FEW_TAGS
)
SETS = st.builds("{}:{}|s{}".format, NAMES, st.integers(0, 9), TAGS)
TIMERS = st.builds("{}:{}|{}{}".format, NAMES, st.integers(0, 9), st.sampled_from(["ms", "h", "d"]), TAGS)
OTHERS = st.sampled_from(["_e{1,2}:t|xy", "_sc|n|0|#env:a", "a:1|c|T1700000000", "a:1|c:2|g", "a:1|kv", "a:x|c"])
LONG = st.sampled_from(["a:" + "1" * 100 + "|ms", "l" * 300 + ":-1|g"])
SENSE = st.one_of(COUNTERS, GAUGES, SETS, TIMERS, OTHERS, LONG)
GARBAGE = st.sampled_from([b"", b"\r", b"a", b"a:1", b":1|c", b"a:|c", b"\0\xff\1", b"a|c:1|c", b"a:1|\0"])
LINES = st.lists(st.one_of(SENSE.map(str.encode), SENSE.map(str.encode), GARBAGE), max_size=12)


class Ledger(RuleBasedStateMachine):
    @initialize(
        spread=st.sampled_from(SPREADS), fold_bytes=st.sampled_from([0, 1500, 5000, 10**6, 10**6]), some=SUBSETS
    )
    def start(self, spread: str, fold_bytes: int, some: list[str]) -> None:
        self.now = 1000.0
        self.policy = RelayPolicy("statsd", 0, "statsd", spread, tuple(some), fold_bytes, fold_age=60.0)
        self.counts = memoryview(bytearray(8 * ledger.BLOCK)).cast("Q")
        self.router = StatsdRouter(self.policy, self.counts)
        self.arrived: list[str] = []
        """Well-formed lines that came in."""
        self.delivered: list[str] = []
        self.folded_sent = 0
        self.fates: list[bool] = []
        self.in_order = spread not in ("source", "packet")

    @rule(
        lines=LINES,
        end=st.sampled_from([b"", b"\n", b"\r\n"]),
        joint=st.sampled_from([b"\n", b"\r\n"]),
        source=st.sampled_from(["198.51.100.1", "198.51.100.2"]),
    )
    def receive(self, lines: list[bytes], end: bytes, joint: bytes, source: str) -> None:
        before = self.counts[DROPPED["malformed"]]
        self.router.receive(joint.join(lines) + end, source, self.now)
        sense = [line.decode() for line in lines if line.strip(b"\r") and line not in GARBAGE_LINES]
        self.arrived += sense
        garbage = sum(line in GARBAGE_LINES for line in lines if line.strip(b"\r"))
        assert self.counts[DROPPED["malformed"]] - before == garbage

    @rule(fates=st.lists(st.booleans(), max_size=12))
    def wake_up(self, fates: list[bool]) -> None:
        self.fates = fates
        self.send()

    @rule(some=SUBSETS)
    def endpoints_change(self, some: list[str]) -> None:
        self.router.set_usable([each for each in some if each in self.policy.endpoints])

    @rule(endpoint=st.sampled_from(ENDPOINTS), limit_bytes=st.sampled_from([40, 64, 150, 1400]))
    def paths_change(self, endpoint: str, limit_bytes: int) -> None:
        if endpoint in self.policy.endpoints:
            self.router.set_limit(endpoint, limit_bytes)

    @rule(some=SUBSETS, spread=st.sampled_from([None, None, *SPREADS]))
    def configure(self, some: list[str], spread: str | None) -> None:
        old = self.policy
        self.policy = RelayPolicy(
            "statsd", 0, "statsd", spread or old.spread, tuple(some), old.fold_bytes, old.fold_age
        )
        self.router.configure(self.policy)
        self.in_order &= self.policy.spread not in ("source", "packet")

    @rule(
        seconds=st.sampled_from([0.01, 0.02, 0.5, 20.0, 61.0]),
        fates=st.lists(st.booleans(), max_size=6),
        together=st.booleans(),
    )
    def wait(self, seconds: float, fates: list[bool], together: bool) -> None:
        if not together:
            self.send()
        self.fates = fates
        self.now += seconds
        due = self.router.deadline()
        if due is not None and due <= self.now:
            self.router.expire(self.now)
        self.send()

    def send(self) -> None:
        while taken := self.router.take():
            failed = set()
            for outgoing in taken:
                assert outgoing.endpoint in self.policy.endpoints
                if outgoing.endpoint not in failed and (not self.fates or self.fates.pop()):
                    self.deliver(outgoing)
                else:
                    failed.add(outgoing.endpoint)
                    self.router.unsent(outgoing, self.now)
        assert ledger.unaccounted(self.counts) == 0

    def deliver(self, outgoing: Outgoing) -> None:
        first = outgoing.parcel is None or not outgoing.parcel.arrived
        self.router.sent(outgoing)
        if first:
            self.delivered += outgoing.payload.decode().split("\n")
            if outgoing.parcel is not None and outgoing.parcel.entries:
                self.folded_sent += outgoing.parcel.lines

    @invariant()
    def its_levels_are_what_is_folded_and_not_sent(self) -> None:
        if hasattr(self, "router"):
            waiting = self.counts[FOLDED] - self.folded_sent
            assert self.router._fold.lines + self.router._released_lines == waiting

    def drops(self, *names: str) -> int:
        return sum(self.counts[DROPPED[name]] for name in names)

    def teardown(self) -> None:
        if not hasattr(self, "router"):
            return
        self.fates = []
        self.send()
        self.configure(ENDPOINTS, None)
        self.endpoints_change(ENDPOINTS)
        while (due := self.router.deadline()) is not None:
            self.now = max(self.now, due)
            self.router.expire(self.now)
            self.send()
        assert self.counts[LEVEL["fold_lines"]] == self.counts[LEVEL["fold_bytes"]] == 0
        assert self.counts[RECEIVED] == len(self.arrived) + self.counts[DROPPED["malformed"]]
        assert self.counts[FORWARDED] + self.counts[COUNTED["released"]] == len(self.delivered)
        self.it_keeps_values()

    def it_keeps_values(self) -> None:
        lost = self.counts[DROPPED["no_endpoint"]]
        sums = Counter(split(line) for line in self.arrived if kind(line) == "counter")
        for line in self.delivered:
            if kind(line) == "counter":
                sums[split(line)] -= int(value(line))
        assert all(missing >= 0 for missing in sums.values())
        oversize = self.counts[DROPPED["oversize"]]
        assert sums.total() <= self.drops("evicted_counter") + lost + oversize
        if not lost and not oversize:
            assert sums.total() == self.drops("evicted_counter")
        if lost or oversize:
            return
        if not self.drops("evicted_gauge") and self.in_order:
            assert levels(self.delivered) == levels(self.arrived)
        if not self.drops("evicted_set"):
            assert {*pick(self.delivered, "set")} == {*pick(self.arrived, "set")}
        if not self.drops("evicted_timer"):
            assert Counter(pick(self.delivered, "timer")) == Counter(pick(self.arrived, "timer"))
        if not self.drops("evicted_event", "evicted_other"):
            assert Counter(pick(self.delivered, "other")) == Counter(pick(self.arrived, "other"))


GARBAGE_LINES = {b"a", b"a:1", b":1|c", b"a:|c", b"\0\xff\1", b"a|c:1|c", b"a:1|\0"}


def kind(line: str) -> str:
    if line.startswith("_") or "|T" in line or "|c:" in line or line == "a:x|c":
        return "other"
    return {"c": "counter", "g": "gauge", "s": "set"}.get(
        line.split("|")[1], "timer" if line.split("|")[1] in ("ms", "h", "d") else "other"
    )


def split(line: str) -> tuple[str, str]:
    return line.split(":")[0], line.partition("|")[2]


def value(line: str) -> str:
    return line.partition(":")[2].partition("|")[0]


def pick(lines: list[str], wanted: str) -> list[str]:
    return [line for line in lines if kind(line) == wanted]


def levels(lines: list[str]) -> dict[tuple[str, str], Decimal]:
    """What a server that reads these lines in this order shows."""
    result: dict[tuple[str, str], Decimal] = {}
    for line in pick(lines, "gauge"):
        number = Decimal(value(line))
        result[split(line)] = number + (result.get(split(line), Decimal(0)) if value(line)[0] in "+-" else 0)
    return result


Ledger.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLedger = Ledger.TestCase
