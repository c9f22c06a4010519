"""What is kept, for how long, under which name, and what goes first."""

import pytest

from proxy.core import counters
from proxy.core.cache import ENTRY_OVERHEAD, MOST_VARIANTS, Cache
from proxy.core.journal import Journal
from proxy.core.lifetime import Kind
from proxy.core.message import AAAA, CNAME, A, Rcode, Sections, respond
from tests.core.kept import LIMIT, add_variant, name, query, verdict

WWW = name("www.example")
FAILED = Sections(b"", (0, 0, 0), Rcode.SERVFAIL, False)


@pytest.fixture
def cache() -> Cache:
    return Cache(1_000_000, 100, [0] * counters.SLOTS)


def test_an_answer_is_fresh_until_its_lifetime_is_over(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(lifetime=10), 50.0)
    assert cache.fresh(WWW, A, 0, 59.9) is not None
    assert cache.fresh(WWW, A, 0, 60.0) is None


def test_an_answer_is_stale_for_a_while_and_then_gone(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(lifetime=10), 50.0)
    assert cache.stale_entry(WWW, A, 0, 159.9) is not None
    assert cache.stale_entry(WWW, A, 0, 160.0) is None


def test_what_may_not_be_kept_still_ends_what_it_contradicts(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(lifetime=10), 50.0)
    cache.store(WWW, A, 0, verdict(lifetime=0), 51.0)
    assert cache.fresh(WWW, A, 0, 51.0) is None
    assert cache.stale_entry(WWW, A, 0, 51.0) is None


@pytest.mark.parametrize("do_cd", [1, 2, 3])
def test_do_and_cd_have_answers_of_their_own(cache: Cache, do_cd: int) -> None:
    cache.store(WWW, A, 0, verdict(), 50.0)
    assert cache.fresh(WWW, A, do_cd, 50.0) is None


def test_a_denied_name_is_denied_for_every_type(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(Kind.NXDOMAIN), 50.0)
    entry = cache.fresh(WWW, AAAA, 0, 50.0)
    assert entry is not None
    assert entry.kind is Kind.NXDOMAIN


def test_a_denied_type_is_denied_alone(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(Kind.NODATA), 50.0)
    assert cache.fresh(WWW, AAAA, 0, 50.0) is None


def test_data_ends_the_denial_of_its_name(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(Kind.NXDOMAIN), 50.0)
    cache.store(WWW, AAAA, 0, verdict(rtype=AAAA, size=16), 51.0)
    assert cache.fresh(WWW, A, 0, 51.0) is None


def test_the_denial_of_an_address_ends_both_addresses(cache: Cache) -> None:
    for qtype in (A, AAAA):
        cache.store(WWW, qtype, 0, verdict(), 50.0)
    cache.store(WWW, A, 0, verdict(Kind.NXDOMAIN), 51.0)
    found = cache.fresh(WWW, AAAA, 0, 51.0)
    assert found is not None
    assert found.kind is Kind.NXDOMAIN


def test_the_denial_at_the_end_of_a_chain_is_no_denial_of_the_alias(cache: Cache) -> None:
    denial = verdict(Kind.NXDOMAIN)
    denial.chained = True
    cache.store(WWW, A, 0, denial, 50.0)
    assert cache.fresh(WWW, CNAME, 0, 50.0) is None
    assert cache.fresh(WWW, AAAA, 0, 50.0) is not None


def test_the_newest_of_what_is_stale_is_served(cache: Cache) -> None:
    cache.store(WWW, AAAA, 0, verdict(lifetime=10, rtype=AAAA, size=16), 50.0)
    cache.store(WWW, 16, 0, verdict(Kind.NXDOMAIN, lifetime=10), 55.0)
    entry = cache.stale_entry(WWW, AAAA, 0, 70.0)
    assert entry is not None
    assert entry.kind is Kind.NXDOMAIN


def test_a_failure_stands_beside_what_was_known(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(lifetime=10), 50.0)
    cache.store_failure(WWW, A, 0, FAILED, 5, 61.0)
    assert cache.fresh(WWW, A, 0, 61.0) is None
    assert cache.stale_entry(WWW, A, 0, 61.0) is not None
    failure = cache.failure(WWW, A, 0)
    assert failure is not None
    assert failure.expires_at == 66.0


