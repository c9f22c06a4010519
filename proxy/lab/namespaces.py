"""Network namespaces of one run of the lab, processes and sockets in them, and how all of it is taken away again.

A run has an id. Its namespaces are named sidestep-lab-<id>-<name>, its files are in /run/sidestep-lab/<id>, every
process of it runs in one of its namespaces, and a control group that it may have is named sidestep-lab-<id>: these
are all that it leaves, and how it is found again.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from proxy.lab import memory_limit, tools

PREFIX = "sidestep-lab-"
RUNS = Path("/run/sidestep-lab")
"""Only root may write there, so that nobody can have cleanup remove something else."""
FILES = Path("/etc/netns")
"""`ip netns exec NAME` shows what is in here under NAME as /etc."""

_NAME = re.compile(rf"{PREFIX}(?P<run>[0-9a-f]{{6}})-(?P<name>[a-z0-9][a-z0-9-]*)")
_CLONE_NEWNET = 0x40000000
_NETNS = Path("/run/netns")


class Namespace:
    """One network namespace. `name` is what the lab calls it, `full_name` what the machine does."""

    def __init__(self, run: "Run", name: str) -> None:
        self.name = name
        self.full_name = f"{PREFIX}{run.id}-{name}"
        if not _NAME.fullmatch(self.full_name):
            raise ValueError(f"{name!r} is no name for a namespace: lower-case letters, digits and - serve")
        self.prefix = (tools.find("ip") or "ip", "netns", "exec", self.full_name)
        """The words before a command that is to run in here."""
        self._lab = run
        self._logs = run.directory / "logs"
        self._processes: list[subprocess.Popen[bytes]] = []

    def create(self) -> None:
        """Raises RuntimeError, also where there is one of this name."""
        command("ip", "netns", "add", self.full_name)
        self.ip("link set lo up")

    def ip(self, *lines: str) -> None:
        """What `ip` is to do in here, one command a line, in one go. Raises RuntimeError with what it said."""
        command("ip", "-n", self.full_name, "-batch", "-", given="\n".join(lines))

    def run(self, *words: str, given: str = "", limit: float = 60) -> str:
        """Run a command in here. Returns what it prints; raises RuntimeError with what it said if it fails."""
        return command(*self.prefix, *words, given=given, limit=limit)

    def spawn(self, *words: str, log: str | None = None, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a command in here, a `Popen` with these options.

        Where they don't say otherwise, it reads nothing and writes to `logs/<name>-<log>.log` in the run's directory.
        It ends with the lab's process, and with `delete` at the latest.
        """
        self._logs.mkdir(exist_ok=True)
        path = self._logs / f"{self.name}-{log or Path(words[0]).name}.log"
        with path.open("ab") as output:
            settings = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **options}
            process: subprocess.Popen[bytes] = subprocess.Popen(
                [*self.prefix, *self._lab.leash(), *words], start_new_session=True, **settings
            )
        self._processes.append(process)
        return process

    def log(self, name: str) -> str:
        """The end of what a spawned command wrote."""
        path = self._logs / f"{self.name}-{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def socket(self, kind: socket.SocketKind, address: tuple[str, int] | None = None) -> socket.socket:
        """An IPv4 socket in here for this process, bound to the address if there is one. Raises OSError."""
        with self.entered():
            made = socket.socket(socket.AF_INET, kind)
        try:
            if address is not None:
                made.bind(address)
        except OSError:
            made.close()
            raise
        return made

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts meanwhile, in here. Raises OSError."""
        with open("/proc/thread-self/ns/net") as back, (_NETNS / self.full_name).open() as there:
            _enter(there)
            try:
                yield
            finally:
                _enter(back)

    def etc(self, name: str, text: str) -> None:
        """What /etc/<name> is for every command that is started in here from now on; `resolv.conf` for one."""
        directory = FILES / self.full_name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)

    def pids(self) -> list[int]:
        """Every process in here."""
        return [int(word) for word in command("ip", "netns", "pids", self.full_name).split()]

    def delete(self) -> None:
        """Kill every process in here and remove it, with its links."""
        self.kill()
        _delete(self.full_name)
        self._lab.namespaces.pop(self.name, None)

    def kill(self) -> None:
        """Kill what was spawned in here: some of it may be on its way in, and not among `pids` yet."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()


_Made = TypeVar("_Made", bound=Namespace)


