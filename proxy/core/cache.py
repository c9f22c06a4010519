"""The answers that are kept: bounded in bytes, all zones in one, fresh and stale, and ready-made variants of them.

Eviction is S3-FIFO: a new entry must be used once more while it passes a small queue (a tenth of the bytes) before
it may enter the main one, so a scan of one-time names flushes only the small queue. A denial of a name (NXDOMAIN)
stands under the name alone and answers every type (RFC 2308 5); a failure stands beside the data it didn't replace.
"""

from collections import deque
from collections.abc import Iterator
from struct import Struct
from typing import Protocol

from proxy.core.counters import CACHE_EVICTED, Counts
from proxy.core.lifetime import Kind, Verdict
from proxy.core.message import AAAA, CNAME, A, Sections, ttl_offsets

ENTRY_OVERHEAD = 560
"""What an entry costs beside its key and twice its data (here and in the journal): 385 to 430 bytes of resident
memory for its objects and its places in the dictionary and a queue, the rest in the journal (at 100,000 entries)."""
VARIANT_OVERHEAD = 400
"""The same of a variant beside its question and answer: 376 to 398."""
GHOST_OVERHEAD = 120
MOST_VARIANTS = 4
"""Ready-made answers per entry; more spellings than these (0x20 mixing) are rendered each time."""
LARGEST_SHARE = 8
"""An answer above this part of the whole isn't kept."""

_SMALL_SHARE = 10
_MOST_USES = 3
_MOST_GHOSTS = 16384
_NAME_ONLY = 0
_FAILURE = 0x80
_GONE = float("-inf")
_TTL = Struct(">I")


def cache_key(name: bytes, qtype: int, do_cd: int) -> bytes:
    """Name, type and the DO and CD bits of a question of class IN; type 0 is the name as a whole."""
    return name + bytes((qtype >> 8, qtype & 255, do_cd))


class Journal(Protocol):
    """Where entries are also written so that they survive the process (`core/journal.py`)."""

    def append(self, record: bytes) -> int | None:
        """Write one record; None when it can't be kept."""

    def forget(self, token: int) -> None:
        """The record is worth nothing any more."""

    def replay(self) -> Iterator[tuple[int, bytes]]:
        """All records that were whole when the last process ended, oldest first."""


class Entry:
    """One kept answer; times on the monotonic clock."""

    __slots__ = (
        "chained",
        "cost",
        "expires_at",
        "in_main",
        "key",
        "kind",
        "lifetime",
        "renders",
        "sections",
        "stored_at",
        "token",
        "uses",
        "variants",
    )

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.uses = 0
        self.in_main = False
        self.cost = 0
        self.token: int | None = None
        self.variants: list[bytes] | None = None
        self.renders = 0
        """Times it was looked up since it was stored: who is popular is asked again before expiry."""

    def fill(self, kind: Kind, sections: Sections, chained: bool, lifetime: int, stored_at: float) -> None:
        self.kind = kind
        self.sections = sections
        self.chained = chained
        self.lifetime = lifetime
        self.stored_at = stored_at
        self.expires_at = stored_at + lifetime
        self.renders = 0


class Variant:
    """The whole answer to one exact spelling of a question, without the ID, good for the current second of age."""

    __slots__ = ("_data_at", "body", "entry", "slot", "until")

    def __init__(self, entry: Entry, message: bytes, question_end: int, age: int, slot: int) -> None:
        self.entry = entry
        self.slot = slot
        self._data_at = question_end - 2
        self.body = message[2:]
        self.until = min(entry.expires_at, entry.stored_at + age + 1)

    def refresh(self, now: float) -> None:
        """Age the TTLs to `now`, which is before the entry expires."""
        entry = self.entry
        age = int(now - entry.stored_at)
        data = entry.sections.data
        body = bytearray(self.body)
        for at in ttl_offsets(data):
            left = int.from_bytes(data[at : at + 4], "big") - age
            _TTL.pack_into(body, self._data_at + at, left if left > 0 else 0)
        self.body = bytes(body)
        self.until = min(entry.expires_at, entry.stored_at + age + 1)


