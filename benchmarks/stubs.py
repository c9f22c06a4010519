"""What does each real stub resolver get, and how long does it wait, while the upstream does each bad thing?"""

import itertools
import time

from benchmarks import report
from benchmarks.bench import Bench
from tests import peers
from tests.stubs.inside import VERDICTS
from tests.stubs.lab import STUBS, Lab


def measure(bench: Bench) -> str:
    """One lookup for each upstream behaviour, stub and server. Needs root."""
    rows = []
    names = (f"web{number}" for number in itertools.count(1))
    directory = bench.directory / "stubs"
    directory.mkdir(exist_ok=True)
    with Lab(directory) as lab:
        commands = {
            stub.name: stub.built(directory) for stub in STUBS.values() if all(map(peers.find, stub.programs))
        }
        seen: dict[tuple[str, str, str], str] = {}
        for behaviour, server in itertools.product(VERDICTS, bench.installed):
            with lab.serving(server):
                for stub, command in commands.items():
                    started = time.monotonic()
                    heard = lab.run([*command, f"{next(names)}.{behaviour}.example"])
                    took = time.monotonic() - started
                    found = f"{len(heard.addresses)} found" if heard.addresses else heard.error
                    seen[behaviour, stub, server] = f"{found}, {heard.asked.total()} asked, {took:.1f} s"
    for behaviour, stub in itertools.product(VERDICTS, commands):
        rows.append([f"{behaviour}, {stub}", *(seen[behaviour, stub, server] for server in bench.installed)])
    return report.table(["upstream, stub", *bench.installed], rows)
