"""A program inside a pod that looks names up as programs do: with the C library, its search list and its ndots."""

import argparse
import socket
import time

from proxy.lab.role import Control, Log, Pace


def lookups(options: argparse.Namespace, control: Control) -> None:
    """Look up `count` names one after another, or until standard input ends.

    A row each, as the questioner writes them: number, `lookup`, when asked, when answered, rcode, addresses, 0. A
    name that the library didn't find has no answer and an rcode of -1.
    """
    rows = []
    control.ready()
    if control.wait_for_go():
        pace = Pace(options.rate, options.count, time.monotonic_ns())
        for turn in range(pace.count):
            if control.ended_before(pace.due_ns(turn)):
                break
            number = options.first + turn
            at_ns = time.monotonic_ns()
            found = _look_up(options.name.replace("{number}", str(number)))
            answered_ns = time.monotonic_ns()
            rows.append(f"{number} lookup {at_ns} {answered_ns if found else 0} {0 if found else -1} {found} 0")
    Log(options.log).write(rows)
    control.summary({"asked": len(rows)})


def _look_up(name: str) -> int:
    """How many addresses it has, of both families."""
    try:
        return len(socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM))
    except socket.gaierror:
        return 0
