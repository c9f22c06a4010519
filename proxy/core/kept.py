"""How the fold keeps lines of each kind: one entry for all lines with the same name, type, rate and tags.

Sizes are what CPython 3.11 takes on 64 bits, with an entry's share of the fold's own containers.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from proxy.core import exact
from proxy.core.exact import Number

MOST_MEMBERS = 10_000
"""Of one set, about 1 MB; members past it are not kept."""
VALUES_BYTES = 1024
"""What one entry of timer values takes; then the next begins, so that the oldest can go first."""

_ENTRY_BYTES = 240
"""An entry with its number, its key's header, and its places in an index and a queue."""
_MEMBERS_BYTES, _MEMBER_BYTES = 160, 80
_VALUES_BYTES = 64


@dataclass(frozen=True, slots=True)
class Folded:
    """One value that waits, as people read it."""

    name: str
    kind: str
    value: str
    suffix: str
    """What followed the value: type, rate, tags."""
    lines: int
    """How many received lines are in it."""


class Entry:
    """What is common. `key` is name, newline, suffix; `cut` the length of the name; `lines` those folded in it."""

    __slots__ = ("created", "cut", "key", "lines", "size_bytes")
    kind: ClassVar[str]

    def __init__(self, key: bytes, cut: int, created: float, lines: int = 0) -> None:
        self.key = key
        self.cut = cut
        self.created = created
        self.lines = lines
        self.size_bytes = _ENTRY_BYTES + len(key)

    def join(self, value: bytes) -> bool:
        """Take in the value of one more line; False if it is no value of this kind, or there is no room."""
        raise NotImplementedError

    def part(self) -> "Entry":
        """One line to send, taken out as an entry of its own; the entry itself if there is no other."""
        return self

    def text(self) -> bytes:
        """What is sent for a part: its line, or the two that set a gauge below zero."""
        return self._line(self._value())

    def show(self) -> Folded:
        """The entry as people read it."""
        suffix = self.key[self.cut + 1 :]
        return Folded(readable(self.key[: self.cut]), self.kind, self._shown(), readable(suffix), self.lines)

    def put_back(self, older: Any) -> None:
        """Take in what was released and not sent; it is of the same kind, and came before."""
        raise NotImplementedError

    def _line(self, value: bytes) -> bytes:
        return self.key[: self.cut] + b":" + value + b"|" + self.key[self.cut + 1 :]

    def _value(self) -> bytes:
        raise NotImplementedError

    def _shown(self) -> str:
        return readable(self._value())


class Sum(Entry):
    """Counters. The rate is part of the key, so that the sum is exact and the rate passes on as it is."""

    __slots__ = ("total",)
    kind = "counter"

    def __init__(self, key: bytes, cut: int, created: float) -> None:
        super().__init__(key, cut, created)
        self.total: Number = 0

    def join(self, value: bytes) -> bool:
        number = exact.total(value)
        if number is None:
            return False
        self.total = exact.add(self.total, number)
        self.lines += 1
        return True

    def put_back(self, older: "Sum") -> None:
        """Add what was not sent."""
        self.total = exact.add(self.total, older.total)
        self.lines += older.lines

    def _value(self) -> bytes:
        return exact.render(self.total)


class Level(Entry):
    """Gauges: the last absolute value as it came, and the sum of what was signed after it."""

    __slots__ = ("absolute", "change")
    kind = "gauge"

    def __init__(self, key: bytes, cut: int, created: float) -> None:
        super().__init__(key, cut, created)
        self.absolute: bytes | None = None
        self.change: Number = 0

    def join(self, value: bytes) -> bool:
        values = [(each, exact.parse(each)) for each in value.split(b":")]
        absolute, change = self.absolute, self.change
        for each, number in values:
            if number is None:
                return False
            if each[:1] in (b"+", b"-"):
                change = exact.add(change, number)
            else:
                absolute, change = each, 0
        self.absolute, self.change = absolute, change
        self.lines += 1
        return True

    def put_back(self, older: "Level") -> None:
        """Lay what was not sent under what came since."""
        self.lines += older.lines
        if self.absolute is None:
            self.absolute = older.absolute
            self.change = exact.add(older.change, self.change)

    def text(self) -> bytes:
        value = self._value()
        if self.absolute is not None and value[:1] == b"-":
            # A signed value is relative, so that zero has to come first.
            return self._line(b"0") + b"\n" + self._line(value)
        return self._line(value)

    def _value(self) -> bytes:
        if self.absolute is None:
            return exact.render(self.change, sign="+")
        if not self.change:
            return self.absolute
        level = exact.parse(self.absolute)
        assert level is not None
        return exact.render(exact.add(level, self.change))


