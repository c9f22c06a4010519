"""Where every line of a relay ended: received = forwarded + folded + each named drop.

It lies in memory that outlives a worker. The slots of one relay lie side by side in a block, which control gives to
its name for the whole run.
"""

from collections.abc import Mapping

from proxy.core.counters import HEARTBEAT, Counts

MOST_RELAYS = 64
"""As many as the configuration may list."""
BLOCKS = 2 * MOST_RELAYS
"""A reload may name each of them anew while those of before still have theirs."""

KINDS = ("counter", "gauge", "set", "timer", "event", "other")
"""What a line can be, as far as folding differs; `timer` also stands for histograms and distributions."""

DROPS = (
    "malformed",
    "oversize",
    "no_endpoint",
    "rate_limited",
    "unsendable",
    "session_limit",
    "worker_died",
    *(f"evicted_{kind}" for kind in KINDS),
)
"""Why a line (in `datagram` mode: a datagram) went nowhere. `evicted_*` were folded before."""

OTHERS = {
    "datagrams_received": "Datagrams that arrived.",
    "datagrams_sent": "Datagrams sent to endpoints.",
    "released": "Lines sent for what had been folded.",
    "refused": "Refusals (ICMP) that endpoints sent.",
    "ejected": "Times that an endpoint was left out after a refusal.",
    "path_lowered": "Times that an endpoint's path turned out to take less than was thought.",
    "sessions_opened": "Sessions of clients in datagram mode.",
    "sessions_evicted": "Sessions ended before their time because there were too many.",
    "replies": "Datagrams that went back to clients.",
    "replies_refused": "Datagrams to a session's port that did not come from its endpoint.",
    "replies_unsendable": "Replies that the kernel refused.",
}
"""What is counted beside the ledger, with what it means."""

LEVELS = {
    "fold_lines": "Lines that are folded and neither released nor evicted yet.",
    "fold_bytes": "Memory that folded values take.",
    "sessions": "Open sessions.",
}
"""What is no count but a present amount."""

_FIRST = HEARTBEAT + 1
RECEIVED, FORWARDED, FOLDED = range(3)
"""Offsets within a block. A line that is folded and evicted later moves from `FOLDED` to that drop."""
DROPPED: Mapping[str, int] = {name: 3 + number for number, name in enumerate(DROPS)}
COUNTED: Mapping[str, int] = {name: 3 + len(DROPS) + number for number, name in enumerate(OTHERS)}
LEVEL: Mapping[str, int] = {name: 3 + len(DROPS) + len(OTHERS) + number for number, name in enumerate(LEVELS)}
BLOCK = 3 + len(DROPS) + len(OTHERS) + len(LEVELS)
SLOTS = _FIRST + BLOCKS * BLOCK
"""The size of a relay worker's shared memory; slot 0 is its heartbeat."""


def block(counts: memoryview, number: int) -> memoryview:
    """The slots of relay `number`, to be indexed by the offsets above."""
    begin = _FIRST + number * BLOCK
    return counts[begin : begin + BLOCK]


def unaccounted(counts: Counts) -> int:
    """Lines of a block that were received and ended nowhere: what a dead worker had taken and not yet dealt with."""
    ended = counts[FORWARDED] + counts[FOLDED] + sum(counts[offset] for offset in DROPPED.values())
    return counts[RECEIVED] - ended
