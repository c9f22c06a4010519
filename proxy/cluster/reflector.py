"""Which request an EndpointSlice stream makes next, from which version and how soon; it knows no socket and no clock.

The shell asks `next_request`, waits `after`, calls `started`, tells what came, and calls `ended`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from proxy.cluster.timing import Timing

MOST_FRUITLESS = 3
"""After so many watches in a row that brought nothing it lists anew: some servers close instead of sending 410."""

ANY, NEWEST = "0", ""
"""Versions to list from: whatever the server has in memory; what is stored now."""


class Ended(Enum):
    """How a request ended."""

    CLOSED = "closed by the server"
    SILENT = "silent for too long"
    EXPIRED = "the version is too old"
    TOO_LARGE = "the version is newer than the server"
    REFUSED = "the server doesn't take such a request"
    FAILED = "nothing was served"
    BROKEN = "what was served makes no sense"


@dataclass(frozen=True, slots=True)
class Request:
    what: Literal["list", "watch_list", "watch"]
    """`watch_list` is a watch that begins with the present objects (`sendInitialEvents`)."""
    version: str
    after: float
    """Seconds to wait before it is made."""
    seconds: int
    """After how long the server should end it."""


class Backoff:
    """Waits between nothing and a bound that doubles (full jitter), so that nodes don't come all at once."""

    def __init__(self, timing: Timing, uniform: Callable[[float, float], float]) -> None:
        self._timing = timing
        self._uniform = uniform
        self._step = timing.first_backoff

    def next_wait(self) -> float:
        """Seconds until the next try."""
        step, self._step = self._step, min(self._step * 2, self._timing.most_backoff)
        return self._uniform(0.0, step)

    def reset(self) -> None:
        """It works again."""
        self._step = self._timing.first_backoff


class Reflector:
    """The state of one stream; times are monotonic seconds, `uniform` gives a random number between two.

    `version`: what a list must at least be as new as; `ANY` where nothing is known.
    """

    def __init__(self, timing: Timing, uniform: Callable[[float, float], float], version: str = ANY) -> None:
        self._timing = timing
        self._uniform = uniform
        self.version = version
        """The version up to which everything was seen."""
        self._request = Request("watch_list", version, 0.0, 0)
        self._must_list = True
        self._version_lost = False
        self._watch_list = True
        self._list_plainly = False
        self._backoff = Backoff(timing, uniform)
        self._fruitless = 0
        self._after = 0.0
        self._started = 0.0
        self._seen = False
        self._complete = False

    def next_request(self) -> Request:
        """What to ask now."""
        seconds = round(self._uniform(*self._timing.watch))
        if not self._must_list:
            self._request = Request("watch", self.version, self._after, seconds)
        else:
            version = NEWEST if self._version_lost else self.version
            plainly = self._list_plainly or not self._watch_list
            self._request = Request("list" if plainly else "watch_list", version, self._after, seconds)
        return self._request

    def started(self, now: float) -> None:
        """The request is made now."""
        self._started, self._seen = now, False
        self._complete = not self._must_list

    def listed(self, version: str) -> None:
        """All present objects are known: the list is whole, or the initial events are."""
        self.version = version
        self._complete = True
        self._must_list = self._version_lost = self._list_plainly = False
        self._fruitless = 0

    def saw(self, version: str) -> None:
        """An event or a bookmark of that version, `""` if it has none.

        Initial events are no progress: they come in no order.
        """
        self._seen = True
        if self._complete and version and not _older(version, self.version):
            self.version = version

    def ended(self, how: Ended, now: float, retry_after: float | None = None) -> bool:
        """The request is over; whether that was in order. A list that `listed` has accepted is over with `CLOSED`."""
        if how is not Ended.FAILED and now - self._started >= self._timing.healthy:
            self._backoff.reset()
        if self._request.what == "list":
            in_order = self._list_ended(how)
        elif not self._complete:
            in_order = self._initial_events_ended(how)
        else:
            in_order = self._watch_ended(how, now)
        asked = min(retry_after or 0.0, self._timing.most_retry_after)
        self._after = 0.0 if in_order else self._backoff.next_wait() + asked
        return in_order

    def _list_ended(self, how: Ended) -> bool:
        if how in (Ended.EXPIRED, Ended.TOO_LARGE):
            return self._lose_version()
        self._list_plainly = False
        return how is Ended.CLOSED

    def _initial_events_ended(self, how: Ended) -> bool:
        if how in (Ended.EXPIRED, Ended.TOO_LARGE):
            return self._lose_version()
        if how in (Ended.FAILED, Ended.BROKEN):
            self._list_plainly = True
            return False
        self._watch_list = False
        return how is Ended.REFUSED

    def _watch_ended(self, how: Ended, now: float) -> bool:
        fruitless = not self._seen
        if how in (Ended.EXPIRED, Ended.TOO_LARGE, Ended.REFUSED):
            self._must_list = True
            self._version_lost = how is Ended.TOO_LARGE
            return False
        if how is Ended.SILENT:
            # A server that was restored from an older state says nothing until it has caught up with our version.
            self._must_list = fruitless
            return True
        short = now - self._started < self._timing.shortest_watch
        if fruitless and (how is Ended.BROKEN or (how is Ended.CLOSED and short)):
            self._fruitless += 1
            self._must_list = self._fruitless >= MOST_FRUITLESS
            return False
        if how is Ended.CLOSED:
            self._fruitless = 0
        return how is Ended.CLOSED and not short

    def _lose_version(self) -> bool:
        """The newest state it is then, at once; a server that has no newest state either gets time."""
        first, self._version_lost = not self._version_lost, True
        return first


def _older(version: str, than: str) -> bool:
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)
