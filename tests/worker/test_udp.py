"""The UDP listener, through real loopback sockets: batched and plain, IPv4 and IPv6, bound exactly and to all."""

import asyncio
import ctypes
import errno
import os
import random
import resource
import select
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from proxy.core.counters import ANSWERED, DROPPED, RECEIVED, REQUEST_SECONDS, SLOTS, TRUNCATED, UNDELIVERED
from proxy.worker import mmsg
from proxy.worker.mmsg import batches_work, clear_interface, kernel_drops
from proxy.worker.udp import (
    BATCH,
    SLOT_SIZE,
    WAKE_UP_LIMIT,
    BatchedListener,
    PlainListener,
    UdpClient,
    UdpListener,
    open_listener,
)

V4, V6 = ("127.0.0.1", "127.0.0.1"), ("::1", "::1")
V4_ALL, V6_ALL = ("0.0.0.0", "127.0.0.77"), ("::", "::1")
EVERYWHERE = [V4, V6, V4_ALL, V6_ALL]
HIT = bytes(range(1, 11)) + b"\3www\7example\4test\0\0\1\0\1"
"""What follows the ID in a question with a ready answer."""
READY = b"\x81\x80" + bytes(94)
"""What follows the ID in its answer."""
HIT_SLOT = ANSWERED.base + 5


@dataclass
class Answer:
    body: bytes
    until: float
    slot: int


def question(number: int, tail: bytes = bytes(20)) -> bytes:
    """A message with this ID and QR=0 that no variant answers."""
    return struct.pack("!H", number) + tail


class Served:
    """A bound socket with its listener, and clients that ask it."""

    def __init__(
        self,
        kind: type[UdpListener],
        bound_to: str = "127.0.0.1",
        asked_at: str = "127.0.0.1",
        questions_first: int = 0,
    ) -> None:
        self.family = socket.AF_INET6 if ":" in bound_to else socket.AF_INET
        self.sock = socket.socket(self.family, socket.SOCK_DGRAM)
        if self.family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        self.sock.bind((bound_to, 0))
        self.address = (asked_at, self.sock.getsockname()[1])
        self.counts = [0] * SLOTS
        self.now = 1000.0
        self.variants = {HIT: Answer(READY, 1001.0, HIT_SLOT)}
        self.asked: list[tuple[bytes, UdpClient]] = []
        self.answer: Callable[[bytes], bytes | None] = lambda query: None
        self.clients: list[socket.socket] = []
        for number in range(questions_first):
            (self.clients[0] if number else self.client()).send(question(number, HIT))
        self.listener = open_listener(self.sock, self.variants, self._receive, self.counts, lambda: self.now, kind)

    def _receive(self, query: bytes, client: UdpClient) -> bytes | None:
        self.asked.append((query, client))
        return self.answer(query)

    def client(self) -> socket.socket:
        """Connected, so that it hears only what comes from the address that it asked."""
        client = socket.socket(self.family, socket.SOCK_DGRAM)
        client.settimeout(2)
        client.connect(self.address)
        self.clients.append(client)
        return client

    def drain(self) -> int:
        """Let the listener read until its socket is empty, as a loop would; how many wake-ups it took."""
        wake_ups = 0
        while select.select([self.sock], [], [], 0)[0]:
            self.listener.drain()
            wake_ups += 1
        return wake_ups

    def count(self, slot: int) -> int:
        return self.counts[slot]

    def close(self) -> None:
        for sock in (self.sock, *self.clients):
            sock.close()


def silent(client: socket.socket) -> bool:
    return not select.select([client], [], [], 0)[0]


@pytest.fixture(params=[BatchedListener, PlainListener], ids=["batched", "plain"])
def kind(request: pytest.FixtureRequest) -> type[UdpListener]:
    return request.param


@pytest.fixture
def serve(kind: type[UdpListener]) -> Iterator[Callable[..., Served]]:
    opened: list[Served] = []

    def open_one(*where: str | int) -> Served:
        opened.append(Served(kind, *where))
        return opened[-1]

    yield open_one
    for served in opened:
        served.close()


