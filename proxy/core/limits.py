"""How much one source may send: token buckets for datagrams and lines, for a bounded number of sources."""

from collections import OrderedDict

MOST_SOURCES = 4096
"""Well over the 110 to 256 pods of a node; past it the source that was silent longest starts anew."""
BURST_SECONDS = 1.0
"""A bucket holds what may come in this time, at least one datagram."""


class Budget:
    """Tokens per source. A rate of 0 is no limit."""

    def __init__(self, datagrams_per_second: int, lines_per_second: int) -> None:
        self.rates = (datagrams_per_second, lines_per_second)
        self._datagrams = float(datagrams_per_second)
        self._lines = float(lines_per_second)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def admits(self, source: str, lines: int, now: float) -> bool:
        """Whether a datagram with so many lines is within its source's budget; if so, it is charged.

        Lines are charged into debt, so that a datagram with more lines than the bucket holds can pass at all.
        """
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= MOST_SOURCES:
                self._buckets.popitem(last=False)
            bucket = self._buckets[source] = _Bucket(
                self._datagrams * BURST_SECONDS, self._lines * BURST_SECONDS, now
            )
        else:
            self._buckets.move_to_end(source)
            elapsed = max(0.0, now - bucket.filled_at)
            bucket.filled_at = now
            bucket.datagrams = min(self._datagrams * BURST_SECONDS, bucket.datagrams + elapsed * self._datagrams)
            bucket.lines = min(self._lines * BURST_SECONDS, bucket.lines + elapsed * self._lines)
        if (self._datagrams and bucket.datagrams < 1) or (self._lines and bucket.lines <= 0):
            return False
        bucket.datagrams -= 1
        bucket.lines -= lines
        return True


class _Bucket:
    __slots__ = ("datagrams", "filled_at", "lines")

    def __init__(self, datagrams: float, lines: float, now: float) -> None:
        self.datagrams = datagrams
        self.lines = lines
        self.filled_at = now
