"""Senders and receivers of one run, each a process inside a pod (`python -m proxy.lab.pod`), and what they wrote.

A process lives as long as its standard input is open, so none outlives the lab. Senders are paced by deadline and
bounded in count; receivers read what still lies in their sockets before they end.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

from proxy.lab.outcome import Arrival, Question, Sent

NUMBERS_PER_SENDER = 10_000_000
_PATIENCE = 20
"""Seconds that a process may take to begin or to end: the machine may be busy."""


class Place(Protocol):
    """A network namespace: a pod, a node, the machine itself."""

    @property
    def name(self) -> str: ...

    def spawn(self, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a command inside, with these options of `Popen`."""
        ...


class TrafficFailed(RuntimeError):
    """A sender or receiver could not begin or ended badly; the message has what it said."""


class PodProcess:
    """One role of `proxy.lab.pod` running in a place. It is ready to receive or to send once this is made."""

    def __init__(self, place: Place, role: str, log: Path, *options: str) -> None:
        self.name = place.name
        self.log = log
        self.summary: dict[str, Any] = {}
        """What it said when it ended: `sent`, `behind_ms` of a sender; `drops` of a receiver's socket."""
        self._what = f"{role} in {place.name}"
        self._errors = log.with_suffix(".err")
        words = sys.executable, "-m", "proxy.lab.pod", role, f"--log={log}", *options
        with self._errors.open("wb") as errors:
            self._process = place.spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        if self._line() != b"ready\n":
            raise self._failure()

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, words: str) -> None:
        """A line to its standard input, taken at once."""
        try:
            self._stdin.write(words.encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def wait(self, seconds: float) -> None:
        """Until it ends by itself. Raises TrafficFailed when it doesn't within so long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TrafficFailed(f"{self._what} still runs after {seconds:.0f} s") from None
        self.finish()

    def finish(self) -> None:
        """End it now: a sender sends no more, a receiver empties its socket. Then its log is whole."""
        if self.summary:
            return
        try:
            said, _ = self._process.communicate(timeout=_PATIENCE)  # closes its standard input
        except subprocess.TimeoutExpired:
            self.kill()
            raise TrafficFailed(f"{self._what} did not end within {_PATIENCE} s") from None
        if self._process.returncode or not said:
            raise self._failure()
        self.summary = json.loads(said)

    def kill(self) -> None:
        """SIGKILL: a pod that dies. What lies in its socket is lost with it."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream and not stream.closed:
                _close(stream)
        self._process.wait()
        self.summary = self.summary or {"killed": True}

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin
        return self._process.stdin

    def _line(self) -> bytes:
        assert self._process.stdout
        return self._process.stdout.readline()

    def _failure(self) -> TrafficFailed:
        self.kill()
        said = self._errors.read_text(errors="replace").strip().splitlines()
        return TrafficFailed(f"{self._what} failed: {said[-1] if said else f'exit {self._process.returncode}'}")

    def _rows(self) -> Iterable[list[str]]:
        with self.log.open() as lines:
            # A process that was killed may have left half a line.
            return [line.split() for line in lines if line.endswith("\n")]


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        pass


class StatsdSink(PodProcess):
    """A StatsD server that writes down each numbered line with its arrival."""

    def arrivals(self) -> list[Arrival]:
        """Whole only after `finish` or `kill`."""
        return [Arrival(int(row[0]), int(row[1]), int(row[2]), self.name) for row in self._rows()]

    def datagrams(self) -> int:
        """How many datagrams those lines came in. Only after `finish`."""
        return int(self.summary["datagrams"])


class StatsdSender(PodProcess):
    """Sends datagrams of numbered counter lines; begins with `start`."""

    def start(self) -> None:
        self.tell("go")

    def sent(self) -> list[Sent]:
        """Only after `finish` or `wait`."""
        return [Sent(int(row[0]), int(row[1]), row[2] if len(row) > 2 else "") for row in self._rows()]


class DnsServer(PodProcess):
    """A scripted DNS server over UDP and TCP. It answers until told otherwise."""

    def answer(self) -> None:
        self.tell("answer")

    def silent(self) -> None:
        """Read questions and say nothing."""
        self.tell("silent")

    def servfail(self) -> None:
        self.tell("servfail")

    def slow(self, milliseconds: int) -> None:
        """Answer, so long after the question."""
        self.tell(f"slow {milliseconds}")

    def asked(self) -> list[tuple[int, str, str]]:
        """Arrival in ns, type and name of each question in order. Whole only after `finish`."""
        return [(int(row[0]), row[1], row[2]) for row in self._rows()]


class Questioner(PodProcess):
    """Asks a DNS question (or several kinds at once) at a steady rate; begins with `start`.

    It asks each once, and over TCP again where the answer was truncated; `summary` has how many were, as `truncated`.
    """

    def start(self) -> None:
        self.tell("go")

    def questions(self) -> list[Question]:
        """Only after `finish` or `wait`."""
        return [Question(int(row[0]), row[1], *(int(cell) for cell in row[2:7])) for row in self._rows()]


_P = TypeVar("_P", bound=PodProcess)


class Traffic:
    """The processes of one run; use as a context manager. On exit those that still run are killed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def statsd_sink(self, place: Place, listen: str) -> StatsdSink:
        """Bound and reading when this returns. `listen` is `ADDRESS:PORT`; the sink is named after the place."""
        return self._began(StatsdSink(place, "statsd-sink", self._log(place, "sink"), f"--listen={listen}"))

    def statsd_sender(
        self,
        place: Place,
        to: str,
        *,
        rate: float,
        seconds: float,
        source_ports: str = "40000",
        connected: bool = False,
        size_bytes: int = 0,
        lines: int = 1,
    ) -> StatsdSender:
        """Waits for `start`; then `rate` datagrams a second for `seconds`, unless `finish` comes first.

        `source_ports` is one port, a range `LOW-HIGH` whose ports are used in turn, or `fresh`: a new socket for each
        datagram. A connected socket hears refusals. A datagram has so many lines, each with a number of its own,
        which are padded with tags until it has `size_bytes`.
        """
        options = [f"--to={to}", f"--source-ports={source_ports}", f"--size-bytes={size_bytes}", f"--lines={lines}"]
        options += [*self._pace(rate, seconds), *(["--connected"] if connected else [])]
        return self._began(StatsdSender(place, "statsd-sender", self._log(place, "sender"), *options))

    def dns_server(
        self, place: Place, listen: str, *, known: Sequence[str] = (), addresses: int = 1, ttl: int = 5
    ) -> DnsServer:
        """Answers each question with so many addresses (those of 10.200.0.0/16 and fd00:200::/64 from the first on).

        With `known`, other names than these are NXDOMAIN; one that begins with a dot stands for all that end so. An
        answer that is too large for the question's EDNS size is truncated over UDP and whole over TCP.
        """
        options = [f"--listen={listen}", f"--addresses={addresses}", f"--ttl={ttl}", *(f"--known={n}" for n in known)]
        return self._began(DnsServer(place, "dns-server", self._log(place, "dns"), *options))

    def questioner(
        self,
        place: Place,
        to: str,
        *,
        name: str,
        rate: float,
        seconds: float,
        kinds: Sequence[str] = ("A",),
        source_ports: str = "40000",
        tcp: bool = False,
        timeout: float = 5.0,
        edns_bytes: int = 0,
    ) -> Questioner:
        """Waits for `start`; then `rate` times a second each of `kinds` of one name from one socket, for `seconds`.

        `{number}` in the name becomes a number of its own for each time. Answers are awaited for `timeout` seconds
        after the last question; nothing is asked again. `source_ports` as for `statsd_sender`; TCP takes a fresh
        connection for each time.
        """
        options = [f"--to={to}", f"--name={name}", f"--kinds={','.join(kinds)}", f"--timeout={timeout}"]
        options += [f"--source-ports={source_ports}", f"--edns-bytes={edns_bytes}", *(["--tcp"] if tcp else [])]
        options += self._pace(rate, seconds)
        return self._began(Questioner(place, "dns-questioner", self._log(place, "questioner"), *options))

    def lookups(self, place: Place, *, name: str, rate: float, seconds: float) -> Questioner:
        """Waits for `start`; then looks names up one after another with the C library, as its place's files say.

        So many a second for `seconds`, where each takes less than its share. `{number}` in the name becomes a number
        of its own for each. A lookup is both address families; one that fails counts as without an answer.
        """
        options = [f"--name={name}", *self._pace(rate, seconds)]
        return self._began(Questioner(place, "libc-lookups", self._log(place, "lookups"), *options))

    def program_lookups(self, place: Place, program: Path, *, name: str, rate: float, seconds: float) -> Questioner:
        """Waits for `start`; then starts this program for a name, so many a second for `seconds`, and waits for all.

        `{number}` in the name, or `{number:010}`, becomes a number of its own for each. The program prints `ok` and
        the addresses, or something else, which counts as without an answer.
        """
        options = [f"--program={program}", f"--name={name}", *self._pace(rate, seconds)]
        return self._began(Questioner(place, "program-lookups", self._log(place, "programs"), *options))

    def race(self, place: Place, to: str, *, name: str, rounds: int) -> Questioner:
        """Waits for `start`; then sends A and AAAA of the name so many times, both from one new socket at one moment.

        Each comes from a CPU of its own, so it takes two of them. Nothing is asked again.
        """
        options = [f"--to={to}", f"--name={name}", f"--rounds={rounds}", self._first()]
        return self._began(Questioner(place, "dns-race", self._log(place, "race"), *options))

    def _pace(self, rate: float, seconds: float) -> list[str]:
        return [
            f"--rate={rate}",
            f"--count={max(1, round(rate * seconds))}",
            self._first(),
        ]

    def _first(self) -> str:
        return f"--first={self._count * NUMBERS_PER_SENDER}"

    def _log(self, place: Place, role: str) -> Path:
        self._count += 1
        return self._directory / f"{self._count:02}-{role}-{place.name}.log"

    def _began(self, process: _P) -> _P:
        self._stack.callback(process.kill)
        return process


def now_ns() -> int:
    """CLOCK_MONOTONIC, as the processes read it."""
    return time.monotonic_ns()