@pytest.mark.parametrize("where", EVERYWHERE, ids=lambda where: where[0])
class TestAddresses:
    def test_a_known_question_is_answered_with_its_own_id(self, serve, where):
        served = serve(*where)
        client = served.client()
        for number in (0, 0x1234, 0xFFFF):
            client.send(question(number, HIT))
            served.drain()
            assert client.recv(4096) == question(number, READY)
        assert served.asked == []
        assert served.count(HIT_SLOT) == served.count(RECEIVED.slot("udp")) == 3

    def test_a_batch_of_many_clients_is_answered_each_its_own(self, serve, where):
        served = serve(*where)
        clients = [served.client() for _ in range(20)]
        for turn in range(40):
            for number, client in enumerate(clients):
                client.send(question(turn << 8 | number, HIT))
            served.drain()
            for number, client in enumerate(clients):
                assert client.recv(4096) == question(turn << 8 | number, READY)
        assert served.count(HIT_SLOT) == 800

    def test_an_unknown_question_is_passed_on_and_answered_at_once(self, serve, where):
        served = serve(*where)
        served.answer = lambda query: query[:2] + b"now"
        client = served.client()
        client.send(question(7))
        served.drain()
        assert client.recv(4096) == question(7, b"now")
        assert [query for query, _ in served.asked] == [question(7)]

    def test_a_late_answer_leaves_from_the_address_that_was_asked(self, serve, where):
        served = serve(*where)
        client = served.client()
        client.send(question(8))
        served.drain()
        assert silent(client)
        ((_, who),) = served.asked
        assert who.address == client.getsockname()[:2]
        assert who.proto == "udp"
        assert who.reply(question(8, b"late"))
        assert client.recv(4096) == question(8, b"late")

    def test_known_and_unknown_questions_of_one_batch_keep_apart(self, serve, where):
        served = serve(*where)
        served.answer = lambda query: query[:2] + b"now" if query[1] % 3 else None
        client = served.client()
        expected = set()
        for turn in range(12):
            for number in range(30):
                known = (number + turn) % 5 < 3
                client.send(question(number, HIT if known else bytes(20)))
                if known:
                    expected.add((number, READY))
                elif number % 3:
                    expected.add((number, b"now"))
            served.drain()
            got = set()
            while not silent(client):
                message = client.recv(4096)
                got.add((message[1], message[2:]))
            assert got == expected
            expected = set()
        assert served.count(RECEIVED.slot("udp")) == 360
        assert served.count(HIT_SLOT) + len(served.asked) == 360

    def test_a_datagram_of_any_size_does_no_harm(self, serve, where):
        served = serve(*where)
        client = served.client()
        sizes = [0, 1, 2, 11, 12, SLOT_SIZE - 1, SLOT_SIZE, SLOT_SIZE + 1, 4096, 65507]
        for size in sizes * 4:
            client.send(bytes(size))
            served.drain()
        known = [size if size <= SLOT_SIZE else 12 for size in sizes if size >= 12]  # of a cut one the header only
        assert [len(query) for query, _ in served.asked] == known * 4
        assert served.count(TRUNCATED.slot()) == 12
        assert served.count(DROPPED.slot("short")) == 16
        client.send(question(9, HIT))
        served.drain()
        assert client.recv(4096) == question(9, READY)


class TestHits:
    def test_a_variant_whose_time_is_over_is_asked_about(self, serve):
        served = serve()
        client = served.client()
        served.now = 1001.0
        client.send(question(1, HIT))
        served.drain()
        assert [query for query, _ in served.asked] == [question(1, HIT)]
        assert silent(client)

    def test_an_answer_longer_and_one_shorter_than_its_question(self, serve):
        served = serve()
        client = served.client()
        for body in (b"\x81\x80", bytes(1230), b"\x81\x80" + bytes(10)):
            served.variants[HIT].body = body
            for _ in range(20):
                client.send(question(5, HIT))
            served.drain()
            assert [client.recv(4096) for _ in range(20)] == [question(5, body)] * 20

    def test_a_response_that_spells_like_no_question_gets_no_reply(self, serve):
        served = serve()
        client = served.client()
        client.send(question(1, b"\x80" + bytes(19)))
        served.drain()
        assert silent(client)
        assert served.asked == []
        assert served.count(DROPPED.slot("response")) == 1

    def test_each_answer_is_timed_once(self, serve):
        served = serve()
        served.answer = lambda query: query[:2] + b"now"
        client = served.client()
        for number in range(50):
            client.send(question(number, HIT if number % 2 else bytes(20)))
        served.drain()
        observed = served.counts[REQUEST_SECONDS.base : REQUEST_SECONDS.base + len(REQUEST_SECONDS.BOUNDS) + 1]
        assert sum(observed) == 50

    def test_a_flood_is_read_in_bounded_turns(self, serve):
        served = serve()
        client = served.client()
        for number in range(WAKE_UP_LIMIT * 4):
            client.send(question(number, HIT))
        most = 0
        while select.select([served.sock], [], [], 0)[0]:
            before = served.count(RECEIVED.slot("udp"))
            served.listener.drain()
            most = max(most, served.count(RECEIVED.slot("udp")) - before)
        assert 1 < most <= WAKE_UP_LIMIT + BATCH
        assert served.count(HIT_SLOT) == WAKE_UP_LIMIT * 4


