"""What the kernel says about processes: CPU time, memory. Reads /proc only."""

from collections.abc import Iterable
from pathlib import Path


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of all threads of these processes, user and kernel, from the scheduler's own nanoseconds.

    Softirq work is billed to whoever runs: a server's sends include what the loopback link does with them.
    """
    return _schedstat(pids, 0)


def waited_seconds(pids: Iterable[int]) -> float:
    """How long the threads of these processes were ready to run and had no CPU, because others had it."""
    return _schedstat(pids, 1)


def _schedstat(pids: Iterable[int], column: int) -> float:
    total = 0
    for pid in pids:
        for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(schedstat.read_text().split()[column])
    return total / 1e9


def memory_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: resident memory, with pages that several processes share counted once in all."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
