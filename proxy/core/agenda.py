"""What a sans-I/O core wants done: actions now, and a look at things when their time has come."""

from heapq import heappop, heappush

from proxy.core.pending import Action, Lookup, Try
from proxy.core.upstreams import Upstream

Timed = Lookup | Try | Upstream


class Agenda:
    """Actions in order, and times at which a lookup, a try or an upstream wants to be looked at again.

    A time is never taken back: whoever is looked at too often finds nothing to do.
    """

    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._times: list[tuple[float, int, Timed]] = []
        self._number = 0

    def do(self, action: Action) -> None:
        """To be carried out by the shell."""
        self._actions.append(action)

    def take_actions(self) -> list[Action]:
        """All actions since the last call; the caller owns the list."""
        actions = self._actions
        if actions:
            self._actions = []
        return actions

    def look_at(self, when: float, what: Timed) -> None:
        """Monotonic seconds."""
        self._number += 1
        heappush(self._times, (when, self._number, what))

    def next_time(self) -> float | None:
        """When `due` will have something."""
        return self._times[0][0] if self._times else None

    def due(self, now: float) -> Timed | None:
        """The next thing whose time has come."""
        return heappop(self._times)[2] if self._times and self._times[0][0] <= now else None
