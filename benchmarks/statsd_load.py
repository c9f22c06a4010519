"""StatsD load and the servers that count it: statsd_client.c and statsd_sink.c as processes."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import compiled

QUIET_SECONDS = 0.5
"""Once nothing came for so long, nothing more is under way."""


@dataclass(frozen=True, slots=True)
class Load:
    """Datagrams a second, for how many seconds, lines in each, datagrams that leave at once."""

    rate: int
    seconds: float
    lines: int
    batch: int

    def __str__(self) -> str:
        lines = f"{self.rate * self.lines // 1000}k lines/s"
        return f"{self.rate // 1000}k datagrams/s, {lines}, {self.batch} at a time"


@dataclass(frozen=True, slots=True)
class Sent:
    """What the client sent, at which cost (with what its sends did in the kernel), and how long it was held up."""

    datagrams: int
    lines: int
    seconds: float
    cpu_us: float
    refused: int
    stalled_ms: float


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the sinks have got since they started, and what the kernel dropped at their sockets."""

    datagrams: int
    lines: int
    dropped: int
    each: list[int]
    """Datagrams by address, in the order in which they were given."""

    def since(self, before: "Arrived") -> "Arrived":
        """What came after `before`."""
        each = [now - then for now, then in zip(self.each, before.each, strict=True)]
        return Arrived(
            self.datagrams - before.datagrams, self.lines - before.lines, self.dropped - before.dropped, each
        )


class Sender:
    """Runs the client; `prefix` (taskset, `ip netns exec`) goes in front."""

    def __init__(self, directory: Path, prefix: Sequence[str] = ()) -> None:
        self._program = compiled("statsd_client", directory)
        self._prefix = tuple(prefix)

    def command(self, address: str, load: Load) -> list[str]:
        """The command behind `send`, for who has something to do meanwhile; `finished` reads what it prints."""
        host, _, port = address.rpartition(":")
        words = (self._program, host, port, load.rate, load.seconds, load.lines, load.batch)
        return [*self._prefix, *map(str, words)]

    def send(self, address: str, load: Load) -> Sent:
        """Send all of it."""
        return finished(subprocess.run(self.command(address, load), check=True, stdout=subprocess.PIPE).stdout)


def finished(printed: bytes) -> Sent:
    """What the client printed."""
    return Sent(**json.loads(printed))


class Sinks:
    """Servers that count, on these addresses; see `sinks`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def arrived(self) -> Arrived:
        """What came until now."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Arrived(**json.loads(self._process.stdout.readline()))

    def settled(self, before: Arrived, lines: int) -> Arrived:
        """What came after `before`, once it is as many lines as these, or nothing comes any more."""
        seen, since = self.arrived(), time.monotonic()
        while seen.lines - before.lines < lines and time.monotonic() < since + QUIET_SECONDS:
            time.sleep(0.02)
            now = self.arrived()
            if now != seen:
                seen, since = now, time.monotonic()
        return seen.since(before)


@contextmanager
def sinks(directory: Path, addresses: Sequence[str], prefix: Sequence[str] = ()) -> Iterator[Sinks]:
    """Sinks on all these addresses in one process, until the end of the block."""
    command = [*prefix, str(compiled("statsd_sink", directory)), *addresses]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"no sinks on {', '.join(addresses)}")
            yield Sinks(process)
        finally:
            process.stdin.close()
