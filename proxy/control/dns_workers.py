"""The dns workers: their policy, the memory of their caches, and questions that people put to them."""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from proxy.control.child import WORKER_COMMAND
from proxy.control.slot import Slot
from proxy.control.sockets import ListenSockets
from proxy.control.workers import Workers
from proxy.core import counters
from proxy.core.policy import DnsPolicy
from proxy.core.upstreams import FAILURES_TO_DOWN
from proxy.worker.channel import (
    Configure,
    Explain,
    Explained,
    Listener,
    Report,
    ToControl,
    ToWorker,
    UpstreamReport,
)

SMALLEST_JOURNAL = 4 * 1024 * 1024
"""Its largest record is a 64th: 64 KiB."""

_log = logging.getLogger(__name__)


def journal_bytes(policy: DnsPolicy) -> int:
    """The journal's size: a cache entry has 560 bytes on top of twice its answer, a record some 60 on top of once.

    Half of the cache's bytes hold every entry of up to some 400 bytes, three of them filled for two wanted.
    """
    return max(SMALLEST_JOURNAL, policy.cache_bytes // 2)


class DnsWorkers(Workers):
    """Workers that answer DNS."""

    role = "dns"

    def __init__(self, sockets: ListenSockets, log_format: str, command: Sequence[str] = WORKER_COMMAND) -> None:
        super().__init__(sockets, log_format, command)
        self.policy = DnsPolicy(())
        self._requests: dict[int, tuple[Slot, asyncio.Future[Explained]]] = {}
        self._last_request = 0

    def configure(self, policy: DnsPolicy, count: int) -> None:
        """Have `count` workers serve this policy on the open sockets; running ones keep their cache."""
        self.policy = policy
        self.serve(count)

    @property
    def journals(self) -> list[int]:
        """The memory of each worker's cache, the first worker's first."""
        return [slot.journal_fd for slot in self.slots if slot.journal_fd is not None]

    def inherit(self, journals: Sequence[int]) -> None:
        """Let workers that are not started yet begin with these, which another run's workers still write."""
        for own, other in zip(self.journals, journals, strict=False):
            os.ftruncate(own, os.fstat(other).st_size)
            # Records are checked when they are read, so a copy is as good as what a killed worker leaves.
            for begin, end in _written(other):
                os.lseek(own, begin, os.SEEK_SET)
                while begin < end and (sent := os.sendfile(own, other, begin, end - begin)):
                    begin += sent

    def upstreams(self) -> list[list[UpstreamReport]]:
        """What each present worker says of the upstreams."""
        return [slot.report.upstreams for slot in self.active if isinstance(slot.report, Report)]

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

    def _new_slot(self, name: str) -> Slot:
        return Slot.make(name, counters.SLOTS, journal=True)

    def _configuration(self, listeners: list[Listener], new: list[int]) -> ToWorker:
        return Configure(self.policy, listeners, new)

    def _before_life(self, slot: Slot) -> None:
        # Between two workers is the time to follow a changed cache size; a journal of another size starts empty.
        assert slot.journal_fd is not None
        os.ftruncate(slot.journal_fd, journal_bytes(self.policy))

    def _after_life(self, slot: Slot) -> None:
        for waiting, answer in self._requests.values():
            if waiting is slot and not answer.done():
                answer.set_exception(LookupError("the worker died while it was asked"))

    def _hear(self, slot: Slot, said: ToControl) -> None:
        match said:
            case Report():
                _tell_changes(slot.report.upstreams if isinstance(slot.report, Report) else [], said.upstreams)
                slot.report = said
            case Explained():
                waiting = self._requests.get(said.request)
                if waiting is not None and waiting[0] is slot and not waiting[1].done():
                    waiting[1].set_result(said)


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


def _written(fd: int) -> Iterator[tuple[int, int]]:
    """Where a file in memory has contents, from and to; the rest takes no memory."""
    end = 0
    with suppress(OSError):  # ENXIO: nothing more is written
        while True:
            begin = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
            yield begin, end
