"""Lookups with the C library and by programs: what is found, and what isn't."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.lab.libc_pod import lookups, programs
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


def test_programs_do_not_wait_for_one_another_and_each_has_a_row(told: tuple[Control, int], tmp_path: Path) -> None:
    """The first ends when the second begins, and there is no such name for the third."""
    control, hearing = told
    os.mkfifo(tmp_path / "met")
    program = tmp_path / "lookup-test"
    program.write_text(
        f"#!/bin/sh\ncase $1 in\n001.*) read -r _ < {tmp_path}/met; echo ok 10.0.0.1 fd00::1;;\n"
        f"002.*) echo > {tmp_path}/met; echo ok 10.0.0.1;;\n*) echo error not-found;;\nesac\n"
    )
    program.chmod(0o755)
    name = "{number:03}.example.com"
    programs(
        argparse.Namespace(log=tmp_path / "log", program=str(program), name=name, rate=1000, count=3, first=1),
        control,
    )
    assert os.read(hearing, 100) == b'ready\n{"asked": 3}\n'
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [(row[0], row[1], *row[4:]) for row in rows] == [
        ("1", "lookup-test", "0", "2", "0"),
        ("2", "lookup-test", "0", "1", "0"),
        ("3", "lookup-test", "-1", "0", "0"),
    ]
    assert [int(row[3]) >= int(row[2]) for row in rows] == [True, True, False]
