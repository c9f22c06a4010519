"""The parts of the lab's pods that need no process: pace, control, lines. test_traffic.py runs the rest."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.lab.pod import host_and_port, main, ports
from proxy.lab.role import ENDED, Control, Log, Pace
from proxy.lab.statsd_pod import line, packed, read


def test_a_late_turn_moves_no_later_one() -> None:
    pace = Pace(300, 1000, 7)
    assert [pace.due_ns(turn) - 7 for turn in (0, 1, 3, 900)] == [0, 3_333_333, 10_000_000, 3_000_000_000]


def test_ports_are_one_some_or_fresh() -> None:
    assert ports("40000") == (40000,)
    assert ports("40000-40002") == (40000, 40001, 40002)
    assert ports("fresh") == ()
    assert host_and_port("10.96.0.20:8125") == ("10.96.0.20", 8125)
    assert host_and_port("[fd00:10:96::a]:53") == ("fd00:10:96::a", 53)


@given(st.integers(0, 10**9), st.integers(0, 2**63), st.integers(0, 1500))
def test_a_line_tells_its_number_and_time_and_has_its_size(number: int, at_ns: int, size_bytes: int) -> None:
    made = line(number, at_ns, size_bytes)
    assert read(made) == [(number, at_ns)]
    bare = len(line(number, at_ns))
    assert len(made) == (size_bytes if size_bytes > bare + len("|#pad:") else bare)


def test_a_datagram_of_several_lines_has_its_size_and_a_number_for_each() -> None:
    made = packed(70, 10, 5, 1432)
    assert len(made) == 1432
    assert read(made) == [(number, 5) for number in range(70, 80)]
    assert packed(7, 1, 5, 60) == line(7, 5, 60)


def test_lines_that_were_packed_together_are_told_apart() -> None:
    assert read(b"\n".join([line(1, 5), b"foreign:1|c", line(2, 6, 60)])) == [(1, 5), (2, 6)]
    assert read(b"lab.1.5:2|c") == []  # a folded sum would be two of one number: they have different names


@pytest.fixture
def control() -> Iterator[tuple[Control, int]]:
    """A control, and the end of the pipe where it is told."""
    reading, writing = os.pipe()
    yield Control(reading, os.open(os.devnull, os.O_WRONLY)), writing
    os.close(reading)


def test_control_takes_whole_lines_and_then_the_end(control: tuple[Control, int]) -> None:
    told, writing = control
    os.write(writing, b"slow 30\nsil")
    assert told.lines() == ["slow 30"]
    os.write(writing, b"ent\n")
    assert told.lines() == ["silent"]
    assert not told.ended_before(time.monotonic_ns())
    os.close(writing)
    assert told.lines() == [ENDED]
    assert told.ended_before(time.monotonic_ns() + 10**12)
    assert not told.wait_for_go()


def test_rows_are_in_the_file_when_they_are_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.write(["1 2", "3 4"])
    log.write([])
    assert (tmp_path / "log").read_text() == "1 2\n3 4\n"


def test_a_role_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no-such-role"])
    assert "dns-questioner" in capsys.readouterr().err
