"""`python -m proxy.lab.pod ROLE …`: what runs inside the lab's pods. Standard library only, to start at once.

A role says `ready`, then does its work until it is done or its standard input ends, and leaves one JSON object on
standard output. See traffic.py for what the roles are told.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from proxy.lab import dns_pod, libc_pod, race_pod, statsd_pod
from proxy.lab.role import Control


def host_and_port(text: str) -> tuple[str, int]:
    """`ADDRESS:PORT`, an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def ports(text: str) -> tuple[int, ...]:
    """`PORT`, `LOW-HIGH` or `fresh`, which is none."""
    if text == "fresh":
        return ()
    low, _, high = text.partition("-")
    return tuple(range(int(low), int(high or low) + 1))


def main(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the lab, which then closes our standard input
    control = Control()
    options.work(options, control)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--log", type=Path, required=True)
    paced = argparse.ArgumentParser(add_help=False)
    paced.add_argument("--rate", type=float, required=True)
    paced.add_argument("--count", type=int, required=True)
    paced.add_argument("--first", type=int, required=True)
    listens = argparse.ArgumentParser(add_help=False)
    listens.add_argument("--listen", type=host_and_port, required=True)
    sends = argparse.ArgumentParser(add_help=False, parents=[paced])
    sends.add_argument("--to", type=host_and_port, required=True)
    sends.add_argument("--source-ports", type=ports, required=True)

    parser = argparse.ArgumentParser(prog="python -m proxy.lab.pod")
    roles = parser.add_subparsers(required=True)
    roles.add_parser("statsd-sink", parents=[common, listens]).set_defaults(work=statsd_pod.sink)
    sender = roles.add_parser("statsd-sender", parents=[common, sends])
    sender.add_argument("--connected", action="store_true")
    sender.add_argument("--size-bytes", type=int, default=0)
    sender.add_argument("--lines", type=int, default=1)
    sender.set_defaults(work=statsd_pod.sender)
    server = roles.add_parser("dns-server", parents=[common, listens])
    server.add_argument("--known", action="append", default=[])
    server.add_argument("--addresses", type=int, default=1)
    server.add_argument("--ttl", type=int, default=5)
    server.set_defaults(work=dns_pod.server)
    questioner = roles.add_parser("dns-questioner", parents=[common, sends])
    questioner.add_argument("--name", required=True)
    questioner.add_argument("--kinds", type=lambda text: text.split(","), required=True)
    questioner.add_argument("--timeout", type=float, required=True)
    questioner.add_argument("--edns-bytes", type=int, default=0)
    questioner.add_argument("--tcp", action="store_true")
    questioner.set_defaults(work=dns_pod.questioner)
    lookups = roles.add_parser("libc-lookups", parents=[common, paced])
    lookups.add_argument("--name", required=True)
    lookups.set_defaults(work=libc_pod.lookups)
    programs = roles.add_parser("program-lookups", parents=[common, paced])
    programs.add_argument("--program", required=True)
    programs.add_argument("--name", required=True)
    programs.set_defaults(work=libc_pod.programs)
    race = roles.add_parser("dns-race", parents=[common])
    race.add_argument("--to", type=host_and_port, required=True)
    race.add_argument("--name", required=True)
    race.add_argument("--rounds", type=int, required=True)
    race.add_argument("--first", type=int, required=True)
    race.set_defaults(work=race_pod.race)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
