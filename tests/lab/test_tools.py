"""What is missing is named, with what brings it; waiting ends."""

import pwd
from pathlib import Path

import pytest

from proxy.lab import tools


def test_missing_programs_are_named_with_what_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "SEARCHED", ())
    with pytest.raises(tools.Unavailable) as refused:
        tools.require("nft", "ip", "kube-proxy")
    said = str(refused.value)
    assert "not installed: nft, ip, kube-proxy" in said
    assert "apt-get install iproute2 nftables" in said
    assert "make testbed" in said


def test_what_was_built_by_the_user_who_calls_sudo_is_found() -> None:
    nobody = pwd.getpwnam("nobody")
    directories = list(tools.searched({"SUDO_USER": nobody.pw_name, "PATH": "/opt/bin::/bin"}))
    assert directories[:4] == [
        tools.BUILT,
        Path(nobody.pw_dir) / ".cache/sidestep/bin",
        Path("/opt/bin"),
        Path("/bin"),
    ]
    without = [one for one in directories if one != directories[1]]
    assert list(tools.searched({"SUDO_USER": "no such user", "PATH": "/opt/bin::/bin"})) == without
    assert list(tools.searched({"PATH": "/opt/bin::/bin"})) == without


def test_nothing_is_said_of_what_is_there() -> None:
    tools.require("sh")


def test_waiting_ends_when_it_holds_and_when_it_never_does() -> None:
    answers = iter([False, False, True])
    assert tools.until(lambda: next(answers), "three", pause=0) >= 0
    with pytest.raises(RuntimeError, match="still not: pigs fly"):
        tools.until(lambda: False, "pigs fly", limit=0)
