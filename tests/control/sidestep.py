"""The real command as a process, with its log; for tests of a whole run."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dns.message

from proxy.control.client import AdminClient
from tests.control.test_workers import free_address
from tests.fakes import WAIT, UdpStub, question

COMMAND = (sys.executable, "-m", "proxy")
WITHOUT_UVLOOP = (
    sys.executable,
    "-c",
    "import sys; sys.modules['uvloop'] = None; from proxy.cli import main; main()",
)


class Sidestep:
    """`sidestep run` with a configuration of its own, on the kind of loop that the test runs on.

    Every line that it logs is kept.
    """

    def __init__(self, directory: Path, upstream: str = "127.0.0.1:9") -> None:
        self.address = free_address()
        self.admin = free_address()
        self.config = directory / "sidestep.yaml"
        self.socket = directory / "run" / "admin.sock"
        self.upstream = upstream
        self.log: list[dict[str, Any]] = []
        self.client = AdminClient(self.socket)
        self.process: Process
        self._arrived = asyncio.Condition()
        self.write()

    def write(self, text: str | None = None, **changes: Any) -> None:
        """The configuration: one zone with one upstream, with some keys of `dns` or whole sections replaced."""
        if text is None:
            dns = {"listen": [self.address], "zones": [{"suffix": ".", "upstreams": [self.upstream]}]}
            sections: dict[str, Any] = {"admin": {"listen": self.admin, "socket": str(self.socket)}}
            for key, value in changes.items():
                (dns if key in ("listen", "zones", "cache", "timeout") else sections)[key] = value
            text = json.dumps({"dns": dns, **sections}, indent=1)  # YAML as well
        self.config.write_text(text)

    async def start(self, *prefix: str, ready: bool = True, command: Sequence[str] = ()) -> None:
        """Run it, behind `prefix` such as `setpriv ...`; `command` is another way to call it."""
        here = type(asyncio.get_running_loop()).__module__
        command = command or (COMMAND if here.startswith("uvloop") else WITHOUT_UVLOOP)
        self.process = await asyncio.create_subprocess_exec(
            *prefix, *command, "run", "--config", str(self.config), "--log-format", "json", stdin=DEVNULL, stderr=PIPE
        )
        self._reading = asyncio.ensure_future(self._read())
        if ready:
            await self.said("ready")

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._arrived:
                try:
                    self.log.append(json.loads(line))
                except ValueError:
                    self.log.append({"message": line.decode(), "level": "raw"})
                self._arrived.notify_all()

    async def said(self, words: str, times: int = 1) -> dict[str, Any]:
        """The line that has these words, as soon as there are so many."""
        try:
            async with asyncio.timeout(2 * WAIT), self._arrived:
                await self._arrived.wait_for(lambda: len(self.lines(words)) >= times)
        except TimeoutError:
            raise AssertionError(f"no {words!r} in {self.log}") from None
        return self.lines(words)[times - 1]

    def lines(self, words: str) -> list[dict[str, Any]]:
        return [line for line in self.log if words in line["message"]]

    async def ended(self) -> int:
        """The exit status, once its log was read to the end."""
        async with asyncio.timeout(2 * WAIT):
            await self._reading
            return await self.process.wait()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.ended()

    async def status(self) -> Any:
        return await asyncio.to_thread(self.client.status)

    async def worker(self) -> int:
        """The pid of the first worker."""
        return int((await self.status())["workers"][0]["pid"])

    async def ask(self, name: str, rtype: str = "A", address: str | None = None) -> dns.message.Message:
        host, _, port = (address or self.address).rpartition(":")
        stub = UdpStub((host, int(port)))
        try:
            stub.send(question(name, rtype).to_wire())
            return dns.message.from_wire(await stub.receive())
        finally:
            stub.close()


async def command(*words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of one `sidestep` command."""
    return await execute(*COMMAND, *words)


async def execute(*words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of any command."""
    process = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(2 * WAIT):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
