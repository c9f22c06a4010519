"""What every measurement stands on: the counting upstream, the servers before it, names, where things run."""

import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.load import Client
from tests import peers

DOMAIN = f"bench.svc.{peers.CLUSTER_DOMAIN}"


def _pinned(cpu: int) -> tuple[str, ...]:
    """Run on one CPU: servers on one, load and upstream on another, so that every turn meets the same scheduler."""
    return ("taskset", "-c", str(cpu)) if (os.cpu_count() or 1) > 1 and peers.find("taskset") else ()


SERVER_CPU = _pinned(1)
CLIENT_CPU = _pinned(0)


class Upstream:
    """The counting upstream, a process of its own."""

    def __init__(self) -> None:
        self.address = f"127.0.53.1:{peers.free_port('127.0.53.1')}"
        self._process = subprocess.Popen(
            [*CLIENT_CPU, sys.executable, "-m", "benchmarks.upstream", self.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=peers.ROOT,
        )
        self._read()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def _command(self, *words: str) -> int:
        assert self._process.stdin
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._read()))

    def asked(self, name: str) -> int:
        """How often this name was asked for, whatever the type."""
        return self._command("count", name)

    def total(self) -> int:
        """All questions since the last reset."""
        return self._command("total")

    def reset(self) -> None:
        self._command("reset")

    def close(self) -> None:
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()


class Bench:
    """Rounds, a directory to write into, the upstream and the load generators, shared by a run's measurements."""

    def __init__(self, rounds: int, directory: Path, without: Sequence[str] = ()) -> None:
        self.rounds = rounds
        self.directory = directory
        self.without = tuple(without)
        self.installed = [name for name, kind in peers.KINDS.items() if kind.installed() and name not in without]
        self.client = Client(directory, CLIENT_CPU)
        self.free_client = Client(directory)
        self._numbers = itertools.count(1)

    @contextmanager
    def upstream(self) -> Iterator[Upstream]:
        upstream = Upstream()
        try:
            yield upstream
        finally:
            upstream.close()

    @contextmanager
    def servers(
        self, upstream: Upstream, names: Sequence[str] = (), entries: int = 9984, pinned: bool = True
    ) -> Iterator[dict[str, peers.Server]]:
        """These servers (all that are installed by default), started side by side before the upstream.

        Not `pinned`, they run where the scheduler puts them, CoreDNS with as many Go processors as there are CPUs.
        """
        with ExitStack() as stack:
            started = {}
            for name in names or self.installed:
                number = next(self._numbers)
                host = f"127.0.53.{2 + number % 250}"
                job = peers.Job(
                    listen=f"{host}:{peers.free_port(host)}",
                    upstream=upstream.address,
                    directory=self.directory / f"{name}-{number}",
                    entries=entries,
                    admin_port=peers.free_port(),
                )
                started[name] = stack.enter_context(peers.running(name, job, prefix=SERVER_CPU if pinned else ()))
            yield started

    def names(self, count: int, label: str = "name") -> Path:
        """A file with this many names, one a line, never handed out before."""
        number = next(self._numbers)
        path = self.directory / f"names-{number}"
        path.write_text("".join(f"{label}-{index}.run{number}.{DOMAIN}\n" for index in range(count)))
        return path

    def name(self, label: str) -> str:
        """One name never handed out before, with this label."""
        return f"{label}.run{next(self._numbers)}.{DOMAIN}"


def status(server: peers.Server) -> dict[str, Any]:
    """A Sidestep's /status.json."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.job.admin_port}/status.json", timeout=5) as reply:
        return dict(json.load(reply))


def dns_worker(server: peers.Server) -> int:
    """The process ID of a Sidestep's first dns worker."""
    return int(next(worker["pid"] for worker in status(server)["workers"] if worker["role"] == "dns"))


def wait_for_new_worker(server: peers.Server, old: int) -> None:
    """Wait until another dns worker than `old` is told of. Raises RuntimeError after 10 s."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if dns_worker(server) != old:
            return
        time.sleep(0.02)
    raise RuntimeError("the dns worker was not replaced in 10 s")
