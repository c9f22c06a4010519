"""Real StatsD clients as processes, each of which sends a known set of metrics a round, from one socket."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests import peers
from tests.fakes import WAIT

CLIENTS = Path(__file__).parent / "clients"
NODE_MODULES = Path.home() / ".cache/sidestep/node/node_modules"

# What a server knows after one round, by metric; times in seconds. `errors` are lines that statsd_exporter counts as
# such and reads no further: sets (illegal_event), events (malformed_value), service checks (the third).
EVERY = {"hits": 30, "latency_count": 10, "latency_sum": 0.055}
SAMPLED = {"sampled": 8}
MOVED = {"moved": 2}
DOGSTATSD = {"size_count": 10, "size_sum": 55, "depth_count": 10, "depth_sum": 55}
SETS = {"illegal_event": 3}
EVENTS = {"malformed_value": 1, "not_enough_parts_after_colon": 1}


@dataclass(frozen=True, slots=True)
class Kind:
    """A client library: the program around it and what one round of it adds up to."""

    name: str
    command: tuple[str, ...]
    adds: dict[str, float]
    errors: dict[str, float]
    last: dict[str, float]
    """Gauges that are set: which value, as a multiple of the last round's number."""
    missing: str | None
    """Why it can't be run here."""

    def metrics(self, rounds: int) -> dict[str, float]:
        """Every metric and its value after rounds 1 to `rounds`."""
        sums = {f"{self.name}_{metric}": value * rounds for metric, value in self.adds.items()}
        gauges = {f"{self.name}_{metric}": value * rounds for metric, value in self.last.items()}
        return {**sums, **gauges, **{reason: value * rounds for reason, value in self.errors.items()}}


def _python(name: str, package: str, **kinds: dict[str, float]) -> Kind:
    missing = None if find_spec(package) else f"not installed: PyPI {package}"
    return Kind(name, (sys.executable, str(CLIENTS / f"{name}.py")), missing=missing, **kinds)


def _kinds() -> tuple[Kind, ...]:
    node, golang = peers.find("node"), peers.find("statsd-go-client")
    hotshots = None if node and (NODE_MODULES / "hot-shots").is_dir() else "not installed: node, npm hot-shots"
    return (
        _python("plain", "statsd", adds=EVERY | SAMPLED | MOVED, errors=SETS, last={"level": 1, "below": -1}),
        _python("dog", "datadog", adds=EVERY | SAMPLED | DOGSTATSD, errors=SETS | EVENTS, last={"level": 1}),
        Kind(
            "hotshots",
            ("env", f"NODE_PATH={NODE_MODULES}", node or "node", str(CLIENTS / "hotshots.js")),
            EVERY | SAMPLED | MOVED | DOGSTATSD,
            SETS | EVENTS,
            {"level": 1},
            hotshots,
        ),
        Kind(
            "golang",
            (golang or "statsd-go-client",),
            EVERY | DOGSTATSD,
            SETS | EVENTS,
            {"level": 1},
            None if golang else "not built: statsd-go-client",
        ),
    )


KINDS = {kind.name: kind for kind in _kinds()}


class Sender:
    """One running client. It sends a round when told to, numbered from 1."""

    def __init__(self, kind: Kind, process: Process) -> None:
        self.kind = kind
        self.rounds = 0
        self._process = process

    async def round(self) -> None:
        """One round, handed to the kernel when this returns."""
        assert self._process.stdin
        self.rounds += 1
        self._process.stdin.write(b"%d\n" % self.rounds)
        await self.said(f"sent {self.rounds}")

    async def said(self, words: str) -> None:
        """Its next line, which must be this one."""
        assert self._process.stdout
        async with asyncio.timeout(WAIT):
            line = await self._process.stdout.readline()
        assert line.decode().strip() == words

    def ports(self) -> set[int]:
        """The local ports of its UDP sockets."""
        directory = Path(f"/proc/{self._process.pid}")
        mine = {str(fd.readlink()) for fd in (directory / "fd").iterdir() if fd.is_symlink()}
        lines = [line.split() for line in (directory / "net/udp").read_text().splitlines()[1:]]
        return {int(line[1].rpartition(":")[2], 16) for line in lines if f"socket:[{line[9]}]" in mine}


@asynccontextmanager
async def sending(kind: Kind, address: str) -> AsyncIterator[Sender]:
    """A client of this kind that sends to `address`, until the end of the block."""
    host, _, port = address.rpartition(":")
    process = await asyncio.create_subprocess_exec(*kind.command, host, port, stdin=PIPE, stdout=PIPE)
    sender = Sender(kind, process)
    try:
        await sender.said("ready")
        yield sender
    finally:
        assert process.stdin
        process.stdin.close()
        async with asyncio.timeout(WAIT):
            await process.wait()
