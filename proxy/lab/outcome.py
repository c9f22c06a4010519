"""What came of one scenario on one path: a fate for each thing that was sent, the worst outage, a timeline.

Pure: it counts what senders and receivers wrote down. All times are CLOCK_MONOTONIC in nanoseconds, which every
network namespace of a machine shares.
"""

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

PathName = Literal["kube-proxy", "sidestep"]
Mode = Literal["iptables", "nftables"]
PATHS: tuple[PathName, ...] = ("kube-proxy", "sidestep")
MODES: tuple[Mode, ...] = ("iptables", "nftables")

BIN_MS = 100
LATE_MS = 1000
"""What is delivered later than this after it was sent had been kept for somebody, it did not merely travel."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A datagram that left its sender; `error` is the name of the errno that sending gave, if any."""

    number: int
    at_ns: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A numbered line or datagram at a receiver."""

    number: int
    sent_ns: int
    at_ns: int
    receiver: str


@dataclass(frozen=True, slots=True)
class Question:
    """A DNS question and its first answer; `answered_ns` is 0 and `rcode` -1 where none came."""

    number: int
    kind: str
    """`A`, `AAAA` …"""
    at_ns: int
    answered_ns: int
    rcode: int
    answers: int
    size: int

    @property
    def milliseconds(self) -> float:
        """From question to answer."""
        return (self.answered_ns - self.at_ns) / 1e6


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done to the cluster, for the timeline."""

    at_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Counts per 100 ms since the first was sent: sent by when it left, the others by when they arrived."""

    sent: tuple[int, ...]
    delivered: tuple[int, ...]
    misdelivered: tuple[int, ...]
    marks: tuple[tuple[float, str], ...]
    """Milliseconds since the first was sent, and what was done then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`sent` = `delivered` + `misdelivered` + `lost`."""

    sent: int
    delivered: int
    misdelivered: int = 0
    """Came to a receiver that was no endpoint of the Service between sending and arrival."""
    late: int = 0
    """Of the delivered: those that came more than LATE_MS after they were sent."""
    worst_outage_ms: float = 0.0
    """The longest time without a delivery while the sender was sending."""
    timeline: Timeline | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    """What else was measured, by name with its unit: `p99 ms`, `packets per lookup`."""
    notes: tuple[str, ...] = ()
    not_shown: str = ""
    """`not here: …` or `not yet: …` where this path can't show the case; its expectations are then not asked."""

    @property
    def lost(self) -> int:
        return self.sent - self.delivered - self.misdelivered


