"""The last minutes of a run as rates, for the curve on the page; kept nowhere else."""

from collections import deque

SAMPLES = 180


class History:
    """Answers per second, one value per `sample` call, the oldest forgotten first."""

    def __init__(self) -> None:
        self.rates: deque[float] = deque(maxlen=SAMPLES)
        self._last: tuple[float, int] | None = None

    def sample(self, now: float, answered: int) -> None:
        """`answered` is the total so far, `now` monotonic seconds."""
        if self._last is not None and now > self._last[0]:
            self.rates.append((answered - self._last[1]) / (now - self._last[0]))
        self._last = now, answered
