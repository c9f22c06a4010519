"""The TCP server, through real loopback sockets; time limits by telling it a later time."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.counters import DROPPED, RECEIVED, SLOTS, TCP_CLIENTS, TCP_REFUSED, UNDELIVERED
from proxy.worker.tcp import TcpClients, TcpListener
from proxy.worker.tcp_connection import TcpClient, TcpLimits
from tests.worker.conftest import LOOPS
from tests.worker.tcp_end import TcpEnd


def question(number: int, length: int = 12) -> bytes:
    """A message with this ID and QR=0."""
    return struct.pack("!H", number) + bytes(length - 2)


def answer_to(message: bytes) -> bytes:
    return message[:2] + b"\x80" + message[3:]


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


class Server:
    """A listener that echoes, or keeps questions until the test answers them."""

    def __init__(self, limits: TcpLimits, *, immediate: bool, host: str = "127.0.0.1") -> None:
        self.loop = asyncio.get_running_loop()
        self.counts = [0] * SLOTS
        self.asked: list[tuple[bytes, TcpClient]] = []
        self.arrived = asyncio.Event()
        self.immediate = immediate
        self.clients = TcpClients(self.loop, self.counts, limits)
        sock = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64)
        self.address = sock.getsockname()[:2]
        self.listening = sock
        self.listener = TcpListener(self.loop, sock, self.receive, self.counts, self.clients)

    def receive(self, query: bytes, client: TcpClient) -> bytes | None:
        self.asked.append((query, client))
        self.arrived.set()
        return answer_to(query) if self.immediate else None

    async def until_asked(self, number: int) -> None:
        while len(self.asked) < number:
            self.arrived.clear()
            await self.arrived.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turns of the loop until something that it does by itself has happened."""
        while not condition():  # noqa: ASYNC110 - the loop's own work, no event tells of it
            await asyncio.sleep(0)

    async def connect(self, source: str | None = None) -> "Client":
        sock = socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET)
        sock.setblocking(False)
        if source is not None:
            sock.bind((source, 0))
        await self.loop.sock_connect(sock, self.address)
        return Client(self.loop, sock)

    def count(self, slot: int) -> int:
        return self.counts[slot]


class Client(TcpEnd):
    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        super().__init__(loop, sock)
        self.sent = 0

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)


@contextlib.asynccontextmanager
async def serving(limits: TcpLimits | None = None, *, immediate: bool = True, host: str = "127.0.0.1"):
    server = Server(limits or TcpLimits(), immediate=immediate, host=host)
    opened: list[Client] = []
    connect = server.connect

    async def tracked(source: str | None = None) -> Client:
        opened.append(await connect(source))
        return opened[-1]

    server.connect = tracked  # type: ignore[method-assign]
    try:
        yield server
    finally:
        for client in opened:
            client.sock.close()
        server.listener.close()
        server.clients.close()
        assert server.count(TCP_CLIENTS) == 0


# Messages


async def test_it_answers_a_question_with_its_length_before_it():
    async with serving() as server:
        client = await server.connect()
        await client.send(framed(question(7)))
        assert await client.message() == answer_to(question(7))


async def test_it_says_who_asked():
    async with serving() as server:
        client = await server.connect()
        await client.send(framed(question(7)))
        await client.message()
        asked_by = server.asked[0][1]
        assert asked_by.address == client.sock.getsockname()
        assert asked_by.proto == "tcp"


async def test_it_serves_ipv6():
    async with serving(host="::1") as server:
        client = await server.connect()
        await client.send(framed(question(7)))
        assert await client.message() == answer_to(question(7))
        assert server.asked[0][1].address[0] == "::1"


async def test_it_writes_length_and_message_at_once():
    async with serving() as server:
        client = await server.connect()
        await client.send(framed(question(7)))
        assert await client.loop.sock_recv(client.sock, 4096) == framed(answer_to(question(7)))