class Membership:
    """Which receivers were endpoints of the Service, when."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[int, int | None]]] = {}

    def add(self, receiver: str, at_ns: int) -> None:
        """An endpoint from here on: the moment *before* the slice is written, which anyone may know of at once."""
        spans = self._spans.setdefault(receiver, [])
        if not spans or spans[-1][1] is not None:
            spans.append((at_ns, None))

    def remove(self, receiver: str, at_ns: int) -> None:
        """None any more: the moment at which the path had applied it, until which nobody can be blamed."""
        spans = self._spans.get(receiver)
        if spans and spans[-1][1] is None:
            spans[-1] = spans[-1][0], at_ns

    def covers(self, receiver: str, sent_ns: int, arrived_ns: int) -> bool:
        """Whether it was an endpoint at any moment between the two."""
        return any(
            since <= arrived_ns and (until is None or until >= sent_ns)
            for since, until in self._spans.get(receiver, ())
        )


def tally(
    sent: Sequence[Sent],
    arrivals: Iterable[Arrival],
    membership: Membership,
    *,
    marks: Sequence[Mark] = (),
    notes: Sequence[str] = (),
    figures: Mapping[str, float] | None = None,
) -> Outcome:
    """Each number ends in one place; a copy at a wrong receiver makes it misdelivered wherever else it came.

    Raises ValueError for an arrival that nobody sent: the lab's own mistake.
    """
    numbers = {item.number for item in sent}
    if not sent or len(numbers) != len(sent):
        raise ValueError("nothing was sent" if not sent else "two datagrams bear one number")
    right: dict[int, int] = {}
    wrong: dict[int, int] = {}
    late: set[int] = set()
    copies = 0
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_ns):
        if arrival.number not in numbers:
            raise ValueError(f"{arrival.receiver} received number {arrival.number}, which was not sent")
        copies += arrival.number in right or arrival.number in wrong
        if not membership.covers(arrival.receiver, arrival.sent_ns, arrival.at_ns):
            wrong.setdefault(arrival.number, arrival.at_ns)
        elif arrival.number not in right:
            right[arrival.number] = arrival.at_ns
            if arrival.at_ns - arrival.sent_ns > LATE_MS * 1_000_000:
                late.add(arrival.number)
    for number in wrong:
        right.pop(number, None)
    errors = [item.error for item in sent if item.error]
    told = list(notes)
    if copies:
        told.append(f"{copies} arrived twice")
    if errors:
        told.append(f"sending failed {len(errors)} times: {', '.join(sorted(set(errors)))}")
    times = [item.at_ns for item in sent]
    return Outcome(
        sent=len(sent),
        delivered=len(right),
        misdelivered=len(wrong),
        late=len(late - wrong.keys()),
        worst_outage_ms=worst_outage_ms(times, right.values()),
        timeline=timeline(times, right.values(), wrong.values(), marks),
        figures=figures or {},
        notes=tuple(told),
    )


def tally_questions(
    questions: Sequence[Question],
    *,
    within: float,
    good: Callable[[Question], bool] = lambda question: question.rcode == 0,
    marks: Sequence[Mark] = (),
    notes: Sequence[str] = (),
    figures: Mapping[str, float] | None = None,
) -> Outcome:
    """Delivered is a good answer `within` so many seconds; an error or none is lost. Latency is that of the good."""
    if not questions:
        raise ValueError("nothing was asked")
    limit = round(within * 1e9)
    in_time = [q for q in questions if q.answered_ns and q.answered_ns - q.at_ns <= limit]
    delivered = [q for q in in_time if good(q)]
    found = dict(figures or {})
    if delivered:
        waits = sorted(q.milliseconds for q in delivered)
        found |= {"p50 ms": statistics.median(waits), "p99 ms": quantile(waits, 0.99), "slowest ms": waits[-1]}
    told = list(notes)
    if wrong := len(in_time) - len(delivered):
        told.append(f"{wrong} were answered with an error")
    if silent := len(questions) - len(in_time):
        told.append(f"{silent} had no answer within {within:g} s")
    times, arrivals = [q.at_ns for q in questions], [q.answered_ns for q in delivered]
    return Outcome(
        sent=len(questions),
        delivered=len(delivered),
        worst_outage_ms=worst_outage_ms(times, arrivals),
        timeline=timeline(times, arrivals, (), marks),
        figures=found,
        notes=tuple(told),
    )


def waits_us(sent: Iterable[Sent], arrivals: Iterable[Arrival]) -> dict[str, float]:
    """`p50 µs` and `p99 µs` from sending to arrival, of those of `sent` that came; nothing when none did."""
    came = {arrival.number: arrival.at_ns for arrival in arrivals}
    waits = sorted((came[one.number] - one.at_ns) / 1e3 for one in sent if one.number in came)
    return {"p50 µs": statistics.median(waits), "p99 µs": quantile(waits, 0.99)} if waits else {}


def worst_outage_ms(sent_ns: Iterable[int], delivered_ns: Iterable[int]) -> float:
    """The longest time without a delivery, from the first sending to the last."""
    times = list(sent_ns)
    first, last = min(times), max(times)
    moments = [first, *sorted(at for at in delivered_ns if first <= at <= last), last]
    return max(after - before for before, after in itertools.pairwise(moments)) / 1e6


def timeline(
    sent_ns: Sequence[int], delivered_ns: Iterable[int], misdelivered_ns: Iterable[int], marks: Sequence[Mark] = ()
) -> Timeline:
    """Counted from the first sending to the last event of any kind."""
    first = min(sent_ns)
    delivered, misdelivered = list(delivered_ns), list(misdelivered_ns)
    bins = (max([*sent_ns, *delivered, *misdelivered]) - first) // (BIN_MS * 1_000_000) + 1

    def counted(times: Iterable[int]) -> tuple[int, ...]:
        counts = [0] * bins
        for at in times:
            counts[(at - first) // (BIN_MS * 1_000_000)] += 1
        return tuple(counts)

    return Timeline(
        sent=counted(sent_ns),
        delivered=counted(delivered),
        misdelivered=counted(misdelivered),
        marks=tuple(((mark.at_ns - first) / 1e6, mark.text) for mark in marks),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of numbers in order."""
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
