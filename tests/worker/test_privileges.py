"""What is left of a process after it gave up its privileges, as the kernel tells it."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

UNPRIVILEGED = 65532

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to give up")


def run(code: str, *wrapper: str) -> str:
    """The output of Python code in a process of its own."""
    command = [*wrapper, sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def fields(status: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)


DROP = """
    from proxy.worker.privileges import drop
    refused = drop({uid}, {uid})
    print(open("/proc/self/status").read())
    print("Refused:\\t" + str(refused))
"""


def assert_no_capabilities(status: dict[str, str]) -> None:
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"


@as_root
def test_root_becomes_a_user_without_groups_and_capabilities() -> None:
    status = fields(run(DROP.format(uid=UNPRIVILEGED)))
    assert status["Refused"] == "None"
    assert status["Uid"].split() == status["Gid"].split() == [str(UNPRIVILEGED)] * 4
    assert status["Groups"].strip() == ""
    assert int(status["CapBnd"], 16) == 0
    assert_no_capabilities(status)


@as_root
def test_root_without_cap_setuid_stays_root_without_capabilities_and_says_so() -> None:
    status = fields(run(DROP.format(uid=UNPRIVILEGED), "setpriv", "--bounding-set", "-setuid,-setgid"))
    assert "cannot become 65532" in status["Refused"]
    assert status["Uid"].split() == ["0"] * 4
    assert int(status["CapBnd"], 16) == 0
    assert_no_capabilities(status)


@as_root
def test_a_root_without_capabilities_gains_none_by_exec() -> None:
    status = fields(
        run(
            """
            import os
            from proxy.worker.privileges import drop
            drop(None, None)
            os.execv("/bin/cat", ["cat", "/proc/self/status"])
            """
        )
    )
    assert_no_capabilities(status)


def test_a_plain_user_drops_what_there_is() -> None:
    status = fields(run(DROP.format(uid=None)))
    assert status["Refused"] == "None"
    assert_no_capabilities(status)


def test_a_stopped_child_does_not_outlive_its_parent() -> None:
    reading, writing = os.pipe()
    code = """
        import os, signal, subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", '''
        import os, signal
        from proxy.worker.privileges import drop
        drop(None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        '''.replace("\\n        ", "\\n")], pass_fds=[int(sys.argv[1])])
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(writing)], pass_fds=[writing], timeout=30, check=False
    )
    os.close(writing)
    assert parent.returncode == -signal.SIGKILL
    assert os.read(reading, 1) == b""  # the stopped child held the other end
    os.close(reading)


@as_root
def test_control_keeps_what_it_needs_and_so_does_what_it_executes() -> None:
    code = """
        import subprocess
        from proxy.worker.privileges import Capability, keep_only
        keep_only(Capability)
        print(open("/proc/self/status").read())
        print(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout)
    """
    wanted = (1 << 5) | (1 << 6) | (1 << 7) | (1 << 8) | (1 << 10) | (1 << 12)
    for half in run(code).split("Name:")[1:]:
        status = fields(half)
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {wanted}


def test_who_has_no_capability_has_none_afterwards() -> None:
    code = """
        from proxy.worker.privileges import Capability, drop, keep_only
        drop(None, None)
        keep_only(Capability)
        print(open("/proc/self/status").read())
    """
    assert_no_capabilities(fields(run(code)))
