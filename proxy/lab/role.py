"""What each program inside the lab's pods has: its control, its pace and its log. Standard library only."""

import json
import os
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENDED = "ended"


class Control:
    """Standard input as lines, standard output as `ready` and the summary."""

    def __init__(self, fd: int = 0, out: int = 1) -> None:
        self.fd = fd
        self._out = out
        self._held = b""

    def ready(self) -> None:
        os.write(self._out, b"ready\n")

    def summary(self, said: dict[str, Any]) -> None:
        os.write(self._out, json.dumps(said).encode() + b"\n")

    def lines(self) -> list[str]:
        """What was told since; `ENDED` is the last when nothing more will be. Blocks when nothing was."""
        read = os.read(self.fd, 4096)
        *whole, self._held = (self._held + read).split(b"\n")
        return [line.decode() for line in whole] + ([] if read else [ENDED])

    def wait_for_go(self) -> bool:
        """False when it ended instead."""
        while True:
            for line in self.lines():
                if line in ("go", ENDED):
                    return line == "go"

    def ended_before(self, due_ns: int) -> bool:
        """Sleep until then; True as soon as standard input ends."""
        while True:
            left = max(0, due_ns - time.monotonic_ns()) / 1e9
            if not select.select([self.fd], [], [], left)[0]:
                return False
            if ENDED in self.lines():
                return True


class Pace:
    """When each of `count` sendings is due. Late ones are made up for at once, so the rate doesn't drift."""

    def __init__(self, rate: float, count: int, start_ns: int) -> None:
        self._rate = rate
        self._start_ns = start_ns
        self.count = count

    def due_ns(self, turn: int) -> int:
        return self._start_ns + round(turn * 1e9 / self._rate)


class Log:
    """A file of rows, each written whole before the next thing happens: a killed process leaves what it saw."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o644)

    def write(self, rows: Sequence[str]) -> None:
        if rows:
            left = ("\n".join(rows) + "\n").encode()
            while left:
                left = left[os.write(self._fd, left) :]
