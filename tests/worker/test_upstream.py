"""The sockets to upstreams, against scripted ones on loopback."""

import asyncio
import contextlib
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.counters import ASKED, REJECTED, SLOTS
from proxy.worker.upstream import UpstreamSockets
from proxy.worker.upstream_tcp import TCP_UPSTREAM_LIMITS, TcpUpstreamLimits
from proxy.worker.upstream_try import socket_address
from proxy.worker.upstream_udp import UDP_LIMITS, UdpLimits
from tests.worker.conftest import LOOPS
from tests.worker.tcp_end import TcpEnd

MESSAGE = bytes(12) + b"\x01x\x00\x00\x01\x00\x01"


@dataclass(eq=False, slots=True)
class Try:
    address: str
    proto: str = "udp"
    message: bytes = MESSAGE


def answer_to(message: bytes, extra: bytes = b"") -> bytes:
    return message[:2] + b"\x80" + message[3:] + extra


def text(address: tuple) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Asker:
    """What the resolver is to the sockets: it notes what it is told."""

    def __init__(self, udp: UdpLimits, tcp: TcpUpstreamLimits) -> None:
        self.loop = asyncio.get_running_loop()
        self.counts = [0] * SLOTS
        self.answers: list[tuple[Try, bytes]] = []
        self.failures: list[tuple[Try, str]] = []
        self.accepts: Callable[[Try, bytes], bool] = lambda try_, data: True
        self.on_failed: Callable[[Try], None] = lambda try_: None
        self._told = asyncio.Event()
        self.sockets = UpstreamSockets(self.loop, self._answer, self._fail, self.counts, udp, tcp)

    def _answer(self, try_: Try, data: bytes) -> bool:
        accepted = self.accepts(try_, data)
        if accepted:
            self.answers.append((try_, data))
        self._told.set()
        return accepted

    def _fail(self, try_: Try, reason: str) -> None:
        self.failures.append((try_, reason))
        self.on_failed(try_)
        self._told.set()

    def ask(self, *tries: Try) -> None:
        for try_ in tries:
            self.sockets.ask(try_)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._told.clear()
            await self._told.wait()

    async def until_answered(self, number: int = 1) -> list[Try]:
        await self.until(lambda: len(self.answers) >= number)
        return [try_ for try_, _ in self.answers]

    async def until_failed(self, number: int = 1) -> list[tuple[Try, str]]:
        await self.until(lambda: len(self.failures) >= number)
        return self.failures

    async def until_counted(self, slot: int, number: int = 1) -> None:
        while self.counts[slot] < number:  # noqa: ASYNC110 - a counter tells nobody
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def asking(udp: UdpLimits = UDP_LIMITS, tcp: TcpUpstreamLimits = TCP_UPSTREAM_LIMITS) -> AsyncIterator[Asker]:
    asker = Asker(udp, tcp)
    try:
        yield asker
    finally:
        asker.sockets.close()


class UdpUpstream:
    """A bound socket; the test reads questions from it and sends what it likes."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.setblocking(False)
        self.address = text(self.sock.getsockname())

    async def question(self) -> tuple[bytes, tuple]:
        arrived = self.loop.create_future()
        self.loop.add_reader(self.sock, lambda: arrived.done() or arrived.set_result(None))
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    return self.sock.recvfrom(65_535)
                await arrived
        finally:
            self.loop.remove_reader(self.sock)

    async def answer(self) -> None:
        message, client = await self.question()
        self.sock.sendto(answer_to(message), client)

    def close(self) -> None:
        self.sock.close()


@contextlib.contextmanager
def udp_upstream(host: str = "127.0.0.1") -> Iterator[UdpUpstream]:
    upstream = UdpUpstream(host)
    try:
        yield upstream
    finally:
        upstream.close()


class TcpUpstream:
    """A listening socket; the test accepts connections and plays the server on each."""

    def __init__(self, host: str = "127.0.0.1", backlog: int = 16) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=backlog
        )
        self.sock.setblocking(False)
        self.address = text(self.sock.getsockname())
        self.accepted: list[TcpPeer] = []

    async def accept(self) -> "TcpPeer":
        sock, client = await self.loop.sock_accept(self.sock)
        self.accepted.append(TcpPeer(self.loop, sock, client))
        return self.accepted[-1]

    def close(self) -> None:
        self.sock.close()
        for peer in self.accepted:
            peer.sock.close()


class TcpPeer(TcpEnd):
    question = TcpEnd.message

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, client: tuple) -> None:
        super().__init__(loop, sock)
        self.client = client

    async def send(self, *messages: bytes) -> None:
        framed = b"".join(struct.pack("!H", len(message)) + message for message in messages)
        await self.loop.sock_sendall(self.sock, framed)


@contextlib.contextmanager
def tcp_upstream(host: str = "127.0.0.1", backlog: int = 16) -> Iterator[TcpUpstream]:
    upstream = TcpUpstream(host, backlog)
    try:
        yield upstream
    finally:
        upstream.close()


def closed_port(kind: socket.SocketKind) -> str:
    """An address where nobody answers."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return text(sock.getsockname())


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


