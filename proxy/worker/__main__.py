"""`python -m proxy.worker`: a dns worker process, started by control with everything it needs as open descriptors.

It imports all it will ever use, gives up root and every capability, and only then takes its first socket.
"""

import argparse
import asyncio
import encodings.idna  # noqa: F401  getaddrinfo imports it on first use, when the library may be unreadable
import gc
import logging
import mmap
import os
import signal
import socket
import time

from proxy import logs
from proxy.core import counters
from proxy.core.journal import Journal
from proxy.worker import explain, privileges
from proxy.worker.channel import (
    Configure,
    Drain,
    Drained,
    Explain,
    Explained,
    Ready,
    Report,
    ToWorker,
    UpstreamReport,
    worker_end,
)
from proxy.worker.dns import DnsWorker, LoopClock

try:
    import uvloop as loops
except ImportError:
    import asyncio as loops  # type: ignore[no-redef]

HEARTBEAT_INTERVAL = 0.25
REPORT_EVERY = 2
"""Heartbeats between two looks at what there is to report; only what changed is sent."""
COLLECT_EVERY = 40
"""Heartbeats between two collections of young garbage; the packet path makes none that needs the collector."""

log = logging.getLogger("proxy.worker")


class WorkerProcess:
    """A dns worker under control's orders."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._counts = memoryview(mmap.mmap(options.counters, counters.SLOTS * 8)).cast("Q")
        self._journal = Journal(memoryview(mmap.mmap(options.journal, os.fstat(options.journal).st_size)))
        self._loop = asyncio.get_running_loop()
        self._worker: DnsWorker | None = None
        self._beats = 0
        self._reported: Report | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()
        self._channel = worker_end(socket.socket(fileno=options.channel), self._receive, self.ended.set)
        self._beat()

    def _receive(self, message: ToWorker, fds: list[int]) -> None:
        match message:
            case Configure():
                self._configure(message, fds)
            case Drain():
                self._start(self._drain())
            case Explain():
                self._start(self._explain(message))

    def _configure(self, message: Configure, fds: list[int]) -> None:
        started = self._worker is not None
        if self._worker is None:
            self._worker = DnsWorker(self._loop, LoopClock(self._loop), message.policy, self._counts, self._journal)
            if self._worker.restored:
                log.info("%d cache entries are here from the last worker", self._worker.restored)
        else:
            self._worker.configure(message.policy)
        transports = {listener.id: listener.transport for listener in message.listeners}
        for number in self._worker.listening:
            if number not in transports:
                self._worker.stop_listening(number)
        for number, fd in zip(message.new, fds, strict=True):
            self._worker.listen(number, transports[number], socket.socket(fileno=fd))
        if not started:
            gc.collect()
            gc.freeze()
            gc.disable()
            self._channel.send(Ready())

    async def _drain(self) -> None:
        if self._worker is not None:
            await self._worker.drain()
            self._worker.close()
        self._channel.send(Drained())
        self.ended.set()

    async def _explain(self, message: Explain) -> None:
        steps, answer = ["not configured yet"], b""
        if self._worker is not None:
            steps, answer = await explain.explain(self._worker, message.name, message.qtype)
        self._channel.send(Explained(message.request, steps, answer))

    def _beat(self) -> None:
        self._loop.call_later(HEARTBEAT_INTERVAL, self._beat)
        self._counts[counters.HEARTBEAT] = time.monotonic_ns()
        self._beats += 1
        if self._worker is None:
            return
        self._worker.write_gauges()
        if self._beats % REPORT_EVERY == 0 and not self._channel.backlog:
            self._report(self._worker)
        if self._beats % COLLECT_EVERY == 0:
            gc.collect(1)

    def _report(self, worker: DnsWorker) -> None:
        report = Report(self._upstreams(worker))
        if report != self._reported:
            self._reported = report
            self._channel.send(report)

    def _upstreams(self, worker: DnsWorker) -> list[UpstreamReport]:
        return [
            UpstreamReport(
                upstream.zone,
                upstream.address,
                "down" if upstream.down else "up",
                None if upstream.srtt is None else round(upstream.srtt * 1000, 3),
            )
            for upstream in worker.resolver.zones.upstreams
        ]

    def _start(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _serve(options: argparse.Namespace) -> None:
    await WorkerProcess(options).ended.wait()


def main() -> None:
    """Run until control hangs up or says drain."""
    parser = argparse.ArgumentParser(prog="python -m proxy.worker")
    for name in ("channel", "counters", "journal"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("uid", "gid"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--name", required=True)
    parser.add_argument("--log-format", choices=("json", "text"), required=True)
    options = parser.parse_args()
    logs.set_up(options.log_format, options.name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control drains us
    refused = privileges.drop(options.uid, options.gid)
    if refused:
        log.warning("%s", refused)
    loops.run(_serve(options))


if __name__ == "__main__":
    main()
