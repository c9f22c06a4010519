"""Whether a run is ready: every listener was asked a real question lately, and answered."""

import asyncio
import time

from proxy.control.node import NodeKeeper
from proxy.control.probe import probe, probe_relay
from proxy.control.sockets import ListenSockets

CACHED_FOR = 1.0


class Readiness:
    """Whether every listener answers; asked at most once a second, however many want to know.

    Those with a lease are asked all the time by `node` already, and only by it: without the mark of its questions the
    kernel would have others answer where there is no lease.
    """

    def __init__(self, dns: ListenSockets, relay: ListenSockets, secret: str, node: NodeKeeper | None = None) -> None:
        self._dns = dns
        self._relay = relay
        self._node = node
        self._secret = secret.encode()
        self._asked = -CACHED_FOR
        self._failures: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def failures(self) -> dict[str, str]:
        """Reasons by listener (`127.0.0.1:53/udp`); empty when all of them answer.

        A relay's Unix sockets are not asked: what its worker does there shows at its other listeners and heartbeat.
        """
        async with self._lock:
            if time.monotonic() - self._asked >= CACHED_FOR:
                leased = set() if self._node is None else self._node.leased()
                asked = {
                    f"{address}/{transport}": probe(address, transport)
                    for address, transport in self._dns.listeners
                    if f"{address}/{transport}" not in leased
                }
                for address, transport in self._relay.listeners:
                    if transport == "udp" and f"{address}/udp" not in leased:
                        asked[f"{address}/udp"] = probe_relay(address, self._secret)
                reasons = await asyncio.gather(*asked.values())
                self._failures = {
                    listener: reason for listener, reason in zip(asked, reasons, strict=True) if reason is not None
                }
                self._asked = time.monotonic()
            return self._failures | ({} if self._node is None else self._node.not_held())
