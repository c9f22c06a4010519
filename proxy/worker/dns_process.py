"""The dns role of a worker process: a resolver's shell, with a cache that outlives it."""

import logging
import mmap
import os
import socket

from proxy.core import counters
from proxy.core.journal import Journal
from proxy.worker import explain
from proxy.worker.channel import Configure, ConfigureRelays, Explain, Explained, Listener, Report, UpstreamReport
from proxy.worker.clock import LoopClock
from proxy.worker.dns import DnsWorker
from proxy.worker.process import WorkerProcess

log = logging.getLogger("proxy.worker")


class DnsProcess(WorkerProcess):
    """A dns worker under control's orders."""

    def __init__(self, channel: int, counts: int, journal: int) -> None:
        """Open descriptors: the channel, the counters, the cache's journal."""
        self._journal = Journal(memoryview(mmap.mmap(journal, os.fstat(journal).st_size)))
        self._dns: DnsWorker | None = None
        super().__init__(channel, counts, counters.SLOTS)

    def configure(self, message: Configure | ConfigureRelays) -> DnsWorker:
        assert isinstance(message, Configure)
        if self._dns is None:
            self._dns = DnsWorker(self.loop, LoopClock(self.loop), message.policy, self.counts, self._journal)
            if self._dns.restored:
                log.info("%d cache entries are here from the last worker", self._dns.restored)
        else:
            self._dns.configure(message.policy)
        return self._dns

    def listen(self, listener: Listener, sock: socket.socket) -> None:
        assert self._dns is not None
        self._dns.listen(listener.id, listener.transport, sock)

    def report(self) -> Report:
        assert self._dns is not None
        return Report(
            [
                UpstreamReport(
                    upstream.zone,
                    upstream.address,
                    "down" if upstream.down else "up",
                    None if upstream.srtt is None else round(upstream.srtt * 1000, 3),
                )
                for upstream in self._dns.resolver.zones.upstreams
            ]
        )

    async def explain(self, message: Explain) -> None:
        steps, answer = ["not configured yet"], b""
        if self._dns is not None:
            steps, answer = await explain.explain(self._dns, message.name, message.qtype)
        self.channel.send(Explained(message.request, steps, answer))
