"""The decisions for one relay in `statsd` mode: which line goes to which endpoint, waits in the fold, or is dropped.

It owns the lines between a wake-up's first datagram and the send, the fold, and its part of the ledger
(`datagrams_*` and what is known of endpoints are counted by who owns the sockets).
"""

from collections.abc import Callable, Sequence

from proxy.core.counters import Counts
from proxy.core.fold import Folded
from proxy.core.policy import RelayPolicy

DEFAULT_LIMIT = 1400
"""Bytes of a datagram to an endpoint whose path is not known."""


class Outgoing:
    """One datagram for one endpoint. Each that `take` gives is told to `sent`, `unsent` or `lost` once."""

    __slots__ = ("endpoint", "lines", "payload")

    def __init__(self, endpoint: str, payload: bytes, lines: int) -> None:
        self.endpoint = endpoint
        self.payload = payload
        self.lines = lines
        """How many lines become forwarded with it; 0 for released ones and for copies of a mirrored one."""


class StatsdRouter:
    """Takes datagrams, gives datagrams. Within one wake-up: `receive` any number of times, `take`, then `sent`,
    `unsent` or `lost` for each that was taken, in the order of `take`, all before the next `receive`.
    """

    receive: Callable[[bytes, str, float], None]
    """`receive(datagram, source, now)`: count its lines and keep each for its endpoint, fold or drop it.

    `source` is the client's IP without port, or the user of a Unix socket. Look it up anew for every wake-up: it is
    another function after `configure`.
    """

    def __init__(self, policy: RelayPolicy, counts: Counts) -> None:
        """`counts` is the relay's block of the ledger. All of `policy.endpoints` are usable at first."""
        raise NotImplementedError

    def configure(self, policy: RelayPolicy) -> None:
        """Follow a new policy; what is folded stays. New endpoints are usable at once, unusable ones stay so."""
        raise NotImplementedError

    def set_usable(self, endpoints: Sequence[str]) -> None:
        """What may be sent to: the policy's endpoints without ejected ones; none: lines are folded from now on."""
        raise NotImplementedError

    def set_limit(self, endpoint: str, limit_bytes: int) -> None:
        """The longest datagram that the path to an endpoint takes. It is kept while the policy has the endpoint."""
        raise NotImplementedError

    def take(self) -> list[Outgoing]:
        """All that waits, packed up to each endpoint's limit; a line that is too long is dropped as `oversize`."""
        raise NotImplementedError

    def sent(self, outgoing: Outgoing) -> None:
        """The kernel took it."""
        raise NotImplementedError

    def unsent(self, outgoing: Outgoing, now: float) -> None:
        """The kernel did not take it: its lines go to another usable endpoint with the next `take`, else are folded.

        A limit that turned out to be lower is told to `set_limit` first.
        """
        raise NotImplementedError

    def lost(self, outgoing: Outgoing, reason: str) -> None:
        """It can be sent nowhere; `reason` is one of `ledger.DROPS`."""
        raise NotImplementedError

    def expire(self, now: float) -> None:
        """Release folded lines that are due to the next `take`, and evict those past `fold_age`."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When `expire` (and `take` after it) is due; None while nothing waits for a time."""
        raise NotImplementedError

    def folded(self, most: int) -> list[Folded]:
        """Some of what is folded, the newest last."""
        raise NotImplementedError

    def malformed(self) -> list[str]:
        """The last lines that made no sense, printable and short, the newest last."""
        raise NotImplementedError
