"""A limit on the memory of some processes by a control group, as a container has one; cgroup v1 or v2."""

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Self

from proxy.lab.tools import Unavailable

_ROOT = Path("/sys/fs/cgroup")
_PIECE = 1 << 18
_SHELL = "sh", "-c"


class MemoryLimit:
    """One group; as a context manager it is there, empty and without a limit, and is gone at the end."""

    def __init__(self, name: str) -> None:
        """Raises Unavailable where this machine has no control group for memory."""
        unified = (_ROOT / "cgroup.controllers").exists()
        parent = _ROOT if unified else _ROOT / "memory"
        self._group = parent / name
        self._limit = self._group / ("memory.max" if unified else "memory.limit_in_bytes")
        self._usage = self._group / ("memory.current" if unified else "memory.usage_in_bytes")
        self._no_limit = "max" if unified else "-1"
        try:
            self._group.mkdir()
        except OSError as error:
            raise Unavailable(f"no control group can be made in {parent}: {error.strerror}") from error
        if not self._limit.exists():
            self._group.rmdir()
            raise Unavailable(f"{parent} has no control group for memory")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (self._group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # it ended
                (self._group.parent / "cgroup.procs").write_text(pid)
        _remove(self._group)

    @property
    def before(self) -> tuple[str, ...]:
        """Words before a command that is to run in it; the kernel kills such a one first."""
        return *_SHELL, f"echo 1000 > /proc/self/oom_score_adj; {self._into}", "sh"

    def eater(self, most_bytes: int) -> tuple[str, ...]:
        """A command that takes so many bytes in it and holds them for a minute; the kernel kills it last."""
        program = f"kept = [b'x' * {_PIECE} for _ in range({most_bytes // _PIECE})]; import time; time.sleep(60)"
        return *_SHELL, self._into, "sh", sys.executable, "-S", "-c", program

    @property
    def _into(self) -> str:
        # `ip netns exec` hides /sys/fs/cgroup behind a /sys of its own.
        return f'echo $$ > /proc/{os.getpid()}/root{self._group}/cgroup.procs; exec "$@"'

    def limit(self, most_bytes: int | None) -> None:
        """Have the kernel kill somebody in it once they need more; cgroup v1 takes none below what they have."""
        self._limit.write_text(self._no_limit if most_bytes is None else str(most_bytes))

    def usage(self) -> int:
        """Bytes that they have now."""
        return int(self._usage.read_text())

    def kills(self) -> int:
        """How many of them the kernel has killed for their memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                words = (self._group / name).read_text().split()
                return int(dict(zip(words[::2], words[1::2], strict=True))["oom_kill"])
        return 0


def remove(name: str) -> None:
    """Remove a group of this name that a killed lab left; whoever ran in it is dead. Raises OSError."""
    for group in (_ROOT / name, _ROOT / "memory" / name):
        if group.is_dir():
            _remove(group)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            group.rmdir()
            return
        except OSError:  # the killed are still on their way out
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
