"""A small world for scenarios: a scripted upstream on real sockets, a worker in front of it, time moved by hand."""

import asyncio
import contextlib
import heapq
import socket
from collections.abc import Callable, Iterable
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset

from proxy.core import counters
from proxy.core.policy import DnsPolicy, Zone
from proxy.worker.dns import DnsWorker

WAIT = 10.0
"""The longest that a test waits for something that must happen."""

Handler = Callable[[dns.message.Message], "bytes | dns.message.Message | list[bytes] | None"]


class ManualClock:
    """Monotonic time that stands still until `advance` is called."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Callable[[], None]) -> "ManualTimer":
        timer = ManualTimer(callback)
        heapq.heappush(self._timers, (when, id(timer), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on, calling each timer back at its time."""
        end = self.time + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self.time = max(self.time, when)
            timer.fire()
        self.time = end


class ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()


def records(*lines: str) -> list[dns.rrset.RRset]:
    """`name ttl type rdata` lines as RRsets, equal owners and types side by side as they stand."""
    sets = []
    for line in lines:
        name, ttl, rtype, rdata = line.split(maxsplit=3)
        parsed = dns.rdata.from_text("IN", rtype, rdata, origin=dns.name.root, relativize=False)
        sets.append(dns.rrset.from_rdata(dns.name.from_text(name), int(ttl), parsed))
    return sets


def reply(
    query: dns.message.Message,
    *answer: str,
    rcode: str = "NOERROR",
    authority: Iterable[str] = (),
    additional: Iterable[str] = (),
    flags: int = 0,
) -> dns.message.Message:
    """A reply to `query` with these records."""
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= flags
    response.set_rcode(dns.rcode.from_text(rcode))
    response.answer.extend(records(*answer))
    response.authority.extend(records(*authority))
    response.additional.extend(records(*additional))
    return response


def soa(zone: str = "example.", ttl: int = 300, minimum: int = 60) -> str:
    """A SOA line for the authority section of a negative answer."""
    return f"{zone} {ttl} SOA ns.{zone} host.{zone} 1 3600 600 86400 {minimum}"


