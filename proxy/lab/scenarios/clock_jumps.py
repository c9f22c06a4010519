"""The wall clock jumps an hour ahead and an hour back."""

import mmap
import struct
from dataclasses import replace
from pathlib import Path

import proxy
from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import AT_ONCE, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, Run, Scenario

HOUR = 3600.0
_SITE = """\
import mmap, os, struct, time

_descriptor = os.open(os.environ["SIDESTEP_LAB_CLOCK"], os.O_RDONLY)
_offset = mmap.mmap(_descriptor, 8, prot=mmap.PROT_READ)
os.close(_descriptor)
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + struct.unpack("d", _offset[:8])[0]
time.time_ns = lambda: _time_ns() + int(struct.unpack("d", _offset[:8])[0] * 1e9)
"""


class ClockJumps(Scenario):
    name = "clock_jumps"
    title = "Clock jumps by an hour, both ways"
    source = "field knowledge"
    story = (
        "A node boots with a wrong clock and NTP sets it, or somebody does. Leases, TTLs and time-outs are "
        "counted on the monotonic clock, the kernel's as well. The clock of the machine is left alone: what "
        "Sidestep's own processes are told of the time (Python's time.time) jumps an hour ahead, and later two "
        "hours back. For a program in Go the lab has no such clock."
    )
    needs = ("coredns",)
    modes = ("nftables",)
    on_sidestep = (LOSES_NOTHING, AT_ONCE)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        ahead, back, end = (1.0, 2.5, 4.0) if run.short else (3.0, 6.0, 10.0)
        site = run.directory / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_SITE)
        clock = run.directory / "clock"
        clock.write_bytes(bytes(8))
        for path in (run.directory, *run.directory.parents[:2]):
            path.chmod(0o711)  # a worker reads them after it gave up root
        ours = Path(proxy.__file__).parent.parent
        environment = {"SIDESTEP_LAB_CLOCK": str(clock), "PYTHONPATH": f"{site}:{ours}"}
        with (
            clock.open("r+b") as file,
            mmap.mmap(file.fileno(), 8) as offset,
            FailoverCase(cluster, run, environment=environment) as case,
        ):
            case.ask(end)
            case.fault(ahead, "the clock is an hour ahead")
            offset[:] = struct.pack("d", HOUR)
            case.fault(back, "the clock is an hour behind")
            offset[:] = struct.pack("d", -HOUR)
            outcome = case.outcome()
            if case.path == "kube-proxy":
                return replace(outcome, not_shown="not here: the clock of a Go program alone can't be set")
            return outcome
