"""Does one relay worker lose anything at 64,000 datagrams a second, or at 150,000 lines a second?"""

import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from benchmarks import meter, report
from benchmarks.bench import CLIENT_CPU, SERVER_CPU, Bench
from benchmarks.relays import PORT, RELAYS, dropped_by_kernel, ledger, relaying
from benchmarks.statsd_load import Load, Sender, Sent, Sinks, sinks
from tests import peers

KINDS = RELAYS
"""What a report tells the versions of."""
SECONDS = 5
LOADS = (
    Load(66_000, SECONDS, lines=1, batch=66),
    Load(66_000, SECONDS, lines=1, batch=6),
    Load(15_500, SECONDS, lines=10, batch=15),
)
"""A little more than is asked for: a client that was held up doesn't catch up."""
ENDPOINTS = ("127.0.54.1", "127.0.54.2", "127.0.54.3")
FOLDING = "sidestep, no endpoint"
BEFORE_OTHERS = ("chrt", "--rr", "1") if os.geteuid() == 0 and peers.find("chrt") else ()
"""What else runs on this machine must not hold up client, relay and sinks: a loss is to be the relay's own."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One load through one relay."""

    sent: Sent
    kept_lines: int
    """Lines that arrived, or where there is no endpoint, were folded."""
    out: int
    """Datagrams that arrived."""
    kernel_drops: int
    named_drops: int
    """Lines that Sidestep's ledger says it dropped."""
    cpu_percent: float
    waited_percent: float
    """Of the time, ready to run and without a CPU."""


def measure(bench: Bench) -> str:
    """Losses summed over all rounds, by where they were counted; relays take turns within each round."""
    names = [name for name, kind in RELAYS.items() if kind.installed() and name not in bench.without]
    if "sidestep" in names:
        names.append(FOLDING)
    turns: dict[tuple[Load, str], list[Turn]] = {(load, name): [] for load in LOADS for name in names}
    addresses = [f"{host}:{PORT}" for host in ENDPOINTS]
    sender = Sender(bench.directory, (*BEFORE_OTHERS, *CLIENT_CPU))
    with ExitStack() as stack:
        counting = stack.enter_context(sinks(bench.directory, addresses, (*BEFORE_OTHERS, *CLIENT_CPU)))
        servers = {
            name: stack.enter_context(_relaying(bench, number, name, [] if name == FOLDING else addresses))
            for number, name in enumerate(names)
        }
        for round_number in range(bench.rounds + 1):
            for (load, name), seen in turns.items():
                turn = _push(servers[name], sender, counting, load)
                if round_number:  # the first is a warm-up
                    seen.append(turn)
    rows = []
    for (load, name), seen in turns.items():
        sent = sum(turn.sent.datagrams for turn in seen)
        out = sum(turn.out for turn in seen)
        lost = sum(turn.sent.lines - turn.kept_lines for turn in seen)
        rows.append(
            [
                f"{load}, {name}",
                report.spread([turn.sent.datagrams / turn.sent.seconds for turn in seen], 0),
                report.spread([turn.sent.lines / turn.sent.seconds for turn in seen], 0),
                str(sum(turn.kernel_drops for turn in seen)),
                str(sum(turn.named_drops for turn in seen)) if name in ("sidestep", FOLDING) else "-",
                f"{lost} of {sum(turn.sent.lines for turn in seen)}",
                f"{sent / out:.1f}" if out else "-",
                report.spread([turn.cpu_percent for turn in seen]),
                report.spread([turn.waited_percent for turn in seen]),
            ]
        )
    heading = ["load, relay", "datagrams/s", "lines/s", "kernel drops", "named drops", "lines lost"]
    heading += ["packed", "CPU %", "waited for a CPU %"]
    return f"{SECONDS} s each, 2,000 names, {len(ENDPOINTS)} endpoints (one for the others)\n\n" + report.table(
        heading, rows
    )


def _relaying(bench: Bench, number: int, name: str, endpoints: list[str]) -> AbstractContextManager[peers.Server]:
    host = f"127.0.54.{10 + number}"
    directory = bench.directory / f"relay-{number}"
    directory.mkdir()
    listen = f"{host}:{peers.free_port(host)}"
    job = peers.Job(listen, ",".join(endpoints), directory, admin_port=peers.free_port())
    return relaying("sidestep" if name == FOLDING else name, job, (*BEFORE_OTHERS, *SERVER_CPU))


def _push(server: peers.Server, sender: Sender, counting: Sinks, load: Load) -> Turn:
    """One turn. Raises RuntimeError where Sidestep's ledger is not what was sent and what arrived."""
    ours = server.kind.name == "sidestep"
    before, dropped, pids = counting.arrived(), dropped_by_kernel(server), server.pids()
    cpu, waited = meter.cpu_seconds(pids), meter.waited_seconds(pids)
    accounts = ledger(server) if ours else {}
    sent = sender.send(server.job.listen, load)
    arrived = counting.settled(before, sent.lines)
    percents = [
        (now - then) / sent.seconds * 100
        for now, then in ((meter.cpu_seconds(pids), cpu), (meter.waited_seconds(pids), waited))
    ]
    dropped = dropped_by_kernel(server) - dropped
    if arrived.dropped:
        raise RuntimeError(f"the sinks lost {arrived.dropped} datagrams: this machine is too slow for {load}")
    if not ours:
        return Turn(sent, arrived.lines, arrived.datagrams, dropped, 0, *percents)
    now = ledger(server)
    named = sum(now["dropped"].values()) - sum(accounts["dropped"].values())
    received, forwarded, folded = (now[key] - accounts[key] for key in ("received", "forwarded", "folded"))
    if received != sent.lines - dropped * load.lines or forwarded != arrived.lines:
        raise RuntimeError(f"the ledger says {now} after {accounts}; sent were {sent}, there arrived {arrived}")
    return Turn(sent, forwarded + folded, arrived.datagrams, dropped, named, *percents)