class ScriptedUpstream:
    """A DNS server on UDP and TCP that does what the test tells it and remembers every question."""

    def __init__(self, ip: str = "127.0.0.1") -> None:
        self.ip = ip
        self.asked: list[dns.message.Message] = []
        self.sources: list[tuple[str, int]] = []
        self.protocols: list[str] = []
        self.wires: list[bytes] = []
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._default: Handler = lambda query: reply(query, rcode="SERVFAIL")
        self._arrived = asyncio.Condition()
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.udp: socket.socket
        self.port = 0

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.setblocking(False)
            self.udp.bind((self.ip, 0))
            self.port = self.udp.getsockname()[1]
            try:
                self._servers.append(await asyncio.start_server(self._serve_tcp, self.ip, self.port))
                break
            except OSError:
                self.udp.close()
        loop.add_reader(self.udp.fileno(), self._read_udp)

    async def stop(self) -> None:
        self.stop_udp()
        self.stop_tcp()
        for task in self._tasks:
            task.cancel()

    def stop_tcp(self) -> None:
        """Close the TCP port and every connection: from now on the kernel refuses."""
        for server in self._servers:
            server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every TCP connection; new ones are welcome."""
        for writer in self._writers:
            writer.close()

    def stop_udp(self) -> None:
        """Close the UDP port: from now on the kernel refuses with ICMP."""
        if self.udp.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.udp.fileno())
            self.udp.close()

    def on(self, name: str, rtype: str, handler: Handler) -> None:
        """Handle questions for `name` and `rtype` (`*` for any) by a function; None from it is silence."""
        self._handlers[name.rstrip(".").lower(), rtype] = handler

    def on_any(self, handler: Handler) -> None:
        """Handle everything that has no handler of its own."""
        self._default = handler

    def answer(self, name: str, rtype: str, *lines: str, **keywords: Any) -> None:
        """Answer `name` and `rtype` with records (see `reply`)."""
        self.on(name, rtype, lambda query: reply(query, *lines, **keywords))

    def silent(self, name: str, rtype: str = "*") -> None:
        self.on(name, rtype, lambda query: None)

    def questions(self, name: str | None = None) -> list[tuple[str, str]]:
        """Name (lower case, no final dot) and type of what was asked, in order."""
        found = []
        for message in self.asked:
            question = message.question[0]
            text = question.name.to_text().rstrip(".").lower()
            if name is None or text == name:
                found.append((text, dns.rdatatype.to_text(question.rdtype)))
        return found

    async def received(self, count: int) -> None:
        """Wait until `count` questions have come in all."""
        async with asyncio.timeout(WAIT), self._arrived:
            await self._arrived.wait_for(lambda: len(self.asked) >= count)

    def send(self, at: int, message: dns.message.Message) -> None:
        """Reply now, over UDP, to the question that came as number `at` (whose ID `message` has)."""
        self.udp.sendto(message.to_wire(max_size=65535), self.sources[at])

    def _read_udp(self) -> None:
        while True:
            try:
                wire, source = self.udp.recvfrom(65535)
            except (BlockingIOError, ConnectionError):
                return
            for message in self._respond(wire, source, "udp"):
                self.udp.sendto(message, source)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                wire = await reader.readexactly(length)
                for message in self._respond(wire, writer.get_extra_info("peername"), "tcp"):
                    writer.write(len(message).to_bytes(2, "big") + message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _respond(self, wire: bytes, source: tuple[str, int], proto: str) -> list[bytes]:
        query = dns.message.from_wire(wire)
        self.asked.append(query)
        self.wires.append(wire)
        self.sources.append(source)
        self.protocols.append(proto)
        task = asyncio.get_running_loop().create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        question = query.question[0]
        name = question.name.to_text().rstrip(".").lower()
        rtype = dns.rdatatype.to_text(question.rdtype)
        handler = self._handlers.get((name, rtype)) or self._handlers.get((name, "*")) or self._default
        response = handler(query)
        if response is None:
            return []
        if isinstance(response, list):
            return response
        if isinstance(response, dns.message.Message):
            return [response.to_wire(max_size=65535)]
        return [response]

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()


class UdpStub:
    """A client with one socket."""

    def __init__(self, server: tuple[str, int], source: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(source)
        self.sock.connect(server)
        self.sock.setblocking(False)

    def send(self, wire: bytes) -> None:
        self.sock.send(wire)

    async def receive(self) -> bytes:
        async with asyncio.timeout(WAIT):
            return await asyncio.get_running_loop().sock_recv(self.sock, 65535)

    async def answer(self) -> dns.message.Message:
        """The next answer, parsed."""
        return dns.message.from_wire(await self.receive())

    def has_answer(self) -> bool:
        """Whether something has arrived that nobody received yet."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self.sock.close()