def test_an_answer_ends_a_failure(cache: Cache) -> None:
    cache.store_failure(WWW, A, 0, FAILED, 5, 50.0)
    cache.store(WWW, A, 0, verdict(), 51.0)
    failure = cache.failure(WWW, A, 0)
    assert failure is None or failure.expires_at < 51.0


def test_a_scan_of_one_time_names_leaves_the_names_in_use() -> None:
    cache = Cache(200 * (ENTRY_OVERHEAD + 80), 100, [0] * counters.SLOTS)
    hot = [name(f"hot{n}.example") for n in range(50)]
    for one in hot:
        cache.store(one, A, 0, verdict(), 0.0)
        for _ in range(2):
            entry = cache.fresh(one, A, 0, 0.0)
            assert entry is not None
            cache.use(entry)
    for number in range(20_000):
        cache.store(name(f"once{number}.example"), A, 0, verdict(), 0.0)
        entry = cache.fresh(hot[number % 50], A, 0, 0.0)
        if entry is not None:
            cache.use(entry)
    assert sum(cache.fresh(one, A, 0, 0.0) is not None for one in hot) == 50


def test_a_name_that_comes_back_soon_stays_longer() -> None:
    """Its ghost is remembered: the second time it skips the small queue."""
    cache = Cache(50 * (ENTRY_OVERHEAD + 60), 100, [0] * counters.SLOTS)
    for number in range(30):  # a main queue
        cache.store(name(f"hot{number}.example"), A, 0, verdict(), 0.0)
        entry = cache.fresh(name(f"hot{number}.example"), A, 0, 0.0)
        assert entry is not None
        cache.use(entry)
    cache.store(WWW, A, 0, verdict(), 0.0)
    for number in range(40):
        cache.store(name(f"once{number}.example"), A, 0, verdict(), 0.0)
    assert cache.fresh(WWW, A, 0, 0.0) is None
    cache.store(WWW, A, 0, verdict(), 0.0)
    for number in range(40, 80):
        cache.store(name(f"once{number}.example"), A, 0, verdict(), 0.0)
    assert cache.fresh(WWW, A, 0, 0.0) is not None


def test_an_answer_too_large_for_the_cache_is_not_kept() -> None:
    cache = Cache(10_000, 100, [0] * counters.SLOTS)
    cache.store(WWW, A, 0, verdict(size=4), 0.0)
    cache.store(name("large.example"), 16, 0, verdict(rtype=16, size=5000), 0.0)
    assert cache.fresh(name("large.example"), 16, 0, 0.0) is None
    assert cache.fresh(WWW, A, 0, 0.0) is not None


def test_a_smaller_limit_takes_effect_at_once(cache: Cache) -> None:
    for number in range(500):
        cache.store(name(f"n{number}.example"), A, 0, verdict(), 0.0)
    cache.resize(100_000, 100)
    assert 0 < cache.bytes <= 100_000


# Ready answers


def test_a_variant_ages_like_a_full_answer(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(lifetime=60), 50.0)
    entry = cache.fresh(WWW, A, 0, 50.0)
    assert entry is not None
    asked = query(WWW)
    add_variant(cache, entry, asked, 50.0)
    variant = cache.variants[asked.wire[2:]]
    assert variant.until == 51.0
    variant.refresh(72.5)
    assert asked.wire[:2] + variant.body == respond(asked, entry.sections, LIMIT, age=22)
    assert variant.until == 73.0


def test_a_variant_is_never_usable_past_its_entry(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(lifetime=1), 50.0)
    entry = cache.fresh(WWW, A, 0, 50.9)
    assert entry is not None
    add_variant(cache, entry, query(WWW), 50.9)
    assert cache.variants[query(WWW).wire[2:]].until == 51.0


def test_a_new_answer_drops_the_variants_of_the_old(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(), 50.0)
    entry = cache.fresh(WWW, A, 0, 50.0)
    assert entry is not None
    add_variant(cache, entry, query(WWW), 50.0)
    cache.store(WWW, A, 0, verdict(), 51.0)
    assert not cache.variants