# Addresses


def test_it_reads_addresses_of_both_families_and_scopes():
    assert socket_address("192.0.2.1:53") == (socket.AF_INET, ("192.0.2.1", 53))
    assert socket_address("[2001:db8::1]:5300") == (socket.AF_INET6, ("2001:db8::1", 5300, 0, 0))
    assert socket_address("[fe80::1%7]:53") == (socket.AF_INET6, ("fe80::1", 53, 0, 7))
    loopback = socket.if_nametoindex("lo")
    assert socket_address("[fe80::1%lo]:53") == (socket.AF_INET6, ("fe80::1", 53, 0, loopback))
    with pytest.raises(OSError, match="no interface"):
        socket_address("[fe80::1%gone0]:53")


# UDP


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_hands_over_the_reply_to_a_question(host):
    async with asking() as asker:
        with udp_upstream(host) as upstream:
            try_ = Try(upstream.address)
            asker.ask(try_)
            message, client = await upstream.question()
            assert message[2:] == MESSAGE[2:]
            upstream.sock.sendto(answer_to(message), client)
            assert await asker.until_answered() == [try_]
            assert asker.answers[0][1] == answer_to(message)
            assert asker.counts[ASKED.slot("udp")] == 1


async def test_it_uses_a_fresh_port_and_id_for_each_question():
    async with asking() as asker:
        with udp_upstream() as upstream:
            asker.ask(*(Try(upstream.address) for _ in range(100)))
            seen = [await upstream.question() for _ in range(100)]
            assert len({message[:2] for message, _ in seen}) == 100
            ports = [client[1] for _, client in seen]
            assert len(set(ports)) == 100
            steps = {later - earlier for earlier, later in pairwise(ports)}
            assert len(steps) > 80


async def test_it_takes_an_answer_of_65507_bytes():
    async with asking() as asker:
        with udp_upstream() as upstream:
            asker.ask(Try(upstream.address))
            message, client = await upstream.question()
            longest = answer_to(message, bytes(65_507 - len(message)))
            upstream.sock.sendto(longest, client)
            await asker.until_answered()
            assert asker.answers[0][1] == longest


async def test_it_waits_on_after_replies_that_cannot_be_the_answer():
    async with asking() as asker:
        with udp_upstream() as upstream, udp_upstream() as stranger:
            asker.ask(Try(upstream.address))
            message, client = await upstream.question()
            right = answer_to(message)
            stranger.sock.sendto(right, client)  # the kernel keeps it away: another port than was asked
            upstream.sock.sendto(bytes([message[0] ^ 1]) + right[1:], client)
            upstream.sock.sendto(right[:11], client)
            upstream.sock.sendto(b"", client)
            upstream.sock.sendto(message, client)
            upstream.sock.sendto(right, client)
            await asker.until_answered()
            assert asker.counts[REJECTED.slot("id")] == 1
            assert asker.counts[REJECTED.slot("malformed")] == 2
            assert asker.counts[REJECTED.slot("not_a_response")] == 1
            assert len(asker.answers) == 1


async def test_it_waits_on_after_an_answer_that_is_not_accepted():
    async with asking() as asker:
        with udp_upstream() as upstream:
            asker.accepts = lambda try_, data: data.endswith(b"right")
            asker.ask(Try(upstream.address))
            message, client = await upstream.question()
            upstream.sock.sendto(answer_to(message, b"wrong"), client)
            upstream.sock.sendto(answer_to(message, b"right"), client)
            await asker.until_answered()
            assert asker.answers[0][1] == answer_to(message, b"right")


