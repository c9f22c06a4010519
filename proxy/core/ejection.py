"""Which endpoints of a relay may be sent to now: what refuses (ICMP) is left out at once, and tried again later.

It tells the cluster's judgement (the endpoints it is given) from what this node saw itself; it sends nothing.
"""

from collections.abc import Iterable

TRIAL_WAIT = 0.25
"""A refusal takes one round trip, some milliseconds in a cluster: silence for so long after the trial means that it
was accepted."""


class Ejection:
    """The endpoints of one relay, in the order given, and which of them refused.

    An ejected endpoint is out for some seconds, then gets exactly one datagram on trial, and is back when no refusal
    follows. At most half of the endpoints are out at a time (so of one none is): refusals may be wrong, and
    a full loss is no better than a partial one.
    """

    def __init__(self) -> None:
        self.endpoints: tuple[str, ...] = ()
        self.usable: tuple[str, ...] = ()
        """What may be sent to, those whose trial is due included; a new tuple with every change."""
        self.on_trial: frozenset[str] = frozenset()
        """Those that may get one datagram: tell `sent` of it."""
        self._seconds = 0.0
        self._out: dict[str, _Out] = {}
        """Longest ejected first."""
        self._paused: dict[str, float] = {}

    @property
    def ejected(self) -> tuple[str, ...]:
        """Those that are out, or not yet back from their trial."""
        return tuple(address for address in self.endpoints if address in self._out)

    def configure(self, endpoints: Iterable[str], seconds: float, now: float) -> None:
        """Take on new endpoints and how long an ejection lasts; what is known of those that stay is kept."""
        self.endpoints = tuple(dict.fromkeys(endpoints))
        self._seconds = seconds
        self._out = {address: out for address, out in self._out.items() if address in self.endpoints}
        self._paused = {address: until for address, until in self._paused.items() if address in self.endpoints}
        while len(self._out) > len(self.endpoints) // 2:
            del self._out[next(iter(self._out))]
        self._judge(now)

    def refused(self, address: str, now: float) -> bool:
        """An endpoint refused a datagram: whether that ejected it (anew).

        What it refuses while it is out was sent before, and says nothing new.
        """
        if address not in self.endpoints:
            return False
        out = self._out.pop(address, None)
        if out is None:
            if len(self._out) >= len(self.endpoints) // 2:
                return False
        elif out.tried_at is None:
            self._out[address] = out
            return False
        self._out[address] = _Out(now + self._seconds)
        self._judge(now)
        return True

    def sent(self, address: str, now: float) -> None:
        """An endpoint on trial got its datagram."""
        out = self._out.get(address)
        if out is not None and out.tried_at is None:
            out.tried_at = now
            self._judge(now)

    def heard(self, address: str, now: float) -> None:
        """An endpoint answered: whatever it refused, it is back."""
        if self._out.pop(address, None) is not None:
            self._judge(now)

    def pause(self, addresses: Iterable[str], until: float, now: float) -> None:
        """Nothing can be sent to these from here for a while: no judgement on them, so there may be any number."""
        self._paused.update((address, until) for address in addresses if address in self.endpoints)
        self._judge(now)

    def expire(self, now: float) -> bool:
        """Let time pass; whether `usable` is another one now."""
        before = self.usable
        deadline = self.deadline()
        if deadline is not None and now >= deadline:
            self._judge(now)
        return self.usable is not before

    def deadline(self) -> float | None:
        """When `expire` will have something to do."""
        times = [*self._paused.values()]
        for address, out in self._out.items():
            if out.tried_at is not None:
                times.append(out.tried_at + TRIAL_WAIT)
            elif address not in self.on_trial and address not in self._paused:
                times.append(out.until)
        return min(times, default=None)

    def _judge(self, now: float) -> None:
        self._paused = {address: until for address, until in self._paused.items() if now < until}
        self._out = {
            address: out
            for address, out in self._out.items()
            if out.tried_at is None or now < out.tried_at + TRIAL_WAIT
        }
        on_trial = {
            address
            for address, out in self._out.items()
            if out.tried_at is None and now >= out.until and address not in self._paused
        }
        self.on_trial = frozenset(on_trial)
        usable = tuple(
            address
            for address in self.endpoints
            if address not in self._paused and (address not in self._out or address in on_trial)
        )
        if usable != self.usable:
            self.usable = usable


class _Out:
    __slots__ = ("tried_at", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.tried_at: float | None = None
        """When the datagram on trial went out."""
