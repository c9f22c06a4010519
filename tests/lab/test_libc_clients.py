"""The programs that look a name up: built once, and what is missing is named."""

from pathlib import Path

import pytest

from proxy.lab import libc_clients, tools
from proxy.lab.libc_clients import LIBCS, Libc, built
from proxy.lab.namespaces import command


@pytest.mark.parametrize("libc", LIBCS)
def test_a_program_looks_up_with_its_library(libc: Libc, tmp_path: Path) -> None:
    try:
        program = built(libc, tmp_path / "bin")
    except tools.Unavailable as missing:
        pytest.skip(str(missing))
    assert command(str(program), "127.0.0.1") == "ok 127.0.0.1\n"
    assert command(str(program), ".".join(["a" * 60] * 5)).startswith("error ")
    assert (b"musl" in program.read_bytes()) == (libc == "musl")
    made = program.stat()
    assert built(libc, tmp_path / "bin").stat() == made
    assert [one.name for one in (tmp_path / "bin").iterdir()] == [program.name]


@pytest.mark.parametrize(("libc", "package"), [("glibc", "gcc libc6-dev"), ("musl", "musl-tools")])
def test_what_brings_a_compiler_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, libc: Libc, package: str
) -> None:
    monkeypatch.setattr(tools, "SEARCHED", ())
    with pytest.raises(tools.Unavailable, match=f"apt-get install {package}"):
        built(libc, tmp_path)


def test_a_compiler_without_headers_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("#include <no-such-header.h>\n")
    monkeypatch.setattr(libc_clients, "SOURCE", source)
    with pytest.raises(tools.Unavailable, match="apt-get install gcc libc6-dev"):
        built("glibc", tmp_path)
