"""What a run does where nft refuses a transaction once, as it does while another program loads its rules."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.eventually import eventually
from tests.control.sidestep import command
from tests.control.test_nodelocal import BOUND
from tests.node.network import Network
from tests.node.network import run as run_shell
from tests.node.running import Running

NFT = """#!/bin/sh
if [ "$1" = -f ] && rm {fail} 2>/dev/null; then
    cat >/dev/null
    echo 'Error: Could not process rule: Device or resource busy' >&2
    exit 1
fi
exec {nft} "$@"
"""


class Nft:
    """In the place of the real one."""

    def __init__(self, directory: Path) -> None:
        self._fail = directory / "fail"
        self.program = directory / "bin" / "nft"
        self.program.parent.mkdir()
        self.program.write_text(NFT.format(fail=self._fail, nft=shutil.which("nft")))
        self.program.chmod(0o755)

    def fail_once(self) -> None:
        """The next transaction fails."""
        self._fail.touch()

    @property
    def failed(self) -> bool:
        """Since `fail_once`."""
        return not self._fail.exists()


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nft:
    nft = Nft(tmp_path)
    monkeypatch.setenv("PATH", str(nft.program.parent), prepend=os.pathsep)
    return nft


@pytest.fixture
def node_cache(network: Network, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this name that has our address; it ends with its standard input."""
    run_shell("ip addr add 169.254.20.10/32 dev lo")
    program = tmp_path / "node-cache"
    program.symlink_to(sys.executable)
    command = program, "-c", BOUND, "169.254.20.10"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_a_drain_that_fails_says_why_and_the_next_one_drains(config: Path, nft: Nft) -> None:
    with Running(config) as run:
        await eventually(run.ready)
        nft.fail_once()
        code, _, err = await command("drain", "--config", str(config))
        assert (code, "Device or resource busy" in err) == (2, True)
        assert not run.node()["draining"]
        assert (await command("drain", "--config", str(config)))[0] == 0
        assert "elements" not in run_shell("nft list set inet sidestep lease4")
        nft.fail_once()
        code, _, err = await command("undrain", "--config", str(config))
        assert (code, "Device or resource busy" in err) == (2, True)
        assert run.node()["draining"]
        assert (await command("undrain", "--config", str(config)))[0] == 0
        await eventually(run.ready)


async def test_a_run_that_waited_for_nodelocal_dnscache_serves_all_the_same(
    config: Path, nft: Nft, node_cache: subprocess.Popen[bytes]
) -> None:
    with Running(config) as run:
        await eventually(run.alive)
        assert run.node()["waiting_for"]
        nft.fail_once()
        node_cache.communicate(b"")
        await eventually(run.ready)
        assert nft.failed
