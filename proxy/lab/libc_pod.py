"""What looks names up inside a pod as programs do: with a C library, its search list, ndots and timeouts."""

import argparse
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

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


def programs(options: argparse.Namespace, control: Control) -> None:
    """Start `program NAME` for `count` names, none of which waits for those before, and wait for all.

    A row each, as above, with the program's name in place of `lookup`. It prints `ok ADDRESS...`, or why not.
    """
    control.ready()
    rows: list[str] = []
    if control.wait_for_go():
        pace = Pace(options.rate, options.count, time.monotonic_ns())
        with ThreadPoolExecutor(pace.count) as pool:
            running = []
            for turn in range(pace.count):
                if control.ended_before(pace.due_ns(turn)):
                    break
                running.append(pool.submit(_program, options.program, options.name, options.first + turn))
            rows = [one.result() for one in running]
    Log(options.log).write(rows)
    control.summary({"asked": len(rows)})


def _program(program: str, name: str, number: int) -> str:
    at_ns = time.monotonic_ns()
    ran = subprocess.run([program, name.format(number=number)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    answered_ns = time.monotonic_ns()
    said, *addresses = ran.stdout.decode().split() or [""]
    kind = program.rpartition("/")[2]
    fate = f"{answered_ns} 0" if said == "ok" else "0 -1"
    return f"{number} {kind} {at_ns} {fate} {len(addresses) if said == 'ok' else 0} 0"


def _look_up(name: str) -> int:
    """How many addresses it has, of both families."""
    try:
        return len(socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM))
    except socket.gaierror:
        return 0
