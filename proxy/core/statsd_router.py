"""The decisions for one relay in `statsd` mode: which line goes to which endpoint, waits in the fold, or is dropped.

It owns the lines between a wake-up's first datagram and the send, the fold, and its part of the ledger
(`datagrams_*` and what is known of endpoints are counted by who owns the sockets).
"""

from collections import deque
from collections.abc import Callable, Sequence

from proxy.core import statsd
from proxy.core.batches import Batch, Outgoing, datagrams
from proxy.core.counters import Counts
from proxy.core.fold import Fold
from proxy.core.kept import Entry, Folded, readable
from proxy.core.ledger import COUNTED, DROPPED, FOLDED, FORWARDED, LEVEL, RECEIVED
from proxy.core.limits import Budget
from proxy.core.policy import RelayPolicy
from proxy.core.spread import NO_SLOT, Spread, slot_of

DEFAULT_LIMIT = 1400
"""Bytes of a datagram to an endpoint whose path is not known."""
RELEASE_INTERVAL = 0.02
RELEASE_LINES = 200
"""Released each interval: 10,000 lines a second, in some ten datagrams at a time. An endpoint that has just come up
reads from a queue of 212,992 bytes, which is about 90 datagrams of that size."""
MOST_CARRIED = 10_000
"""Lines that may wait for another endpoint at a time; more are folded."""

MOST_NAMES = 32_768
MOST_SUFFIXES = 8_192
LONGEST_BYTES = 512
"""Bounds of what is remembered as well-formed: some 25 MB at the very worst."""
MOST_MALFORMED = 10
"""Samples that are kept."""
SAMPLE_BYTES = 200

_RELEASED = COUNTED["released"]
_FOLD_LINES, _FOLD_BYTES = LEVEL["fold_lines"], LEVEL["fold_bytes"]


