"""The relay role of a worker process: listeners of many relays, and a ledger that outlives it."""

import socket

from proxy.core import ledger
from proxy.worker.channel import Configure, ConfigureRelays, Listener, RelayReport
from proxy.worker.clock import LoopClock
from proxy.worker.process import WorkerProcess
from proxy.worker.relay import RelayWorker


class RelayProcess(WorkerProcess):
    """A relay worker under control's orders."""

    def __init__(self, channel: int, counts: int) -> None:
        """Open descriptors: the channel, the ledger."""
        super().__init__(channel, counts, ledger.SLOTS)
        self._relay = RelayWorker(self.loop, LoopClock(self.loop), self.counts)

    def configure(self, message: Configure | ConfigureRelays) -> RelayWorker:
        assert isinstance(message, ConfigureRelays)
        self._relay.configure(message.relays, message.listeners)
        return self._relay

    def listen(self, listener: Listener, sock: socket.socket) -> None:
        self._relay.listen(listener, sock)

    def report(self) -> RelayReport:
        return RelayReport(self._relay.states())
