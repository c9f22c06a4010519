"""Monotonic time for a worker's shell, and the one timer that wakes a core when its time has come."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Cancellable(Protocol):
    """A timer that can be taken back."""

    def cancel(self) -> None:
        """Don't call."""


class Clock(Protocol):
    """Monotonic time and one-shot timers on it; a test moves it by hand."""

    def now(self) -> float:
        """Seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Cancellable:
        """Call back once `now` has reached `when`."""


class LoopClock:
    """The machine's monotonic clock. uvloop's own stands still for as long as a callback runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = time.monotonic

    def call_at(self, when: float, callback: Callable[[], None]) -> Cancellable:
        return self._loop.call_later(max(0.0, when - self.now()), callback)


class Alarm:
    """Calls back at the earliest time asked for since it last did; who is called too early finds nothing to do."""

    def __init__(self, clock: Clock, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._callback = callback
        self._timer: Cancellable | None = None
        self._at = float("inf")

    def ring_at(self, when: float | None) -> None:
        """Not later than `when`; None asks for nothing."""
        if when is not None and when < self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._at = when
            self._timer = self._clock.call_at(when, self._ring)

    def cancel(self) -> None:
        """Don't call."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._at = float("inf")
        self._callback()
