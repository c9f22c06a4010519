"""A worker's place in a run: the memory that outlives the worker, and what control knows of the present one."""

import asyncio
import fcntl
import mmap
import os
import time
from dataclasses import dataclass, field

from proxy.control.child import Child
from proxy.core.counters import HEARTBEAT
from proxy.worker.channel import RelayReport, Report, ToWorker


@dataclass(slots=True, eq=False)
class Slot:
    """A worker's place: the memory that outlives it, and the process in it, if any."""

    name: str
    counters_fd: int
    memory: mmap.mmap
    counts: memoryview
    journal_fd: int | None = None
    child: Child | None = None
    wanted: bool = False
    running: bool = False
    """A task supervises it."""
    given: set[int] = field(default_factory=set)
    """Ids of the sockets that the present child has."""
    told: ToWorker | None = None
    """The last configuration that it got."""
    started: float = 0.0
    ready: bool = False
    drain_until: float | None = None
    """The child was told to drain, and is killed at this time."""
    restarts: int = 0
    failures: int = 0
    report: Report | RelayReport | None = None
    """The last one of the present child."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `wanted` turns false, to cut a back-off short."""

    @property
    def heartbeat(self) -> float:
        """When the worker's loop last turned, on the monotonic clock."""
        return int(self.counts[HEARTBEAT]) / 1e9

    @property
    def heartbeat_age(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.heartbeat

    @classmethod
    def make(cls, name: str, counters: int, *, journal: bool) -> "Slot":
        """An empty place with memory for so many counters, not wanted yet. Raises OSError when there is none."""
        counters_fd = os.memfd_create(f"sidestep-{name}-counters", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(counters_fd, counters * 8)
        # A worker that shrank it would have us killed by SIGBUS.
        fcntl.fcntl(counters_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        memory = mmap.mmap(counters_fd, counters * 8)
        journal_fd = os.memfd_create(f"sidestep-{name}-journal", os.MFD_CLOEXEC) if journal else None
        return cls(name, counters_fd, memory, memoryview(memory).cast("Q"), journal_fd)

    def close(self) -> None:
        """Give the memory back."""
        self.counts.release()
        self.memory.close()
        os.close(self.counters_fd)
        if self.journal_fd is not None:
            os.close(self.journal_fd)
