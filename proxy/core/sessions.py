"""Sessions of clients in datagram mode: how long they last, and which goes first.

It doesn't know what a session is to the shell, and sends nothing.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

S = TypeVar("S")


class Sessions(Generic[S]):
    """Sessions by whose they are, the one idle longest first; the caller ends what it is given back."""

    def __init__(self, idle: float, most: int) -> None:
        """A session unused for `idle` seconds is over; there are `most` at a time."""
        self._idle = idle
        self._most = most
        self._sessions: OrderedDict[Hashable, _Kept[S]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def all(self) -> list[S]:
        """Every session, the one idle longest first."""
        return [kept.session for kept in self._sessions.values()]

    def configure(self, idle: float, most: int) -> list[S]:
        """Other limits from now on; those that are too many."""
        self._idle, self._most = idle, most
        return [self._pop() for _ in range(len(self._sessions) - most)]

    def use(self, key: Hashable, now: float) -> S | None:
        """The session of `key`, which is in use now; None where there is none."""
        kept = self._sessions.get(key)
        if kept is None:
            return None
        kept.used_at = now
        self._sessions.move_to_end(key)
        return kept.session

    def add(self, key: Hashable, session: S, now: float) -> list[S]:
        """Begin the session of a key that has none; those that had to end for it."""
        evicted = [self._pop() for _ in range(len(self._sessions) + 1 - self._most)]
        self._sessions[key] = _Kept(session, now)
        return evicted

    def evict(self, but: Hashable) -> S | None:
        """End the session idle longest to have its resources; None when there is none, or only that of `but`."""
        for key, kept in self._sessions.items():
            if key != but:
                del self._sessions[key]
                return kept.session
        return None

    def end(self, key: Hashable) -> None:
        """The session of `key` is over."""
        del self._sessions[key]

    def expire(self, now: float) -> list[S]:
        """Those that were idle for too long."""
        ended = []
        while (deadline := self.deadline()) is not None and now >= deadline:
            ended.append(self._pop())
        return ended

    def clear(self) -> list[S]:
        """End all."""
        ended = self.all()
        self._sessions.clear()
        return ended

    def deadline(self) -> float | None:
        """When `expire` will have something to do."""
        for kept in self._sessions.values():
            return kept.used_at + self._idle
        return None

    def _pop(self) -> S:
        return self._sessions.popitem(last=False)[1].session


class _Kept(Generic[S]):
    __slots__ = ("session", "used_at")

    def __init__(self, session: S, used_at: float) -> None:
        self.session = session
        self.used_at = used_at
