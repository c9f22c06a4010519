"""statsd_exporter, a real StatsD server that tells its totals over HTTP."""

import asyncio
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests import peers
from tests.fakes import WAIT
from tests.statsd.senders import Kind

PORT = 9125
"""The same for every one of them: what differs is the address, as with pods."""
needs_exporter = peers.needs("statsd_exporter")


class Exporter:
    """One running server, at `address`."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._web = f"{host}:{peers.free_port(host)}"
        guard = ("setpriv", "--pdeathsig", "KILL", "--") if peers.find("setpriv") else ()
        self.process = subprocess.Popen(
            [
                *guard,
                peers.find("statsd_exporter") or "statsd_exporter",
                f"--statsd.listen-udp={host}:{PORT}",
                "--statsd.listen-tcp=",
                f"--web.listen-address={self._web}",
                "--log.level=error",
            ],
            stdin=subprocess.DEVNULL,
        )

    def metrics(self) -> Counter[str]:
        """Values by name, summed over labels; lines that it could not use, by the reason that it gives."""
        found: Counter[str] = Counter()
        with urllib.request.urlopen(f"http://{self._web}/metrics", timeout=WAIT) as reply:
            for line in reply.read().decode().splitlines():
                name, _, value = line.rpartition(" ")
                if line.startswith("#") or "quantile=" in name:
                    continue
                family, _, labels = name.partition("{")
                if family == "statsd_exporter_sample_errors_total":
                    family = labels.partition('reason="')[2].partition('"')[0]
                found[family] += float(value)
        return found

    def lines(self) -> int:
        """How many lines it has got."""
        return int(self.metrics()["statsd_exporter_lines_total"])


@contextmanager
def exporting(*hosts: str) -> Iterator[list[Exporter]]:
    """One server on each address, until the end of the block."""
    started = []
    try:
        for host in hosts:
            started.append(Exporter(host))
        for exporter in started:
            _wait(exporter)
        yield started
    finally:
        for exporter in started:
            exporter.process.kill()
            exporter.process.wait()


def _wait(exporter: Exporter) -> None:
    deadline = time.monotonic() + WAIT
    while True:
        try:
            exporter.metrics()
            return
        except urllib.error.URLError:
            assert exporter.process.poll() is None, "statsd_exporter did not start"
            assert time.monotonic() < deadline, "statsd_exporter does not answer"
            time.sleep(0.02)


async def totals(kind: Kind, rounds: int, exporters: Sequence[Exporter]) -> None:
    """Wait until these servers together know exactly what this client sent; set gauges count at the last one.

    Fails with what is too much or missing.
    """
    expected = kind.metrics(rounds)
    deadline = time.monotonic() + 2 * WAIT
    while True:
        each = [exporter.metrics() for exporter in exporters]
        together = sum(each, Counter())  # Counter's own sum: what isn't positive counts nothing
        seen = {name: together[name] for name in expected}
        seen |= {f"{kind.name}_{gauge}": each[-1][f"{kind.name}_{gauge}"] for gauge in kind.last}
        wrong = {
            name: f"{seen[name]} of {expected[name]}" for name in expected if abs(seen[name] - expected[name]) > 1e-6
        }
        if not wrong:
            return
        assert time.monotonic() < deadline, wrong
        await asyncio.sleep(0.05)