async def test_it_answers_many_questions_on_one_connection():
    async with serving() as server:
        client = await server.connect()
        for number in range(50):
            await client.send(framed(question(number)))
            assert await client.message() == answer_to(question(number))
        assert server.count(RECEIVED.slot("tcp")) == 50


async def test_it_answers_pipelined_questions_beyond_one_turn():
    async with serving() as server:
        client = await server.connect()
        await client.send(framed(*map(question, range(500))))
        assert [await client.message() for _ in range(500)] == [answer_to(question(n)) for n in range(500)]


async def test_it_answers_out_of_order():
    async with serving(immediate=False) as server:
        client = await server.connect()
        await client.send(framed(question(1), question(2)))
        await server.until_asked(2)
        (first, to_first), (second, to_second) = server.asked
        assert to_second.reply(answer_to(second))
        assert to_first.reply(answer_to(first))
        assert await client.message() == answer_to(question(2))
        assert await client.message() == answer_to(question(1))


async def test_it_takes_messages_of_65535_bytes():
    async with serving() as server:
        client = await server.connect()
        longest = question(9, 65_535)
        sending = asyncio.ensure_future(client.send(framed(longest, question(10))))
        assert await client.message() == answer_to(longest)
        assert await client.message() == answer_to(question(10))
        await sending


async def test_it_drops_and_counts_an_answer_too_long_for_the_length():
    async with serving(immediate=False) as server:
        client = await server.connect()
        await client.send(framed(question(1), question(2)))
        await server.until_asked(2)
        assert not server.asked[0][1].reply(bytes(65_536))
        assert server.asked[1][1].reply(answer_to(question(2)))
        assert await client.message() == answer_to(question(2))
        assert server.count(UNDELIVERED.slot("unsendable")) == 1


async def test_it_counts_and_passes_over_messages_that_are_no_questions():
    async with serving() as server:
        client = await server.connect()
        await client.send(framed(b"", b"\0", question(1)[:11], answer_to(question(2)), question(3)))
        assert await client.message() == answer_to(question(3))
        assert server.count(RECEIVED.slot("tcp")) == 5
        assert server.count(DROPPED.slot("short")) == 3
        assert server.count(DROPPED.slot("response")) == 1
        assert [query for query, _ in server.asked] == [question(3)]


async def test_it_reads_a_message_that_comes_byte_by_byte():
    async with serving() as server:
        client = await server.connect()
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(question(5)):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await client.message() == answer_to(question(5))


# The end of a connection


async def test_it_answers_what_is_outstanding_after_a_half_close():
    async with serving(immediate=False) as server:
        client = await server.connect()
        await client.send(framed(question(1), question(2)) + b"\0")
        client.sock.shutdown(socket.SHUT_WR)
        await server.until_asked(2)
        server.asked[1][1].reply(answer_to(question(2)))
        assert await client.message() == answer_to(question(2))
        server.asked[0][1].reply(answer_to(question(1)))
        assert await client.message() == answer_to(question(1))
        assert await client.ended()


async def test_it_closes_after_a_half_close_with_nothing_outstanding():
    async with serving() as server:
        client = await server.connect()
        await client.send(framed(*map(question, range(100))))
        client.sock.shutdown(socket.SHUT_WR)
        assert [await client.message() for _ in range(100)] == [answer_to(question(n)) for n in range(100)]
        assert await client.ended()
        assert server.count(TCP_CLIENTS) == 0


async def test_it_counts_a_reply_to_a_client_that_is_gone():
    async with serving(immediate=False) as server:
        client = await server.connect()
        await client.send(framed(question(1)))
        await server.until_asked(1)
        client.reset()
        await server.until(lambda: server.count(TCP_CLIENTS) == 0)
        assert not server.asked[0][1].reply(answer_to(question(1)))
        assert server.count(UNDELIVERED.slot("client_gone")) == 1


