"""A network namespace of a test's own with a wholly local pod network; servers out here can be reached from it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

from proxy.lab.namespaces import Namespace, Run

PODS = "10.244.0.0/16"
"""Every address of it is the namespace's own."""


class NetworkNamespace(Namespace):
    """A namespace that `made` made."""

    def create(self) -> None:
        super().create()
        self.ip(f"route add local {PODS} dev lo")

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


@contextlib.contextmanager
def made() -> Iterator[NetworkNamespace]:
    """A new namespace. Raises `proxy.lab.tools.Unavailable`."""
    with Run.start() as run:
        yield run.add(NetworkNamespace(run, "pods"))
