"""One worker process as control sees it: started as a fresh interpreter, talked to, watched for its exit.

It stays in control's session and process group; it never shares control's memory but for the counters.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import proxy
from proxy.worker.channel import ToControl, control_end

WORKER_COMMAND = (sys.executable, "-P", "-m", "proxy.worker")
"""-P: no file in the current directory may pass for one of our modules."""
EXIT_LIMIT = 0.5
"""How long a worker may take to exit once it has closed its channel."""
UNPRIVILEGED_ID = 65532
"""The `nonroot` user of distroless images; as a number it needs no entry in /etc/passwd."""


class Child:
    """A running worker; `exited` ends with its return code, negative for a signal, once it is reaped."""

    def __init__(self, command: Sequence[str], fds: dict[str, int], receive: Callable[[ToControl], None]) -> None:
        """Start it with each of `fds` inherited and named by an option (`--counters 5`). Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            inherited = {**fds, "channel": theirs.fileno()}
            arguments = [word for name, fd in inherited.items() for word in (f"--{name}", str(fd))]
            self._process = _spawn([*command, *arguments], tuple(inherited.values()))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except BaseException:
            ours.close()
            self._process.kill()
            self._process.wait()
            raise
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self.channel = control_end(ours, receive, self._hung_up)
        self._loop.add_reader(self._pidfd, self._reap)

    def kill(self) -> None:
        """SIGKILL: also ends a stopped process, and loses nothing that still lies in a socket's queue."""
        if not self.exited.done():
            self._process.kill()

    def _hung_up(self) -> None:
        # It is about to exit, or it sent nonsense: then it cannot be told anything any more.
        self._loop.call_later(EXIT_LIMIT, self.kill)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.channel.close()
        self.exited.set_result(self._process.wait())


def privilege_options() -> list[str]:
    """What a worker is told about whom to become: nothing unless we are root."""
    if os.geteuid() != 0:
        return []
    return ["--uid", str(UNPRIVILEGED_ID), "--gid", str(UNPRIVILEGED_ID)]


def worker_user() -> int:
    """The user id that workers have."""
    return os.geteuid() or UNPRIVILEGED_ID


def how_it_ended(code: int) -> str:
    """A return code in words."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _spawn(command: list[str], fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    # A terminal, `timeout` and systemd signal every process; workers leave it to control, which drains or configures
    # them. The blocked mask is inherited over exec, and what came for us meanwhile is delivered on unblocking.
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.__stderr__, pass_fds=fds, env=_environment()
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _environment() -> dict[str, str]:
    """Ours, with the way to our own package where it is not installed but run from a source tree."""
    environment = dict(os.environ)
    root = Path(proxy.__file__).resolve().parent.parent
    if root.name not in ("site-packages", "dist-packages"):
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [environment.get("PYTHONPATH")])])
    return environment
