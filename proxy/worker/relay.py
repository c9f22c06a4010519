"""The relay worker's shell: every relay of the configuration, and the listeners that feed them."""

import asyncio
import resource
import socket
from collections.abc import Sequence
from functools import partial

from proxy.core import ledger
from proxy.core.policy import RelayPolicy
from proxy.worker.arrivals import Arrivals, open_arrivals
from proxy.worker.channel import Listener, RelayState
from proxy.worker.clock import Clock
from proxy.worker.datagram_relay import DatagramRelay, SocketBudget
from proxy.worker.poller import Poller
from proxy.worker.relay_mode import Relay
from proxy.worker.statsd_relay import StatsdRelay

READ_LIMIT = 1.0
"""How long a drain goes on reading while senders go on sending; what waited when it began takes far less."""
STOP_LIMIT = 0.2
"""The same for one listener, while nothing else goes on."""
RELEASE_LIMIT = 0.8
"""How much longer a drain waits for what is folded and on its way out; the rest is evicted."""
_DRAIN_POLL = 0.01


class RelayWorker:
    """Relays and their listeners, on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, counts: memoryview) -> None:
        """`counts` has `ledger.SLOTS` slots."""
        self._loop = loop
        self._clock = clock
        self._counts = counts
        self._poller = Poller(loop)
        # The rest is for listeners that come later: descriptors that don't fit are lost in the message they ride on.
        self._budget = SocketBudget(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._relays: dict[str, Relay] = {}
        self._listening: dict[int, _Listening] = {}

    def configure(self, relays: Sequence[RelayPolicy], listeners: Sequence[Listener]) -> None:
        """Follow these policies from now on: when this returns, nothing goes to an endpoint that they don't have.

        Of the listeners that are open, those that are not listed get closed; what waited there is relayed first. A
        relay that is gone takes along what it had folded, which is counted as evicted.
        """
        before = self._relays
        self._relays = {policy.name: self._relay(policy, before.get(policy.name)) for policy in relays}
        names = {listener.id: listener.relay for listener in listeners}
        for number, listening in list(self._listening.items()):
            listening.name = names.get(number, listening.name)
            # Where its relay is gone, what waits still goes the way that it had.
            listening.relay = self._relays.get(listening.name, listening.relay)
            if number not in names or listening.name not in self._relays:
                self.stop_listening(number)
        for name, relay in before.items():
            if self._relays.get(name) is not relay:
                relay.close()

    def listen(self, listener: Listener, sock: socket.socket) -> None:
        """Relay what comes to a bound socket from now on; the descriptor is ours."""
        listening = _Listening(listener.relay, self._relays[listener.relay], sock)
        self._listening[listener.id] = listening
        self._loop.add_reader(sock.fileno(), listening.read)

    @property
    def listening(self) -> list[int]:
        """The numbers that were given to `listen` and not to `stop_listening`."""
        return list(self._listening)

    def stop_listening(self, number: int) -> None:
        """Relay what waits there, leave what comes later to others, and close our descriptor."""
        listening = self._listening.pop(number)
        self._loop.remove_reader(listening.sock.fileno())
        end = self._clock.now() + STOP_LIMIT
        while listening.read() and self._clock.now() < end:
            pass
        listening.relay.forget(listening.arrivals)
        listening.sock.close()

    async def drain(self, *, last: bool) -> None:
        """Relay all that waits at the listeners, `last` or not, and give what is folded a moment to go out."""
        end = self._clock.now() + READ_LIMIT
        for listening in self._listening.values():
            self._loop.remove_reader(listening.sock.fileno())
        waiting = list(self._listening.values())
        while waiting and self._clock.now() < end:
            waiting = [listening for listening in waiting if listening.read()]
            await asyncio.sleep(0)  # the heartbeat goes on
        end += RELEASE_LIMIT
        # Releasing goes on by the relays' own timers, so it is looked at.
        while any(relay.releasing for relay in self._relays.values()) and self._clock.now() < end:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_POLL)

    def close(self) -> None:
        """Close every socket; what is still folded is evicted, so that the ledger stays true."""
        for listening in self._listening.values():
            self._loop.remove_reader(listening.sock.fileno())
            listening.sock.close()
        self._listening.clear()
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()
        self._poller.close()

    def write_gauges(self) -> None:
        """Put into shared memory what is no counter, and see to what nothing else gives an occasion for."""
        for relay in self._relays.values():
            relay.write_gauges()

    def states(self) -> list[RelayState]:
        """What no counter holds, of each relay."""
        return [relay.state() for relay in self._relays.values()]

    def _relay(self, policy: RelayPolicy, before: Relay | None) -> Relay:
        if before is not None and before.follows(policy):
            before.configure(policy)
            return before
        counts = ledger.block(self._counts, policy.block)
        if policy.mode == "statsd":
            return StatsdRelay(policy, counts, self._poller, self._clock)
        return DatagramRelay(policy, counts, self._poller, self._clock, self._budget)


class _Listening:
    __slots__ = ("arrivals", "name", "read", "relay", "sock")

    def __init__(self, name: str, relay: Relay, sock: socket.socket) -> None:
        self.name = name
        self.relay = relay
        self.sock = sock
        self.arrivals: Arrivals = open_arrivals(sock)
        self.read = partial(_read, self)


def _read(listening: _Listening) -> bool:
    return listening.relay.read(listening.arrivals)
