"""Which upstream to ask next: what each one showed goes in, an ordered choice comes out.

Health is what questions see (passive); an upstream that failed three times in a row is down, is asked last, and
gets probe questions of its own until one is answered (active). Nothing here sends anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

FAILURES_TO_DOWN = 3
FIRST_PROBE_INTERVAL = 1.0
LONGEST_PROBE_INTERVAL = 30.0
"""RFC 9520 3.2's back-off; the first is short so that a recovered upstream is seen soon."""
NO_EDNS_FOR = 900.0
"""RFC 6891 7: how long an upstream that choked on EDNS is asked without it."""
UNKNOWN_HEDGE = 0.25
SHORTEST_HEDGE = 0.001
"""A hedge sooner than the event loop's own jitter would only double the load."""
ANSWERS_FOR_P95 = 20
EXPLORE = 1 / 32
"""The share of questions that go to any upstream that is up, so that a slow one that recovered is noticed."""

_SAMPLES = 64
_RESORT_EVERY = 16
_SMOOTHING = 1 / 8  # RFC 6298 2.3


@dataclass(slots=True, eq=False)
class Upstream:
    """One server of one zone and what is known of it; times on the monotonic clock, seconds."""

    address: str
    zone: str
    srtt: float | None = None
    failures: int = 0
    down: bool = False
    looping: bool = False
    """Its probe came back to our own listener: it forwards to us."""
    refused_name: bytes = b""
    """The last name that it said it can't answer."""
    no_edns_until: float = 0.0
    probe_at: float = 0.0
    probe_interval: float = FIRST_PROBE_INTERVAL
    probing: bool = False
    answers: int = 0
    answered_at: float = 0.0
    _samples: list[float] = field(default_factory=list)
    _p95: float = UNKNOWN_HEDGE

    def observe_recovery(self) -> None:
        """It can answer (again)."""
        self.failures = 0
        self.down = False
        self.looping = False
        self.probe_interval = FIRST_PROBE_INTERVAL

    def observe_answer(self, rtt: float, now: float) -> None:
        """An answer came `rtt` seconds after it was asked for."""
        self.observe_recovery()
        self.answered_at = now
        self.srtt = rtt if self.srtt is None else self.srtt + (rtt - self.srtt) * _SMOOTHING
        at = self.answers % _SAMPLES
        if len(self._samples) < _SAMPLES:
            self._samples.append(rtt)
        else:
            self._samples[at] = rtt
        self.answers += 1
        if self.answers >= ANSWERS_FOR_P95 and self.answers % _RESORT_EVERY == 4:
            self._p95 = sorted(self._samples)[len(self._samples) * 95 // 100]

    def observe_failure(self, now: float) -> None:
        """A try brought nothing usable."""
        self.failures += 1
        if self.failures >= FAILURES_TO_DOWN and not self.down:
            self.down = True
            self.probe_at = now + self.probe_interval

    def observe_probe_failure(self, now: float) -> None:
        """A probe of a down upstream went unanswered: wait twice as long for the next."""
        self.probe_interval = min(self.probe_interval * 2, LONGEST_PROBE_INTERVAL)
        self.probe_at = now + self.probe_interval

    def hedge_after(self) -> float:
        """How long to wait before asking another one too: its 95th percentile once enough answers are known."""
        if self.answers < ANSWERS_FOR_P95:
            return UNKNOWN_HEDGE
        return min(max(self._p95, SHORTEST_HEDGE), UNKNOWN_HEDGE)


def order(upstreams: Sequence[Upstream], random: Callable[[], float]) -> list[Upstream]:
    """All of them, the next to ask first: up before down, and at random among those about as fast as the best.

    Endpoints of one Service are much alike; keeping to the single fastest would turn all nodes on one pod.
    """
    shuffled = sorted(upstreams, key=lambda _: random())
    if random() < EXPLORE:
        return sorted(shuffled, key=lambda u: u.down)
    known = [u.srtt for u in shuffled if not u.down and u.srtt is not None]
    as_fast = min(known, default=0.0) * 1.5 + 0.001
    return sorted(shuffled, key=lambda u: (u.down, u.srtt is not None and u.srtt > as_fast))
