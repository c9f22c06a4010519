"""A StatsD sender and a StatsD server inside a pod. Each line carries its number and its time in the metric's name.

So each line is a metric of its own: a relay that folds or repacks lines loses none of them, and the server can tell
which came.
"""

import argparse
import errno
import re
import select
import socket
import struct
import time

from proxy.lab.role import ENDED, Control, Log, Pace

_LINE = re.compile(rb"^lab\.(\d+)\.(\d+):1\|c")
_RECEIVE_BUFFER_BYTES = 16 << 20
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")
_DATAGRAMS_AT_ONCE = 256


def line(number: int, at_ns: int, size_bytes: int = 0) -> bytes:
    """A counter line, padded with a tag up to the size where there is room for one."""
    text = b"lab.%d.%d:1|c" % (number, at_ns)
    room = size_bytes - len(text) - len(b"|#pad:")
    return text + b"|#pad:" + b"x" * room if room > 0 else text


def packed(first: int, lines: int, at_ns: int, size_bytes: int = 0) -> bytes:
    """So many lines, numbered from `first` on, as long as each other but for the last; together of that size."""
    each = (size_bytes - (lines - 1)) // lines
    last = size_bytes - (lines - 1) * (each + 1)
    return b"\n".join(line(first + place, at_ns, last if place == lines - 1 else each) for place in range(lines))


def read(datagram: bytes) -> list[tuple[int, int]]:
    """Number and sending time of each of the lab's lines in it."""
    found = (_LINE.match(text) for text in datagram.split(b"\n"))
    return [(int(match[1]), int(match[2])) for match in found if match]


def sender(options: argparse.Namespace, control: Control) -> None:
    """One datagram per turn until `count` of them or the end of standard input.

    The summary's `cpu_us` is the median of what sending one took of CPU time: between namespaces of one machine the
    kernel takes a datagram all the way to its receiver's socket, or refuses it, before sending returns.
    """
    sockets = [_sending(options, port) for port in options.source_ports]
    rows: list[str] = []
    cpu_ns: list[int] = []
    behind_ns = 0
    control.ready()
    if control.wait_for_go():
        pace = Pace(options.rate, options.count, time.monotonic_ns())
        for turn in range(pace.count):
            if control.ended_before(pace.due_ns(turn)):
                break
            first, failed = options.first + turn * options.lines, ""
            fresh = None if sockets else _sending(options, 0)
            at_ns = time.monotonic_ns()
            try:
                sending = fresh or sockets[turn % len(sockets)]
                text = packed(first, options.lines, at_ns, options.size_bytes)
                began_ns = time.thread_time_ns()
                sending.send(text) if options.connected else sending.sendto(text, options.to)
                cpu_ns.append(time.thread_time_ns() - began_ns)
            except OSError as error:
                failed = errno.errorcode.get(error.errno or 0, str(error))
            if fresh:
                fresh.close()
            behind_ns = max(behind_ns, at_ns - pace.due_ns(turn))
            rows += [f"{first + place} {at_ns} {failed}".rstrip() for place in range(options.lines)]
    Log(options.log).write(rows)
    cpu_us = sorted(cpu_ns)[len(cpu_ns) // 2] / 1e3 if cpu_ns else 0.0
    control.summary({"sent": len(rows), "behind_ms": behind_ns / 1e6, "cpu_us": cpu_us})


def _sending(options: argparse.Namespace, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("", port))
    if options.connected:
        made.connect(options.to)
    return made


def sink(options: argparse.Namespace, control: Control) -> None:
    """Write down what comes until the end of standard input, and then what still lies in the socket."""
    log = Log(options.log)
    received = datagrams = foreign = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, _receive_buffer_option(), _RECEIVE_BUFFER_BYTES)
        bound.bind(options.listen)
        bound.setblocking(False)
        control.ready()
        ended = False
        while True:
            rows: list[str] = []
            before = datagrams
            for _ in range(_DATAGRAMS_AT_ONCE):
                try:
                    datagram, source = bound.recvfrom(65535)
                except BlockingIOError:
                    break
                at_ns = time.monotonic_ns()
                datagrams += 1
                found = read(datagram)
                foreign += not found
                rows += [f"{number} {sent_ns} {at_ns} {source[0]}:{source[1]}" for number, sent_ns in found]
            log.write(rows)
            received += len(rows)
            if ended and datagrams == before:
                break
            if not ended and control.fd in select.select([bound.fileno(), control.fd], [], [])[0]:
                ended = ENDED in control.lines()
        drops = _MEMINFO.unpack(bound.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[8]
    control.summary({"received": received, "datagrams": datagrams, "foreign": foreign, "drops": drops})


def _receive_buffer_option() -> int:
    """SO_RCVBUFFORCE, past net.core.rmem_max, where it is known."""
    return int(getattr(socket, "SO_RCVBUFFORCE", 33))