class TestClients:
    def test_the_same_client_asking_twice_is_equal_and_another_is_not(self, serve):
        served = serve()
        one, other = served.client(), served.client()
        for client in (one, other, one):
            client.send(question(1))
            served.drain()
        first, second, third = (client for _, client in served.asked)
        assert first == third
        assert hash(first) == hash(third)
        assert first != second
        assert first != "a client"

    def test_one_client_at_two_of_our_addresses_is_two(self, serve):
        served = serve("0.0.0.0", "127.0.0.1")
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        served.clients.append(client)
        for host in ("127.0.0.1", "127.0.0.2"):
            client.sendto(question(1), (host, served.address[1]))
            served.drain()
        (_, first), (_, second) = served.asked
        assert first.address == second.address
        assert first != second

    def test_an_answer_that_the_kernel_refuses_is_counted(self, serve):
        served = serve()
        client = served.client()
        client.send(question(1))
        served.drain()
        ((_, who),) = served.asked
        assert not who.reply(bytes(70_000))
        assert served.count(UNDELIVERED.slot("unsendable")) == 1

    def test_a_reply_after_the_socket_was_closed_is_counted(self, serve):
        served = serve()
        served.client().send(question(1))
        served.drain()
        served.sock.close()
        ((_, who),) = served.asked
        assert not who.reply(b"late")
        assert served.count(UNDELIVERED.slot("unsendable")) == 1