class StatsdRouter:
    """Takes datagrams, gives datagrams. Within one wake-up: `receive` any number of times or `expire`, `take`, then
    `sent` or `unsent` for each that was taken, in the order of `take` and before the next `receive`.
    """

    receive: Callable[[bytes, str, float], None]
    """`receive(datagram, source, now)`: count its lines and keep each for its endpoint, fold or drop it.

    `source` is the client's IP without port, or the user of a Unix socket. Look it up anew for every wake-up: it is
    another function after `configure`.
    """

    def __init__(self, policy: RelayPolicy, counts: Counts) -> None:
        """`counts` is the relay's block of the ledger. All of `policy.endpoints` are usable at first."""
        self._policy = policy
        self._counts = counts
        self._fold = Fold(policy.fold_bytes, policy.fold_age, counts)
        self._spread: Spread[Batch] = Spread()
        self._owners = self._spread.owners
        self._batches: dict[str, Batch] = {}
        """By usable endpoint."""
        self._everyone = Batch("", DEFAULT_LIMIT)
        """What goes to all of them."""
        self._touched: list[Batch] = []
        """Batches that wait for `take`; one may be in it twice."""
        self._turns: list[Batch] = []
        self._turn = 0
        self._limits: dict[str, int] = {}
        self._slots: dict[bytes, int] = {}
        """By name (with `name+tags`: name and suffix) as it is on the wire; only what is well-formed is in it."""
        self._sources: dict[str, int] = {}
        self._passing: set[bytes] = set()
        """Suffixes that are well-formed and may be forwarded: no gauges' while gauges are held."""
        self._gauges_held = False
        self._malformed: deque[bytes] = deque(maxlen=MOST_MALFORMED)
        self._released_lines = 0
        """Folded lines that are out of the fold and not sent yet."""
        self._release_at = 0.0
        self._carried = 0
        """Unsent lines that wait for another endpoint."""
        self._refolding = False
        """What is not sent any more before the next `take` is folded, since something before it was."""
        self._now = 0.0
        self._budget: Budget | None = None
        self._follow(policy)
        self.set_usable(policy.endpoints)

    def configure(self, policy: RelayPolicy) -> None:
        """Follow a new policy; what is folded stays. New endpoints are usable at once, unusable ones stay so."""
        unusable = set(self._policy.endpoints) - set(self._batches)
        self._limits = {each: limit for each, limit in self._limits.items() if each in policy.endpoints}
        self._fold.configure(policy.fold_bytes, policy.fold_age)
        if policy.spread != self._policy.spread:
            # What waits is folded, and placed by the new rule when it is released.
            self.set_usable(())
        self._follow(policy)
        self.set_usable([each for each in policy.endpoints if each not in unusable])

    def set_usable(self, endpoints: Sequence[str]) -> None:
        """What may be sent to: the policy's endpoints without ejected ones; none: lines are folded from now on."""
        old = self._batches
        if list(old) == list(endpoints):
            return
        self._batches = {
            each: old[each] if each in old else Batch(each, self._limits.get(each, DEFAULT_LIMIT))
            for each in endpoints
        }
        self._turns = list(self._batches.values())
        self._spread.change(self._batches)
        if not endpoints:
            self._refold()
        elif not old:
            self._release_at = self._now
        touched, self._touched = self._touched, []
        for batch in touched:
            if batch is self._everyone or batch is self._batches.get(batch.endpoint):
                self._touched.append(batch)
            else:
                self._put_back(batch.released)
                for line in batch:
                    self._place_again(line, None)
                batch.clear()
                batch.released.clear()
        self._show_fold()

    def set_limit(self, endpoint: str, limit_bytes: int) -> None:
        """The longest datagram that the path to an endpoint takes. It is kept while the policy has the endpoint."""
        self._limits[endpoint] = limit_bytes
        if endpoint in self._batches:
            self._batches[endpoint].limit_bytes = limit_bytes

    def take(self) -> list[Outgoing]:
        """All that waits, packed up to each endpoint's limit; a line that is too long is dropped as `oversize`."""
        taken: list[Outgoing] = []
        for batch in self._touched:
            if not batch.released and batch is not self._everyone:
                payload = b"\n".join(batch)
                if len(payload) <= batch.limit_bytes:  # nearly always
                    if batch:
                        taken.append(Outgoing(batch.endpoint, payload, len(batch)))
                        batch.clear()
                    continue
            for each in datagrams(batch, self._turns if batch is self._everyone else (batch,)):
                if isinstance(each, Outgoing):
                    taken.append(each)
                    continue
                self._counts[DROPPED["oversize"]] += each.lines
                if each.folded:
                    self._counts[FOLDED] -= each.lines
                    self._released_lines -= each.lines
            batch.clear()
            batch.released.clear()
        self._touched.clear()
        self._carried = 0
        self._refolding = False
        self._spread.settle()
        if self._fold.lines or self._counts[_FOLD_LINES]:
            self._show_fold()
        return taken

    def sent(self, outgoing: Outgoing) -> None:
        """The kernel took it."""
        parcel = outgoing.parcel
        if parcel is None:
            self._counts[FORWARDED] += outgoing.lines
            return
        parcel.open -= 1
        if parcel.arrived:
            return
        parcel.arrived = True
        if parcel.entries:
            self._counts[_RELEASED] += outgoing.payload.count(b"\n") + 1
            self._released_lines -= parcel.lines
            self._show_fold()
        else:
            self._counts[FORWARDED] += parcel.lines

    def unsent(self, outgoing: Outgoing, now: float) -> None:
        """The kernel did not take it: its lines go to another usable endpoint with the next `take`, else are folded.

        If the endpoint's limit is lower by now, they go to the same one in smaller datagrams. Folded lines go back
        to the fold. Of copies of a mirrored one only the last counts, when no other arrived. What follows to the
        same endpoint in the same `take` should not be sent either, or gauges may end at an older value.
        """
        self._now = now
        parcel = outgoing.parcel
        if parcel is not None:
            parcel.open -= 1
            if parcel.open or parcel.arrived:
                return
            if parcel.entries:
                self._put_back(parcel.entries)
                self._show_fold()
                return
        lines = outgoing.payload.split(b"\n")
        failed = self._batches.get(outgoing.endpoint)
        if failed is not None and len(outgoing.payload) > failed.limit_bytes:
            failed = None
        others = len(self._batches) - (failed is not None)
        self._carried += len(lines)
        if parcel is None and others and not self._refolding and self._carried <= MOST_CARRIED:
            for line in lines:
                self._place_again(line, failed)
        else:
            self._refold()
            for line in lines:
                self._fold_again(line)
        self._show_fold()

    def expire(self, now: float) -> None:
        """Release folded lines that are due to the next `take`, and evict those past `fold_age`."""
        self._now = now
        self._fold.expire(now)
        if self._fold.lines and self._batches and now >= self._release_at:
            self._release_at = now + RELEASE_INTERVAL
            for entry in self._fold.release(RELEASE_LINES):
                batch = self._home(_read_again(entry.text().partition(b"\n")[0]), None)
                if not batch and not batch.released:
                    self._touched.append(batch)
                batch.released.append(entry)
                self._released_lines += entry.lines
        self._gauges_held = self._fold.has_gauges()
        self._show_fold()

    def deadline(self) -> float | None:
        """When `expire` (and `take` after it) is due; None while nothing waits for a time."""
        if self._touched:
            return self._now
        too_old = self._fold.deadline()
        if too_old is None or not self._batches:
            return too_old
        return min(too_old, self._release_at)

    def folded(self, most: int) -> list[Folded]:
        """Some of what is folded, the newest last."""
        return self._fold.newest(most)

    def malformed(self) -> list[str]:
        """The last lines that made no sense, printable and short, the newest last."""
        return [readable(line, SAMPLE_BYTES) for line in self._malformed]

    def _follow(self, policy: RelayPolicy) -> None:
        rates = (policy.datagrams_per_second, policy.lines_per_second)
        if not any(rates):
            self._budget = None
        elif self._budget is None or self._budget.rates != rates:
            self._budget = Budget(*rates)
        self._policy = policy
        self._tags = policy.spread == "name+tags"
        self._route = self._receive_by_key if policy.spread in ("name", "name+tags") else self._receive_together
        self.receive = self._route if self._budget is None else self._receive_within_budget

    def _receive_by_key(self, datagram: bytes, source: str, now: float) -> None:
        self._now = now
        slots, owners, passing, tags = self._slots, self._owners, self._passing, self._tags
        received = 0
        for line in datagram.split(b"\n"):
            name, _, rest = line.partition(b":")
            value, _, suffix = rest.partition(b"|")
            if suffix in passing and value:
                batch = owners[slots.get(name + b"\n" + suffix if tags else name, NO_SLOT)]
                if batch is not None:
                    if not batch:
                        self._touched.append(batch)
                    batch.append(line)
                    received += 1
                    continue
            if line:
                self._receive_line(line, None)
        self._counts[RECEIVED] += received

    def _receive_together(self, datagram: bytes, source: str, now: float) -> None:
        self._now = now
        batch = self._batch_for(source) if self._batches else None
        slots, passing = self._slots, self._passing
        received = 0
        for line in datagram.split(b"\n"):
            name, _, rest = line.partition(b":")
            value, _, suffix = rest.partition(b"|")
            if batch is not None and suffix in passing and value and name in slots:
                if not batch:
                    self._touched.append(batch)
                batch.append(line)
                received += 1
            elif line:
                self._receive_line(line, batch)
        self._counts[RECEIVED] += received

    def _receive_within_budget(self, datagram: bytes, source: str, now: float) -> None:
        assert self._budget is not None
        lines = len(statsd.split(datagram))
        if self._budget.admits(source, lines, now):
            self._route(datagram, source, now)
        else:
            self._counts[RECEIVED] += lines
            self._counts[DROPPED["rate_limited"]] += lines

    def _batch_for(self, source: str) -> Batch:
        if self._policy.spread == "all":
            return self._everyone
        if self._policy.spread == "packet":
            self._turn = (self._turn + 1) % len(self._turns)
            return self._turns[self._turn]
        slot = self._sources.get(source)
        if slot is None:
            if len(self._sources) >= MOST_NAMES:
                self._sources.clear()
            slot = self._sources[source] = slot_of(source.encode())
        owner = self._owners[slot]
        return self._spread.pick(slot) if owner is None else owner

    def _receive_line(self, line: bytes, batch: Batch | None) -> None:
        """A line that is not known to be well-formed, or may not be forwarded. `batch` is its datagram's, if any."""
        line = line.rstrip(b"\r")
        if not line:
            return
        self._counts[RECEIVED] += 1
        if not self._batches and self._fold.add_known(line):
            return
        parsed = statsd.read(line)
        if parsed is None:
            self._counts[DROPPED["malformed"]] += 1
            self._malformed.append(line[: SAMPLE_BYTES + 1])
        elif not self._batches or (parsed.kind == "gauge" and self._fold.has(parsed)):
            self._fold_line(parsed, line)
        else:
            slot = self._slot(parsed)
            if batch is None:
                owner = self._owners[slot]
                batch = self._spread.pick(slot) if owner is None else owner
            self._put(batch, line)
            if parsed.kind != "gauge" or not self._gauges_held:
                self._let_pass(parsed)

    def _let_pass(self, parsed: statsd.Line) -> None:
        """Spare the next line with this type, rate and tags a second look."""
        if parsed.kind in ("event", "other") or len(parsed.suffix) > LONGEST_BYTES:
            return
        if len(self._passing) >= MOST_SUFFIXES:
            self._passing.clear()
        self._passing.add(parsed.suffix)

    def _slot(self, parsed: statsd.Line) -> int:
        if parsed.kind == "event" or (self._tags and parsed.kind == "other"):  # hardly the same twice
            return slot_of(statsd.key(parsed, tags=self._tags))
        name = parsed.name + b"\n" + parsed.suffix if self._tags else parsed.name
        slot = self._slots.get(name)
        if slot is None:
            slot = slot_of(statsd.key(parsed, tags=self._tags))
            if len(name) <= LONGEST_BYTES:
                if len(self._slots) >= MOST_NAMES:
                    self._slots.clear()
                self._slots[name] = slot
        return slot

    def _home(self, parsed: statsd.Line, but: Batch | None) -> Batch:
        """Where a line goes by its name, or would go without one endpoint."""
        if self._policy.spread == "all":
            return self._everyone
        slot = self._slot(parsed)
        owner = None if but is not None else self._owners[slot]
        return self._spread.pick(slot, but) if owner is None else owner

    def _put(self, batch: Batch, line: bytes) -> None:
        if not batch and not batch.released:
            self._touched.append(batch)
        batch.append(line)

    def _place_again(self, line: bytes, but: Batch | None) -> None:
        self._put(self._home(_read_again(line), but), line)

    def _refold(self) -> None:
        """Fold all that waits, so that it keeps its place before what is folded next."""
        self._refolding = True
        touched, self._touched = self._touched, []
        for batch in touched:
            self._put_back(batch.released)
            for line in batch:
                self._fold_again(line)
            batch.clear()
            batch.released.clear()

    def _fold_again(self, line: bytes) -> None:
        self._fold_line(_read_again(line), line)

    def _fold_line(self, parsed: statsd.Line, line: bytes) -> None:
        if not self._policy.fold_bytes:
            self._counts[DROPPED["no_endpoint"]] += 1
            return
        self._fold.add(parsed, line, self._now)
        self._hold_gauges()

    def _put_back(self, entries: Sequence[Entry]) -> None:
        self._released_lines -= sum(entry.lines for entry in entries)
        self._fold.put_back(entries)
        self._hold_gauges()

    def _hold_gauges(self) -> None:
        """While gauges are folded, look at each live one: a released value must not come after a newer one."""
        if not self._gauges_held and self._fold.has_gauges():
            self._gauges_held = True
            self._passing -= {suffix for suffix in self._passing if statsd.kind_of(suffix) == "gauge"}

    def _show_fold(self) -> None:
        self._counts[_FOLD_LINES] = self._fold.lines + self._released_lines
        self._counts[_FOLD_BYTES] = self._fold.size_bytes


def _read_again(line: bytes) -> statsd.Line:
    parsed = statsd.read(line)
    assert parsed is not None
    return parsed
