"""The benchmarks run, and what they count about Sidestep without a clock holds."""

import re
import subprocess
import sys

import pytest

from tests import peers

pytestmark = peers.needs("gcc")
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