def from_port_zero(served: Served, payload: bytes) -> None:
    """A datagram whose source port is 0, which only a raw socket can send."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        raw.sendto(struct.pack("!4H", 0, served.address[1], 8 + len(payload), 0) + payload, (served.address[0], 0))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a raw socket")
class TestPortZero:
    def test_an_unknown_question_is_dropped(self, serve):
        served = serve()
        from_port_zero(served, question(1))
        served.drain()
        assert served.asked == []
        assert served.count(DROPPED.slot("port_zero")) == 1

    def test_a_known_one_takes_no_other_answer_of_its_batch_with_it(self, serve):
        served = serve()
        client = served.client()
        for number in range(64):
            if number % 7 == 0:
                from_port_zero(served, question(number, HIT))
            client.send(question(number, HIT))
        for _ in range(20):
            served.drain()
            client.send(question(99, HIT))
            from_port_zero(served, question(99, HIT))
            client.send(question(99, HIT))
        served.drain()
        got = []
        while not silent(client):
            got.append(client.recv(4096)[1])
        assert sorted(got) == [*range(64), *[99] * 40]
        assert served.count(RECEIVED.slot("udp")) == served.count(HIT_SLOT) == 64 + 10 + 60
        assert served.count(UNDELIVERED.slot("unsendable")) == 30


class TestLoops:
    """Every coroutine test runs on both loops."""

    @pytest.mark.parametrize("where", EVERYWHERE, ids=lambda where: where[0])
    async def test_a_reader_of_the_loop_answers(self, serve, where):
        served = serve(*where)
        loop = asyncio.get_running_loop()
        loop.add_reader(served.sock.fileno(), served.listener.drain)
        client = served.client()
        client.setblocking(False)
        got: list[bytes] = []
        done = asyncio.Event()

        def read() -> None:
            got.append(client.recv(4096))
            if len(got) == 500:
                done.set()
            elif len(got) % 100 == 0:
                ask()

        def ask() -> None:
            for number in range(100):
                client.send(question(number, HIT))

        loop.add_reader(client.fileno(), read)
        ask()
        async with asyncio.timeout(10):
            await done.wait()
        loop.remove_reader(client.fileno())
        loop.remove_reader(served.sock.fileno())
        assert {message[2:] for message in got} == {READY}

    async def test_timers_run_while_a_flood_lasts(self, serve):
        served = serve()
        loop = asyncio.get_running_loop()
        loop.add_reader(served.sock.fileno(), served.listener.drain)
        client = served.client()
        turns = 0
        done = asyncio.Event()

        def tick() -> None:
            nonlocal turns
            turns += 1
            for number in range(300):
                client.send(question(number, HIT))
            if turns < 20:
                loop.call_later(0, tick)
            else:
                done.set()

        tick()
        async with asyncio.timeout(10):
            await done.wait()
        loop.remove_reader(served.sock.fileno())
        assert turns == 20


def test_random_bursts_lose_nothing_and_leave_no_trace(serve):
    """received = answered + dropped + passed on, whatever comes; and memory does not grow."""
    served = serve()
    served.answer = lambda query: query[:2] + b"now" if query[3] & 1 else None
    client = served.client()
    rng = random.Random(3)
    sent = 0

    def burst() -> None:
        nonlocal sent
        for _ in range(rng.randrange(1, 60)):
            if rng.random() < 0.5:
                message = question(rng.randrange(65536), HIT)
            else:
                message = rng.randbytes(rng.choice((0, 1, 3, 11, 12, 40, 300, 2047, 2048, 2049, 9000, 65507)))
            client.send(message)
            sent += 1
            if len(message) > 9000:
                served.drain()
        served.drain()
        while not silent(client):
            client.recv(100)

    for _ in range(50):
        burst()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asked = 0
    for _ in range(300):
        burst()
        asked += len(served.asked)
        served.asked.clear()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown < 8 * 1024
    dropped = sum(count for _, count in DROPPED.samples(served.counts))
    assert served.count(RECEIVED.slot("udp")) + kernel_drops(served.sock) == sent
    assert served.count(RECEIVED.slot("udp")) == served.count(HIT_SLOT) + dropped + asked


class TestReplyRoute:
    def test_the_interface_is_left_to_the_route(self):
        for address in ("2001:db8::1", "::1", "fd00::1"):
            pktinfo = bytearray(socket.inet_pton(socket.AF_INET6, address) + struct.pack("=I", 7))
            clear_interface(pktinfo)
            assert pktinfo == socket.inet_pton(socket.AF_INET6, address) + bytes(4)
        pktinfo = bytearray(struct.pack("=I4s4s", 7, bytes((10, 0, 0, 1)), bytes((10, 0, 0, 255))))
        clear_interface(pktinfo)
        assert pktinfo == bytes(4) + bytes((10, 0, 0, 1)) + bytes((10, 0, 0, 255))

    @pytest.mark.parametrize("where", [V4_ALL, V6_ALL], ids=lambda where: where[0])
    def test_what_was_queued_before_the_listener_came_is_answered_from_where_it_was_sent(self, serve, where):
        served = serve(*where, 3)
        served.drain()
        assert [served.clients[0].recv(4096) for _ in range(3)] == [question(number, READY) for number in range(3)]

    def test_a_link_local_address_means_nothing_without_its_interface(self):
        pktinfo = bytearray(socket.inet_pton(socket.AF_INET6, "fe80::1") + struct.pack("=I", 7))
        before = bytes(pktinfo)
        clear_interface(pktinfo)
        assert pktinfo == before


class TestKernelDrops:
    SO_RXQ_OVFL = 40

    def test_they_are_what_so_rxq_ovfl_says(self):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setsockopt(socket.SOL_SOCKET, self.SO_RXQ_OVFL, 1)
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            client.connect(sock.getsockname())
            assert kernel_drops(sock) == 0
            for _ in range(500):
                client.send(bytes(100))
            taken = 0
            while select.select([sock], [], [], 0)[0]:
                sock.recv(200)
                taken += 1
            client.send(b"the last one")
            _, control, _, _ = sock.recvmsg(200, socket.CMSG_SPACE(4))
            ((level, kind, data),) = control
            assert (level, kind) == (socket.SOL_SOCKET, self.SO_RXQ_OVFL)
            assert struct.unpack("=I", data)[0] == kernel_drops(sock) == 500 - taken > 0


class TestChoice:
    def listener(self) -> UdpListener:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            return open_listener(sock, {}, lambda query, client: None, [0] * SLOTS, lambda: 0.0)

    def test_it_is_batched_where_that_works(self):
        assert batches_work()
        assert isinstance(self.listener(), BatchedListener)

    def test_it_is_plain_where_the_kernel_has_no_such_call(self, monkeypatch):
        class Refusing:
            def __init__(self, *_: object, **__: object) -> None: ...

            def recvmmsg(self, *_: object) -> int:
                ctypes.set_errno(errno.ENOSYS)
                return -1

        monkeypatch.setattr(mmsg.ctypes, "PyDLL", Refusing)
        assert not batches_work()
        assert isinstance(self.listener(), PlainListener)

    def test_it_is_plain_where_libc_has_no_such_function(self, monkeypatch):
        class Empty:
            def __init__(self, *_: object, **__: object) -> None: ...

        monkeypatch.setattr(mmsg.ctypes, "PyDLL", Empty)
        assert not batches_work()

    def test_the_choice_can_be_made_for_it(self, kind):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            listener = open_listener(sock, {}, lambda query, client: None, [0] * SLOTS, lambda: 0.0, kind)
            assert type(listener) is kind
