"""A second `sidestep run` takes over from the first: sockets, cache, and not one question lost."""

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from proxy.control.handover import FORMAT, Hello, Offer, Refusal, find_predecessor
from proxy.lab.sidestep import OTHER_FORMAT
from proxy.worker.channel import receive_message, send_message
from tests.control.eventually import eventually
from tests.control.sidestep import Sidestep
from tests.control.test_relaying import Relaying, Sink, port_of, slice_of
from tests.control.test_workers import free_address
from tests.fakes import WAIT, ScriptedUpstream, UdpStub, question


class Successor(Sidestep):
    """Another run with the same configuration file."""

    def __init__(self, first: Sidestep) -> None:
        super().__init__(first.config.parent)
        self.__dict__.update(
            {name: getattr(first, name) for name in ("address", "admin", "config", "socket", "upstream", "client")}
        )
        first.config.write_text(first.text)


class First(Sidestep):
    def write(self, text: str | None = None, **changes: object) -> None:
        super().write(text, **changes)
        self.text = self.config.read_text()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    await upstream.start()
    upstream.answer("www.example", "A", "www.example. 300 A 192.0.2.10")
    yield upstream
    await upstream.stop()


@pytest.fixture
async def first(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[First]:
    run = First(tmp_path, upstream.address)
    await run.start()
    yield run
    await run.stop()


@pytest.fixture
async def second(first: First) -> AsyncIterator[Successor]:
    run = Successor(first)
    yield run
    if hasattr(run, "process"):
        await run.stop()


async def test_no_question_is_lost_and_the_cache_stays_warm(
    first: First, second: Successor, upstream: ScriptedUpstream
) -> None:
    await first.ask("www.example")
    host, _, port = first.address.rpartition(":")
    stub = UdpStub((host, int(port)))
    asked = answered = 0
    done = asyncio.Event()

    async def ask_all_the_time() -> None:
        nonlocal asked, answered
        while not done.is_set():
            asked += 1
            stub.send(question("www.example").to_wire())
            answered += bool((await stub.answer()).answer)

    asking = asyncio.ensure_future(ask_all_the_time())
    await second.start()
    assert await first.ended() == 0
    done.set()
    await asking
    stub.close()
    assert asked == answered > 10
    assert len(upstream.questions()) == 1
    assert (await second.status())["pid"] == second.process.pid
    assert first.lines("has taken over")


async def test_a_successor_that_cannot_start_leaves_everything_to_the_first(first: First, second: Successor) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        second.write(listen=[first.address, f"127.0.0.1:{taken.getsockname()[1]}"])
        await second.start(ready=False)
        assert await second.ended() == 2
    assert first.socket.is_socket()
    await first.said("went away before it had taken over")
    assert (await first.ask("www.example")).answer


async def test_a_successor_that_is_killed_half_way_leaves_everything_to_the_first(first: First) -> None:
    predecessor = await asyncio.to_thread(find_predecessor, first.socket)
    assert predecessor is not None
    assert {what.of for what, _ in predecessor.sockets} == {"dns", "admin"}
    predecessor.close()
    await first.said("went away before it had taken over")
    assert (await first.ask("www.example")).answer


async def test_a_first_that_is_killed_half_way_leaves_everything_to_the_successor(
    first: First, second: Successor
) -> None:
    await second.start(ready=False)
    await second.said("taking over")
    os.kill(first.process.pid, signal.SIGKILL)
    await second.said("ready")
    assert (await second.ask("www.example")).answer
    assert (await second.status())["pid"] == second.process.pid


async def test_in_a_pod_the_first_stays_until_it_is_stopped_so_that_it_is_not_started_anew(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    first = First(tmp_path, upstream.address)
    await first.start("env", "KUBERNETES_SERVICE_HOST=192.0.2.1")
    second = Successor(first)
    await second.start()
    await first.said("waiting to be stopped")
    assert first.process.returncode is None
    assert (await second.ask("www.example")).answer
    first.process.send_signal(signal.SIGTERM)
    assert await first.ended() == 0
    assert (await second.ask("www.example")).answer
    assert (await second.status())["pid"] == second.process.pid
    await second.stop()


async def test_another_format_is_refused_and_the_ports_are_shared(first: First) -> None:
    path = await asyncio.to_thread(first.client.hand_over)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(WAIT)
        await asyncio.to_thread(sock.connect, path)
        send_message(sock, Hello(FORMAT + 1, "9.9"))
        answer, fds = await asyncio.to_thread(receive_message, sock, Offer | Refusal)
    assert (isinstance(answer, Refusal), fds) == (True, [])
    host, _, port = first.address.rpartition(":")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as beside:
            beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            beside.bind((host, int(port)))
            if kind == socket.SOCK_STREAM:
                beside.listen()


async def test_a_release_of_another_format_takes_over_and_nobody_notices(first: First, second: Successor) -> None:
    host, _, port = first.address.rpartition(":")
    query = question("www.example").to_wire()
    asked, answered = [], []

    async def ask_over_udp() -> None:
        while first.process.returncode is None:
            asked.append("UDP")
            with suppress(TimeoutError):
                await first.ask("www.example")
                answered.append("UDP")

    async def ask_over_tcp() -> None:
        while first.process.returncode is None:
            asked.append("TCP")
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(len(query).to_bytes(2) + query)
                await reader.readexactly(2)
                writer.close()
                answered.append("TCP")

    await first.ask("www.example")
    asking = [asyncio.ensure_future(ask()) for ask in (*4 * (ask_over_udp,), ask_over_tcp)]
    await second.start(command=(sys.executable, *OTHER_FORMAT))
    assert await first.ended() == 0
    await asyncio.gather(*asking)
    assert Counter(answered) == Counter(asked)
    assert min(Counter(asked).values()) > 10
    assert first.lines("ports are shared instead")
    assert (await second.status())["pid"] == second.process.pid


async def test_a_release_of_another_format_that_never_serves_takes_nothing_away(
    first: First, second: Successor
) -> None:
    without_workers = "from proxy.control import service; service.serve.__defaults__ = (('/bin/false',),)"
    option, program = OTHER_FORMAT
    await first.ask("www.example")
    await second.start(ready=False, command=(sys.executable, option, f"{without_workers}; {program}"))
    await second.said("exited with 1", times=2)
    for _ in range(50):
        assert (await first.ask("www.example")).answer
    assert (await first.status())["pid"] == first.process.pid
    assert first.socket.is_socket()
    await second.stop()
    await first.said("went away before it had taken over")
    assert (await first.status())["pid"] == first.process.pid
    first.process.send_signal(signal.SIGTERM)
    assert await first.ended() == 0
    assert not first.socket.is_socket()


async def test_an_invitation_is_for_one_and_leaves_no_file(first: First) -> None:
    path = Path(await asyncio.to_thread(first.client.hand_over))
    assert os.stat(path).st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        await asyncio.to_thread(sock.connect, str(path))
        await eventually(lambda: not path.exists())
        send_message(sock, msgspec.defstruct("Nonsense", [], tag=True)())
    await first.said("went away before it had taken over")


async def test_a_relay_goes_on_with_the_same_source_port_and_its_unix_socket(tmp_path: Path) -> None:
    sink = Sink("127.0.0.2", port_of(free_address()))
    first = Relaying(tmp_path)
    path = tmp_path / "statsd.sock"
    first.relay(slice_of(sink.address), listen=[first.listen, f"unix:{path}"])
    text = first.config.read_text()
    await first.start()
    second = Sidestep(tmp_path)
    second.config.write_text(text)
    second.admin, second.socket = first.admin, first.socket
    sent = 0
    starting = asyncio.ensure_future(second.start())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        while first.process.returncode is None:
            if sent - sink.total("a") < 100:  # what a socket's queue holds while nobody reads
                first.send("a:1|c")
                client.sendto(b"a:1|c", str(path))
                sent += 2
            await asyncio.sleep(0)
        await starting
        assert await first.ended() == 0
        client.sendto(b"a:1|c", str(path))
        sent += 1
    await eventually(lambda: sink.total("a") == sent)
    assert path.is_socket()
    await second.stop()
    first.source.close()
    sink.close()