async def test_it_reports_a_refusal():
    async with asking() as asker:
        try_ = Try(closed_port(socket.SOCK_DGRAM))
        asker.ask(try_)
        assert await asker.until_failed() == [(try_, "refused")]


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_it_reports_an_unreachable_upstream_after_the_call(proto):
    async with asking() as asker:
        try_ = Try("[fe80::1%gone0]:53", proto)
        asker.ask(try_)
        assert not asker.failures
        assert await asker.until_failed() == [(try_, "unreachable")]


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_it_reports_the_lack_of_descriptors_after_the_call(proto):
    async with asking() as asker:
        try_ = Try("127.0.0.1:9", proto)
        with no_descriptors_left():
            asker.ask(try_)
        assert not asker.failures
        assert await asker.until_failed() == [(try_, "no_socket")]
        assert asker.counts[ASKED.slot(proto)] == 0


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_it_says_nothing_of_a_try_that_was_forgotten_before_it_failed(proto):
    async with asking() as asker:
        forgotten, other = (Try("[fe80::1%gone0]:53", proto) for _ in range(2))
        asker.ask(forgotten, other)
        asker.sockets.forget(forgotten)
        assert await asker.until_failed() == [(other, "unreachable")]


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_it_says_nothing_after_it_was_closed(proto):
    async with asking() as asker:
        asker.ask(Try("[fe80::1%gone0]:53", proto), Try("127.0.0.1:9", proto))
        asker.sockets._udp.close()
        asker.sockets._tcp.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not asker.failures


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_it_lets_callbacks_ask_and_forget(proto):
    async with asking() as asker:
        refused = closed_port(socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM)
        first = [Try(refused, proto) for _ in range(8)]
        again = [Try(refused, proto) for _ in range(8)]

        def ask_again(try_: Try) -> None:
            if try_ in first:
                asker.ask(again[first.index(try_)])
                asker.sockets.forget(first[-1])

        asker.on_failed = ask_again
        asker.ask(*first)
        await asker.until_failed(14)
        assert (first[-1], "refused") not in asker.failures[1:]
        assert {reason for _, reason in asker.failures} == {"refused"}


async def test_it_never_mixes_up_descriptors_that_are_opened_while_others_close():
    async with asking() as asker:
        with udp_upstream() as upstream:
            later = [Try(upstream.address) for _ in range(30)]
            left = later.copy()

            def accept(try_: Try, data: bytes) -> bool:
                if left:
                    asker.ask(left.pop())
                return True

            asker.accepts = accept
            asker.ask(*(Try(upstream.address) for _ in range(30)))
            for _ in range(60):
                await upstream.answer()
            await asker.until_answered(60)
            assert not any(asker.counts[REJECTED.slot(reason)] for reason in ("id", "malformed"))


async def test_it_ignores_what_comes_after_a_try_is_forgotten():
    async with asking() as asker:
        with udp_upstream() as upstream:
            forgotten, open_ = Try(upstream.address), Try(upstream.address)
            asker.ask(forgotten)
            message, client = await upstream.question()
            asker.sockets.forget(forgotten)
            asker.sockets.forget(forgotten)
            upstream.sock.sendto(answer_to(message), client)
            asker.ask(open_)
            await upstream.answer()
            assert await asker.until_answered() == [open_]


async def test_it_shares_sockets_past_their_bound_but_never_ids():
    async with asking(udp=UdpLimits(sockets=10, sockets_per_upstream=4)) as asker:
        with udp_upstream() as upstream, udp_upstream() as other:
            tries = [Try(upstream.address) for _ in range(60)]
            asker.ask(*tries)
            seen = [await upstream.question() for _ in tries]
            assert len({client for _, client in seen}) == 10
            assert len({message[:2] for message, _ in seen}) == 60
            others = [Try(other.address) for _ in range(20)]
            asker.ask(*others)
            assert len({(await other.question())[1] for _ in others}) == 4
            for try_ in others[:10]:
                asker.sockets.forget(try_)
            for message, client in reversed(seen):
                upstream.sock.sendto(answer_to(message), client)
            assert set(await asker.until_answered(60)) == set(tries)