async def test_it_counts_a_reply_that_finds_the_connection_broken():
    async with serving(immediate=False) as server:
        client = await server.connect()
        await client.send(framed(question(1)))
        await server.until_asked(1)
        client.reset()
        assert not server.asked[0][1].reply(answer_to(question(1)))
        assert server.count(UNDELIVERED.slot("client_gone")) == 1
        assert server.count(TCP_CLIENTS) == 0


async def test_it_survives_a_reset_in_the_middle_of_a_message():
    async with serving() as server:
        client = await server.connect()
        await client.send(framed(question(1)) + b"\0\x20ab")
        await client.message()
        client.reset()
        await server.until(lambda: server.count(TCP_CLIENTS) == 0)
        other = await server.connect()
        await other.send(framed(question(2)))
        assert await other.message() == answer_to(question(2))


async def test_it_closes_a_connection_that_idles():
    async with serving() as server:
        client = await server.connect()
        await client.send(framed(question(1)))
        await client.message()
        server.clients.expire(server.loop.time() + 9)
        await client.send(framed(question(2)))
        await client.message()
        server.clients.expire(server.loop.time() + 11)
        assert await client.ended()


async def test_it_looks_at_the_clock_by_itself():
    async with serving(TcpLimits(idle=0.0)) as server:
        client = await server.connect()
        assert await client.ended()


async def test_it_closes_a_writer_that_does_not_finish_its_message():
    async with serving(TcpLimits(message=5, idle=60)) as server:
        slow, other = await server.connect(), await server.connect()
        await slow.send(framed(question(1)) + b"\0")
        await slow.message()
        await other.send(framed(question(2)))
        assert await other.message() == answer_to(question(2))
        server.clients.expire(server.loop.time() + 6)
        assert await slow.ended()
        await other.send(framed(question(3)))
        assert await other.message() == answer_to(question(3))


async def test_it_gives_each_message_its_own_time():
    async with serving(TcpLimits(message=5, idle=60)) as server:
        client = await server.connect()
        await client.send(b"\0")
        await client.send(framed(question(1))[1:] + b"\0")
        await client.message()
        server.clients.expire(server.loop.time() + 4)
        await client.send(framed(question(2))[1:])
        assert await client.message() == answer_to(question(2))
        server.clients.expire(server.loop.time() + 6)
        await client.send(framed(question(3)))
        assert await client.message() == answer_to(question(3))


# Slow readers and floods


async def test_it_stops_reading_a_client_with_too_many_questions_outstanding():
    async with serving(TcpLimits(outstanding=2), immediate=False) as server:
        client = await server.connect()
        await client.send(framed(*map(question, range(5))))
        await server.until_asked(2)
        for number in range(5):
            assert len(server.asked) <= number + 2
            server.asked[number][1].reply(answer_to(question(number)))
            assert await client.message() == answer_to(question(number))
            await server.until_asked(min(number + 3, 5))
        assert len(server.asked) == 5


async def test_it_never_asks_from_within_a_reply():
    async with serving(TcpLimits(outstanding=1), immediate=False) as server:
        client = await server.connect()
        await client.send(framed(question(1), question(2)))
        await server.until_asked(1)
        server.asked[0][1].reply(answer_to(question(1)))
        assert len(server.asked) == 1
        await server.until_asked(2)


async def fill(server: Server, client: Client) -> int:
    """Ask for big answers and read none until the server reads no more; how many questions it took."""
    big = framed(question(1, 60_000))
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    taken, quiet = 0, 0
    while quiet < 50:
        with contextlib.suppress(BlockingIOError):
            sent = client.sock.send(big[client.sent % len(big) :])
            client.sent += sent
        await asyncio.sleep(0)
        quiet = 0 if len(server.asked) > taken else quiet + 1
        taken = len(server.asked)
    return taken


