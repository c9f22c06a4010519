"""A program inside a pod that sends A and AAAA of a name from one new socket at one moment, on two CPUs."""

import argparse
import mmap
import os
import selectors
import socket
import time
import traceback
from contextlib import suppress

from proxy.lab import dns_wire
from proxy.lab.role import Control, Log

KINDS = "A", "AAAA"
AT_ONCE = 200
"""Rounds for which two processes are started: each has a socket of its own."""
PATIENCE = 2.0
"""Seconds after the last question until an answer counts as lost."""
_PAUSE = 0.001
_CACHE_LINE = 8
"""In numbers: what the two write must not be in one."""


def race(options: argparse.Namespace, control: Control) -> None:
    """So many rounds. A row for each question, as the questioner writes them. Takes two CPUs."""
    control.ready()
    rows: list[str] = []
    if control.wait_for_go():
        for first in range(0, options.rounds, AT_ONCE):
            sockets = [_socket(options.to) for _ in range(min(AT_ONCE, options.rounds - first))]
            rows += _rows(sockets, options.name, options.first + first * len(KINDS))
            for one in sockets:
                one.close()
    Log(options.log).write(rows)
    control.summary({"asked": len(rows)})


def _socket(to: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.connect(to)
    made.setblocking(False)
    return made


def _rows(sockets: list[socket.socket], name: str, first: int) -> list[str]:
    start = Start(len(sockets))
    cpus = sorted(os.sched_getaffinity(0))[: len(KINDS)]
    pids = [_fork(side, cpu, sockets, name, start) for side, cpu in enumerate(cpus)]
    answers = _answers(sockets, pids)
    rows = []
    for turn in range(len(sockets)):
        for side, kind in enumerate(KINDS):
            answered_ns, rcode, count, size = answers.get((turn, side), (0, -1, 0, 0))
            number = first + turn * len(KINDS) + side
            rows.append(f"{number} {kind} {start.sent_ns(turn, side)} {answered_ns} {rcode} {count} {size}")
    return rows


class Start:
    """Where two processes wait for one another before each turn, in memory that both have."""

    def __init__(self, turns: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, 8 * (2 * _CACHE_LINE + 2 * turns))).cast("Q")

    def together(self, side: int, turn: int, limit: float = 10) -> None:
        """Come back when the other one is here as well. Raises TimeoutError after `limit` seconds."""
        self._memory[side * _CACHE_LINE] = turn + 1
        others = (1 - side) * _CACHE_LINE
        until = time.monotonic() + limit
        while self._memory[others] <= turn:
            if time.monotonic() > until:
                raise TimeoutError("the other process is not there")
        self._memory[2 * _CACHE_LINE + 2 * turn + side] = time.monotonic_ns()

    def sent_ns(self, turn: int, side: int) -> int:
        """When this side came back in this turn; 0 if it never did."""
        return self._memory[2 * _CACHE_LINE + 2 * turn + side]


def _fork(side: int, cpu: int, sockets: list[socket.socket], name: str, start: Start) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.sched_setaffinity(0, {cpu})
        for turn, one in enumerate(sockets):
            wire = dns_wire.question(2 * turn + side, name, KINDS[side])
            time.sleep(_PAUSE)
            start.together(side, turn)
            with suppress(OSError):  # no room: lost as on any wire
                one.send(wire)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _answers(sockets: list[socket.socket], pids: list[int]) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    """By turn and side: when it came, rcode, answers, bytes. Raises RuntimeError when a sender failed."""
    found: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            selector.register(one, selectors.EVENT_READ)
        sending = [os.pidfd_open(pid) for pid in pids]
        for fd in sending:
            selector.register(fd, selectors.EVENT_READ)
        until = float("inf")
        while len(found) < len(KINDS) * len(sockets) and time.monotonic() < until:
            for key, _ in selector.select(None if until == float("inf") else max(0, until - time.monotonic())):
                if isinstance(key.fileobj, socket.socket):
                    _hear(key.fileobj, found)
                else:
                    selector.unregister(key.fileobj)
                    until = time.monotonic() + PATIENCE
    for fd in sending:
        os.close(fd)
    if any(os.waitpid(pid, 0)[1] for pid in pids):
        raise RuntimeError("a sender failed")
    return found


def _hear(heard: socket.socket, found: dict[tuple[int, int], tuple[int, int, int, int]]) -> None:
    try:
        wire = heard.recv(65535)
        id, rcode, answers, _ = dns_wire.read_answer(wire)
    except (OSError, ValueError):
        return
    found.setdefault(divmod(id, 2), (time.monotonic_ns(), rcode, answers, len(wire)))