class Run:
    """One run: its id, its directory, its namespaces. `start` makes one; as a context it is torn down at the end.

    kept: it outlives this process, until somebody cleans up.
    """

    def __init__(self, identifier: str, kept: bool = False) -> None:
        self.id = identifier
        self.kept = kept
        self.directory = RUNS / identifier
        self.namespaces: dict[str, Namespace] = {}
        self._lock: int | None = None

    @classmethod
    def start(cls, *, kept: bool = False) -> "Run":
        """A new run. Raises Unavailable without root or `ip`."""
        tools.require_root()
        tools.require("ip", "setpriv")
        run = cls(secrets.token_hex(3), kept)
        RUNS.mkdir(mode=0o700, parents=True, exist_ok=True)
        unready = RUNS / f".{run.id}"  # a directory that has its name is locked: cleanup may look at any moment
        unready.mkdir(mode=0o700)
        run._lock = os.open(unready / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(run._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unready.rename(run.directory)
        return run

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.tear_down()

    def add(self, namespace: _Made) -> _Made:
        """Create this namespace of the run and return it. Raises ValueError where there is one of its name."""
        if namespace.name in self.namespaces:
            raise ValueError(f"there is a {namespace.name} already")
        self.namespaces[namespace.name] = namespace
        try:
            namespace.create()
        except BaseException:
            self.namespaces.pop(namespace.name)
            raise
        return namespace

    def leash(self) -> tuple[str, ...]:
        """The words before a command that is to end when this process is killed.

        The kernel means the thread that starts it, so only what the main thread starts has one.
        """
        leashed = not self.kept and threading.current_thread() is threading.main_thread()
        return (tools.find("setpriv") or "setpriv", "--pdeathsig", "KILL", "--") if leashed else ()

    def tear_down(self) -> None:
        """Nothing of the run is left: no process, namespace, link or file. A signal that comes meanwhile waits."""
        with _signals_wait():
            for namespace in self.namespaces.values():
                namespace.kill()
            remove_run(self.id)
            self.namespaces.clear()
            self.release()

    def release(self) -> None:
        """This process is done with it; a kept run goes on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """What would interrupt this process is delivered afterwards, once."""
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread only
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def command(*words: str, given: str = "", limit: float = 60) -> str:
    """Run a program. Returns what it prints; raises RuntimeError with what it said if it fails or takes too long."""
    program = tools.find(words[0]) or words[0]
    try:
        ran = subprocess.run([program, *words[1:]], input=given, capture_output=True, text=True, timeout=limit)
    except OSError as error:
        raise RuntimeError(f"{' '.join(words)}: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{' '.join(words)}: took longer than {limit:g} s") from error
    if ran.returncode:
        raise RuntimeError(f"{' '.join(words)}: {ran.stderr.strip() or f'exit status {ran.returncode}'}")
    return ran.stdout


def _enter(namespace: IO[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def cleanup(say: Callable[[str], None] = lambda _: None, runs: Iterable[str] | None = None) -> tuple[str, ...]:
    """Remove leftovers, all or those of `runs`, and say so; a run whose lab still goes on is left alone.

    Returns the ids of the removed. Raises Unavailable without root.
    """
    tools.require_root()
    tools.require("ip")
    removed = []
    for run in sorted(_runs() if runs is None else _runs().intersection(runs)):
        if _owned(run):
            say(f"run {run} still goes on: left alone")
            continue
        count = len(_namespaces_of(run))
        remove_run(run)
        removed.append(run)
        say(f"run {run}: removed, with {count} network namespaces and what ran in them")
    return tuple(removed)


def mount(directory: Path, size_bytes: int) -> None:
    """Have the directory on a disk of its own, which is empty. Raises RuntimeError."""
    command("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "sidestep-lab", str(directory))


def unmount(directory: Path) -> None:
    """Take such a disk away, with what is on it. Raises RuntimeError."""
    command("umount", "--lazy", str(directory))


def remove_run(identifier: str) -> None:
    """Remove all that is found of a run, whoever made it."""
    names = _namespaces_of(identifier)
    _kill(names)
    for line in Path("/proc/mounts").read_text().splitlines():
        mounted = Path(line.split()[1])
        if mounted.is_relative_to(RUNS / identifier):
            unmount(mounted)
    for name in names:
        _delete(name)
    memory_limit.remove(f"{PREFIX}{identifier}")
    for directory in FILES.glob(f"{PREFIX}{identifier}-*"):
        shutil.rmtree(directory)
    shutil.rmtree(RUNS / identifier, ignore_errors=True)
    for emptied in (FILES, RUNS):
        with contextlib.suppress(OSError):  # somebody else's files are in it, or it is gone
            emptied.rmdir()


def _runs() -> set[str]:
    named = [_NAME.fullmatch(path.name) for path in (*_listed(_NETNS), *_listed(FILES))]
    in_use = {path.name for path in _listed(RUNS) if not path.name.startswith(".")}
    return {match["run"] for match in named if match} | in_use


def _listed(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _namespaces_of(identifier: str) -> list[str]:
    return sorted(path.name for path in _listed(_NETNS) if path.name.startswith(f"{PREFIX}{identifier}-"))


def _owned(identifier: str) -> bool:
    """Whether the lab that made the run still goes on."""
    try:
        descriptor = os.open(RUNS / identifier / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _delete(full_name: str) -> None:
    _kill([full_name])
    with contextlib.suppress(RuntimeError):  # somebody else removed it meanwhile
        command("ip", "netns", "del", full_name)
    shutil.rmtree(FILES / full_name, ignore_errors=True)


def _kill(full_names: Iterable[str]) -> None:
    """SIGKILL to every process in there until none is left: one may just be starting another."""
    for name in full_names:
        deadline = time.monotonic() + 10
        while pids := _pids(name):
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes in {name} can't be killed: {pids}")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)


def _pids(full_name: str) -> list[int]:
    try:
        return [int(word) for word in command("ip", "netns", "pids", full_name).split()]
    except RuntimeError:  # somebody else removed it meanwhile
        return []
