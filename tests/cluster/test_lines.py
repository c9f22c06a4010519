import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.lines import LineSplitter, LineTooLong


@given(st.lists(st.binary(max_size=20).map(lambda part: part.replace(b"\n", b"")), max_size=8), st.data())
def test_it_gives_the_same_lines_however_the_bytes_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join(lines)
    splitter = LineSplitter()
    found = []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        found += splitter.feed(whole[:size])
        whole = whole[size:]
    assert found == [line for line in lines[:-1] if line.strip()]
    assert splitter.unfinished == (len(lines[-1]) if lines else 0)


def test_it_takes_a_line_of_a_megabyte() -> None:
    splitter = LineSplitter()
    line = b"x" * 3_000_000
    found = []
    for begin in range(0, len(line), 65536):
        found += splitter.feed(line[begin : begin + 65536])
    assert found == []
    assert splitter.feed(b"\n") == [line]


def test_it_refuses_a_line_past_the_bound_with_or_without_its_end() -> None:
    assert LineSplitter(4).feed(b"1234\n") == [b"1234"]
    with pytest.raises(LineTooLong):
        LineSplitter(4).feed(b"12345")
    splitter = LineSplitter(4)
    splitter.feed(b"1234")
    with pytest.raises(LineTooLong):
        splitter.feed(b"5\n")


def test_it_shows_how_what_is_unfinished_begins() -> None:
    splitter = LineSplitter()
    splitter.feed(b"whole\n<html>")
    assert splitter.begin == b"<html>"
    splitter.feed(b"\n")
    assert splitter.begin == b""
