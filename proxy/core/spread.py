"""Which endpoint a key goes to: rendezvous hashing over slots, the same in every process and on every host.

A key belongs to one of 65,536 slots by its CRC; a slot goes to the endpoint with the highest score for it. So what is
remembered is bounded however many keys there are, and a new key costs no more than a known one.
"""

from array import array
from collections.abc import Mapping
from hashlib import blake2b
from typing import Generic, TypeVar
from zlib import crc32

SLOTS = 65_536
"""65 for each of 1,000 endpoints, so that their shares differ by an eighth (one standard deviation)."""

NO_SLOT = SLOTS
"""Stands for a key that is not known; nobody ever owns it."""

_MASK = 2**64 - 1
# Odd constants with well spread bits: the golden ratio, and Stafford's Mix13 as in SplitMix64.
_SLOT_FACTOR = 0x9E3779B97F4A7C15
_SCORE_FACTOR = 0xBF58476D1CE4E5B9

COMPARISONS = 4096
"""Scores that one `settle` looks at: about half a millisecond, a small part of what a socket's queue can bridge."""

Target = TypeVar("Target")


def slot_of(key: bytes) -> int:
    """The slot of a key."""
    return crc32(key) & (SLOTS - 1)


class Spread(Generic[Target]):
    """The owner of each slot among endpoints. `Target` is what a caller keeps for an endpoint."""

    def __init__(self) -> None:
        self.owners: list[Target | None] = [None] * (SLOTS + 1)
        """Where a slot goes, to be read per line; None where `pick` has to decide first."""
        self._scores = array("Q", bytes(8 * SLOTS))
        self._slots: dict[int, set[int]] = {}
        """Those that it owns, by each target's identity: one that goes costs what it owned, not all."""
        self._targets: list[Target] = []
        self._seeds: dict[str, int] = {}
        """By address, in the order of `_targets`."""
        self._added: list[tuple[Target, int]] = []
        self._uncompared: list[int] = []
        """Slots that had an owner when the last of `_added` came."""

    def change(self, targets: Mapping[str, Target]) -> None:
        """Go over to these endpoints, by address.

        Slots of those that are gone lose their owner at once. New ones take over theirs here and in the `settle`s
        to come.
        """
        ordered = sorted(targets)
        self._seeds = {each: self._seeds[each] if each in self._seeds else _seed(each) for each in ordered}
        staying = {id(target) for target in targets.values()}
        for gone in self._slots.keys() - staying:
            for slot in self._slots.pop(gone):
                self.owners[slot] = None
        self._targets = [targets[address] for address in ordered]
        self._added = [(target, seed) for target, seed in self._added if id(target) in staying]
        pairs = zip(self._targets, self._seeds.values(), strict=True)
        new = [(target, seed) for target, seed in pairs if id(target) not in self._slots]
        if new:
            self._added += new
            self._uncompared = [slot for slots in self._slots.values() for slot in slots]
            self._slots.update((id(target), set()) for target, _ in new)
        self.settle()

    def pick(self, slot: int, but: Target | None = None) -> Target:
        """The owner of a slot, which is remembered; or, with `but`, who would be it without that one.

        Raises ValueError if there is no endpoint.
        """
        hashed = slot * _SLOT_FACTOR + _SLOT_FACTOR & _MASK
        scores = [(hashed ^ seed) * _SCORE_FACTOR & _MASK for seed in self._seeds.values()]
        if but is not None:
            scores = [-1 if t is but else score for t, score in zip(self._targets, scores, strict=True)]
        best = max(scores)
        target = self._targets[scores.index(best)]
        if but is None:
            self._give(slot, target, best)
        return target

    def settle(self) -> None:
        """Compare some more slots with new endpoints; cheap when there is nothing to do."""
        if not self._added:
            return
        count = max(1, COMPARISONS // len(self._added))
        some = self._uncompared[-count:]
        del self._uncompared[-count:]
        for slot in some:
            if self.owners[slot] is None:
                continue
            hashed = slot * _SLOT_FACTOR + _SLOT_FACTOR & _MASK
            for target, seed in self._added:
                score = (hashed ^ seed) * _SCORE_FACTOR & _MASK
                if score > self._scores[slot]:
                    self._give(slot, target, score)
        if not self._uncompared:
            self._added = []

    def _give(self, slot: int, target: Target, score: int) -> None:
        before = self.owners[slot]
        if before is not None:
            self._slots[id(before)].discard(slot)
        self._slots[id(target)].add(slot)
        self.owners[slot] = target
        self._scores[slot] = score


def _seed(address: str) -> int:
    return int.from_bytes(blake2b(address.encode(), digest_size=8).digest(), "big")
