"""Readiness through one epoll object, on real sockets."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

from proxy.worker.poller import READABLE, Poller


@contextlib.contextmanager
def polling() -> Iterator[Poller]:
    poller = Poller(asyncio.get_running_loop())
    yield poller
    poller.close()


def connected() -> tuple[socket.socket, socket.socket]:
    """A TCP connection over loopback, both sides non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    client.setblocking(False)
    server.setblocking(False)
    return client, server


async def test_it_reports_a_reset_that_follows_data():
    client, server = connected()
    seen: list[bytes | None] = []
    done = asyncio.Event()

    def read(events: int) -> None:
        try:
            seen.append(server.recv(1))
        except ConnectionResetError:
            poller.remove(server.fileno())
            done.set()

    with polling() as poller, client, server:
        poller.add(server.fileno(), READABLE, read)
        client.send(b"ab")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await done.wait()
        assert seen in ([b"a", b"b"], [])


async def test_it_goes_on_with_those_that_are_left_when_a_callback_removes_one():
    pairs = [socket.socketpair() for _ in range(3)]
    calls: list[int] = []
    done = asyncio.Event()

    def read(events: int) -> None:
        calls.append(events)
        for _, theirs in pairs[:2]:
            with contextlib.suppress(KeyError):
                poller.remove(theirs.fileno())
            theirs.close()

    with polling() as poller:
        for _, theirs in pairs[:2]:
            poller.add(theirs.fileno(), READABLE, read)
        poller.add(pairs[2][1].fileno(), READABLE, lambda events: done.set())
        for ours, _ in pairs:
            ours.send(b"x")
        await done.wait()
        assert len(calls) == 1
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_it_keeps_old_events_from_a_new_socket_with_the_same_number():
    old, silent = socket.socketpair(), socket.socketpair()
    reused: list[socket.socket] = []
    done = asyncio.Event()
    wrong: list[int] = []

    def replace(events: int) -> None:
        poller.remove(old[1].fileno())
        poller.remove(twin)
        old[1].close()
        number = silent[1].fileno()
        silent[1].close()
        reused.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        reused.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        assert number in [sock.fileno() for sock in reused]
        for sock in reused:
            poller.add(sock.fileno(), READABLE, wrong.append)
        asyncio.get_running_loop().call_soon(done.set)

    with polling() as poller, contextlib.ExitStack() as stack:
        twin = silent[1].fileno()
        poller.add(old[1].fileno(), READABLE, replace)
        poller.add(twin, READABLE, replace)
        old[0].send(b"x")
        silent[0].send(b"x")
        await done.wait()
        assert not wrong
        for sock in (old[0], silent[0], *reused):
            stack.enter_context(sock)


async def test_it_calls_nobody_after_it_is_closed():
    ours, theirs = socket.socketpair()
    calls: list[int] = []
    with ours, theirs:
        with polling() as poller:
            poller.add(theirs.fileno(), READABLE, calls.append)
            ours.send(b"x")
        for _ in range(3):
            await asyncio.sleep(0)
        assert not calls
