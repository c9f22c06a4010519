"""Load on one address: the batching client of client.c, and dnsperf. Every answer is checked."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import peers


def compiled(name: str, directory: Path) -> Path:
    """`benchmarks/NAME.c`, compiled into this directory unless it is there. Raises RuntimeError with no compiler."""
    program = directory / name
    if not program.exists():
        compiler = peers.find("gcc") or peers.find("cc")
        if compiler is None:
            raise RuntimeError(f"benchmarks/{name}.c needs a C compiler; install gcc")
        subprocess.run([compiler, "-O2", "-o", program, Path(__file__).with_name(f"{name}.c")], check=True)
    return program


@dataclass(frozen=True, slots=True)
class Result:
    """What a client saw. Times from sending (closed loop) or from when the question was due (fixed rate)."""

    answered: int
    bad: int
    lost: int
    duplicates: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float

    @property
    def qps(self) -> float:
        return self.answered / self.seconds

    def checked(self, server: str) -> "Result":
        """Itself. Raises RuntimeError, naming the server, unless every question got its right answer."""
        if self.bad or self.lost or not self.answered:
            raise RuntimeError(f"{server} did not answer every question well: {self}")
        return self


class Client:
    """Runs the load generators; `prefix` (taskset) goes in front of each."""

    def __init__(self, directory: Path, prefix: Sequence[str] = ()) -> None:
        self._program = compiled("client", directory)
        self._prefix = tuple(prefix)

    def _run(self, *words: object) -> Result:
        command = [*self._prefix, *map(str, (self._program, *words))]
        return Result(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))

    def closed(self, listen: str, names: Path, inflight: int, count: int) -> Result:
        """`count` questions, always `inflight` of them open, sent and received in batches."""
        host, _, port = listen.rpartition(":")
        return self._run("closed", host, port, names, inflight, count)

    def rate_command(self, listen: str, names: Path, qps: float, count: int, timeout: float) -> list[str]:
        """The command behind `rate`, for who has something to do meanwhile; `finished` reads what it prints."""
        host, _, port = listen.rpartition(":")
        words = ("rate", host, port, names, qps, count, round(timeout * 1000))
        return [*self._prefix, *map(str, (self._program, *words))]

    def rate(self, listen: str, names: Path, qps: float, count: int, timeout: float) -> Result:
        """`count` questions on a fixed schedule from 128 sockets, none sent twice, each open for `timeout` s."""
        command = self.rate_command(listen, names, qps, count, timeout)
        return finished(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def dnsperf(self, listen: str, names: Path, inflight: int, runs: int) -> int:
        """`runs` times through the names by dnsperf, one socket. Returns the answers; raises unless all were good."""
        host, _, port = listen.rpartition(":")
        questions = names.with_suffix(".dnsperf")
        questions.write_text("".join(f"{name} A\n" for name in names.read_text().split()))
        command = [peers.find("dnsperf") or "dnsperf", "-s", host, "-p", port, "-d", str(questions), "-c", "1"]
        command += ["-T", "1", "-q", str(inflight), "-n", str(runs)]
        told = subprocess.run([*self._prefix, *command], check=True, capture_output=True, text=True).stdout
        completed = re.search(r"Queries completed:\s+(\d+)", told)
        good = re.search(r"Response codes:\s+NOERROR (\d+)", told)
        asked = runs * len(names.read_text().split())
        if not completed or not good or int(completed[1]) != asked or int(good[1]) != asked:
            raise RuntimeError(f"not every question was answered well:\n{told}")
        return asked


def finished(printed: bytes) -> Result:
    """What the client printed."""
    return Result(**json.loads(printed))
