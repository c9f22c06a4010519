"""The benchmarks run, and what they count about Sidestep without a clock holds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.relays import PORT, RELAYS, dropped_by_kernel, ledger, relaying
from benchmarks.statsd_load import Load, Sender, sinks
from tests import peers
from tests.control.eventually import eventually

pytestmark = peers.needs("gcc")
ENDPOINT = f"127.0.54.1:{PORT}"
WITHOUT = [f"--without={name}" for name in peers.KINDS if name != "sidestep"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        # A machine that stands still for 250 ms makes a hedge of it.
        ("cold_misses", r"sidestep +[12] \(.*\) +200 NOERROR"),
        ("warm_cache", r"sidestep +100.0 \(100.0-100.0\) +100.0 \(100.0-100.0\)"),
    ],
)
def test_a_benchmark_tells(name: str, told: str) -> None:
    command = [sys.executable, "-m", "benchmarks", name, "--rounds", "1", *WITHOUT]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=peers.ROOT, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(told, ran.stdout), ran.stdout


def test_an_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    command = [sys.executable, "-m", "benchmarks", "speed"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=peers.ROOT, check=False)

    assert ran.returncode == 2
    assert "no such measurement: speed; there are cached_hit_cpu," in ran.stderr


@pytest.mark.parametrize("name", RELAYS)
def test_it_counts_at_the_sink_what_went_into_a_relay(tmp_path: Path, name: str) -> None:
    load = Load(rate=1000, seconds=0.5, lines=3, batch=5)
    job = peers.Job(f"127.0.54.2:{peers.free_port('127.0.54.2')}", ENDPOINT, tmp_path, admin_port=peers.free_port())
    with sinks(tmp_path, [ENDPOINT]) as counting, relaying(name, job) as relay:
        before = counting.arrived()
        sent = Sender(tmp_path).send(job.listen, load)
        arrived = counting.settled(before, sent.lines)

        assert (sent.datagrams, sent.refused) == (500, 0)
        assert arrived.lines == sent.lines == 1500
        assert arrived.datagrams <= sent.datagrams
        assert arrived.dropped == dropped_by_kernel(relay) == 0
        if name == "sidestep":
            accounts = ledger(relay)
            assert accounts["received"] == accounts["forwarded"] == sent.lines


async def test_it_tells_where_a_relay_without_an_endpoint_leaves_lines(tmp_path: Path) -> None:
    job = peers.Job(f"127.0.54.2:{peers.free_port('127.0.54.2')}", "", tmp_path, admin_port=peers.free_port())
    with relaying("sidestep", job) as relay:
        sent = Sender(tmp_path).send(job.listen, Load(rate=1000, seconds=0.5, lines=3, batch=5))
        await eventually(lambda: ledger(relay)["received"] >= sent.lines)
        assert ledger(relay)["folded"] == sent.lines


def test_no_datagram_goes_back_once_an_endpoint_change_is_applied() -> None:
    command = [sys.executable, "-m", "benchmarks", "endpoint_change", "--rounds", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=peers.ROOT, check=False)
    if "not measured:" in ran.stdout:
        pytest.skip(ran.stdout.partition("not measured: ")[2].strip())

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^0 datagrams reached the old endpoint", ran.stdout, re.MULTILINE), ran.stdout
