"""A relay in `datagram` mode: each client's datagrams over sockets of its own, and the replies back to it.

It never looks into a datagram, keeps none, and makes one of one.
"""

import errno
from collections.abc import Hashable, Sequence

from proxy.core.counters import Counts
from proxy.core.ledger import COUNTED, DROPPED, FORWARDED, LEVEL, RECEIVED
from proxy.core.limits import Budget
from proxy.core.policy import RelayPolicy
from proxy.core.sessions import Sessions
from proxy.core.spread import Spread, slot_of
from proxy.worker.arrivals import Arrivals, Sender
from proxy.worker.channel import RelayState
from proxy.worker.clock import Clock
from proxy.worker.endpoint import EndpointSocket, TwoWaySocket
from proxy.worker.poller import Poller
from proxy.worker.relay_mode import QUEUE_FULL, UNREACHABLE_WAIT, Relay

REPLIES_IN_TURN = 32
"""From one endpoint to one client, before other sockets get their turn."""

_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_DATAGRAMS_SENT = COUNTED["datagrams_sent"]
_REPLIES, _REPLIES_REFUSED = COUNTED["replies"], COUNTED["replies_refused"]
_REPLIES_UNSENDABLE = COUNTED["replies_unsendable"]
_SESSIONS_OPENED, _SESSIONS_EVICTED = COUNTED["sessions_opened"], COUNTED["sessions_evicted"]


class SocketBudget:
    """How many sockets the sessions of all relays may still open."""

    def __init__(self, sockets: int) -> None:
        self.left = sockets


