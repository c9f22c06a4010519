"""Lines on their way out: the batch that waits for an endpoint, and the datagrams that it becomes."""

from collections.abc import Iterator, Sequence

from proxy.core.kept import Entry
from proxy.core.statsd import pack


class Batch(list[bytes]):
    """Lines that wait for one endpoint. Batches are told apart by identity."""

    __slots__ = ("endpoint", "limit_bytes", "released")

    def __init__(self, endpoint: str, limit_bytes: int) -> None:
        self.endpoint = endpoint
        self.limit_bytes = limit_bytes
        self.released: list[Entry] = []
        """What goes out of the fold with them."""


class Parcel:
    """What several datagrams share, or what one carries that is no plain line: it ends once, however many arrive."""

    __slots__ = ("arrived", "entries", "lines", "open")

    def __init__(self, lines: int, entries: Sequence[Entry], copies: int) -> None:
        self.lines = lines
        """Received lines; those of `entries` are folded ones."""
        self.entries = entries
        self.open = copies
        """Copies that were neither sent nor given up yet."""
        self.arrived = False


class Outgoing:
    """One datagram for one endpoint. Each that `StatsdRouter.take` gives is told to it once: sent, unsent or lost."""

    __slots__ = ("endpoint", "lines", "parcel", "payload")

    def __init__(self, endpoint: str, payload: bytes, lines: int, parcel: Parcel | None = None) -> None:
        self.endpoint = endpoint
        self.payload = payload
        self.lines = lines
        """How many lines become forwarded with it; 0 for folded ones and for copies of a mirrored one."""
        self.parcel = parcel


class Oversize:
    """What no path takes: lines, or what had been folded from them."""

    __slots__ = ("folded", "lines")

    def __init__(self, lines: int, *, folded: bool) -> None:
        self.lines = lines
        self.folded = folded


def datagrams(batch: Batch, endpoints: Sequence[Batch]) -> Iterator[Outgoing | Oversize]:
    """What a batch becomes: for one endpoint, or the same for several.

    Folded lines go first, being older. A line that only some paths take goes to their endpoints; one that none
    takes is told.
    """
    limit_bytes = min(endpoint.limit_bytes for endpoint in endpoints)
    texts: list[bytes] = []
    entries: list[Entry] = []
    size_bytes = 0
    for entry in batch.released:
        text = entry.text()
        if len(text) > limit_bytes:
            fit = [each for each in endpoints if len(text) <= each.limit_bytes]
            yield from _copies(text, entry.lines, (entry,), fit)
            continue
        if texts and size_bytes + len(text) > limit_bytes:
            yield from _copies(b"\n".join(texts), sum(each.lines for each in entries), entries, endpoints)
            texts, entries, size_bytes = [], [], 0
        texts.append(text)
        entries.append(entry)
        size_bytes += len(text) + 1
    if texts:
        yield from _copies(b"\n".join(texts), sum(each.lines for each in entries), entries, endpoints)
    if batch:
        payloads, too_long = pack(batch, limit_bytes)
        for payload, lines in payloads:
            yield from _copies(payload, lines, (), endpoints)
        for line in too_long:
            yield from _copies(line, 1, (), [each for each in endpoints if len(line) <= each.limit_bytes])


def _copies(
    payload: bytes, lines: int, entries: Sequence[Entry], endpoints: Sequence[Batch]
) -> Iterator[Outgoing | Oversize]:
    if not endpoints:
        yield Oversize(lines, folded=bool(entries))
    elif len(endpoints) == 1 and not entries:
        yield Outgoing(endpoints[0].endpoint, payload, lines)
    else:
        parcel = Parcel(lines, entries, len(endpoints))
        for each in endpoints:
            yield Outgoing(each.endpoint, payload, 0, parcel)
