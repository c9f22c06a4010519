"""The relay workers: their policies, and a ledger that stays true over their deaths."""

import logging
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

from proxy.control.child import WORKER_COMMAND
from proxy.control.slot import Slot
from proxy.control.sockets import ListenSockets
from proxy.control.workers import Workers
from proxy.core import ledger
from proxy.core.policy import RelayPolicy
from proxy.worker.channel import ConfigureRelays, Listener, RelayReport, RelayState, ToControl, ToWorker

_log = logging.getLogger(__name__)


class RelayWorkers(Workers):
    """Workers that relay UDP."""

    role = "relay"

    def __init__(self, sockets: ListenSockets, log_format: str, command: Sequence[str] = WORKER_COMMAND) -> None:
        super().__init__(sockets, log_format, command)
        self.relays: tuple[RelayPolicy, ...] = ()
        self._names: Mapping[str, str] = {}
        self._blocks: dict[str, int] = {}

    def configure(self, relays: Sequence[RelayPolicy], listen: Mapping[str, str], count: int) -> None:
        """Have `count` workers serve these relays; `listen` has the relay's name by listening address."""
        self.relays = tuple(relays)
        self._names = listen
        self.serve(count)

    def blocks(self, names: Iterable[str]) -> Mapping[str, int]:
        """The ledger block of each relay that a configuration names, the same for the whole run."""
        names = list(names)
        kept = {*names, *(relay.name for relay in self.relays)}
        for name in names:
            if name not in self._blocks:
                self._blocks[name] = self._free_block(kept)
        return self._blocks

    def ledger(self, name: str) -> list[int]:
        """The relay's block, summed over all workers that there ever were."""
        blocks = [ledger.block(slot.counts, self._blocks[name]).tolist() for slot in self.slots]
        return [sum(column) for column in zip(*blocks, strict=True)] if blocks else [0] * ledger.BLOCK

    def states(self, name: str) -> list[RelayState]:
        """What each present worker says of the relay."""
        reports = [slot.report.relays for slot in self.active if isinstance(slot.report, RelayReport)]
        return [state for relays in reports for state in relays if state.name == name]

    def _free_block(self, kept: Set[str]) -> int:
        taken = set(self._blocks.values())
        for number in range(ledger.BLOCKS):
            if number not in taken:
                return number
        # A run that has seen more names than there are blocks forgets one that is no longer configured.
        gone = next(name for name in self._blocks if name not in kept)
        number = self._blocks.pop(gone)
        for slot in self.slots:
            counts = ledger.block(slot.counts, number)
            for offset in range(ledger.BLOCK):
                counts[offset] = 0
        return number

    def _new_slot(self, name: str) -> Slot:
        return Slot.make(name, ledger.SLOTS, journal=False)

    def _configuration(self, listeners: list[Listener], new: list[int]) -> ToWorker:
        named = [
            msgspec.structs.replace(listener, relay=self._names[listener.address])
            for listener in listeners
            if listener.address in self._names
        ]
        return ConfigureRelays(list(self.relays), named, new)

    def _after_life(self, slot: Slot) -> None:
        """What it had read and not yet dealt with is gone, and so is what it had folded."""
        for number in self._blocks.values():
            counts = ledger.block(slot.counts, number)
            folded = counts[ledger.LEVEL["fold_lines"]]
            counts[ledger.FOLDED] -= min(folded, counts[ledger.FOLDED])
            lost = max(0, ledger.unaccounted(counts))
            counts[ledger.DROPPED["worker_died"]] += lost
            for offset in ledger.LEVEL.values():
                counts[offset] = 0
            if lost:
                name = next(name for name, block in self._blocks.items() if block == number)
                _log.warning("relay %s lost %d lines with its worker, %d of them folded", name, lost, folded)

    def _hear(self, slot: Slot, said: ToControl) -> None:
        if isinstance(said, RelayReport):
            slot.report = said