class TcpStub:
    """A client with one TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *wires: bytes) -> None:
        """All messages in one segment, each behind its length."""
        self.writer.write(b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires))

    async def receive(self) -> bytes:
        async with asyncio.timeout(WAIT):
            length = int.from_bytes(await self.reader.readexactly(2), "big")
            return await self.reader.readexactly(length)

    async def answer(self) -> dns.message.Message:
        """The next answer, parsed."""
        return dns.message.from_wire(await self.receive())

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def question(name: str, rtype: str = "A", **keywords: Any) -> dns.message.Message:
    """A query as a stub sends it: RD set, EDNS only when asked for (`use_edns=0, payload=1232`)."""
    return dns.message.make_query(name, rtype, **keywords)


class World:
    """One worker between stubs and scripted upstreams, on loopback, with a clock moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.counts = [0] * counters.SLOTS
        self.upstreams: list[ScriptedUpstream] = []
        self.worker: DnsWorker
        self.server: tuple[str, int]
        self._stubs: list[UdpStub] = []
        self._tcp_stubs: list[TcpStub] = []

    @property
    def upstream(self) -> ScriptedUpstream:
        return self.upstreams[0]

    async def start(self, upstreams: int = 1, fallbacks: int = 0, **policy: Any) -> None:
        """Start that many scripted upstreams for `.` and a worker with a policy of them."""
        for number in range(upstreams + fallbacks):
            upstream = ScriptedUpstream(f"127.0.0.{number + 1}")
            await upstream.start()
            self.upstreams.append(upstream)
        addresses = tuple(upstream.address for upstream in self.upstreams)
        zones = policy.pop("zones", None) or (Zone(".", addresses[:upstreams], addresses[upstreams:]),)
        self.worker = DnsWorker(asyncio.get_running_loop(), self.clock, DnsPolicy(zones, **policy), self.counts)
        self._listen()

    def _listen(self) -> None:
        while True:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind(("127.0.0.1", 0))
            self.server = udp.getsockname()
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                tcp.bind(self.server)
            except OSError:
                udp.close()
                tcp.close()
                continue
            break
        tcp.listen(64)
        self.worker.listen(1, "udp", udp)
        self.worker.listen(2, "tcp", tcp)

    async def stop(self) -> None:
        for stub in self._stubs:
            stub.close()
        for tcp_stub in self._tcp_stubs:
            await tcp_stub.close()
        self.worker.close()
        for upstream in self.upstreams:
            await upstream.stop()
        await asyncio.sleep(0)

    def stub(self, ip: str = "127.0.0.1") -> UdpStub:
        """Another client."""
        stub = UdpStub(self.server, (ip, 0))
        self._stubs.append(stub)
        return stub

    async def tcp_stub(self) -> TcpStub:
        """Another client, connected over TCP."""
        stub = TcpStub(*await asyncio.open_connection(*self.server))
        self._tcp_stubs.append(stub)
        return stub

    def send(self, name: str, rtype: str = "A", **keywords: Any) -> UdpStub:
        """One question from a new client over UDP, which then waits."""
        stub = self.stub()
        stub.send(question(name, rtype, **keywords).to_wire())
        return stub

    async def settle(self) -> None:
        """Return when everything on its way over loopback now has been read, and what it led to as well."""
        for _ in range(3):
            await self.exchange(question("localhost"))

    async def ask(self, name: str, rtype: str = "A", **keywords: Any) -> dns.message.Message:
        """One question from a new client over UDP, and its answer."""
        return await self.exchange(question(name, rtype, **keywords))

    async def exchange(self, query: dns.message.Message) -> dns.message.Message:
        """Send a query from a new client over UDP and wait for the answer."""
        stub = self.stub()
        stub.send(query.to_wire())
        response = dns.message.from_wire(await stub.receive())
        assert response.id == query.id
        return response

    async def exchange_wire(self, wire: bytes) -> bytes:
        """The same with bytes."""
        stub = self.stub()
        stub.send(wire)
        return await stub.receive()

    async def ask_tcp(self, *queries: dns.message.Message) -> list[dns.message.Message]:
        """Send all queries in one segment over one TCP connection; answers in the order they came."""
        async with asyncio.timeout(WAIT):
            reader, writer = await asyncio.open_connection(*self.server)
            for query in queries:
                wire = query.to_wire()
                writer.write(len(wire).to_bytes(2, "big") + wire)
            answers = []
            for _ in queries:
                length = int.from_bytes(await reader.readexactly(2), "big")
                answers.append(dns.message.from_wire(await reader.readexactly(length)))
            writer.close()
            await writer.wait_closed()
        return answers

    def count(self, family: counters.Family, *labels: str) -> int:
        """A counter's value."""
        return self.counts[family.slot(*labels)]


def ttls(message: dns.message.Message) -> list[int]:
    """The TTL of each RRset of the answer section, or of the authority section of a negative answer."""
    return [rrset.ttl for rrset in message.answer or message.authority]


def ede_codes(message: dns.message.Message) -> list[int]:
    """The extended errors in a response (RFC 8914)."""
    return [int(option.code) for option in message.options if option.otype == 15]
