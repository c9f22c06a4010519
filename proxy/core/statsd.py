"""What a StatsD line is: kind, name, value, tags; how datagrams are cut into lines, and lines packed again.

Lines pass byte for byte, whatever their dialect (DogStatsD, telegraf, Influx, Librato, SignalFX, lyft). A line is
malformed only where no server could read it: no name, no `:value`, no `|type`, or control bytes in name or type.
"""

import re
from typing import NamedTuple

TYPES = {b"c": "counter", b"g": "gauge", b"s": "set", b"ms": "timer", b"h": "timer", b"d": "timer"}
LONGEST_TYPE_BYTES = 16

_CONTROL = bytes([*range(0x20), 0x7F])
_STAMP = re.compile(rb"\|T\d+(?:\||\Z)").search
_EVENT = re.compile(rb"_e\{(\d{1,6}),(\d{1,6})\}:").match
_TAGS = re.compile(rb"[,#\[]|\.__(?=[^.]*=)").search
"""Where the tags in a name begin: Influx, Librato, SignalFX, lyft."""


class Line(NamedTuple):
    """One line in parts. For metrics `name:value|suffix` is the line itself."""

    kind: str
    """One of `ledger.KINDS`. `other` is passed on and never summed up: an unknown type, several types in one line
    (telegraf), or a time of its own (`|T`, DogStatsD 1.3). Service checks are events."""
    name: bytes
    """With the tags that some dialects put there. Of an event its title after `_e:`, of a check its name after
    `_sc:`, so that neither the lengths nor the status decide where it goes."""
    value: bytes
    """Of an event its text, of a check its status."""
    suffix: bytes
    """What follows the value: type, rate, tags and other fields."""


def split(datagram: bytes) -> list[bytes]:
    """The lines of a datagram without line ends (LF or CRLF) and without empty ones."""
    if b"\r" in datagram:
        return [line for raw in datagram.split(b"\n") if (line := raw.rstrip(b"\r"))]
    return [line for line in datagram.split(b"\n") if line]


def read(line: bytes) -> Line | None:
    """The parts of a line; None if it is malformed."""
    name, _, rest = line.partition(b":")
    if line[:1] == b"_":
        if line.startswith(b"_e{"):
            return _read_event(line)
        if line.startswith(b"_sc|"):
            return _read_check(line)
    value, _, suffix = rest.partition(b"|")
    if not value or not name or b"|" in name or name.translate(None, _CONTROL) != name:
        return None
    kind = kind_of(suffix)
    return None if kind is None else Line(kind, name, value, suffix)


def kind_of(suffix: bytes) -> str | None:
    """The kind of a metric by what follows its value; None if that makes no sense."""
    if suffix.translate(None, _CONTROL) != suffix:
        return None
    type_ = suffix.partition(b"|")[0]
    kind = TYPES.get(type_)
    if kind is not None:
        return "other" if b"|T" in suffix and _STAMP(suffix) else kind
    type_ = type_.partition(b":")[0]
    return "other" if type_.isalnum() and len(type_) <= LONGEST_TYPE_BYTES else None


def key(line: Line, *, tags: bool) -> bytes:
    """What decides where a line goes: the name without tags of any dialect, and the sorted tags if they count."""
    name, found = _untagged(line.name) if line.kind != "event" else (line.name, [])
    if not tags:
        return name
    for field in line.suffix.split(b"|"):
        if field.startswith(b"#"):
            found += field[1:].split(b",")
    return b"\0".join((name, *sorted(found)))


def pack(lines: list[bytes], limit_bytes: int) -> tuple[list[tuple[bytes, int]], list[bytes]]:
    """Join lines to payloads of at most `limit_bytes`, each with its number of lines; and what is too long."""
    joined = b"\n".join(lines)
    end = len(joined)
    if end <= limit_bytes:
        return [(joined, len(lines))], []
    payloads: list[tuple[bytes, int]] = []
    too_long: list[bytes] = []
    begin = 0
    while begin < end:
        cut = joined.rfind(b"\n", begin, begin + limit_bytes + 1) if end - begin > limit_bytes else end
        if cut > 0:
            payload = joined[begin:cut]
            payloads.append((payload, payload.count(b"\n") + 1))
        else:
            cut = joined.find(b"\n", begin)
            cut = end if cut < 0 else cut
            too_long.append(joined[begin:cut])
        begin = cut + 1
    return payloads, too_long


def _read_event(line: bytes) -> Line | None:
    header = _EVENT(line)
    if header is None:
        return None
    title_end = header.end() + int(header[1])
    text_end = title_end + 1 + int(header[2])
    title = line[header.end() : title_end]
    if not title or text_end > len(line):
        return None
    return Line("event", b"_e:" + title, line[title_end + 1 : text_end], line[text_end + 1 :])


def _read_check(line: bytes) -> Line | None:
    _, name, *rest = line.split(b"|", 3)
    if not name or not rest or not rest[0]:
        return None
    return Line("event", b"_sc:" + name, rest[0], rest[1] if len(rest) > 1 else b"")


def _untagged(name: bytes) -> tuple[bytes, list[bytes]]:
    """A name without its tags, and those. What would leave no name is none of a name's tags."""
    mark = _TAGS(name)
    if mark is None or mark.start() == 0:
        return name, []
    bare, tags = name[: mark.start()], name[mark.end() :]
    if mark[0] == b"[":
        tags, _, rest = tags.partition(b"]")
        return bare + rest, tags.split(b",")
    return bare, tags.split(b".__" if mark[0] == b".__" else b",")
