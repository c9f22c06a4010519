"""Lookups with the C library: what is found, and what isn't."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.lab.libc_pod import lookups
from proxy.lab.role import Control

TOO_LONG = ".".join(["a" * 60] * 5)
"""No library asks anybody for that."""


@pytest.fixture
def told() -> Iterator[tuple[Control, int]]:
    """A control that was told to go, and where it says what."""
    reading, telling = os.pipe()
    hearing, saying = os.pipe()
    os.write(telling, b"go\n")
    yield Control(reading, saying), hearing
    for fd in (reading, telling, hearing, saying):
        os.close(fd)


@pytest.mark.parametrize(("name", "found"), [("127.0.0.{number}", True), (TOO_LONG, False)])
def test_each_lookup_has_a_row_with_its_addresses(
    told: tuple[Control, int], tmp_path: Path, name: str, found: bool
) -> None:
    control, hearing = told
    lookups(argparse.Namespace(log=tmp_path / "log", name=name, rate=1000, count=2, first=1), control)
    assert os.read(hearing, 100) == b'ready\n{"asked": 2}\n'
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [row[:2] for row in rows] == [["1", "lookup"], ["2", "lookup"]]
    for _, _, asked, answered, rcode, addresses, _ in rows:
        assert (rcode, addresses) == (("0", "1") if found else ("-1", "0"))
        assert int(answered) >= int(asked) if found else answered == "0"
