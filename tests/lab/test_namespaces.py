"""Everything of a run is named after it, and gone after it: on exit, on failure, and by cleanup after a SIGKILL."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.lab import namespaces, tools
from proxy.lab.cluster import running
from proxy.lab.namespaces import FILES, PREFIX, RUNS, Namespace, Run, command
from tests import peers

LAB = """\
import signal, sys
from proxy.lab.cluster import running
signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background it would be ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and this one under nohup
with running(real=False, kept="kept" in sys.argv) as cluster:
    sleeping = cluster.pod("pod").spawn("sleep", "600")
    cluster.pods["pod"].etc("resolv.conf", "nameserver 10.96.0.10")
    print(cluster.run.id, sleeping.pid, flush=True)
    if "kept" not in sys.argv:
        signal.pause()
"""


def left_of(run: str) -> list[str]:
    """Everything of this run that is found on the machine."""
    found = [
        str(path) for path in (Path("/run/netns"), FILES) if path.is_dir() for path in path.glob(f"{PREFIX}{run}-*")
    ]
    return found + ([str(RUNS / run)] if (RUNS / run).exists() else [])


def alive(pid: int) -> bool:
    """Whether there is such a process, and not only what its parent has yet to hear of."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def lab(*options: str) -> Iterator[tuple["subprocess.Popen[str]", str, int]]:
    """A lab as a process of its own, with the id of its run and the pid of a process in a pod of it."""
    with subprocess.Popen(
        [sys.executable, "-c", LAB, *options], stdout=subprocess.PIPE, text=True, cwd=peers.ROOT
    ) as process:
        assert process.stdout
        run, pid = process.stdout.readline().split()
        try:
            yield process, run, int(pid)
        finally:
            process.kill()
            process.wait()
            namespaces.remove_run(run)


@pytest.fixture
def run(root: None) -> Iterator[Run]:
    with Run.start() as made:
        yield made


def test_tear_down_leaves_no_namespace_link_process_or_file(root: None) -> None:
    links = command("ip", "-o", "link", "show", "type", "veth")
    with running(nodes=2, overlay=True, real=False) as cluster:
        pod = cluster.pod("pod")
        pod.etc("resolv.conf", "nameserver 10.96.0.10\n")
        sleeping = pod.spawn("sleep", "600")
        assert alive(sleeping.pid)
        assert left_of(cluster.run.id)
        run = cluster.run.id
    assert left_of(run) == []
    assert sleeping.returncode == -signal.SIGKILL
    assert command("ip", "-o", "link", "show", "type", "veth") == links


def test_a_failure_tears_down_as_well(root: None) -> None:
    found: list[str] = []

    def fail() -> None:
        with running(real=False) as cluster:
            found.append(cluster.run.id)
            cluster.pod("pod")
            cluster.pod("pod")

    with pytest.raises(ValueError, match="there is a pod already"):
        fail()
    assert left_of(found[0]) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_tears_down_as_well(root: None, number: signal.Signals) -> None:
    with lab() as (process, run, pid):
        process.send_signal(number)
        process.wait(20)
        assert process.returncode in (128 + number, -number)
        assert left_of(run) == []
        assert not alive(pid)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what runs in its background with SIGINT ignored, and Python leaves that so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_while_it_is_taken_down_waits_until_all_is_gone(
    root: None, interruptible: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = namespaces.remove_run

    def interrupted(identifier: str) -> None:
        signal.raise_signal(signal.SIGINT)
        remove(identifier)

    monkeypatch.setattr(namespaces, "remove_run", interrupted)
    with pytest.raises(KeyboardInterrupt), running(real=False) as cluster:
        run = cluster.run.id
    assert left_of(run) == []


def test_cleanup_removes_what_a_killed_lab_left(root: None) -> None:
    with lab() as (process, run, pid):
        said: list[str] = []
        assert namespaces.cleanup(said.append, [run]) == ()
        assert said == [f"run {run} still goes on: left alone"]
        assert alive(pid)
        process.kill()
        process.wait()
        assert namespaces.cleanup(said.append, [run]) == (run,)
        assert left_of(run) == []
        assert not alive(pid)
        assert "3 network namespaces" in said[-1]
        assert namespaces.cleanup(said.append, [run]) == ()


def test_a_kept_run_goes_on_until_cleanup(root: None) -> None:
    with lab("kept") as (process, run, pid):
        assert process.wait(20) == 0
        assert alive(pid)
        assert namespaces.cleanup(runs=[run]) == (run,)
        assert left_of(run) == []
        assert not alive(pid)


def test_nothing_is_made_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for refused in (Run.start, namespaces.cleanup, running().__enter__):
        with pytest.raises(tools.Unavailable, match="needs root"):
            refused()


def test_a_command_that_fails_says_what_it_said(run: Run) -> None:
    namespace = run.add(Namespace(run, "somewhere"))
    with pytest.raises(RuntimeError, match="No such file"):
        namespace.run("cat", "/nowhere")
    with pytest.raises(RuntimeError, match=r"took longer than 0\.1 s"):
        namespace.run("sleep", "60", limit=0.1)
    with pytest.raises(RuntimeError, match="not-there"):
        command("not-there")


def test_commands_see_the_namespace_and_its_files(run: Run) -> None:
    namespace = run.add(Namespace(run, "somewhere"))
    namespace.etc("resolv.conf", "nameserver 192.0.2.53\n")
    assert namespace.run("cat", "/etc/resolv.conf") == "nameserver 192.0.2.53\n"
    namespace.ip("addr add 192.0.2.1/32 dev lo")
    with namespace.socket(socket.SOCK_DGRAM, ("192.0.2.1", 0)) as inside:
        assert inside.getsockname()[0] == "192.0.2.1"
    with pytest.raises(OSError, match="Cannot assign"):
        namespace.socket(socket.SOCK_DGRAM, ("192.0.2.2", 0))
    with namespace.entered():
        assert os.getpid() in namespace.pids()
    assert namespace.pids() == []
    process = namespace.spawn("sh", "-c", "echo said; exec sleep 600", log="talk")
    tools.until(lambda: namespace.log("talk") == "said\n", "what it says in its log")
    assert namespace.pids() == [process.pid]
    namespace.delete()
    assert process.returncode == -signal.SIGKILL
    assert namespace.name not in run.namespaces


def test_a_process_that_is_on_its_way_in_is_not_left(run: Run) -> None:
    namespace = run.add(Namespace(run, "somewhere"))
    process = namespace.spawn("sleep", "600")
    namespace.delete()
    assert process.returncode is not None


def test_a_name_must_fit_into_a_namespaces_name(run: Run) -> None:
    for name in ("Pod", "a/b", "", "-a"):
        with pytest.raises(ValueError, match="no name for a namespace"):
            Namespace(run, name)