def test_an_entry_has_a_bounded_number_of_variants(cache: Cache) -> None:
    cache.store(WWW, A, 0, verdict(), 50.0)
    entry = cache.fresh(WWW, A, 0, 50.0)
    assert entry is not None
    for spelled in range(2 * MOST_VARIANTS):
        mixed = bytes(
            c ^ 32 if at > 0 and 97 <= c <= 122 and spelled << 1 >> at & 1 else c for at, c in enumerate(WWW)
        )
        add_variant(cache, entry, query(mixed), 50.0)
    assert len(cache.variants) == MOST_VARIANTS


def test_a_question_may_pass_from_one_entry_to_another(cache: Cache) -> None:
    """Its data expired, and then another type's answer denied the whole name."""
    cache.store(WWW, A, 0, verdict(lifetime=10), 50.0)
    entry = cache.fresh(WWW, A, 0, 50.0)
    assert entry is not None
    add_variant(cache, entry, query(WWW), 50.0)
    cache.store(WWW, 16, 0, verdict(Kind.NXDOMAIN), 61.0)
    denial = cache.fresh(WWW, A, 0, 61.0)
    assert denial is not None
    assert denial.kind is Kind.NXDOMAIN
    add_variant(cache, denial, query(WWW), 61.0)
    assert cache.variants[query(WWW).wire[2:]].entry is denial
    cache.store(WWW, A, 0, verdict(), 62.0)
    assert not cache.variants


# Over the death of a process


def test_a_journal_brings_back_everything_as_it_was() -> None:
    memory = memoryview(bytearray(100_000))
    counts = [0] * counters.SLOTS
    before = Cache(100_000, 100, counts, Journal(memory))
    before.store(WWW, A, 1, verdict(lifetime=60), 50.0)
    before.store(WWW, 16, 0, verdict(Kind.NODATA, lifetime=20), 51.0)
    denial = verdict(Kind.NXDOMAIN)
    denial.chained = denial.sections.authentic = True
    before.store(name("no.example"), A, 0, denial, 52.0)
    before.store_failure(name("bad.example"), A, 0, FAILED, 5, 53.0)
    after = Cache(100_000, 100, counts, Journal(memory))
    assert after.restore(55.0) == 4
    for wanted, qtype, do_cd in ((WWW, A, 1), (WWW, 16, 0), (name("no.example"), AAAA, 0)):
        old, new = before.fresh(wanted, qtype, do_cd, 55.0), after.fresh(wanted, qtype, do_cd, 55.0)
        assert old is not None
        assert new is not None
        assert (old.kind, old.sections, old.chained) == (new.kind, new.sections, new.chained)
        assert (old.stored_at, old.expires_at, old.cost) == (new.stored_at, new.expires_at, new.cost)
    failure = after.failure(name("bad.example"), A, 0)
    assert failure is not None
    assert failure.expires_at == 58.0


def test_what_was_replaced_evicted_or_contradicted_does_not_come_back() -> None:
    memory = memoryview(bytearray(100_000))
    counts = [0] * counters.SLOTS
    before = Cache(20 * (ENTRY_OVERHEAD + 60), 100, counts, Journal(memory))
    for number in range(200):
        before.store(name(f"n{number}.example"), A, 0, verdict(), 50.0)
    before.store(WWW, A, 0, verdict(lifetime=10), 50.0)
    before.store(WWW, A, 0, verdict(Kind.NXDOMAIN), 51.0)
    after = Cache(before.limit_bytes, 100, counts, Journal(memory))
    after.restore(52.0)
    found = after.fresh(WWW, A, 0, 52.0)
    assert found is not None
    assert found.kind is Kind.NXDOMAIN
    assert set(after._entries) <= set(before._entries)
    assert after.bytes <= after.limit_bytes


def test_a_smaller_cache_takes_over_what_fits() -> None:
    memory = memoryview(bytearray(100_000))
    counts = [0] * counters.SLOTS
    before = Cache(100_000, 100, counts, Journal(memory))
    for number in range(100):
        before.store(name(f"n{number}.example"), A, 0, verdict(), 50.0)
    after = Cache(20_000, 100, counts, Journal(memory))
    assert 0 < after.restore(51.0) < 100
    assert after.bytes <= 20_000
