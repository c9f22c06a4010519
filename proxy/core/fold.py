"""What a relay keeps while no endpoint is usable: sums instead of lines, bounded in bytes and age.

It moves lines between `FOLDED` and `evicted_*` of the ledger, and never decides where one goes.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from proxy.core.counters import Counts
from proxy.core.kept import Entry, Folded, Level, Members, Raw, RawEvent, Sum, Values
from proxy.core.ledger import DROPPED, FOLDED
from proxy.core.statsd import Line

EVICTED_FIRST = ("timer", "set", "event", "other", "gauge", "counter")
"""Sums say more per byte than what is kept value by value."""
RELEASED_FIRST = ("gauge", "counter", "event", "other", "set", "timer")
"""Gauges lead, since their live lines wait for them."""
MOST_EVENTS = 1000
"""The ring of events and service checks: what people still read after an outage."""

_KEPT: dict[str, type[Entry]] = {kept.kind: kept for kept in (Sum, Level, Members, Values)}


class Fold:
    """Entries by key, and by age within their kind. Every lookup and every sum takes constant time."""

    def __init__(self, most_bytes: int, age: float, counts: Counts) -> None:
        self._most_bytes = most_bytes
        self._age = age
        self._counts = counts
        self._index: dict[bytes, Entry] = {}
        """What takes in more lines; a full entry of timer values no longer does."""
        self._queues: dict[str, deque[Entry]] = {kind: deque() for kind in EVICTED_FIRST}
        """Oldest first, so that whatever leaves, leaves on the left."""
        self.lines = 0
        """Received lines that are in it."""
        self.size_bytes = 0

    def configure(self, most_bytes: int, age: float) -> None:
        """Follow new bounds, at once."""
        self._most_bytes = most_bytes
        self._age = age
        self._evict()

    def add(self, line: Line, text: bytes, now: float) -> None:
        """Fold one line; `text` is all of it."""
        self._counts[FOLDED] += 1
        self.lines += 1
        kept = _KEPT.get(line.kind)
        if kept is None or not self._add_value(kept, line, now):
            self._add_raw(line, text, now)
        if self.size_bytes > self._most_bytes:
            self._evict()

    def add_known(self, text: bytes) -> bool:
        """Fold a line if others with its name, type, rate and tags are folded already; whether it is done."""
        name, _, rest = text.partition(b":")
        value, _, suffix = rest.partition(b"|")
        entry = self._index.get(name + b"\n" + suffix)
        if entry is None or not value:
            return False
        size_bytes = entry.size_bytes
        if not entry.join(value):
            return False
        self._counts[FOLDED] += 1
        self.lines += 1
        self.size_bytes += entry.size_bytes - size_bytes
        if self.size_bytes > self._most_bytes:
            self._evict()
        return True

    def has_gauges(self) -> bool:
        """Whether any gauge waits."""
        return bool(self._queues["gauge"])

    def has(self, line: Line) -> bool:
        """Whether a value with this line's name, type, rate and tags waits."""
        return line.name + b"\n" + line.suffix in self._index

    def expire(self, now: float) -> None:
        """Evict what was created longer ago than the age allows."""
        for kind, queue in self._queues.items():
            while queue and queue[0].created + self._age <= now:
                self._drop(queue[0], kind)

    def deadline(self) -> float | None:
        """When the oldest entry is too old."""
        return min((queue[0].created + self._age for queue in self._queues.values() if queue), default=None)

    def release(self, most: int) -> list[Entry]:
        """Take out up to `most` lines, each as an entry of its own (two lines set a gauge below zero)."""
        released: list[Entry] = []
        for kind in RELEASED_FIRST:
            queue = self._queues[kind]
            while queue and len(released) < most:
                entry = queue[0]
                size_bytes = entry.size_bytes
                part = entry.part()
                if part is entry:
                    self._remove(entry, kind)
                else:
                    self.lines -= part.lines
                    self.size_bytes += entry.size_bytes - size_bytes
                released.append(part)
        return released

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Take back what was released and not sent, as the oldest of its kind."""
        for older in reversed(list(entries)):
            self.lines += older.lines
            newer = self._newer(older)
            if newer is None:
                self._queues[older.kind].appendleft(older)
                self.size_bytes += older.size_bytes
                if not isinstance(older, Raw | Values):
                    self._index[older.key] = older
            else:
                size_bytes = newer.size_bytes
                newer.put_back(older)
                self.size_bytes += newer.size_bytes - size_bytes
        self._evict()

    def newest(self, most: int) -> list[Folded]:
        """Some of the entries as people read them, the newest last."""
        entries = [entry for queue in self._queues.values() for entry in islice(reversed(queue), most)]
        entries.sort(key=lambda entry: entry.created)
        return [entry.show() for entry in entries[-most:]] if most else []

    def _add_value(self, kept: type[Entry], line: Line, now: float) -> bool:
        """False if it is no value of its kind."""
        key = line.name + b"\n" + line.suffix
        entry = self._index.get(key)
        if entry is not None:
            size_bytes = entry.size_bytes
            if entry.join(line.value):
                self.size_bytes += entry.size_bytes - size_bytes
                return True
            if isinstance(entry, Members):
                self._count_evicted("set", 1)
                return True
        entry = kept(key, len(line.name), now)
        if not entry.join(line.value):
            return False
        self._index[key] = entry
        self._queues[entry.kind].append(entry)
        self.size_bytes += entry.size_bytes
        return True

    def _add_raw(self, line: Line, text: bytes, now: float) -> None:
        entry = (RawEvent if line.kind == "event" else Raw)(text, line.name, now)
        queue = self._queues[entry.kind]
        if line.kind == "event" and len(queue) >= MOST_EVENTS:
            self._drop(queue[0], "event")
        queue.append(entry)
        self.size_bytes += entry.size_bytes

    def _newer(self, older: Entry) -> Entry | None:
        """What takes in an entry that comes back."""
        if isinstance(older, Raw):
            return None
        if isinstance(older, Values):
            queue = self._queues["timer"]
            oldest = queue[0] if queue else None
            return oldest if isinstance(oldest, Values) and oldest.key == older.key else None
        return self._index.get(older.key)

    def _evict(self) -> None:
        for kind in EVICTED_FIRST:
            queue = self._queues[kind]
            while queue and self.size_bytes > self._most_bytes:
                self._drop(queue[0], kind)

    def _drop(self, oldest: Entry, kind: str) -> None:
        lines = oldest.lines
        self._remove(oldest, kind)
        self.lines += lines
        self._count_evicted(kind, lines)

    def _remove(self, oldest: Entry, kind: str) -> None:
        self._queues[kind].popleft()
        self.lines -= oldest.lines
        self.size_bytes -= oldest.size_bytes
        if self._index.get(oldest.key) is oldest:
            del self._index[oldest.key]
        if not self._index:
            # A dict never shrinks by itself.
            self._index = {}

    def _count_evicted(self, kind: str, lines: int) -> None:
        self.lines -= lines
        self._counts[FOLDED] -= lines
        self._counts[DROPPED[f"evicted_{kind}"]] += lines
