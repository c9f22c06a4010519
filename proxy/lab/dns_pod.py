"""A scripted DNS server and a questioner inside a pod, each one thread over non-blocking sockets."""

import argparse
import errno
import functools
import heapq
import itertools
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxy.lab import dns_wire
from proxy.lab.role import ENDED, Control, Log, Pace

_PIECE = 65535
_LOST = (
    errno.ECONNREFUSED,
    errno.EPERM,
    errno.ENOBUFS,
    errno.EAGAIN,
    errno.EINVAL,  # a rule on the node itself sends it to a pod that is gone: the route there is a blackhole
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
)
"""Errors of sending that are the path's: the question is lost."""


class _Stream:
    """A non-blocking TCP connection with DNS messages in both directions (RFC 1035 4.2.2)."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.to_send = b""
        self._received = b""

    def send(self, message: bytes) -> bool:
        """Send as much as goes; whether more is left for when it is writable."""
        self.later(message)
        return self.go_on()

    def later(self, message: bytes) -> None:
        """Send when the connection stands."""
        self.to_send += len(message).to_bytes(2, "big") + message

    def go_on(self) -> bool:
        try:
            self.to_send = self.to_send[self.connection.send(self.to_send) :]
        except BlockingIOError:
            pass
        return bool(self.to_send)

    def read(self) -> list[bytes] | None:
        """The messages that are whole now; None at the end of the connection."""
        try:
            piece = self.connection.recv(_PIECE)
        except BlockingIOError:
            return []
        if not piece:
            return None
        self._received += piece
        whole = []
        while len(self._received) >= 2 and len(self._received) >= 2 + (size := int.from_bytes(self._received[:2])):
            whole.append(self._received[2 : 2 + size])
            self._received = self._received[2 + size :]
        return whole


def server(options: argparse.Namespace, control: Control) -> None:
    """Answer as last told, until the end of standard input."""
    Server(options, control).run()


class Server:
    """UDP and TCP on one address. Told `answer`, `silent`, `servfail` or `slow MS` at any time."""

    def __init__(self, options: argparse.Namespace, control: Control) -> None:
        self._options = options
        self._control = control
        self._log = Log(options.log)
        self._behaviour, self._delay_ns = "answer", 0
        self._later: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._asked = 0
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        family = _family(self._options.listen)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for made in (udp, tcp):
            made.bind(self._options.listen)
            made.setblocking(False)
        tcp.listen(128)
        self._selector.register(udp, selectors.EVENT_READ, lambda _: self._read_datagrams(udp))
        self._selector.register(tcp, selectors.EVENT_READ, lambda _: self._accept(tcp))
        self._selector.register(self._control.fd, selectors.EVENT_READ, None)
        self._control.ready()
        while not self._told_to_end():
            while self._later and self._later[0][0] <= time.monotonic_ns():
                heapq.heappop(self._later)[2]()
        self._control.summary({"asked": self._asked})

    def _told_to_end(self) -> bool:
        left = max(0, self._later[0][0] - time.monotonic_ns()) / 1e9 if self._later else None
        for key, events in self._selector.select(left):
            if key.data is None:
                for line in self._control.lines():
                    if line == ENDED:
                        return True
                    self._behaviour, _, milliseconds = line.partition(" ")
                    self._delay_ns = int(milliseconds or 0) * 1_000_000
            else:
                key.data(events)
        return False

    def _read_datagrams(self, udp: socket.socket) -> None:
        while True:
            try:
                wire, client = udp.recvfrom(_PIECE)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for an earlier reply
            self._take(wire, functools.partial(_reply, udp, client), stream=False)

    def _accept(self, tcp: socket.socket) -> None:
        try:
            connection, _ = tcp.accept()
        except OSError:
            return
        connection.setblocking(False)
        stream = _Stream(connection)
        self._selector.register(connection, selectors.EVENT_READ, lambda events: self._serve(stream, events))

    def _serve(self, stream: _Stream, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._watch(stream, more=stream.go_on())
            messages = stream.read() if events & selectors.EVENT_READ else []
        except OSError:
            messages = None
        if messages is None:
            self._close(stream)
            return
        for wire in messages:
            self._take(wire, functools.partial(self._send, stream), stream=True)

    def _send(self, stream: _Stream, wire: bytes) -> None:
        try:
            self._watch(stream, more=stream.send(wire))
        except OSError:
            self._close(stream)

    def _watch(self, stream: _Stream, *, more: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if more else 0)
        self._selector.modify(stream.connection, events, lambda happened: self._serve(stream, happened))

    def _close(self, stream: _Stream) -> None:
        if stream.connection.fileno() >= 0:
            self._selector.unregister(stream.connection)
            stream.connection.close()

    def _take(self, wire: bytes, reply: Callable[[bytes], None], *, stream: bool) -> None:
        at_ns = time.monotonic_ns()
        try:
            query = dns_wire.asked(wire)
        except ValueError:
            return
        self._asked += 1
        self._log.write([f"{at_ns} {query.kind} {query.name or '.'} {self._behaviour} {'tcp' if stream else 'udp'}"])
        if self._behaviour == "silent":
            return
        rcode = dns_wire.SERVFAIL if self._behaviour == "servfail" else self._rcode(query.name)
        made = dns_wire.answer(wire, query, rcode, self._options.addresses, self._options.ttl, stream=stream)
        if self._delay_ns:
            heapq.heappush(self._later, (at_ns + self._delay_ns, next(self._order), lambda: reply(made)))
        else:
            reply(made)

    def _rcode(self, name: str) -> int:
        known = self._options.known
        ends = tuple(end for end in known if end.startswith("."))
        return dns_wire.NOERROR if not known or name in known or name.endswith(ends) else dns_wire.NXDOMAIN


def _family(address: tuple[str, int]) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _reply(udp: socket.socket, client: Any, wire: bytes) -> None:
    try:
        udp.sendto(wire, client)
    except OSError:
        pass  # the client has gone, or there is no room: lost as on any wire


def questioner(options: argparse.Namespace, control: Control) -> None:
    """Ask `count` times or until the end of standard input, then wait for the last answers."""
    Questioner(options, control).run()


@dataclass(slots=True)
class _Waiting:
    wire: bytes
    number: int
    kind: str
    at_ns: int
    answered_ns: int = 0
    rcode: int = -1
    answers: int = 0
    size: int = 0


@dataclass(slots=True)
class _Conversation:
    """Questions that went out on a socket of their own: those of one turn, or one that was truncated."""

    stream: _Stream | None
    open: int
    since_ns: int


class Questioner:
    """Writes a row for each question: number, kind, when asked, when answered or 0, rcode or -1, answers, bytes.

    A truncated answer is none yet: the question goes again, over TCP, as stubs do.
    """

    def __init__(self, options: argparse.Namespace, control: Control) -> None:
        self._options = options
        self._control = control
        self._asked: list[_Waiting] = []
        self._by_id: dict[tuple[socket.socket, int], _Waiting] = {}
        self._own: dict[socket.socket, _Conversation] = {}
        self._selector = selectors.DefaultSelector()
        self._kept = [self._datagram_socket(port) for port in (() if options.tcp else options.source_ports)]
        self._behind_ns = 0
        self._truncated = 0

    def run(self) -> None:
        self._selector.register(self._control.fd, selectors.EVENT_READ)
        self._control.ready()
        if self._control.wait_for_go():
            pace = Pace(self._options.rate, self._options.count, time.monotonic_ns())
            for turn in range(pace.count):
                if self._read_until(pace.due_ns(turn)):
                    break
                self._behind_ns = max(self._behind_ns, time.monotonic_ns() - pace.due_ns(turn))
                self._ask(turn)
            patience_ns = round(self._options.timeout * 1e9)
            self._read_until(time.monotonic_ns() + patience_ns, until_answered=True)
        Log(self._options.log).write(
            [f"{q.number} {q.kind} {q.at_ns} {q.answered_ns} {q.rcode} {q.answers} {q.size}" for q in self._asked]
        )
        self._control.summary(
            {"asked": len(self._asked), "truncated": self._truncated, "behind_ms": self._behind_ns / 1e6}
        )

    def _ask(self, turn: int) -> None:
        kinds = self._options.kinds
        name = self._options.name.replace("{number}", str(self._options.first + turn))
        asking = self._kept[turn % len(self._kept)] if self._kept else self._fresh(len(kinds))
        stream = self._own[asking].stream if asking in self._own else None
        for place, kind in enumerate(kinds):
            index = turn * len(kinds) + place
            id = index & 0xFFFF
            wire = dns_wire.question(id, name, kind, self._options.edns_bytes)
            waiting = _Waiting(wire, self._options.first + index, kind, time.monotonic_ns())
            self._asked.append(waiting)
            self._by_id[asking, id] = waiting
            try:
                if stream is None:
                    asking.sendto(wire, self._options.to)
                else:
                    stream.later(wire)
            except OSError as error:
                if error.errno not in _LOST:
                    raise

    def _datagram_socket(self, port: int) -> socket.socket:
        made = socket.socket(_family(self._options.to), socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind(("", port))
        made.setblocking(False)
        self._selector.register(made, selectors.EVENT_READ)
        return made

    def _fresh(self, questions: int) -> socket.socket:
        too_old = time.monotonic_ns() - round(self._options.timeout * 1e9)
        for old in [old for old, conversation in self._own.items() if conversation.since_ns < too_old]:
            self._close(old)
        if self._options.tcp:
            return self._connection(questions)
        made = self._datagram_socket(0)
        self._own[made] = _Conversation(None, questions, time.monotonic_ns())
        return made

    def _connection(self, questions: int) -> socket.socket:
        made = socket.socket(_family(self._options.to), socket.SOCK_STREAM)
        made.setblocking(False)
        made.connect_ex(self._options.to)
        self._selector.register(made, selectors.EVENT_READ | selectors.EVENT_WRITE)
        self._own[made] = _Conversation(_Stream(made), questions, time.monotonic_ns())
        return made

    def _read_until(self, due_ns: int, *, until_answered: bool = False) -> bool:
        """True when standard input ended meanwhile."""
        while not (until_answered and not self._by_id):
            left = max(0, due_ns - time.monotonic_ns()) / 1e9
            ready = self._selector.select(left)
            if not ready:
                return False
            for key, events in ready:
                if key.fileobj == self._control.fd:
                    if ENDED in self._control.lines():
                        self._selector.unregister(self._control.fd)
                        return True
                elif isinstance(key.fileobj, socket.socket):
                    self._hear(key.fileobj, events)
        return False

    def _hear(self, heard: socket.socket, events: int) -> None:
        conversation = self._own.get(heard)
        stream = conversation.stream if conversation else None
        try:
            if stream is None:
                for wire in self._datagrams(heard):
                    self._answered(heard, wire)
                return
            if events & selectors.EVENT_WRITE and not stream.go_on():
                self._selector.modify(heard, selectors.EVENT_READ)
            if events & selectors.EVENT_READ:
                messages = stream.read()
                for wire in messages or ():
                    self._answered(heard, wire)
                if messages is None:
                    self._close(heard)
        except OSError:
            self._close(heard)

    def _datagrams(self, heard: socket.socket) -> list[bytes]:
        found = []
        while heard.fileno() >= 0:
            try:
                found.append(heard.recv(_PIECE))
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error for an earlier question
        return found

    def _answered(self, heard: socket.socket, wire: bytes) -> None:
        try:
            id, rcode, answers, truncated = dns_wire.read_answer(wire)
        except ValueError:
            return
        waiting = self._by_id.pop((heard, id), None)
        if waiting is None:
            return
        conversation = self._own.get(heard)
        if truncated and not (conversation and conversation.stream):
            self._truncated += 1
            self._ask_again(id, waiting)
        else:
            waiting.answered_ns, waiting.rcode = time.monotonic_ns(), rcode
            waiting.answers, waiting.size = answers, len(wire)
        if conversation:
            conversation.open -= 1
            if not conversation.open:
                self._close(heard)

    def _ask_again(self, id: int, waiting: _Waiting) -> None:
        """Over TCP."""
        asking = self._connection(1)
        stream = self._own[asking].stream
        assert stream
        stream.later(waiting.wire)
        self._by_id[asking, id] = waiting

    def _close(self, heard: socket.socket) -> None:
        """What it still waited for stays unanswered."""
        if self._own.pop(heard, None):
            for key in [key for key in self._by_id if key[0] is heard]:
                del self._by_id[key]
            self._selector.unregister(heard)
            heard.close()
