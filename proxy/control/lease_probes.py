"""Asks every listener a real question again and again: the answer that leaves it keeps its lease in the kernel.

The questions carry a mark by which the table lets them through to a listener that has lost its lease.
"""

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from proxy.control.probe import QUESTION
from proxy.node.table import PROBE_MARK, NodeListener
from proxy.worker.upstream_try import socket_address

PATIENCE = 1.0
"""After this a connection without an answer is given up for another one."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: ten closed connections a second would leave 600 of them in TIME_WAIT."""


class LeaseProbe:
    """One listener, asked each so many seconds by `run`."""

    def __init__(self, listener: NodeListener, secret: bytes, clock: Callable[[], float]) -> None:
        self.listener = listener
        self._secret = secret
        self._clock = clock
        self.answered = float("-inf")
        """When the last answer came."""
        self.failure = "no answer yet"
        """Why the last question was not answered."""

    async def run(self, every: float) -> None:
        """Ask until cancelled."""
        ask = self._ask_udp if self.listener.transport == "udp" else self._ask_tcp
        while True:
            try:
                with contextlib.closing(self._connectable()) as sock:
                    await ask(sock, every)
            except (OSError, EOFError) as error:
                self.failure = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
            await asyncio.sleep(every)

    def _connectable(self) -> socket.socket:
        kind = socket.SOCK_DGRAM if self.listener.transport == "udp" else socket.SOCK_STREAM
        sock = socket.socket(socket_address(self.listener.address)[0], kind)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROBE_MARK)
        except OSError:
            sock.close()
            raise
        return sock

    async def _ask_udp(self, sock: socket.socket, every: float) -> None:
        """Ask until something is wrong with the socket. An answer to an earlier question is one as well."""
        sock.connect(socket_address(self.listener.address)[1])
        loop = asyncio.get_running_loop()
        while True:
            begun = self._clock()
            await loop.sock_sendall(sock, self._question())
            try:
                async with asyncio.timeout(every):
                    self._take(await loop.sock_recv(sock, 2048))
            except TimeoutError:
                self.failure = f"no answer within {every:g} s"
            await asyncio.sleep(begun + every - self._clock())

    async def _ask_tcp(self, sock: socket.socket, every: float) -> None:
        """Ask once, on a connection of its own: what no longer accepts is found as well."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        loop = asyncio.get_running_loop()
        question = self._question()
        try:
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(sock, socket_address(self.listener.address)[1])
                await loop.sock_sendall(sock, len(question).to_bytes(2, "big") + question)
                reply = b""
                while len(reply) < 2 or len(reply) < 2 + int.from_bytes(reply[:2], "big"):
                    piece = await loop.sock_recv(sock, 2048)
                    if not piece:
                        raise EOFError
                    reply += piece
                self._take(reply[2:])
        except TimeoutError:
            self.failure = f"no answer within {PATIENCE:g} s"

    def _question(self) -> bytes:
        return self._secret if self.listener.relay else secrets.token_bytes(2) + QUESTION

    def _take(self, reply: bytes) -> None:
        if reply == self._secret if self.listener.relay else len(reply) >= 12 and reply[2] & 0x80:
            self.answered = self._clock()
        else:
            self.failure = "the answer was not one to our question"


class LeaseProbes:
    """A probe for each listener that can have a lease."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._secret = secret.encode()
        self._clock = clock
        self._running: dict[tuple[NodeListener, float], tuple[LeaseProbe, asyncio.Task[None]]] = {}

    def follow(self, listeners: Sequence[NodeListener], every: float) -> None:
        """Probe these and no others from now on, each so many seconds."""
        # Other endpoints are no reason to begin anew.
        wanted = {(replace(one, service=False, fallback=()), every) for one in listeners if one.leasable}
        for key in self._running.keys() - wanted:
            self._running.pop(key)[1].cancel()
        for key in wanted - self._running.keys():
            probe = LeaseProbe(key[0], self._secret, self._clock)
            self._running[key] = probe, asyncio.get_running_loop().create_task(probe.run(every))

    def answers(self) -> dict[str, tuple[float, str]]:
        """By listener: the seconds since its last answer, and why the last question had none."""
        now = self._clock()
        return {
            probe.listener.name: (now - probe.answered, probe.failure)
            for probe, _ in sorted(self._running.values(), key=lambda one: one[0].listener.name)
        }

    async def close(self) -> None:
        """End all of them."""
        tasks = [task for _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
