"""The dns worker's shell: sockets on one side, the resolver on the other, one timer between them.

It feeds what arrives to the resolver and carries out what the resolver decides; it decides nothing itself.
"""

import asyncio
import resource
import secrets
import socket
from contextlib import suppress
from random import random

from proxy.core.cache import Cache, Journal
from proxy.core.counters import CACHE_BYTES, CACHE_ENTRIES, IN_FLIGHT, RECEIVED, Counts
from proxy.core.pending import Ask, Client, Forget, Probe, Reply, Try
from proxy.core.policy import DnsPolicy
from proxy.core.resolver import Resolver
from proxy.core.upstreams import Upstream
from proxy.worker.clock import Alarm, Clock
from proxy.worker.probe import probe
from proxy.worker.tcp import TcpClients, TcpListener
from proxy.worker.tcp_connection import TcpLimits
from proxy.worker.udp import open_listener
from proxy.worker.upstream import UpstreamSockets
from proxy.worker.upstream_udp import UdpLimits

PROBE_TIMEOUT = 1.0
DRAIN_LIMIT = 2.0
"""How long answers may still go out."""
LATE = 0.1
"""How long the last worker goes on taking what comes: it was sent before the kernel sent packets elsewhere."""
QUIET = 0.5
"""A connection on which nothing comes for so long is closed in a drain; a client may need a moment to ask."""
READ_LIMIT = 1.5
"""After so long in a drain connections are read no more, be they quiet or not."""
_DRAIN_POLL = 0.01


class DnsWorker:
    """Listeners, upstream sockets and a resolver, on one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        policy: DnsPolicy,
        counts: Counts,
        journal: Journal | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._counts = counts
        self._cache = Cache(policy.cache_bytes, policy.stale, counts, journal)
        self.restored = self._cache.restore(clock.now())
        self.resolver = Resolver(policy, self._cache, counts, random, secrets.token_hex(4).encode())
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        udp_limits = UdpLimits.within(descriptors)
        self._upstream = UpstreamSockets(loop, self._receive_answer, self._receive_failure, counts, udp_limits)
        self._tcp_clients = TcpClients(loop, counts, TcpLimits.within(descriptors))
        self._udp: dict[int, socket.socket] = {}
        self._tcp: dict[int, TcpListener] = {}
        self._probes: set[asyncio.Task[None]] = set()
        self._alarm = Alarm(clock, self._expire)

    def configure(self, policy: DnsPolicy) -> None:
        """Take on a new policy; cache and questions in flight stay."""
        self.resolver.configure(policy)
        self._act()

    def listen(self, number: int, transport: str, sock: socket.socket) -> None:
        """Read questions from a bound (TCP: listening) socket from now on; the descriptor is ours."""
        if transport == "udp":
            listener = open_listener(sock, self._cache.variants, self.receive, self._counts, self._clock.now)
            self._udp[number] = sock
            self._loop.add_reader(sock.fileno(), listener.drain)
        else:
            self._tcp[number] = TcpListener(self._loop, sock, self.receive, self._counts, self._tcp_clients)

    @property
    def listening(self) -> list[int]:
        """The numbers that were given to `listen` and not to `stop_listening`."""
        return [*self._udp, *self._tcp]

    def stop_listening(self, number: int) -> None:
        """Leave what comes there to others and close our descriptor; answers still due go out first."""
        udp = self._udp.pop(number, None)
        if udp is not None:
            self._loop.remove_reader(udp.fileno())
            udp.close()
        tcp = self._tcp.pop(number, None)
        if tcp is not None:
            tcp.close()

    async def drain(self, *, last: bool) -> None:
        """Take no datagram and no connection any more, and answer all questions that were taken, for `DRAIN_LIMIT`.

        Connections are served until they are quiet: their clients may have asked already. With `last` nobody else
        reads the sockets, so what waits in them is taken first.
        """
        began = self._loop.time()
        if not last:
            self._leave_to_others()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_LIMIT):
                if last:
                    await asyncio.sleep(LATE)
                    self._leave_to_others()
                # Nothing on the packet path signals for this, so it is looked at.
                while self.resolver.in_flight or any(tcp.connected for tcp in self._tcp.values()):
                    now = self._loop.time()
                    for tcp in self._tcp.values():
                        if now < began + READ_LIMIT:
                            tcp.finish_quiet(now - QUIET)
                        else:
                            tcp.stop_reading()
                    await asyncio.sleep(_DRAIN_POLL)

    def _leave_to_others(self) -> None:
        for udp in self._udp.values():
            self._loop.remove_reader(udp.fileno())
        for tcp in self._tcp.values():
            tcp.stop_accepting()

    def close(self) -> None:
        """Close every socket."""
        for number in self.listening:
            self.stop_listening(number)
        for task in self._probes:
            task.cancel()
        self._upstream.close()
        self._tcp_clients.close()
        self._alarm.cancel()

    def write_gauges(self) -> None:
        """Put into shared memory what is no counter."""
        self._counts[CACHE_ENTRIES] = len(self._cache)
        self._counts[CACHE_BYTES] = self._cache.bytes
        self._counts[IN_FLIGHT] = self.resolver.in_flight

    # What arrives

    def receive(self, query: bytes, client: Client) -> bytes | None:
        """A question from a listener: the answer if it is known already."""
        port = client.address[1]
        if self._upstream.sent_by_us(port, query[0] << 8 | query[1]):
            return self.resolver.receive_own_query(query, client)
        answer = self.resolver.receive_query(query, client, self._clock.now())
        self._act()
        return answer

    def receive_explained(self, query: bytes, client: Client) -> bytes | None:
        """A question from nobody's socket: counted as if it had come over one."""
        self._counts[RECEIVED.slot(client.proto)] += 1
        return self.receive(query, client)

    def _receive_answer(self, attempt: Try, message: bytes) -> bool:
        accepted = self.resolver.receive_answer(attempt, message, self._clock.now())
        self._act()
        return accepted

    def _receive_failure(self, attempt: Try, reason: str) -> None:
        self.resolver.receive_failure(attempt, reason, self._clock.now())
        self._act()

    def _expire(self) -> None:
        self.resolver.expire(self._clock.now())
        self._act()

    # What was decided

    def _act(self) -> None:
        for action in self.resolver.take_actions():
            match action:
                case Reply():
                    action.client.reply(action.message)
                case Ask():
                    self._upstream.ask(action.attempt)
                case Forget():
                    self._upstream.forget(action.attempt)
                case Probe():
                    task = self._loop.create_task(self._probe(action.upstream, action.message))
                    self._probes.add(task)
                    task.add_done_callback(self._probes.discard)
        self._alarm.ring_at(self.resolver.deadline())

    async def _probe(self, upstream: Upstream, message: bytes) -> None:
        answer = await probe(upstream.address, message, PROBE_TIMEOUT)
        self.resolver.receive_probe(upstream, answer, self._clock.now())
        self._act()
