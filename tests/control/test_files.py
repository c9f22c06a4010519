"""Watching files by looking at them."""

import os
from pathlib import Path

from proxy.control.files import WatchedFiles


def test_it_notices_a_change_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    files = WatchedFiles()
    files.watch([path])
    assert files.look() == []
    path.write_text("three")
    assert files.look() == [path]
    assert files.look() == []


def test_it_notices_a_file_that_goes_and_comes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files = WatchedFiles()
    files.watch([path])
    path.touch()
    assert files.look() == [path]
    path.unlink()
    assert files.look() == [path]


def test_it_notices_the_symlink_swap_of_a_configmap(tmp_path: Path) -> None:
    """A kubelet writes a new directory and renames `..data` onto it: same size, and maybe the same time."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a").write_text(version)
        os.utime(tmp_path / version / "a", (0, 0))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "a").symlink_to("..data/a")
    files = WatchedFiles()
    files.watch([tmp_path / "a"])
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert files.look() == [tmp_path / "a"]
