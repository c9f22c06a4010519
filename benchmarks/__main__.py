"""`python -m benchmarks [NAME...] [--rounds N] [--out DIRECTORY]`: run measurements and print what they show."""

import argparse
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from benchmarks import (
    cached_hit_cpu,
    cold_misses,
    conntrack_table,
    endpoint_change,
    fixed_rate,
    memory,
    report,
    search_path,
    silent_upstream,
    statsd_cpu,
    statsd_rate,
    stubs,
    warm_cache,
    worker_kill,
)
from benchmarks.bench import Bench
from proxy.lab.tools import Unavailable
from tests import peers

MEASUREMENTS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        cached_hit_cpu,
        fixed_rate,
        cold_misses,
        search_path,
        silent_upstream,
        worker_kill,
        warm_cache,
        memory,
        stubs,
        statsd_rate,
        statsd_cpu,
        endpoint_change,
        conntrack_table,
    )
}


def main() -> int:
    """Run what was named, or everything. Returns the exit status: 1 when a measurement could not be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(MEASUREMENTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="also write NAME.txt there")
    parser.add_argument("--without", action="append", default=[], metavar="SERVER", help="leave this server out")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MEASUREMENTS):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    failed = False
    for name in options.names or MEASUREMENTS:
        with tempfile.TemporaryDirectory(prefix="sidestep-bench-") as directory:
            head = [
                f"{name}: {(MEASUREMENTS[name].__doc__ or '').strip()}",
                f"$ python -m benchmarks {name} --rounds {options.rounds}",
                report.machine(getattr(MEASUREMENTS[name], "KINDS", peers.KINDS)),
            ]
            try:
                bench = Bench(options.rounds, Path(directory), options.without)
                measured = MEASUREMENTS[name].measure(bench)
            except Unavailable as reason:
                measured, failed = f"not measured: {reason}", True
            except RuntimeError as reason:
                measured, failed = f"failed: {reason}", True
        text = "\n".join(head) + f"\n\n{measured}\n"
        print(text, flush=True)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}.txt").write_text(text)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
