"""What every case has: its cluster and path, the processes of its traffic, and the timeline of what happens in it."""

import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Self

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Mark
from proxy.lab.scenario import Run
from proxy.lab.traffic import Traffic, now_ns


class Case(ABC):
    """Use as a context manager. A subclass says in `_start` what is there in it."""

    def __init__(self, cluster: Cluster, run: Run) -> None:
        self.cluster = cluster
        self.path = run.path
        self._run = run
        self._marks: list[Mark] = []
        self._began_ns = 0
        """When the traffic began; a subclass sets it."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.traffic = stack.enter_context(Traffic(self._run.directory))
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def _start(self, stack: ExitStack) -> None:
        """Bring up what there is before the traffic. What is on the stack ends with the case."""

    def at(self, seconds: float, what: str) -> None:
        """Sleep until so many seconds after the start, then say what happens and mark it in the timeline."""
        time.sleep(max(0.0, seconds - self.seconds()))
        self.mark(what)

    def mark(self, what: str) -> None:
        """Say what happens now and mark it in the timeline."""
        self._marks.append(Mark(now_ns(), what))
        self._run.say(what)

    def seconds(self) -> float:
        """Since the start of the traffic, as `at` counts them."""
        return (now_ns() - self._began_ns) / 1e9
