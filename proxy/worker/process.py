"""The process around a worker, whatever its role: control's orders, the heartbeat, garbage, reports, the drain."""

import asyncio
import gc
import mmap
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

from proxy.core.counters import HEARTBEAT
from proxy.worker.channel import (
    Configure,
    ConfigureRelays,
    Drain,
    Drained,
    Explain,
    Listener,
    Ready,
    RelayReport,
    Report,
    ToWorker,
    worker_end,
)

HEARTBEAT_INTERVAL = 0.25
REPORT_EVERY = 2
"""Heartbeats between two looks at what there is to report; only what changed is sent."""
COLLECT_EVERY = 40
"""Heartbeats between two collections of young garbage; the packet path makes none that needs the collector."""


class Worker(Protocol):
    """What every role's worker can do."""

    @property
    def listening(self) -> list[int]:
        """The numbers of the listeners that it has."""

    def stop_listening(self, number: int) -> None:
        """Leave what comes there to others and close our descriptor."""

    async def drain(self, *, last: bool) -> None:
        """Take nothing new and finish what was taken, within 2 s; with `last` also what waits in the sockets."""

    def close(self) -> None:
        """Close every socket."""

    def write_gauges(self) -> None:
        """Put into shared memory what is no counter."""


class WorkerProcess(ABC):
    """A worker under control's orders, until `ended`."""

    def __init__(self, channel: int, counters: int, slots: int) -> None:
        """`channel` and `counters` are open descriptors; the shared memory has so many 64-bit slots."""
        self.counts = memoryview(mmap.mmap(counters, slots * 8)).cast("Q")
        self.loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._worker: Worker | None = None
        self._beats = 0
        self._reported: Report | RelayReport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.channel = worker_end(socket.socket(fileno=channel), self._receive, self.ended.set)
        self._beat()

    @abstractmethod
    def configure(self, message: Configure | ConfigureRelays) -> Worker:
        """The worker, made by the first message and following each one."""

    @abstractmethod
    def listen(self, listener: Listener, sock: socket.socket) -> None:
        """Have the worker read a socket."""

    @abstractmethod
    def report(self) -> Report | RelayReport:
        """What is to be told of the worker besides its counters."""

    async def explain(self, message: Explain) -> None:  # noqa: B027
        """Answer a person's question; a role that is never asked one needn't."""

    def _receive(self, message: ToWorker, fds: list[int]) -> None:
        match message:
            case Configure() | ConfigureRelays():
                self._configure(message, fds)
            case Drain():
                self._start(self._drain(message.last))
            case Explain():
                self._start(self.explain(message))

    def _configure(self, message: Configure | ConfigureRelays, fds: list[int]) -> None:
        started = self._worker is not None
        self._worker = worker = self.configure(message)
        listeners: Mapping[int, Listener] = {listener.id: listener for listener in message.listeners}
        for number in worker.listening:
            if number not in listeners:
                worker.stop_listening(number)
        for number, fd in zip(message.new, fds, strict=True):
            self.listen(listeners[number], socket.socket(fileno=fd))
        if not started:
            gc.collect()
            gc.freeze()
            gc.disable()
            self.channel.send(Ready())

    async def _drain(self, last: bool) -> None:
        if self._worker is not None:
            await self._worker.drain(last=last)
            self._worker.close()
        self.channel.send(Drained())
        self.ended.set()

    def _beat(self) -> None:
        self.loop.call_later(HEARTBEAT_INTERVAL, self._beat)
        self.counts[HEARTBEAT] = time.monotonic_ns()
        self._beats += 1
        if self._worker is None:
            return
        self._worker.write_gauges()
        if self._beats % REPORT_EVERY == 0 and not self.channel.backlog:
            report = self.report()
            if report != self._reported:
                self._reported = report
                self.channel.send(report)
        if self._beats % COLLECT_EVERY == 0:
            gc.collect(1)

    def _start(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
