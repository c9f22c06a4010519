import subprocess
import sys
from typing import Any

import pytest

from proxy.core.spread import COMPARISONS, NO_SLOT, SLOTS, Spread, slot_of

NAMES = [b"app.service.requests.endpoint%d" % number for number in range(20_000)]


def addresses(number: int) -> list[str]:
    return [f"10.244.{n // 250}.{n % 250}:8125" for n in range(number)]


def spread(endpoints: list[str]) -> Spread[str]:
    result: Spread[str] = Spread()
    result.change({each: each for each in endpoints})
    return result


def place(one: Spread[str], names: list[bytes] = NAMES) -> dict[bytes, str]:
    placed = {}
    for name in names:
        slot = slot_of(name)
        placed[name] = one.owners[slot] or one.pick(slot)
    return placed


@pytest.mark.parametrize("number", [2, 3, 10, 100])
def test_it_spreads_evenly(number: int) -> None:
    endpoints = addresses(number)
    shares = dict.fromkeys(endpoints, 0)
    for owner in place(spread(endpoints)).values():
        shares[owner] += 1
    mean = len(NAMES) / number
    # Names and slots both vary, so that chi-square over its degrees of freedom is about 1 + names/slots.
    chi_square = sum((share - mean) ** 2 / mean for share in shares.values())
    assert chi_square / (number - 1) < 1.3 + 3 / (number - 1) ** 0.5


def test_a_thousand_endpoints_all_get_some() -> None:
    endpoints = addresses(1000)
    one = spread(endpoints)
    owners = [one.pick(slot) for slot in range(0, SLOTS, 4)]
    shares = [owners.count(each) for each in endpoints]
    assert min(shares) > 2
    assert max(shares) < 45


def test_the_order_of_endpoints_does_not_matter() -> None:
    assert place(spread(addresses(7))) == place(spread(addresses(7)[::-1]))


def test_it_is_the_same_in_another_process() -> None:
    script = (
        "from tests.core.test_spread import *;"
        "print(hash(b'x') and [place(spread(addresses(5)), NAMES[:50])[name] for name in NAMES[:50]])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {str(list(place(spread(addresses(5)), NAMES[:50]).values())) + "\n"}


def test_it_is_the_same_in_the_next_release() -> None:
    """A release that places names anew would move every one of them while it is rolled out."""
    one = spread(addresses(4))
    assert [addresses(4).index(one.pick(slot_of(name))) for name in NAMES[:12]] == [
        2,
        3,
        0,
        0,
        0,
        1,
        3,
        1,
        2,
        1,
        2,
        2,
    ]


def test_only_the_keys_of_one_that_left_move_and_they_spread() -> None:
    endpoints = addresses(10)
    one = spread(endpoints)
    before = place(one)
    one.change({each: each for each in endpoints[1:]})
    after = place(one)
    moved = [name for name in NAMES if before[name] != after[name]]
    assert moved == [name for name in NAMES if before[name] == endpoints[0]]
    shares = [sum(after[name] == each for name in moved) for each in endpoints[1:]]
    assert min(shares) > len(moved) / 9 * 0.7
    assert max(shares) < len(moved) / 9 * 1.3


def settled(one: Spread[str]) -> Spread[str]:
    for _ in range(SLOTS):  # each call compares at least one, until there is none left
        one.settle()
    return one


def test_a_new_one_takes_its_share_and_no_other_key_moves() -> None:
    endpoints = addresses(10)
    one = spread(endpoints[:9])
    before = place(one)
    one.change({each: each for each in endpoints})
    after = place(settled(one))
    moved = [name for name in NAMES if before[name] != after[name]]
    assert {after[name] for name in moved} == {endpoints[9]}
    assert len(NAMES) / 10 * 0.9 < len(moved) < len(NAMES) / 10 * 1.1


@pytest.mark.parametrize("comparisons", [100, 1000, COMPARISONS])
def test_changes_lead_to_the_same_as_a_fresh_start(comparisons: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.core.spread.COMPARISONS", comparisons)
    endpoints = addresses(12)
    one = spread(endpoints[:4])
    for begin, end in [(0, 6), (2, 8), (5, 12), (3, 7), (0, 10), (1, 10)]:
        place(one, NAMES[begin * 1000 : end * 1000])
        one.change({each: each for each in endpoints[begin:end]})
        for _ in range(20):
            one.settle()
    assert place(settled(one)) == place(spread(endpoints[1:10]))


def test_who_left_owns_nothing_from_then_on() -> None:
    endpoints = addresses(100)
    one = spread(endpoints)
    place(one)
    one.change({each: each for each in [*endpoints[10:], *addresses(110)[100:]]})
    gone = set(endpoints[:10])
    assert not gone & set(one.owners)
    assert not gone & set(place(settled(one)).values())


def test_a_change_looks_at_a_bounded_number_of_scores_at_a_time() -> None:
    endpoints = addresses(3)
    one = spread(endpoints[:2])
    for slot in range(COMPARISONS * 2):
        one.pick(slot)
    one.change({each: each for each in endpoints})
    assert 0 < one.owners.count(endpoints[2]) < COMPARISONS * 0.4
    one.settle()
    assert one.owners.count(endpoints[2]) > COMPARISONS * 0.6
    owners = list(one.owners)
    assert settled(one).owners == owners


class Watched(list[str | None]):
    """Owners that count how often one is looked at or set."""

    touched = 0

    def __getitem__(self, slot: Any) -> Any:
        self.touched += 1
        return super().__getitem__(slot)

    def __setitem__(self, slot: Any, owner: Any) -> None:
        self.touched += 1
        super().__setitem__(slot, owner)


def test_one_that_leaves_costs_its_share_however_much_the_others_own() -> None:
    """Hundreds may refuse at the same time."""
    endpoints = addresses(200)
    one = spread(endpoints)
    for slot in range(SLOTS):
        one.pick(slot)
    owned = one.owners.count(endpoints[0])
    one.owners = watched = Watched(one.owners)
    one.change({each: each for each in endpoints[1:]})
    assert watched.touched == owned


def test_without_the_owner_a_slot_goes_where_it_would_if_that_left() -> None:
    endpoints = addresses(5)
    one = spread(endpoints)
    for slot in range(100):
        owner = one.pick(slot)
        rest = spread([each for each in endpoints if each != owner])
        assert one.pick(slot, but=owner) == rest.pick(slot)
        assert one.owners[slot] == owner


def test_nobody_owns_the_unknown_slot() -> None:
    one = spread(addresses(3))
    place(one)
    assert one.owners[NO_SLOT] is None
    assert min(map(slot_of, NAMES)) >= 0
    assert max(map(slot_of, NAMES)) < NO_SLOT


def test_with_no_endpoint_there_is_no_owner() -> None:
    one = spread(addresses(3))
    place(one)
    one.change({})
    assert set(one.owners) == {None}
    with pytest.raises(ValueError, match="empty"):
        one.pick(0)
