"""Judges whether a worker stands still: its heartbeat is old, and we were awake to see it grow old."""

TICK = 0.25
HEARTBEAT_LIMIT = 2.0
"""A loop that stands still this long is replaced."""
START_LIMIT = 10.0
"""A worker that is not reading yet may take longer: a busy machine needs seconds to start Python."""
_LATE = 0.5


def too_old(age: float, *, reading: bool) -> bool:
    """Whether a worker stands still whose loop last turned so many seconds ago; `reading`: it has been ready."""
    return age > (HEARTBEAT_LIMIT if reading else START_LIMIT)


class Heartbeats:
    """Call `tick` every TICK seconds, then `stands_still` for each worker; times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._last_tick = self._judged_from = now

    def tick(self, now: float) -> None:
        """A tick that comes late means that we were stopped, and perhaps the workers with us: judge anew."""
        if now - self._last_tick > TICK + _LATE:
            self._judged_from = now
        self._last_tick = now

    def stands_still(self, heartbeat: float, *, reading: bool) -> bool:
        """Whether a worker whose loop last turned at `heartbeat` is to be replaced."""
        since = max(heartbeat, self._judged_from)
        return too_old(self._last_tick - since, reading=reading)
