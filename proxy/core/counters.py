"""The counters that every dns worker keeps, as one fixed layout of unsigned 64-bit slots.

A worker adds to plain integers in memory that it shares with control; control alone gives them names and
renders them. The memory outlives the worker, so every counter stays monotonic over a restart.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Protocol


class Counts(Protocol):
    """The slots: `memoryview.cast("Q")` of the shared memory in a worker, a list of zeros in a test."""

    def __getitem__(self, slot: int, /) -> int:
        """The count in a slot."""

    def __setitem__(self, slot: int, count: int, /) -> None:
        """Replace the count in a slot."""


class Family:
    """One metric and the slots of all its label combinations, side by side from `base`."""

    def __init__(self, base: int, name: str, help_text: str, labels: dict[str, tuple[str, ...]]) -> None:
        self.base = base
        self.name = name
        self.help = help_text
        self.labels = labels
        self._offsets = {values: offset for offset, values in enumerate(product(*labels.values()))}
        self.size = len(self._offsets)

    def slot(self, *values: str) -> int:
        """The slot of these label values, given in the order of `labels`. Raises KeyError for an unknown one."""
        return self.base + self._offsets[values]

    def samples(self, counts: Counts) -> Iterator[tuple[tuple[str, ...], int]]:
        """Every label combination with its count."""
        for values, offset in self._offsets.items():
            yield values, counts[self.base + offset]


class Histogram:
    """Durations in doubling buckets: 31.25 us up to 8.192 s, then the rest, then the sum in microseconds.

    From 250 us on the bounds are CoreDNS's, so that a dashboard's queries keep their meaning.
    """

    BOUNDS = tuple(0.00003125 * 2**step for step in range(19))

    def __init__(self, base: int, name: str, help_text: str) -> None:
        self.base = base
        self.name = name
        self.help = help_text
        self.size = len(self.BOUNDS) + 2

    def observe(self, counts: Counts, seconds: float, times: int = 1) -> None:
        """Count `times` observations of one duration (all answers of one batch share theirs)."""
        bucket = int(seconds * 32000).bit_length()
        last = len(self.BOUNDS)
        counts[self.base + (bucket if bucket < last else last)] += times
        counts[self.base + last + 1] += int(seconds * 1_000_000) * times


HEARTBEAT = 0
"""CLOCK_MONOTONIC in nanoseconds, written by a worker's loop every 250 ms: no counter, but shared the same way.

Every kind of worker has it in this slot."""

_families: list[Family] = []
_histograms: list[Histogram] = []
_next_slot = HEARTBEAT + 1


def _family(name: str, help_text: str, **labels: tuple[str, ...]) -> Family:
    global _next_slot
    family = Family(_next_slot, name, help_text, labels)
    _families.append(family)
    _next_slot += family.size
    return family


def _histogram(name: str, help_text: str) -> Histogram:
    global _next_slot
    histogram = Histogram(_next_slot, name, help_text)
    _histograms.append(histogram)
    _next_slot += histogram.size
    return histogram


PROTOCOLS = ("udp", "tcp")
TYPES = ("A", "AAAA", "CNAME", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT", "other")
SOURCES = ("cache", "stale", "upstream", "local", "error")
"""`local` are names answered here, `error` is what was refused, malformed or could not be answered by anybody."""
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "other")

RECEIVED = _family("dns_questions_received", "Datagrams and TCP messages that clients sent.", proto=PROTOCOLS)
ANSWERED = _family(
    "dns_questions_answered",
    "Answers sent, by where they came from.",
    proto=PROTOCOLS,
    source=SOURCES,
    type=TYPES,
    rcode=RCODES,
)
DROPPED = _family(
    "dns_questions_dropped",
    "Messages that got no answer, by reason; received = answered + dropped + still in flight.",
    reason=("short", "response", "port_zero", "duplicate"),
)
UNDELIVERED = _family(
    "dns_answers_undelivered",
    "Answers that were made (and counted) but that the client or the kernel didn't take.",
    reason=("client_gone", "unsendable"),
)
TRUNCATED = _family("dns_questions_truncated", "Datagrams longer than the receive buffer, cut by the kernel.")
CACHE_EVICTED = _family("dns_cache_evicted", "Entries removed to stay within the bytes allowed.")
PREFETCHED = _family("dns_cache_prefetched", "Popular entries asked again before they expired.")
COALESCED = _family("dns_questions_coalesced", "Questions that joined one already in flight.")
HELD = _family("dns_aaaa_held", "AAAA questions that waited for their A, by what released them.",
               released_by=("answer", "nxdomain", "failure", "timeout"))  # fmt: skip
OVERLOADED = _family("dns_overloaded", "Questions answered SERVFAIL because too many were in flight.")
LOOPED = _family("dns_loops", "Our own questions that came back to us (each answered SERVFAIL).")
ASKED = _family("dns_upstream_asked", "Questions sent upstream, retries and hedges included.", proto=PROTOCOLS)
HEDGED = _family("dns_upstream_hedged", "Second tries sent because the first upstream took longer than usual.")
UPSTREAM_FAILED = _family(
    "dns_upstream_failed",
    "Tries that brought no usable answer, by reason.",
    reason=(
        "timeout",
        "refused",
        "unreachable",
        "servfail",
        "refused_rcode",
        "formerr",
        "other_rcode",
        "malformed",
        "no_socket",
    ),
)
REJECTED = _family(
    "dns_upstream_rejected",
    "Replies that were not accepted as an answer, by reason; the try goes on waiting.",
    reason=("id", "question", "not_a_response", "malformed"),
)
TCP_REFUSED = _family("dns_tcp_clients_refused", "TCP connections closed at once because a cap was reached.",
                      cap=("client", "total"))  # fmt: skip
REQUEST_SECONDS = _histogram("dns_request_duration_seconds", "From reading a question to sending its answer.")
UPSTREAM_SECONDS = _histogram("dns_upstream_duration_seconds", "From asking an upstream to its accepted answer.")

CACHE_ENTRIES = _next_slot
CACHE_BYTES = _next_slot + 1
IN_FLIGHT = _next_slot + 2
TCP_CLIENTS = _next_slot + 3
SLOTS = _next_slot + 4
FAMILIES = tuple(_families)
HISTOGRAMS = tuple(_histograms)

_TYPE_NAMES = {1: "A", 28: "AAAA", 5: "CNAME", 65: "HTTPS", 15: "MX", 2: "NS", 12: "PTR", 6: "SOA", 33: "SRV",
               64: "SVCB", 16: "TXT"}  # fmt: skip


def answered_slot(proto: str, source: str, qtype: int, rcode: int) -> int:
    """The slot that counts an answer of this kind."""
    type_name = _TYPE_NAMES.get(qtype, "other")
    return ANSWERED.slot(proto, source, type_name, RCODES[rcode] if rcode < 6 else "other")


def hit_ratio(sources: Mapping[str, int]) -> float | None:
    """The share of answers from the cache, of those that an upstream would have had to give; None before any.

    `sources` has the answers by SOURCES.
    """
    hits = sources["cache"] + sources["stale"]
    total = hits + sources["upstream"]
    return round(hits / total, 4) if total > 0 else None