async def test_it_fails_every_try_of_a_shared_socket_that_is_refused():
    async with asking(udp=UdpLimits(sockets=1, sockets_per_upstream=1)) as asker:
        with udp_upstream() as upstream:
            tries = [Try(upstream.address) for _ in range(3)]
            asker.ask(*tries)
        asker.ask(late := Try(upstream.address))
        assert {try_ for try_, _ in await asker.until_failed(4)} == {*tries, late}
        assert {reason for _, reason in asker.failures} == {"refused"}


async def test_it_bounds_the_tries_in_flight():
    async with asking(udp=UdpLimits(tries=2)) as asker:
        with udp_upstream() as upstream:
            tries = [Try(upstream.address) for _ in range(3)]
            asker.ask(*tries)
            assert await asker.until_failed() == [(tries[2], "no_socket")]


async def test_it_knows_its_own_udp_questions_by_port_and_id():
    async with asking() as asker:
        with udp_upstream() as upstream:
            asker.ask(try_ := Try(upstream.address))
            message, client = await upstream.question()
            message_id = message[0] << 8 | message[1]
            assert asker.sockets.sent_by_us(client[1], message_id)
            assert not asker.sockets.sent_by_us(client[1], message_id ^ 1)
            assert not asker.sockets.sent_by_us(client[1] ^ 1, message_id)
            asker.sockets.forget(try_)
            assert not asker.sockets.sent_by_us(client[1], message_id)


# TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_asks_over_tcp(host):
    async with asking() as asker:
        with tcp_upstream(host) as upstream:
            asker.ask(try_ := Try(upstream.address, "tcp"))
            peer = await upstream.accept()
            message = await peer.question()
            assert message[2:] == MESSAGE[2:]
            await peer.send(answer_to(message, bytes(65_000)))
            assert await asker.until_answered() == [try_]
            assert asker.answers[0][1] == answer_to(message, bytes(65_000))
            assert asker.counts[ASKED.slot("tcp")] == 1


async def test_it_writes_the_length_with_the_question():
    async with asking() as asker:
        with tcp_upstream() as upstream:
            asker.ask(Try(upstream.address, "tcp"))
            peer = await upstream.accept()
            assert len(await peer.loop.sock_recv(peer.sock, 4096)) == len(MESSAGE) + 2


async def answered_connection(asker: Asker, upstream: TcpUpstream) -> TcpPeer:
    """A connection that has answered once and is idle now."""
    before = len(asker.answers)
    asker.ask(Try(upstream.address, "tcp"))
    peer = await upstream.accept()
    await peer.send(answer_to(await peer.question()))
    await asker.until_answered(before + 1)
    return peer


async def test_it_reuses_an_idle_connection():
    async with asking() as asker:
        with tcp_upstream() as upstream:
            peer = await answered_connection(asker, upstream)
            asker.ask(Try(upstream.address, "tcp"))
            await peer.send(answer_to(await peer.question()))
            await asker.until_answered(2)


async def test_it_pipelines_and_takes_answers_in_any_order():
    async with asking(tcp=TcpUpstreamLimits(connections=1)) as asker:
        with tcp_upstream() as upstream:
            tries = [Try(upstream.address, "tcp") for _ in range(20)]
            asker.ask(*tries)
            peer = await upstream.accept()
            questions = [await peer.question() for _ in tries]
            await peer.send(*map(answer_to, reversed(questions)))
            assert await asker.until_answered(20) == tries[::-1]


async def test_it_spreads_questions_over_a_few_connections():
    async with asking(tcp=TcpUpstreamLimits(connections=3)) as asker:
        with tcp_upstream() as upstream:
            asker.ask(*(Try(upstream.address, "tcp") for _ in range(9)))
            for _ in range(3):
                peer = await upstream.accept()
                await peer.send(*[answer_to(await peer.question()) for _ in range(3)])
            await asker.until_answered(9)


async def test_it_says_when_every_connection_is_full():
    async with asking(tcp=TcpUpstreamLimits(connections=2, outstanding=2)) as asker:
        with tcp_upstream() as upstream:
            tries = [Try(upstream.address, "tcp") for _ in range(5)]
            asker.ask(*tries)
            assert await asker.until_failed() == [(tries[4], "no_socket")]


