"""Keeps the workers of one role running: starts, configures, watches, replaces and drains them.

What must outlive a worker is in its slot: memory that the next one inherits.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from proxy.control.child import WORKER_COMMAND, Child, how_it_ended, privilege_options
from proxy.control.errors import CannotRun
from proxy.control.heartbeats import TICK, Heartbeats
from proxy.control.slot import Slot
from proxy.control.sockets import ListenSockets
from proxy.core.counters import HEARTBEAT
from proxy.worker.channel import Drain, Drained, Listener, Ready, ToControl, ToWorker

DRAIN_LIMIT = 2.5
"""A worker has 2 s to finish what is in flight, and a little to exit."""
HEALTHY_AFTER = 60.0
LONGEST_BACKOFF = 1.0
"""What waited in the socket meanwhile is then still answered within 2 s."""

_log = logging.getLogger(__name__)


def backoff(failures: int) -> float:
    """Seconds to wait before the restart after so many failures in a row: none at first, then doubling."""
    return 0.0 if failures <= 1 else min(LONGEST_BACKOFF, 0.05 * 2 ** (failures - 2))


class Workers(ABC):
    """All workers of a role. `run` supervises them until `drain`; exceptions of ours end `run`, theirs never do."""

    role: ClassVar[str]

    def __init__(self, sockets: ListenSockets, log_format: str, command: Sequence[str] = WORKER_COMMAND) -> None:
        self.slots: list[Slot] = []
        self.sockets = sockets
        self._command = [*command, "--role", self.role, *privilege_options(), "--log-format", log_format]
        self._group: asyncio.TaskGroup | None = None
        self._all_ready = asyncio.Event()
        self._stopped = asyncio.Event()

    # What the role decides

    @abstractmethod
    def _new_slot(self, name: str) -> Slot:
        """A place with the memory that this role needs. Raises OSError."""

    @abstractmethod
    def _configuration(self, listeners: list[Listener], new: list[int]) -> ToWorker:
        """What a worker with these listeners is to be told."""

    @abstractmethod
    def _hear(self, slot: Slot, said: ToControl) -> None:
        """A message that only this role's workers send."""

    def _before_life(self, slot: Slot) -> None:  # noqa: B027
        """The last worker in this place is dead, and the next one not born."""

    def _after_life(self, slot: Slot) -> None:  # noqa: B027
        """The worker in this place is dead."""

    @property
    def active(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.wanted]

    async def run(self) -> None:
        """Supervise until drained. `serve` says how many."""
        async with asyncio.TaskGroup() as self._group:
            watch = self._group.create_task(self._watch_heartbeats())
            self._supervise_all()
            await self._stopped.wait()
            watch.cancel()
        self._group = None

    def make_room(self, count: int) -> None:
        """Have memory for so many workers. Raises CannotRun."""
        while len(self.slots) < count:
            try:
                self.slots.append(self._new_slot(f"{self.role}-{len(self.slots)}"))
            except OSError as error:
                raise CannotRun(f"cannot make the shared memory of a worker: {error.strerror}") from error

    def serve(self, count: int) -> None:
        """Have `count` workers serve the open sockets; running ones are told what has changed, and keep the rest."""
        self.make_room(count)
        for number, slot in enumerate(self.slots):
            slot.wanted = number < count
        for slot in self.slots:
            if not slot.wanted:
                _drain(slot, last=count == 0)
            elif slot.child is not None and slot.drain_until is None:
                self._send_configuration(slot)
        self._supervise_all()
        self._judge_readiness()

    async def wait_ready(self) -> None:
        """Until every wanted worker reads its sockets."""
        await self._all_ready.wait()

    async def drain(self, *, last: bool) -> None:
        """Let every worker finish what is in flight, then end `run`. `last`: nobody else reads these sockets."""
        children = [slot.child for slot in self.slots if slot.child is not None]
        for slot in self.slots:
            slot.wanted = False
            _drain(slot, last=last)
        if children:
            await asyncio.wait([child.exited for child in children], timeout=DRAIN_LIMIT)
        self.kill()

    def kill(self) -> None:
        """End every worker and `run` at once."""
        for slot in self.slots:
            slot.wanted = False
            slot.changed.set()
            if slot.child is not None:
                slot.child.kill()
        self._stopped.set()

    def close(self) -> None:
        """Give back the memory; after `run` has ended."""
        for slot in self.slots:
            slot.close()
        self.slots.clear()

    def _supervise_all(self) -> None:
        if self._group is None:
            return
        for slot in self.slots:
            if slot.wanted and not slot.running:
                slot.running = True
                self._group.create_task(self._supervise(slot), name=slot.name)

    async def _supervise(self, slot: Slot) -> None:
        slot.changed.clear()
        while slot.wanted:
            how = await self._live(slot)
            if slot.drain_until is not None:
                slot.drain_until = None
                continue
            slot.restarts += 1
            slot.failures = 1 if time.monotonic() - slot.started > HEALTHY_AFTER else slot.failures + 1
            delay = backoff(slot.failures)
            when = f"in {delay:.2g} s" if delay else "now"
            _log.warning("worker %s %s; restarting it %s", slot.name, how, when)
            if delay:
                try:
                    await asyncio.wait_for(slot.changed.wait(), delay)
                except TimeoutError:
                    pass
        slot.running = False

    async def _live(self, slot: Slot) -> str:
        """One worker's whole life; returns how it ended."""
        slot.started = time.monotonic()
        slot.counts[HEARTBEAT] = time.monotonic_ns()
        self._before_life(slot)
        fds = {"counters": slot.counters_fd}
        if slot.journal_fd is not None:
            fds["journal"] = slot.journal_fd
        try:
            child = Child([*self._command, "--name", slot.name], fds, lambda said: self._receive(slot, said))
        except OSError as error:
            return f"cannot be started: {error.strerror}: {error.filename or self._command[0]}"
        slot.child = child
        slot.given = set()
        slot.told = None
        self._send_configuration(slot)
        try:
            code = await child.exited
        finally:
            slot.child = None
            slot.ready = False
            slot.report = None
            self._judge_readiness()
            child.kill()
            await child.exited
            self._after_life(slot)
        return f"(pid {child.pid}) {how_it_ended(code)}"

    def _send_configuration(self, slot: Slot) -> None:
        assert slot.child is not None
        served = self.sockets.of_worker(self.active.index(slot), len(self.active))
        listeners = [listener for listener, _ in served]
        new = [(listener.id, sock.fileno()) for listener, sock in served if listener.id not in slot.given]
        message = self._configuration(listeners, [number for number, _ in new])
        if message == slot.told:
            return
        slot.given = {listener.id for listener in listeners}
        slot.told = self._configuration(listeners, [])
        slot.child.channel.send(message, [fd for _, fd in new])

    def _receive(self, slot: Slot, said: ToControl) -> None:
        match said:
            case Ready():
                milliseconds = (time.monotonic() - slot.started) * 1000
                pid = slot.child.pid if slot.child else None
                _log.info("worker %s (pid %s) reads after %.0f ms", slot.name, pid, milliseconds)
                slot.ready = True
                self._judge_readiness()
            case Drained():
                pass  # its exit says the same, and later
            case _:
                self._hear(slot, said)

    def _judge_readiness(self) -> None:
        if all(slot.ready for slot in self.active):
            self._all_ready.set()
        else:
            self._all_ready.clear()

    async def _watch_heartbeats(self) -> None:
        heartbeats = Heartbeats(time.monotonic())
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            heartbeats.tick(now)
            for slot in self.slots:
                if slot.child is None:
                    continue
                if heartbeats.stands_still(slot.heartbeat, reading=slot.ready):
                    _log.error(
                        "worker %s (pid %d) stood still for %.1f s", slot.name, slot.child.pid, slot.heartbeat_age
                    )
                    slot.child.kill()
                elif slot.drain_until is not None and now > slot.drain_until:
                    slot.child.kill()


def _drain(slot: Slot, *, last: bool) -> None:
    slot.changed.set()
    if slot.child is not None and slot.drain_until is None:
        slot.drain_until = time.monotonic() + DRAIN_LIMIT
        slot.child.channel.send(Drain(last))