async def test_it_stops_reading_a_client_that_does_not_read():
    async with serving() as server:
        slow, other = await server.connect(), await server.connect()
        assert 0 < await fill(server, slow) < 1000
        await other.send(framed(question(2)))
        assert await other.message() == answer_to(question(2))
        assert server.count(TCP_CLIENTS) == 2


async def test_it_goes_on_when_a_slow_client_reads_at_last():
    async with serving(TcpLimits(message=60, idle=60, answer=60)) as server:
        client = await server.connect()
        taken = await fill(server, client)
        for _ in range(taken):
            assert len(await client.message()) == 60_000
        taken_later = await fill(server, client)
        assert taken_later > taken


async def test_it_resets_a_client_that_does_not_read_in_time():
    async with serving(TcpLimits(answer=10, idle=60)) as server:
        client = await server.connect()
        await fill(server, client)
        server.clients.expire(server.loop.time() + 9)
        assert server.count(TCP_CLIENTS) == 1
        server.clients.expire(server.loop.time() + 11)
        assert server.count(TCP_CLIENTS) == 0


async def test_it_resets_a_client_that_reads_by_drips():
    async with serving(TcpLimits(answer=10, idle=60)) as server:
        client = await server.connect()
        await fill(server, client)
        await client.exactly(10)
        for _ in range(100):
            await asyncio.sleep(0)
        server.clients.expire(server.loop.time() + 11)
        assert server.count(TCP_CLIENTS) == 0


async def test_it_resets_a_client_with_too_many_unread_late_answers():
    async with serving(TcpLimits(outstanding=2000), immediate=False) as server:
        client = await server.connect()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await client.send(framed(*map(question, range(500))))
        await server.until_asked(500)
        sent = [asked_by.reply(bytes(65_000)) for _, asked_by in server.asked]
        assert sent[0]
        assert not sent[-1]
        assert sent.count(False) == server.count(UNDELIVERED.slot("client_gone"))
        assert server.count(TCP_CLIENTS) == 0


# Caps


async def test_it_refuses_a_client_with_too_many_connections():
    async with serving(TcpLimits(connections_per_client=2)) as server:
        first = await server.connect()
        await server.connect()
        await server.until(lambda: server.count(TCP_CLIENTS) == 2)
        assert await (await server.connect()).ended()
        assert server.count(TCP_REFUSED.slot("client")) == 1
        other = await server.connect("127.0.0.2")
        await other.send(framed(question(1)))
        assert await other.message() == answer_to(question(1))
        first.sock.close()
        await server.until(lambda: server.count(TCP_CLIENTS) == 2)
        again = await server.connect()
        await again.send(framed(question(2)))
        assert await again.message() == answer_to(question(2))


async def test_it_closes_the_connection_that_idles_longest_to_make_room():
    async with serving(TcpLimits(connections=2)) as server:
        oldest = await server.connect()
        await server.until(lambda: server.count(TCP_CLIENTS) == 1)
        newer = await server.connect()
        await newer.send(framed(question(1)))
        await newer.message()
        newest = await server.connect()
        await newest.send(framed(question(2)))
        assert await newest.message() == answer_to(question(2))
        assert await oldest.ended()
        await newer.send(framed(question(3)))
        assert await newer.message() == answer_to(question(3))
        assert server.count(TCP_REFUSED.slot("total")) == 0


async def test_it_refuses_clients_when_every_connection_has_work():
    async with serving(TcpLimits(connections=2), immediate=False) as server:
        for number in range(2):
            await (await server.connect()).send(framed(question(number)))
        await server.until_asked(2)
        assert await (await server.connect()).ended()
        assert server.count(TCP_REFUSED.slot("total")) == 1


