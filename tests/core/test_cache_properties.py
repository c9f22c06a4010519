"""A cache under any operations: never over its bytes, its accounts exact, its variants what a full render gives."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.core import counters
from proxy.core.cache import ENTRY_OVERHEAD, GHOST_OVERHEAD, VARIANT_OVERHEAD, Cache
from proxy.core.lifetime import Kind
from proxy.core.message import AAAA, CNAME, A, Rcode, Sections, respond
from tests.core.kept import LIMIT, add_variant, name, query, verdict

NAMES = [name(f"n{number}.example") for number in range(4)]
TYPES = [A, AAAA, CNAME]
KINDS = [Kind.POSITIVE, Kind.POSITIVE, Kind.NODATA, Kind.NXDOMAIN]
FAILED = Sections(b"", (0, 0, 0), Rcode.SERVFAIL, False)
names = st.sampled_from(NAMES)
types = st.sampled_from(TYPES)


class CacheUnderAnything(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.cache = Cache(12_000, 5, [0] * counters.SLOTS)

    @rule(name=names, qtype=types, kind=st.sampled_from(KINDS), lifetime=st.integers(0, 4), size=st.integers(0, 400))
    def store(self, name: bytes, qtype: int, kind: Kind, lifetime: int, size: int) -> None:
        self.cache.store(name, qtype, 0, verdict(kind, lifetime, qtype, size), self.now)

    @rule(name=names, qtype=types)
    def fail(self, name: bytes, qtype: int) -> None:
        self.cache.store_failure(name, qtype, 0, FAILED, 1, self.now)

    @rule(name=names, qtype=types, edns=st.booleans())
    def ask(self, name: bytes, qtype: int, edns: bool) -> None:
        asked = query(name, qtype, edns)
        entry = self.cache.fresh(name, qtype, 0, self.now)
        if entry is None:
            return
        assert self.now < entry.expires_at
        self.cache.use(entry)
        add_variant(self.cache, entry, asked, self.now)

    @rule(seconds=st.sampled_from([0.125, 0.5, 1.0, 3.0, 7.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(scan=st.integers(0, 1000))
    def be_scanned(self, scan: int) -> None:
        for number in range(20):
            self.cache.store(name(f"s{scan}-{number}.example"), A, 0, verdict(), self.now)

    @rule(limit=st.sampled_from([0, 700, 3000, 12_000, 40_000]))
    def resize(self, limit: int) -> None:
        self.cache.resize(limit, 5)

    @invariant()
    def it_is_within_its_bytes(self) -> None:
        assert self.cache.bytes <= self.cache.limit_bytes

    @invariant()
    def its_accounts_are_exact(self) -> None:
        cache = self.cache
        owned = {tail: entry for entry in cache._entries.values() for tail in entry.variants or ()}
        assert owned.keys() == cache.variants.keys()
        costs = {}
        for key, entry in cache._entries.items():
            costs[key] = ENTRY_OVERHEAD + len(key) + 2 * len(entry.sections.data)
            for tail in entry.variants or ():
                costs[key] += VARIANT_OVERHEAD + len(tail) + len(cache.variants[tail].body)
            assert costs[key] == entry.cost
        assert cache.bytes == sum(costs.values()) + GHOST_OVERHEAD * len(cache._ghosts)
        assert cache._small_bytes == sum(entry.cost for entry in cache._small)
        queued = [*cache._small, *cache._main]
        assert len(queued) == len(cache)
        assert {id(entry) for entry in queued} == {id(entry) for entry in cache._entries.values()}
        assert set(cache._ghosts) == cache._ghost_set

    @invariant()
    def its_variants_are_what_a_full_render_gives(self) -> None:
        for tail, variant in self.cache.variants.items():
            if self.now < variant.entry.expires_at:
                body = variant.body
                if self.now >= variant.until:
                    variant.refresh(self.now)
                    body = variant.body
                assert self.now < variant.until
                qtype = int.from_bytes(tail[-4:-2] if tail[9] == 0 else tail[-15:-13], "big")
                end = len(tail) - 4 - 11 * tail[9]
                asked = query(tail[10:end], qtype, bool(tail[9]))
                assert asked.wire[2:] == tail
                age = int(self.now - variant.entry.stored_at)
                assert b"\0\0" + body == respond(asked, variant.entry.sections, LIMIT, age=age)


CacheUnderAnything.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestCacheUnderAnything = CacheUnderAnything.TestCase
