import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from proxy.cluster.saved import FORMAT, SavedNamespace, SavedSnapshot
from proxy.core.endpoints import PortOfService, Service, Slice, SliceEndpoint, SlicePort

SERVER = "https://10.96.0.1:443"
KNOWN = {
    "monitoring": SavedNamespace(
        1000.5,
        "812",
        (
            Slice(
                "monitoring",
                "statsd-a",
                "statsd",
                "IPv6",
                (SlicePort("statsd", "UDP", 8125),),
                (SliceEndpoint("fd00::1", ready=False, terminating=True, target="uid", for_zones=("a", "b")),),
                812,
                999.25,
            ),
        ),
        {"statsd": Service(("10.96.0.20",), True, (PortOfService("statsd", "UDP", 8125, "statsd"),))},
    ),
    "empty": SavedNamespace(1.0, "0", (), {}),
}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_it_gives_back_what_was_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = SavedSnapshot(tmp_path / "endpoints.json", SERVER)
    assert saved.load() == {}
    assert saved.write(KNOWN)
    assert saved.load() == KNOWN
    assert not caplog.records


def test_nobody_else_may_read_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text("old")
    path.chmod(0o644)
    SavedSnapshot(path, SERVER).write(KNOWN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_never_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / ".endpoints.json.new").symlink_to(target)
    assert not SavedSnapshot(tmp_path / "endpoints.json", SERVER).write(KNOWN)
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"\x00\xff", "malformed"),
        (b"[]", "Expected `object`"),
        (b"[" * 100_000, ""),
        (json.dumps({"format": FORMAT + 1, "server": SERVER, "namespaces": []}).encode(), "its format is 2, not 1"),
        (json.dumps({"format": FORMAT, "server": "https://other", "namespaces": {}}).encode(), "of https://other"),
        (json.dumps({"format": FORMAT, "server": SERVER, "namespaces": {"a": 1}}).encode(), "Expected `object`"),
        (b" " * 2000, "larger than 1000 bytes"),
    ],
    ids=["empty", "binary", "list", "deep", "format", "cluster", "shape", "large"],
)
def test_what_it_cannot_use_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, reason: str
) -> None:
    path = tmp_path / "endpoints.json"
    path.write_bytes(content)
    assert SavedSnapshot(path, SERVER, most_bytes=1000 if "larger" in reason else 10**6).load() == {}
    [warning] = warnings(caplog)
    assert str(path) in warning
    assert reason in warning


@pytest.mark.parametrize(
    ("family", "address", "port", "reason"),
    [
        ("IPv4", "nowhere", 8125, "'nowhere' is no IPv4 address"),
        ("IPv4", "::1", 8125, "'::1' is no IPv4 address"),
        ("IPv4", "", 8125, "is no IPv4 address"),
        ("IPv4", "0.0.0.0", 8125, "no address of one host"),
        ("IPv4", "10.244.1.7", 99999, "found 99999; allowed is 1 to 65535"),
        ("IPv4", "10.244.1.7", -1, "found -1; allowed is 1 to 65535"),
    ],
)
def test_a_file_with_endpoints_that_no_server_lists_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, family: Any, address: str, port: int, reason: str
) -> None:
    saved = SavedSnapshot(tmp_path / "endpoints.json", SERVER)
    wrong = Slice("monitoring", "a", "statsd", family, (SlicePort("", "UDP", port),), (SliceEndpoint(address),))
    saved.write({"monitoring": SavedNamespace(1.0, "0", (wrong,), {})})
    assert saved.load() == {}
    [warning] = warnings(caplog)
    assert reason in warning


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who may make it could send this node's datagrams where they like."""
    path = tmp_path / "endpoints.json"
    saved = SavedSnapshot(path, SERVER)
    saved.write(KNOWN)
    os.chown(path, 12345, -1)
    assert saved.load() == {}
    [warning] = warnings(caplog)
    assert "belongs to another user" in warning


def test_a_file_that_was_cut_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    saved = SavedSnapshot(path, SERVER)
    saved.write(KNOWN)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert saved.load() == {}


def test_a_disk_that_fails_is_told_once_until_it_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "later"
    saved = SavedSnapshot(directory / "endpoints.json", SERVER)
    assert not saved.write(KNOWN)
    assert not saved.write(KNOWN)
    assert len(warnings(caplog)) == 1
    directory.mkdir()
    assert saved.write(KNOWN)
    (directory / "endpoints.json").unlink()
    directory.rmdir()
    assert not saved.write(KNOWN)
    assert len(warnings(caplog)) == 2


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    saved = SavedSnapshot(tmp_path / "endpoints.json", SERVER)
    saved.write(KNOWN)
    (tmp_path / ".endpoints.json.new").symlink_to("/dev/full")
    assert not saved.write({})
    assert saved.load() == KNOWN
