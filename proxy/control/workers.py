"""Keeps the workers of one role running: starts, configures, watches, replaces and drains them.

What must outlive a worker is here: its counters and its cache journal, in memory that the next one inherits.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence

from proxy.control.child import WORKER_COMMAND, Child, how_it_ended, privilege_options
from proxy.control.errors import CannotRun
from proxy.control.heartbeats import TICK, Heartbeats
from proxy.control.slot import Slot
from proxy.control.sockets import ListenSockets
from proxy.core import counters
from proxy.core.policy import DnsPolicy
from proxy.core.upstreams import FAILURES_TO_DOWN
from proxy.worker.channel import (
    Configure,
    Drain,
    Drained,
    Explain,
    Explained,
    Ready,
    Report,
    ToControl,
    UpstreamReport,
)

DRAIN_LIMIT = 2.5
"""A worker has 2 s to finish what is in flight, and a little to exit."""
SMALLEST_JOURNAL = 4 * 1024 * 1024
"""Its largest record is a 64th: 64 KiB."""
HEALTHY_AFTER = 60.0
LONGEST_BACKOFF = 1.0
"""What waited in the socket meanwhile is then still answered within 2 s."""

_log = logging.getLogger(__name__)


def backoff(failures: int) -> float:
    """Seconds to wait before the restart after so many failures in a row: none at first, then doubling."""
    return 0.0 if failures <= 1 else min(LONGEST_BACKOFF, 0.05 * 2 ** (failures - 2))


def journal_bytes(policy: DnsPolicy) -> int:
    """The journal's size: a cache entry has 560 bytes on top of twice its answer, a record some 60 on top of once.

    Half of the cache's bytes hold every entry of up to some 400 bytes, three of them filled for two wanted.
    """
    return max(SMALLEST_JOURNAL, policy.cache_bytes // 2)


class Workers:
    """All dns workers. `run` supervises them until `drain`; exceptions of ours end `run`, theirs never do."""

    def __init__(self, sockets: ListenSockets, log_format: str, command: Sequence[str] = WORKER_COMMAND) -> None:
        self.slots: list[Slot] = []
        self._sockets = sockets
        self._command = [*command, *privilege_options(), "--log-format", log_format]
        self._policy = DnsPolicy(())
        self._group: asyncio.TaskGroup | None = None
        self._requests: dict[int, tuple[Slot, asyncio.Future[Explained]]] = {}
        self._last_request = 0
        self._all_ready = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def active(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.wanted]

    async def run(self) -> None:
        """Supervise until drained. `configure` says what."""
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
                self.slots.append(Slot.make(f"dns-{len(self.slots)}"))
            except OSError as error:
                raise CannotRun(f"cannot make the shared memory of a worker: {error.strerror}") from error

    def configure(self, policy: DnsPolicy, count: int) -> None:
        """Have `count` workers serve this policy on the open sockets; running ones keep their cache."""
        self._policy = policy
        self.make_room(count)
        for number, slot in enumerate(self.slots):
            slot.wanted = number < count
        for slot in self.slots:
            if not slot.wanted:
                _drain(slot)
            elif slot.child is not None and slot.drain_until is None:
                self._send_configuration(slot)
        self._supervise_all()
        self._judge_readiness()

    async def wait_ready(self) -> None:
        """Until every wanted worker reads its sockets."""
        await self._all_ready.wait()

    async def drain(self) -> None:
        """Let every worker finish what is in flight, then end `run`."""
        children = [slot.child for slot in self.slots if slot.child is not None]
        for slot in self.slots:
            slot.wanted = False
            _drain(slot)
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

    async def explain(self, name: str, qtype: str) -> Explained:
        """One question through a running worker. Raises LookupError when none is ready."""
        slot = next((slot for slot in self.active if slot.ready and slot.child), None)
        if slot is None or slot.child is None:
            raise LookupError("no worker is ready")
        self._last_request += 1
        request = self._last_request
        answer: asyncio.Future[Explained] = asyncio.get_running_loop().create_future()
        self._requests[request] = slot, answer
        try:
            slot.child.channel.send(Explain(request, name, qtype))
            return await answer
        finally:
            del self._requests[request]

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
        slot.counts[counters.HEARTBEAT] = time.monotonic_ns()
        # Between two workers is the time to follow a changed cache size; a journal of another size starts empty.
        os.ftruncate(slot.journal_fd, journal_bytes(self._policy))
        fds = {"counters": slot.counters_fd, "journal": slot.journal_fd}
        try:
            child = Child([*self._command, "--name", slot.name], fds, lambda said: self._receive(slot, said))
        except OSError as error:
            return f"cannot be started: {error.strerror}: {error.filename or self._command[0]}"
        slot.child = child
        slot.given = set()
        self._send_configuration(slot)
        try:
            code = await child.exited
        finally:
            slot.child = None
            slot.ready = False
            slot.upstreams = []
            self._judge_readiness()
            child.kill()
            await child.exited
            for waiting, answer in self._requests.values():
                if waiting is slot and not answer.done():
                    answer.set_exception(LookupError("the worker died while it was asked"))
        return f"(pid {child.pid}) {how_it_ended(code)}"

    def _send_configuration(self, slot: Slot) -> None:
        assert slot.child is not None
        served = self._sockets.of_worker(self.active.index(slot), len(self.active))
        new = [(listener.id, sock.fileno()) for listener, sock in served if listener.id not in slot.given]
        slot.given = {listener.id for listener, _ in served}
        slot.child.channel.send(
            Configure(self._policy, [listener for listener, _ in served], [number for number, _ in new]),
            [fd for _, fd in new],
        )

    def _receive(self, slot: Slot, said: ToControl) -> None:
        match said:
            case Ready():
                milliseconds = (time.monotonic() - slot.started) * 1000
                pid = slot.child.pid if slot.child else None
                _log.info("worker %s (pid %s) reads after %.0f ms", slot.name, pid, milliseconds)
                slot.ready = True
                self._judge_readiness()
            case Report():
                _tell_changes(slot.upstreams, said.upstreams)
                slot.upstreams = said.upstreams
            case Explained():
                waiting = self._requests.get(said.request)
                if waiting is not None and waiting[0] is slot and not waiting[1].done():
                    waiting[1].set_result(said)
            case Drained():
                pass  # its exit says the same, and later

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


def _tell_changes(before: list[UpstreamReport], after: list[UpstreamReport]) -> None:
    """One line per upstream that went down or came back; the same from several workers is summed."""
    states = {(upstream.zone, upstream.address): upstream.state for upstream in before}
    for upstream in after:
        was = states.get((upstream.zone, upstream.address), "up")
        if upstream.state == was:
            continue
        if upstream.state == "down":
            _log.warning(
                "upstream %s for %s is down (%d failures in a row)",
                upstream.address,
                upstream.zone,
                FAILURES_TO_DOWN,
            )
        else:
            _log.warning("upstream %s for %s answers again", upstream.address, upstream.zone)


def _drain(slot: Slot) -> None:
    slot.changed.set()
    if slot.child is not None and slot.drain_until is None:
        slot.drain_until = time.monotonic() + DRAIN_LIMIT
        slot.child.channel.send(Drain())
