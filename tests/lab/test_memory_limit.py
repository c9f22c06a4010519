"""A real control group: the kernel kills what it holds."""

import secrets
import subprocess
import sys

import pytest

from proxy.lab.memory_limit import MemoryLimit
from proxy.lab.namespaces import PREFIX, remove_run
from proxy.lab.tools import Unavailable

MEGABYTE = 1 << 20


def test_the_eater_outlives_who_runs_in_the_group(root: None) -> None:
    name = f"sidestep-lab-{secrets.token_hex(3)}"
    try:
        group = MemoryLimit(name)
    except Unavailable as missing:
        pytest.skip(str(missing))
    hold = f"kept = b'x' * {20 * MEGABYTE}; print('ready', flush=True); import time; time.sleep(60)"
    with group:
        victim = subprocess.Popen([*group.before, sys.executable, "-c", hold], stdout=subprocess.PIPE)
        assert victim.stdout
        assert victim.stdout.readline() == b"ready\n"
        assert group.usage() >= 20 * MEGABYTE
        most = group.usage() + 8 * MEGABYTE
        group.limit(most)
        eater = subprocess.Popen(group.eater(most - 4 * MEGABYTE))
        assert victim.wait(20) == -9
        victim.stdout.close()
        assert group.kills() >= 1
        group.limit(None)
        eater.kill()
        eater.wait()
    with pytest.raises(FileNotFoundError):
        group.usage()


def test_without_control_groups_it_says_so(root: None) -> None:
    with pytest.raises(Unavailable, match="no control group can be made"):
        MemoryLimit("no/such/parent")


def test_a_run_that_was_killed_leaves_none_after_cleanup(root: None) -> None:
    run = secrets.token_hex(3)
    try:
        group = MemoryLimit(f"{PREFIX}{run}")
    except Unavailable as missing:
        pytest.skip(str(missing))
    assert group.usage() >= 0
    remove_run(run)
    with pytest.raises(FileNotFoundError):
        group.usage()