async def test_it_takes_from_the_client_with_most_connections_when_all_have_work():
    async with serving(TcpLimits(connections=3), immediate=False) as server:
        dripping = [await server.connect("127.0.0.2") for _ in range(3)]
        for client in dripping:
            await client.send(b"\0")
        await server.until(lambda: server.count(TCP_CLIENTS) == 3)
        await server.until(lambda: not any(connection.idle for connection in server.clients._connections))
        other = await server.connect()
        await other.send(framed(question(1)))
        await server.until_asked(1)
        assert await dripping[0].ended()
        assert server.count(TCP_REFUSED.slot("total")) == 0


async def test_it_shares_the_caps_between_listeners():
    async with serving(TcpLimits(connections_per_client=1)) as server:
        second_sock = socket.create_server(("127.0.0.1", 0))
        second = TcpListener(server.loop, second_sock, server.receive, server.counts, server.clients)
        client = await server.connect()
        await server.until(lambda: server.count(TCP_CLIENTS) == 1)
        server.address = second_sock.getsockname()
        assert await (await server.connect()).ended()
        second.close()
        await client.send(framed(question(1)))
        assert await client.message() == answer_to(question(1))


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_it_pauses_accepting_without_descriptors_and_says_so_once(caplog):
    async with serving(TcpLimits(retry_accept=0.001)) as server:
        sock = socket.socket()
        sock.setblocking(False)
        with no_descriptors_left():
            await server.loop.sock_connect(sock, server.address)
            await server.until(lambda: server.count(TCP_REFUSED.slot("total")) >= 3)
        client = Client(server.loop, sock)
        await client.send(framed(question(1)))
        assert await client.message() == answer_to(question(1))
        sock.close()
        assert [record.message for record in caplog.records] == [
            f"cannot accept TCP clients, trying again: [Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}"
        ]


async def test_it_closes_an_idle_connection_when_it_has_no_descriptors():
    async with serving(TcpLimits(retry_accept=0.001)) as server:
        oldest = await server.connect()
        await oldest.send(framed(question(1)))
        await oldest.message()
        sock = socket.socket()
        sock.setblocking(False)
        client = Client(server.loop, sock)
        with no_descriptors_left():
            await server.loop.sock_connect(sock, server.address)
            await client.send(framed(question(2)))
            assert await client.message() == answer_to(question(2))
        assert await oldest.ended()
        sock.close()


# Draining


async def test_it_leaves_new_connections_to_others_when_it_stops_accepting():
    async with serving() as server, other_worker(server) as (other, other_counts):
        server.listener.stop_accepting()
        client = await server.connect()
        await client.send(framed(question(1)))
        assert await client.message() == answer_to(question(1))
        assert other_counts[TCP_CLIENTS] == 1
        assert not server.count(TCP_CLIENTS)
        other.stop_accepting()


async def test_it_shares_a_listening_socket_with_another_worker():
    async with serving() as server, other_worker(server) as (_, other_counts):
        for number in range(20):
            client = await server.connect()
            await client.send(framed(question(number)))
            assert await client.message() == answer_to(question(number))
        assert server.count(TCP_CLIENTS) + other_counts[TCP_CLIENTS] == 20


@contextlib.asynccontextmanager
async def other_worker(server: Server) -> AsyncIterator[tuple[TcpListener, list[int]]]:
    """A second listener on the same listening socket."""
    counts = [0] * SLOTS
    clients = TcpClients(server.loop, counts)
    listener = TcpListener(server.loop, server.listening.dup(), server.receive, counts, clients)
    yield listener, counts
    listener.close()
    clients.close()


async def test_it_finishes_what_it_read_and_closes_when_it_drains():
    async with serving(immediate=False) as server:
        busy, idle = await server.connect(), await server.connect()
        await server.until(lambda: server.count(TCP_CLIENTS) == 2)
        await busy.send(framed(question(1)))
        await server.until_asked(1)
        server.listener.stop_accepting()
        server.listener.stop_reading()
        assert await idle.ended()
        assert server.listener.connected
        server.asked[0][1].reply(answer_to(question(1)))
        assert await busy.message() == answer_to(question(1))
        assert await busy.ended()
        assert not server.listener.connected