class DatagramRelay(Relay):
    """Sessions by listener, client address, and address asked (where the listener has several)."""

    def __init__(
        self, policy: RelayPolicy, counts: Counts, poller: Poller, clock: Clock, budget: SocketBudget
    ) -> None:
        super().__init__(policy, counts, poller, clock)
        self._sockets_left = budget
        self._sessions: Sessions[_Session] = Sessions(policy.sessions_idle, policy.sessions_max)
        self._spread: Spread[str] = Spread()
        self._told: tuple[str, ...] = ()
        self._addresses: dict[str, str] = {}
        self._turn = 0
        self._buffer = memoryview(bytearray(65_536))
        self.configure(policy)

    def configure(self, policy: RelayPolicy) -> None:
        before = self._policy
        super().configure(policy)
        self._end(self._sessions.configure(policy.sessions_idle, policy.sessions_max), evicted=True)
        gone = set(before.endpoints) - set(policy.endpoints)
        if gone:
            for session in self._sessions.all():
                for address in gone & session.sockets.keys():
                    self._disconnect(session, address)
        if policy.datagrams_per_second != before.datagrams_per_second or before is policy:
            self._budget = Budget(policy.datagrams_per_second, 0) if policy.datagrams_per_second else None
        self._follow_ejection()
        self._finish(self._clock.now())

    @property
    def releasing(self) -> bool:
        return False

    def forget(self, arrivals: Arrivals) -> None:
        """Replies can't leave from there any more: its sessions are over."""
        for session in self._sessions.all():
            if session.arrivals is arrivals:
                self._sessions.end(session.key)
                self._end([session])

    def close(self) -> None:
        self._alarm.cancel()
        self._end(self._sessions.clear())
        self.write_gauges()

    def write_gauges(self) -> None:
        self._counts[LEVEL["sessions"]] = len(self._sessions)

    def state(self) -> RelayState:
        return RelayState(self._policy.name, list(self._ejection.ejected), {}, [], [])

    # From clients

    def _receive(self, arrivals: Arrivals, datagrams: list[bytes], numbers: Sequence[int], now: float) -> None:
        self._counts[RECEIVED] += len(numbers)
        for i in numbers:
            dropped = self._relay(arrivals, i, datagrams[i], now)
            if dropped is None:
                self._counts[FORWARDED] += 1
                self._counts[_DATAGRAMS_SENT] += 1
            else:
                self._counts[DROPPED[dropped]] += 1

    def _finish(self, now: float) -> None:
        self._alarm.ring_at(self._ejection.deadline())
        self._alarm.ring_at(self._sessions.deadline())

    def _relay(self, arrivals: Arrivals, i: int, datagram: bytes, now: float) -> str | None:
        """Send it on; or why it was dropped."""
        if self._budget is not None and not self._budget.admits(arrivals.source(i), 1, now):
            return "rate_limited"
        if not self._ejection.usable:
            return "unsendable" if self._policy.endpoints else "no_endpoint"
        key = arrivals, arrivals.key(i)
        session = self._sessions.use(key, now)
        if session is None:
            session = _Session(key, arrivals, arrivals.sender(i), slot_of(arrivals.source(i).encode()))
            self._end(self._sessions.add(key, session, now), evicted=True)
            self._counts[_SESSIONS_OPENED] += 1
        return self._send(session, datagram, now)

    def _send(self, session: "_Session", datagram: bytes, now: float) -> str | None:
        # Each try that fails leaves out an endpoint or clears the error of an earlier datagram.
        for _ in range(2 * len(self._policy.endpoints)):
            endpoint = self._choose(session)
            if endpoint is None:
                break
            sock = session.sockets.get(endpoint)
            if sock is None:
                if not self._make_room(session):
                    return "session_limit"
                try:
                    sock = self._connect(session, endpoint)
                except OSError as error:
                    if error.errno in _OUT_OF_DESCRIPTORS:
                        if not self._evict(session):
                            return "session_limit"
                    else:
                        self._pause(endpoint, now)
                    continue
            error_number = sock.send(datagram)
            if not error_number:
                if endpoint in self._ejection.on_trial:
                    self._ejection.sent(endpoint, now)
                    self._follow_ejection()
                return None
            if error_number == errno.EMSGSIZE:
                return "oversize"
            if error_number in QUEUE_FULL:
                break
            if error_number == errno.ECONNREFUSED:
                self._refused(endpoint, now)
                self._follow_ejection()
            else:
                self._disconnect(session, endpoint)
                self._pause(endpoint, now)
        return "unsendable"

    def _choose(self, session: "_Session") -> str | None:
        """Where its next datagram goes: where its last one went, as long as that may be used."""
        usable = self._ejection.usable
        if not usable:
            return None
        if self._policy.spread == "packet":
            self._turn += 1
            return usable[self._turn % len(usable)]
        stays = session.endpoint in usable
        if stays and not self._ejection.on_trial:
            return session.endpoint
        home = self._spread.owners[session.slot] or self._spread.pick(session.slot)
        if stays and home not in self._ejection.on_trial:
            return session.endpoint
        if not stays:
            session.endpoint = home
        return home

    # Sessions and their sockets

    def _connect(self, session: "_Session", endpoint: str) -> "_SessionSocket":
        sock = _SessionSocket(endpoint, self._poller, self._reported)
        sock.session = session
        session.sockets[endpoint] = sock
        self._sockets_left.left -= 1
        return sock

    def _disconnect(self, session: "_Session", endpoint: str) -> None:
        session.sockets.pop(endpoint).close()
        self._sockets_left.left += 1

    def _make_room(self, session: "_Session") -> bool:
        while self._sockets_left.left <= 0:
            if not self._evict(session):
                return False
        return True

    def _evict(self, but: "_Session") -> bool:
        idle = self._sessions.evict(but.key)
        if idle is None:
            return False
        self._end([idle], evicted=True)
        return True

    def _end(self, sessions: Sequence["_Session"], evicted: bool = False) -> None:
        for session in sessions:
            for endpoint in list(session.sockets):
                self._disconnect(session, endpoint)
        if evicted:
            self._counts[_SESSIONS_EVICTED] += len(sessions)

    # From endpoints

    def _reported(self, sock: EndpointSocket, error: int) -> None:
        assert isinstance(sock, _SessionSocket)
        now = self._clock.now()
        if error:
            self._refused(sock.address, now)
        else:
            self._return(sock, now)
        self._follow_ejection()
        self._finish(now)

    def _return(self, sock: "_SessionSocket", now: float) -> None:
        session, counts, buffer = sock.session, self._counts, self._buffer
        for _ in range(REPLIES_IN_TURN):
            try:
                size = sock.receive_into(buffer)
            except OSError:
                break
            if size is None:
                counts[_REPLIES_REFUSED] += 1
                continue
            returned = session.arrivals.reply(bytes(buffer[:size]), session.sender)
            counts[_REPLIES if returned else _REPLIES_UNSENDABLE] += 1
            self._ejection.heard(sock.address, now)
            self._sessions.use(session.key, now)

    def _pause(self, endpoint: str, now: float) -> None:
        self._ejection.pause([endpoint], now + UNREACHABLE_WAIT, now)
        self._follow_ejection()

    def _follow_ejection(self) -> None:
        usable = self._ejection.usable
        if usable is not self._told:
            self._told = usable
            # To the spread an endpoint is the same only as the same object.
            self._addresses = {address: self._addresses.get(address, address) for address in usable}
            self._spread.change(self._addresses)

    def _expire(self) -> None:
        now = self._clock.now()
        self._end(self._sessions.expire(now))
        self._ejection.expire(now)
        self._follow_ejection()
        self._finish(now)


class _Session:
    __slots__ = ("arrivals", "endpoint", "key", "sender", "slot", "sockets")

    def __init__(self, key: Hashable, arrivals: Arrivals, sender: Sender, slot: int) -> None:
        self.key = key
        self.arrivals = arrivals
        self.sender = sender
        self.slot = slot
        self.endpoint: str | None = None
        self.sockets: dict[str, _SessionSocket] = {}


class _SessionSocket(TwoWaySocket):
    """It knows whose it is."""

    __slots__ = ("session",)

    session: _Session