async def test_it_reports_a_refused_connection():
    async with asking() as asker:
        tries = [Try(closed_port(socket.SOCK_STREAM), "tcp") for _ in range(2)]
        asker.ask(*tries)
        assert {try_ for try_, _ in await asker.until_failed(2)} == set(tries)
        assert {reason for _, reason in asker.failures} == {"refused"}


async def test_it_reports_a_fresh_connection_that_closes_without_an_answer():
    async with asking() as asker:
        with tcp_upstream() as upstream:
            asker.ask(try_ := Try(upstream.address, "tcp"))
            peer = await upstream.accept()
            await peer.question()
            peer.sock.close()
            assert await asker.until_failed() == [(try_, "refused")]


@pytest.mark.parametrize("by", ["close", "reset"])
async def test_it_asks_again_on_a_fresh_connection_when_a_reused_one_dies(by):
    async with asking() as asker:
        with tcp_upstream() as upstream:
            peer = await answered_connection(asker, upstream)
            asker.ask(try_ := Try(upstream.address, "tcp"))
            await peer.question()
            if by == "close":
                peer.sock.close()
            else:
                peer.reset()
            fresh = await upstream.accept()
            await fresh.send(answer_to(await fresh.question()))
            assert (await asker.until_answered(2))[1] is try_
            assert not asker.failures
            assert asker.counts[ASKED.slot("tcp")] == 3


async def test_it_asks_again_only_once():
    async with asking() as asker:
        with tcp_upstream() as upstream:
            peer = await answered_connection(asker, upstream)
            asker.ask(try_ := Try(upstream.address, "tcp"))
            await peer.question()
            peer.sock.close()
            fresh = await upstream.accept()
            await fresh.question()
            fresh.sock.close()
            assert await asker.until_failed() == [(try_, "refused")]


async def test_it_opens_a_new_connection_after_an_idle_one_was_closed():
    async with asking() as asker:
        with tcp_upstream() as upstream:
            (await answered_connection(asker, upstream)).sock.close()
            await answered_connection(asker, upstream)
            assert not asker.failures


async def test_it_closes_a_connection_that_idles():
    async with asking(tcp=TcpUpstreamLimits(idle=0.0)) as asker:
        with tcp_upstream() as upstream:
            assert await (await answered_connection(asker, upstream)).ended()


@pytest.mark.parametrize("length", [0, 11])
async def test_it_closes_a_connection_whose_messages_make_no_sense(length):
    async with asking() as asker:
        with tcp_upstream() as upstream:
            asker.ask(try_ := Try(upstream.address, "tcp"))
            peer = await upstream.accept()
            await peer.question()
            await peer.send(bytes(length))
            assert await asker.until_failed() == [(try_, "malformed")]
            assert await peer.ended()
            assert asker.counts[REJECTED.slot("malformed")] == 1


async def test_it_waits_on_after_tcp_messages_that_cannot_be_the_answer():
    async with asking() as asker:
        with tcp_upstream() as upstream:
            asker.accepts = lambda try_, data: not data.endswith(b"wrong")
            asker.ask(Try(upstream.address, "tcp"))
            peer = await upstream.accept()
            message = await peer.question()
            right = answer_to(message)
            await peer.send(bytes([message[0] ^ 1]) + right[1:], message, right + b"wrong", right)
            await asker.until_answered()
            assert asker.answers[0][1] == right
            assert asker.counts[REJECTED.slot("id")] == 1
            assert asker.counts[REJECTED.slot("not_a_response")] == 1


async def test_it_passes_over_the_late_answer_to_a_forgotten_try():
    async with asking(tcp=TcpUpstreamLimits(connections=1)) as asker:
        with tcp_upstream() as upstream:
            first, forgotten, last = (Try(upstream.address, "tcp") for _ in range(3))
            asker.ask(first, forgotten)
            peer = await upstream.accept()
            await peer.send(answer_to(await peer.question()))
            late = answer_to(await peer.question())
            await asker.until_answered()
            asker.sockets.forget(forgotten)
            asker.ask(last)
            await peer.send(late, answer_to(await peer.question()))
            assert await asker.until_answered(2) == [first, last]
            assert asker.counts[REJECTED.slot("id")] == 0