class Cache:
    """Entries by key and variants by the bytes of a question behind its ID."""

    def __init__(self, limit_bytes: int, stale: int, counts: Counts, journal: Journal | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.stale = stale
        self.bytes = 0
        self.variants: dict[bytes, Variant] = {}
        self._counts = counts
        self._journal = journal
        self._entries: dict[bytes, Entry] = {}
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._small_bytes = 0
        self._ghosts: deque[int] = deque()
        self._ghost_set: set[int] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, name: bytes, qtype: int, do_cd: int, now: float) -> Entry | None:
        """What may be answered now: data or a denial of this type, or a denial of the whole name."""
        entry = self._entries.get(cache_key(name, qtype, do_cd))
        if entry is not None and now < entry.expires_at:
            return entry
        denial = self._denial(name, qtype, do_cd)
        return denial if denial is not None and now < denial.expires_at else None

    def stale_entry(self, name: bytes, qtype: int, do_cd: int, now: float) -> Entry | None:
        """The newest thing known about it that expired no longer than `stale` ago."""
        candidates = (self._entries.get(cache_key(name, qtype, do_cd)), self._denial(name, qtype, do_cd))
        usable = [e for e in candidates if e is not None and now < e.expires_at + self.stale]
        return max(usable, key=lambda entry: entry.stored_at, default=None)

    def failure(self, name: bytes, qtype: int, do_cd: int) -> Entry | None:
        """The last failure of this question, over or not: its lifetime tells how long the next one counts."""
        return self._entries.get(cache_key(name, qtype, do_cd | _FAILURE))

    def use(self, entry: Entry) -> None:
        """Note that `entry` was answered with."""
        entry.renders += 1
        if entry.uses < _MOST_USES:
            entry.uses += 1

    def store(self, name: bytes, qtype: int, do_cd: int, verdict: Verdict, now: float) -> None:
        """Keep an answer if it may be kept, and forget in any case what it contradicts.

        A and AAAA never disagree about a name's existence.
        """
        denied = verdict.kind is Kind.NXDOMAIN
        displaced = [cache_key(name, qtype, do_cd), cache_key(name, qtype, do_cd | _FAILURE)]
        if denied and qtype == A:
            displaced.append(cache_key(name, AAAA, do_cd))
        displaced.append(cache_key(name, _NAME_ONLY, do_cd))
        for key in displaced:
            self._void(key)
        if verdict.lifetime > 0:
            key = displaced[-1] if denied else displaced[0]
            self._put(key, verdict.kind, verdict.sections, verdict.chained, verdict.lifetime, now)

    def store_failure(
        self, name: bytes, qtype: int, do_cd: int, sections: Sections, lifetime: int, now: float
    ) -> None:
        """Remember for `lifetime` that nobody could answer (RFC 9520); what was known before stays."""
        self._put(cache_key(name, qtype, do_cd | _FAILURE), Kind.FAILURE, sections, False, lifetime, now)

    def add_variant(self, entry: Entry, tail: bytes, variant: Variant) -> None:
        """Keep a ready answer for the question bytes `tail` (all behind the ID)."""
        known = self.variants.get(tail)
        if known is not None:  # an entry that expired had the question before
            self._drop_variants(known.entry)
        if entry.variants is None:
            entry.variants = []
        elif len(entry.variants) >= MOST_VARIANTS:
            return
        if self._entries.get(entry.key) is not entry:
            return
        entry.variants.append(tail)
        self.variants[tail] = variant
        self._charge(entry, VARIANT_OVERHEAD + len(tail) + len(variant.body))
        self._shrink()

    def resize(self, limit_bytes: int, stale: int) -> None:
        """Take on a new configuration, keeping what still fits."""
        self.limit_bytes = limit_bytes
        self.stale = stale
        self._shrink()

    def restore(self, now: float) -> int:
        """Take in what the journal holds from the last process, and return how many entries are now here."""
        if self._journal is None:
            return 0
        for token, record in self._journal.replay():
            self._adopt(token, record, now)
        return len(self._entries)

    def _denial(self, name: bytes, qtype: int, do_cd: int) -> Entry | None:
        denial = self._entries.get(cache_key(name, _NAME_ONLY, do_cd))
        # A name with a CNAME exists, whatever is said about the end of its chain.
        return None if denial is not None and denial.chained and qtype == CNAME else denial

    def _void(self, key: bytes) -> None:
        """Make the entry useless in place; its queue will drop it."""
        entry = self._entries.get(key)
        if entry is not None and entry.expires_at != _GONE:
            entry.expires_at = _GONE
            self._drop_variants(entry)
            self._forget(entry)

    def _put(self, key: bytes, kind: Kind, sections: Sections, chained: bool, lifetime: int, now: float) -> None:
        entry = self._place(key)
        entry.fill(kind, sections, chained, lifetime, now)
        self._recost(entry)
        if self._journal is not None and entry.expires_at != _GONE:
            entry.token = self._journal.append(_pack(entry))
        self._shrink()

    def _place(self, key: bytes) -> Entry:
        """The entry of this key, emptied; a new one takes its place in a queue."""
        entry = self._entries.get(key)
        if entry is not None:
            self._drop_variants(entry)
            self._forget(entry)
            return entry
        entry = self._entries[key] = Entry(key)
        if hash(key) in self._ghost_set:
            entry.in_main = True
            self._main.append(entry)
        else:
            self._small.append(entry)
        return entry

    def _recost(self, entry: Entry) -> None:
        cost = ENTRY_OVERHEAD + len(entry.key) + 2 * len(entry.sections.data)
        if cost > self.limit_bytes // LARGEST_SHARE:
            entry.sections = Sections(b"", (0, 0, 0), 0, False)
            entry.expires_at = _GONE
            cost = ENTRY_OVERHEAD + len(entry.key)
        self._charge(entry, cost - entry.cost)

    def _charge(self, entry: Entry, more: int) -> None:
        entry.cost += more
        self.bytes += more
        if not entry.in_main:
            self._small_bytes += more

    def _forget(self, entry: Entry) -> None:
        if entry.token is not None and self._journal is not None:
            self._journal.forget(entry.token)
        entry.token = None

    def _drop_variants(self, entry: Entry) -> None:
        if not entry.variants:
            return
        for tail in entry.variants:
            variant = self.variants.pop(tail)
            self._charge(entry, -(VARIANT_OVERHEAD + len(tail) + len(variant.body)))
        entry.variants = None

    def _shrink(self) -> None:
        while self.bytes > self.limit_bytes and self._entries:
            if self._small and (self._small_bytes * _SMALL_SHARE > self.limit_bytes or not self._main):
                self._pass_small(self._small.popleft())
            else:
                self._pass_main(self._main.popleft())

    def _pass_small(self, entry: Entry) -> None:
        if entry.uses and entry.expires_at != _GONE:
            entry.uses = 0
            entry.in_main = True
            self._small_bytes -= entry.cost
            self._main.append(entry)
        else:
            self._evict(entry)
            self._remember_ghost(hash(entry.key))

    def _pass_main(self, entry: Entry) -> None:
        if entry.uses and entry.expires_at != _GONE:
            entry.uses -= 1
            self._main.append(entry)
        else:
            self._evict(entry)

    def _evict(self, entry: Entry) -> None:
        self._drop_variants(entry)
        self._forget(entry)
        self._charge(entry, -entry.cost)
        del self._entries[entry.key]
        self._counts[CACHE_EVICTED.base] += 1
        self._limit_ghosts()

    def _remember_ghost(self, ghost: int) -> None:
        if ghost in self._ghost_set:
            return
        self._ghosts.append(ghost)
        self._ghost_set.add(ghost)
        self.bytes += GHOST_OVERHEAD
        self._limit_ghosts()

    def _limit_ghosts(self) -> None:
        while len(self._ghosts) > min(len(self._main), _MOST_GHOSTS):
            self._ghost_set.remove(self._ghosts.popleft())
            self.bytes -= GHOST_OVERHEAD

    def _adopt(self, token: int, record: bytes, now: float) -> None:
        unpacked = _unpack(record)
        if unpacked is None:
            if self._journal is not None:
                self._journal.forget(token)
            return
        key, kind, sections, chained, lifetime, stored_at = unpacked
        entry = self._place(key)
        entry.fill(kind, sections, chained, lifetime, min(stored_at, now))
        entry.token = token
        self._recost(entry)
        self._shrink()


_RECORD = Struct("<BHHHHHId")
_KINDS = tuple(Kind)


def _pack(entry: Entry) -> bytes:
    sections = entry.sections
    marks = entry.chained | sections.authentic << 1 | _KINDS.index(entry.kind) << 2
    head = _RECORD.pack(marks, len(entry.key), sections.rcode, *sections.counts, entry.lifetime, entry.stored_at)
    return head + entry.key + sections.data


def _unpack(record: bytes) -> tuple[bytes, Kind, Sections, bool, int, float] | None:
    if len(record) < _RECORD.size:
        return None
    marks, key_length, rcode, answers, authorities, additionals, lifetime, stored_at = _RECORD.unpack_from(record)
    key = record[_RECORD.size : _RECORD.size + key_length]
    data = record[_RECORD.size + key_length :]
    if len(key) != key_length or marks >> 2 >= len(_KINDS):
        return None
    sections = Sections(data, (answers, authorities, additionals), rcode, bool(marks & 2))
    return key, _KINDS[marks >> 2], sections, bool(marks & 1), lifetime, stored_at
