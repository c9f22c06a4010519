"""What people read: a status as sections and tables, in colour on a terminal and as plain columns elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def status_tables(status: dict[str, Any]) -> Iterator[Table]:
    """The sections of `sidestep status`; empty ones are left out."""
    dns = status["dns"]
    questions, cache = dns["questions"], dns["cache"]
    yield Table(
        f"sidestep {status['version']}, pid {status['pid']}, up {status['uptime_seconds']:.0f} s",
        ("listens on", "kernel drops"),
        [
            (f"{listener['address']} ({'+'.join(listener['transports'])})", drops(listener["address"], questions))
            for listener in status["listeners"]
        ],
    )
    yield Table(
        "upstreams",
        ("zone", "address", "state", "round trip"),
        [
            (upstream["zone"], upstream["address"], upstream["state"], milliseconds(upstream["rtt_ms"]))
            for upstream in dns["upstreams"]
        ],
    )
    yield Table(
        "workers",
        ("role", "pid", "restarts", "state"),
        [
            (
                worker["role"],
                str(worker["pid"] or "-"),
                str(worker["restarts"]),
                "reads" if worker["ready"] else "starts",
            )
            for worker in status["workers"]
        ],
    )
    yield Table(
        "questions",
        ("received", "answered", "in flight", "hit ratio", "cache entries", "cache bytes"),
        [
            (
                str(sum(questions["received"].values())),
                str(sum(questions["answered"].values())),
                str(questions["in_flight"]),
                percent(cache["hit_ratio"]),
                str(cache["entries"]),
                str(cache["bytes"]),
            )
        ],
    )
    rcodes = [(name, str(count)) for name, count in questions["rcodes"].items()]
    if rcodes:
        yield Table("answers", ("rcode", "count"), rcodes)
    dropped = [(name, str(count)) for name, count in questions["dropped"].items() if count]
    if dropped:
        yield Table("dropped", ("reason", "count"), dropped)


def findings(status: dict[str, Any], not_ready: Sequence[str]) -> list[str]:
    """What somebody should look at, one line each."""
    found = [f"not ready: {reason}" for reason in not_ready]
    if status["config"]["error"]:
        found.append(f"the configuration file is wrong, an older one serves: {status['config']['error']}")
    found += [
        f"upstream {upstream['address']} for {upstream['zone']} is down"
        for upstream in status["dns"]["upstreams"]
        if upstream["state"] == "down"
    ]
    return found


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened per second between two statuses; `p99_ms` is an upper bound (histogram buckets)."""

    questions: float
    answers: float
    hit_ratio: float | None
    upstream_asked: float
    servfail: float
    nxdomain: float
    p99_ms: float | None
    in_flight: int


def rates(before: dict[str, Any], after: dict[str, Any]) -> Rates:
    """`after` less `before`, by their uptimes."""
    seconds = max(after["uptime_seconds"] - before["uptime_seconds"], 0.1)
    old, new = before["dns"], after["dns"]

    def per_second(*path: str) -> float:
        return max(_total(new, path) - _total(old, path), 0.0) / float(seconds)

    before_by_source = old["questions"]["sources"]
    sources = {name: count - before_by_source[name] for name, count in new["questions"]["sources"].items()}
    hits = sources["cache"] + sources["stale"]
    asked = hits + sources["upstream"]
    return Rates(
        per_second("questions", "received"),
        per_second("questions", "answered"),
        hits / asked if asked > 0 else None,
        per_second("upstream", "asked"),
        per_second("questions", "rcodes", "SERVFAIL"),
        per_second("questions", "rcodes", "NXDOMAIN"),
        _quantile_ms(old["latency"], new["latency"], 0.99),
        new["questions"]["in_flight"],
    )


def rates_row(found: Rates) -> tuple[str, ...]:
    """One line of `sidestep top`, in the order of RATES_HEAD."""
    return (
        f"{found.questions:.0f}",
        f"{found.answers:.0f}",
        percent(found.hit_ratio),
        f"{found.upstream_asked:.0f}",
        f"{found.nxdomain:.0f}",
        f"{found.servfail:.0f}",
        milliseconds(found.p99_ms),
        str(found.in_flight),
    )


RATES_HEAD = ("questions/s", "answers/s", "hits", "upstream/s", "NXDOMAIN/s", "SERVFAIL/s", "p99 <", "in flight")


def plain(table: Table) -> str:
    """A table as aligned columns."""
    lines = [table.head, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    aligned = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join([table.title, *(f"  {line.rstrip()}" for line in aligned)])


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"


def percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def drops(address: str, questions: dict[str, Any]) -> str:
    return str(questions["kernel_drops"].get(address, 0))


def _total(dns: dict[str, Any], path: Sequence[str]) -> float:
    value: Any = dns
    for key in path:
        value = value.get(key, 0)
    return float(sum(value.values()) if isinstance(value, dict) else value)


def _quantile_ms(old: dict[str, Any], new: dict[str, Any], quantile: float) -> float | None:
    counts = [after - before for before, after in zip(old["counts"], new["counts"], strict=True)]
    wanted = quantile * sum(counts)
    if not wanted:
        return None
    running = 0
    for bound, count in zip(new["bounds_seconds"], counts, strict=False):
        running += count
        if running >= wanted:
            return float(bound * 1000)
    return float(new["bounds_seconds"][-1] * 1000)
