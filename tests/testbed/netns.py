"""A network namespace of a test's own with a wholly local pod network, and sockets inside it for this process.

It hangs on one process that reads from this one, so it is gone when this process is. Needs root and Linux.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from tests import peers

PODS = "10.244.0.0/16"
"""Every address of it is the namespace's own."""

_SET_UP = f"ip link set lo up && ip route add local {PODS} dev lo && echo ready && exec cat"
_CLONE_NEWNET = 0x40000000


class Unavailable(Exception):
    """This machine can't have a network namespace; the message says why."""


class NetworkNamespace:
    """A namespace that `made` made; `prefix` is the command that runs another one inside."""

    def __init__(self, pid: int) -> None:
        self.prefix = ("nsenter", f"--target={pid}", "--net", "--")
        self._path = f"/proc/{pid}/ns/net"

    def socket(self, kind: socket.SocketKind, address: tuple[str, int]) -> socket.socket:
        """A non-blocking IPv4 socket in there, bound to the address. Raises OSError."""
        made: list[socket.socket] = []
        failed: list[OSError] = []

        def make() -> None:  # on a thread: only the caller's thread changes its namespace, and this one ends
            try:
                _enter(self._path)
                bound = socket.socket(socket.AF_INET, kind)
                made.append(bound)
                bound.setblocking(False)
                bound.bind(address)
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if failed:
            for half_made in made:
                half_made.close()
            raise failed[0]
        return made[0]

    @contextlib.asynccontextmanager
    async def reaching(self, host: str, port: int) -> AsyncIterator[None]:
        """While it lasts, TCP connections in there to this address end at the same address out here."""
        tasks: set[asyncio.Task[None]] = set()

        async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            tasks.add(task)
            try:
                outer_reader, outer_writer = await asyncio.open_connection(host, port)
                async with asyncio.TaskGroup() as both:
                    both.create_task(_copy(reader, outer_writer))
                    both.create_task(_copy(outer_reader, writer))
            except* OSError:
                writer.close()

        listener = self.socket(socket.SOCK_STREAM, (host, port))
        server = await asyncio.start_server(join, sock=listener)
        try:
            yield
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


@contextmanager
def made() -> Iterator[NetworkNamespace]:
    """A new namespace. Raises Unavailable."""
    if shutil.which("unshare") is None or peers.find("ip") is None:
        raise Unavailable("needs unshare and ip")
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", _SET_UP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": os.pathsep.join(map(str, peers.SEARCHED))},
    )
    with holder:  # closes its stdin, for which it lives, and waits
        assert holder.stdout
        assert holder.stderr
        if holder.stdout.readline() != "ready\n":
            raise Unavailable(f"needs root to make a network namespace: {holder.stderr.read().strip()}")
        yield NetworkNamespace(holder.pid)