class Members(Entry):
    """The union of a set's values."""

    __slots__ = ("members",)
    kind = "set"

    def __init__(self, key: bytes, cut: int, created: float) -> None:
        super().__init__(key, cut, created)
        self.members: dict[bytes, None] = {}
        self.size_bytes += _MEMBERS_BYTES

    def join(self, value: bytes) -> bool:
        if value not in self.members:
            if len(self.members) >= MOST_MEMBERS:
                return False
            self.members[value] = None
            self.size_bytes += _MEMBER_BYTES + len(value)
        self.lines += 1
        return True

    def put_back(self, older: "Members") -> None:
        """Unite with what was not sent, past the bound if it must be."""
        self.lines += older.lines
        for member in older.members:
            if member not in self.members:
                self.members[member] = None
                self.size_bytes += _MEMBER_BYTES + len(member)

    def part(self) -> Entry:
        if len(self.members) < 2:
            return self
        member, _ = self.members.popitem()
        part = Members(self.key, self.cut, self.created)
        part.join(member)
        self.lines -= 1
        self.size_bytes -= _MEMBER_BYTES + len(member)
        return part

    def _value(self) -> bytes:
        return next(iter(self.members))

    def _shown(self) -> str:
        return f"{len(self.members)} different" if len(self.members) > 1 else readable(self._value())


class Values(Entry):
    """Values of timers, histograms and distributions as they came, one line's after the other."""

    __slots__ = ("values",)
    kind = "timer"

    def __init__(self, key: bytes, cut: int, created: float) -> None:
        super().__init__(key, cut, created)
        self.values = bytearray()
        self.size_bytes += _VALUES_BYTES

    def join(self, value: bytes) -> bool:
        if len(self.values) >= VALUES_BYTES:
            return False
        if self.values:
            self.values += b"\n"
        self.values += value
        self.size_bytes += len(value) + 1
        self.lines += 1
        return True

    def put_back(self, older: "Values") -> None:
        """Keep what was not sent in front."""
        self.values[:0] = older.values + b"\n"
        self.size_bytes += len(older.values) + 1
        self.lines += older.lines

    def part(self) -> Entry:
        if self.lines < 2:
            return self
        end = self.values.index(b"\n")
        part = Values(self.key, self.cut, self.created)
        part.join(bytes(self.values[:end]))
        del self.values[: end + 1]
        self.size_bytes -= end + 1
        self.lines -= 1
        return part

    def _value(self) -> bytes:
        return bytes(self.values)

    def _shown(self) -> str:
        last = readable(bytes(self.values[self.values.rfind(b"\n") + 1 :]))
        return f"{last} (last of {self.lines})" if self.lines > 1 else last


class Raw(Entry):
    """A line as it came. Its key is all of it."""

    __slots__ = ("name",)
    kind = "other"

    def __init__(self, line: bytes, name: bytes, created: float) -> None:
        super().__init__(line, 0, created, 1)
        self.name = name
        self.size_bytes += len(name)

    def text(self) -> bytes:
        return self.key

    def show(self) -> Folded:
        return Folded(readable(self.name), self.kind, readable(self.key), "", self.lines)


class RawEvent(Raw):
    """An event or a service check as it came."""

    __slots__ = ()
    kind = "event"


def readable(text: bytes, most: int = 200) -> str:
    """Bytes from the wire for a person's eyes: UTF-8, everything else escaped, at most `most` bytes of it."""
    shown = "".join(
        character if character.isprintable() else repr(character)[1:-1]  # a codec would have to be imported
        for character in text[:most].decode("utf-8", "backslashreplace")
    )
    return shown + "…" if len(text) > most else shown
