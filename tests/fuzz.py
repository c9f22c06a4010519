"""Mutated packets through the scanner and through a running worker: `make fuzz`, or `python -m tests.fuzz --help`.

Exit 1 with the offending packets in hex; the same seed mutates the same packets.
"""

import argparse
import asyncio
import sys
import time

from tests import fuzz_scanner, fuzz_worker
from tests.fuzz_scanner import Offence

SCANNER = 10_000_000
WORKER = 1_000_000


def say(text: str) -> None:
    """A line of progress, over the last one where that can be."""
    sys.stdout.write(f"\r\x1b[K{text}" if sys.stdout.isatty() else f"{text}\n")
    sys.stdout.flush()


async def through_worker(packets: int, seed: int) -> None:
    """Say how far it is, and what the worker weighs."""
    async for done, resident in fuzz_worker.run(packets, seed):
        say(f"worker: {done:,} of {packets:,} packets, {resident / (1 << 20):.1f} MiB resident")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--scanner", type=int, default=SCANNER, metavar="N", help=f"packets ({SCANNER:,})")
    parser.add_argument("--worker", type=int, default=WORKER, metavar="N", help=f"packets ({WORKER:,})")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="of the mutations (another each time)")
    options = parser.parse_args()
    say(f"seed {options.seed}")
    started = time.monotonic()
    try:
        for done in fuzz_scanner.run(options.scanner, options.seed):
            say(f"scanner: {done:,} of {options.scanner:,} packets")
        if options.worker:
            asyncio.run(through_worker(options.worker, options.seed))
    except Offence as offence:
        say(f"{offence.cause}, seed {options.seed}\n")
        sys.stdout.writelines(f"packet {wire.hex()}\n" for wire in offence.packets)
        sys.stdout.writelines(f"reply {wire.hex()}\n" for wire in offence.replies)
        return 1
    except AssertionError as failed:
        say(f"{failed}, seed {options.seed}\n")
        return 1
    say(f"no crash, no growth, every question accounted for; {time.monotonic() - started:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