async def test_it_takes_what_has_arrived_before_it_reads_no_more():
    async with serving() as server:
        client = await server.connect()
        await server.until(lambda: server.count(TCP_CLIENTS) == 1)
        assert client.sock.send(framed(question(1))) == 14
        server.listener.stop_reading()  # without a turn of the loop in between
        assert await client.message() == answer_to(question(1))
        assert await client.ended()


async def test_it_closes_only_connections_that_are_quiet_and_have_no_work():
    async with serving(immediate=False) as server:
        busy, partial, quiet = [await server.connect() for _ in range(3)]
        await server.until(lambda: server.count(TCP_CLIENTS) == 3)
        await busy.send(framed(question(1)))
        await partial.send(framed(question(2))[:5])
        await server.until_asked(1)
        before = min(connection.active_at for connection in server.clients._connections)
        server.listener.finish_quiet(before - 1)
        assert server.count(TCP_CLIENTS) == 3
        server.listener.finish_quiet(server.loop.time())
        assert await quiet.ended()
        assert server.count(TCP_CLIENTS) == 2
        server.asked[0][1].reply(answer_to(question(1)))
        await partial.send(framed(question(2))[5:])
        await server.until_asked(2)
        server.asked[1][1].reply(answer_to(question(2)))
        assert [await busy.message(), await partial.message()] == [answer_to(question(n)) for n in (1, 2)]


async def test_it_sends_the_last_answers_of_a_listener_that_is_closed():
    async with serving(immediate=False) as server:
        client = await server.connect()
        await client.send(framed(question(1)))
        await server.until_asked(1)
        server.listener.close()
        server.asked[0][1].reply(answer_to(question(1)))
        assert await client.message() == answer_to(question(1))
        assert await client.ended()


# Many, and hostile ones


async def test_it_outlives_hundreds_of_clients_that_reset_in_the_middle():
    before = len(os.listdir("/proc/self/fd"))
    async with serving(immediate=False) as server:
        for wave in range(4):
            clients = [await server.connect(f"127.0.0.{2 + number % 8}") for number in range(200)]
            for number, client in enumerate(clients):
                await client.send(framed(*map(question, range(number % 7))) + b"\0\x20abc"[: number % 5])
            for client in clients[wave::2]:
                client.reset()
            for client in clients:
                client.sock.close()
            while server.count(TCP_CLIENTS):
                while server.asked:
                    query, asked_by = server.asked.pop()
                    asked_by.reply(answer_to(query))
                await asyncio.sleep(0)
        witness = await server.connect()
        await witness.send(framed(question(1)))
        await server.until(lambda: any(query == question(1) for query, _ in server.asked))
    assert len(os.listdir("/proc/self/fd")) == before


@given(
    messages=st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 65_535).map(question)), max_size=60),
    cuts=st.lists(st.integers(1, 200), max_size=30),
    tail=st.binary(max_size=20),
    reset=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("loop_name", LOOPS)
def test_it_answers_every_question_in_any_segmentation_of_any_bytes(loop_name, messages, cuts, tail, reset):
    async def play() -> None:
        async with serving() as server:
            client = await server.connect()
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = framed(*messages)
            for cut in cuts:
                await client.send(stream[:cut])
                stream = stream[cut:]
            await client.send(stream + tail)
            if reset:
                client.reset()
            else:
                client.sock.shutdown(socket.SHUT_WR)
                expected = [answer_to(m) for m in messages if len(m) >= 12 and not m[2] & 0x80]
                assert [await client.message() for _ in expected] == expected
            await server.until(lambda: server.count(TCP_CLIENTS) == 0)
            received = server.count(RECEIVED.slot("tcp"))
            dropped = server.count(DROPPED.slot("short")) + server.count(DROPPED.slot("response"))
            assert received == len(server.asked) + dropped

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(play())