async def test_it_trusts_no_connection_that_stayed_silent_to_a_forgotten_try():
    async with asking() as asker:
        with tcp_upstream() as upstream:
            silent = await answered_connection(asker, upstream)
            asker.ask(forgotten := Try(upstream.address, "tcp"))
            await silent.question()
            asker.sockets.forget(forgotten)
            assert await silent.ended()
            await answered_connection(asker, upstream)


async def test_it_aborts_a_connect_that_nobody_waits_for():
    async with asking() as asker:
        with tcp_upstream(backlog=0) as upstream, filled(upstream):
            asker.ask(forgotten := Try(upstream.address, "tcp"))
            await asyncio.sleep(0)
            before = len(os.listdir("/proc/self/fd"))
            asker.sockets.forget(forgotten)
            assert len(os.listdir("/proc/self/fd")) == before - 1
            assert not asker.failures


async def test_it_gives_up_a_connect_that_takes_too_long():
    async with asking(tcp=TcpUpstreamLimits(connect=0.01)) as asker:
        with tcp_upstream(backlog=0) as upstream, filled(upstream):
            asker.ask(try_ := Try(upstream.address, "tcp"))
            assert await asker.until_failed() == [(try_, "unreachable")]


@contextlib.contextmanager
def filled(upstream: TcpUpstream) -> Iterator[None]:
    """Fill the accept queue, so that the kernel drops further SYNs: a black hole."""
    host, _, port = upstream.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((host, int(port)))
        yield


async def test_it_knows_its_own_tcp_questions_by_port_and_id():
    async with asking() as asker:
        with tcp_upstream() as upstream:
            asker.ask(try_ := Try(upstream.address, "tcp"))
            peer = await upstream.accept()
            message = await peer.question()
            message_id = message[0] << 8 | message[1]
            assert asker.sockets.sent_by_us(peer.client[1], message_id)
            assert not asker.sockets.sent_by_us(peer.client[1] ^ 1, message_id)
            await peer.send(answer_to(message))
            assert await asker.until_answered() == [try_]
            assert not asker.sockets.sent_by_us(peer.client[1], message_id)


@given(
    replies=st.lists(
        st.one_of(
            st.binary(min_size=12, max_size=40).map(lambda noise: ("noise", noise)),
            st.just(("right", b"")),
            st.binary(max_size=11).map(lambda short: ("noise", short)),
        ),
        max_size=12,
    ),
    tail=st.binary(max_size=6),
    cuts=st.lists(st.integers(1, 60), max_size=12),
    reset=st.booleans(),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("loop_name", LOOPS)
def test_it_ends_every_try_once_whatever_a_tcp_upstream_sends(loop_name, replies, tail, cuts, reset):
    async def play() -> None:
        async with asking(tcp=TcpUpstreamLimits(connections=1)) as asker:
            with tcp_upstream() as upstream:
                tries = [Try(upstream.address, "tcp") for _ in range(4)]
                asker.ask(*tries)
                peer = await upstream.accept()
                questions = [await peer.question() for _ in tries]
                right = iter(map(answer_to, questions))
                stream = tail
                for kind, noise in reversed(replies):
                    message = next(right, noise) if kind == "right" else noise
                    stream = struct.pack("!H", len(message)) + message + stream
                upstream.sock.close()
                with contextlib.suppress(ConnectionError):
                    for cut in cuts:
                        await peer.loop.sock_sendall(peer.sock, stream[:cut])
                        stream = stream[cut:]
                    await peer.loop.sock_sendall(peer.sock, stream)
                if reset:
                    peer.reset()
                else:
                    peer.sock.close()
                await asker.until(lambda: len(asker.answers) + len(asker.failures) >= 4)
                ended = [try_ for try_, _ in asker.answers] + [try_ for try_, _ in asker.failures]
                assert sorted(map(id, ended)) == sorted(map(id, tries))

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(play())


async def test_it_leaves_nothing_open():
    before = len(os.listdir("/proc/self/fd"))
    async with asking() as asker:
        with tcp_upstream() as upstream, udp_upstream() as udp:
            peer = await answered_connection(asker, upstream)
            asker.ask(Try(upstream.address, "tcp"), Try(upstream.address, "tcp"), Try(udp.address))
            await peer.question()
    assert len(os.listdir("/proc/self/fd")) == before
