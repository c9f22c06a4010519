"""What people read of a status: tables, what somebody should look at, and rates between two of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.core.counters import hit_ratio

MOST_VALUES = 20
"""Folded values that a table shows; `-o json` has more."""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text; each row has as many cells as `head`."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def status_tables(status: dict[str, Any]) -> Iterator[Table]:
    """The sections of `sidestep status`; empty ones are left out."""
    return (table for table in (*_of_the_run(status), *_of_dns(status["dns"]), *_of_relays(status)) if table.rows)


def _of_the_run(status: dict[str, Any]) -> Iterator[Table]:
    lost = kernel_drops(status)
    yield Table(
        f"sidestep {status['version']}, pid {status['pid']}, up {status['uptime_seconds']:.0f} s",
        ("listens on", "kernel drops"),
        [
            (f"{listener['address']} ({'+'.join(listener['transports'])})", str(lost.get(listener["address"], 0)))
            for listener in status["listeners"]
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
    yield Table("leases", ("listener", "state"), list(status["node"]["lease"].items()))
    watch = status["watch"]
    yield Table(
        "endpoints from",
        ("source", "heard", "version", "state"),
        [
            (
                watch.get("server") or watch["source"],
                "never" if watch["age_seconds"] is None else f"{watch['age_seconds']:.1f} s ago",
                watch["resource_version"] or "-",
                watch.get("error") or watch.get("state", "read"),
            )
        ]
        if watch["source"] != "none"
        else [],
    )


def _of_dns(dns: dict[str, Any]) -> Iterator[Table]:
    questions, cache = dns["questions"], dns["cache"]
    yield Table(
        "upstreams",
        ("zone", "address", "state", "round trip"),
        [
            (upstream["zone"], upstream["address"], upstream["state"], milliseconds(upstream["rtt_ms"]))
            for upstream in dns["upstreams"]
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
    yield Table("answers", ("rcode", "count"), [(name, str(count)) for name, count in questions["rcodes"].items()])
    dropped = [(name, str(count)) for name, count in questions["dropped"].items() if count]
    yield Table("dropped", ("reason", "count"), dropped)


def _addressee(relay: dict[str, Any]) -> str:
    if relay["service"]:
        return f"{relay['service']} {relay['port']}"
    return "nobody, all is folded" if relay["mode"] == "statsd" else "nobody, all is dropped"


def _of_relays(status: dict[str, Any]) -> Iterator[Table]:
    relays = status["udp"]
    yield Table(
        "relays",
        ("name", "to", "received", "forwarded", "folded", "dropped"),
        [
            (
                relay["name"],
                _addressee(relay),
                str(relay["ledger"]["received"]),
                str(relay["ledger"]["forwarded"]),
                str(relay["ledger"]["folded"]),
                ", ".join(f"{count} {reason}" for reason, count in relay["ledger"]["dropped"].items()) or "0",
            )
            for relay in relays
        ],
    )
    for relay in relays:
        yield Table(
            f"endpoints of {relay['name']}",
            ("address", "state", "longest datagram"),
            [
                (endpoint["address"], endpoint["state"], str(endpoint["limit_bytes"] or "-"))
                for endpoint in relay["endpoints"]
            ],
        )
        values = relay["fold"]["values"][-MOST_VALUES:]
        yield Table(
            f"folded by {relay['name']}, the last {len(values)} of {relay['fold']['lines']} lines",
            ("name", "value", "as", "lines"),
            [(value["name"], value["value"], value["suffix"], str(value["lines"])) for value in values],
        )
        yield Table(
            f"malformed lines to {relay['name']}, the last", ("line",), [(line,) for line in relay["malformed"]]
        )


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
    found += [
        f"endpoint {endpoint['address']} of {relay['name']} refuses and is left out for now"
        for relay in status["udp"]
        for endpoint in relay["endpoints"]
        if endpoint["state"] == "ejected"
    ]
    node = status["node"]
    found += [
        f"{listener} has no lease: the kernel sends its packets elsewhere"
        for listener, state in node["lease"].items()
        if state == "lost"
    ]
    if node.get("taken_over"):
        found.append(
            "another run has the kernel's part now: this one's listeners can't fail over; stop one of the two"
        )
    if node.get("draining"):
        found.append("drained: `sidestep undrain` lets it back into the path")
    if node.get("waiting_for"):
        found.append(f"{node['waiting_for']} still serves; remove it, and this one takes over (docs/migration.md)")
    if node.get("untracked"):
        found.append(untracked_advice(node["untracked"]))
    if node.get("error"):
        found.append(f"the kernel's set-up: {node['error']}")
    watch = status["watch"]
    if watch.get("error"):
        age = watch["age_seconds"]
        known = "no endpoints are known" if age is None else f"endpoints are those of {age:.0f} s ago"
        found.append(f"{known}: {watch['error']}")
    return [*found, *watch["notes"]]


def untracked_advice(names: Sequence[str]) -> str:
    """What iptables rules of another program do to these listeners, and what to do about it."""
    return (
        f"iptables rules in table raw, as NodeLocal DNSCache has them, keep packets to {', '.join(names)} untracked: "
        "they can't fail over; docs/migration.md says how to remove them"
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened per second between two statuses."""

    questions: float
    answers: float
    hit_ratio: float | None
    """Of the answers between the two; None if there were none."""
    upstream_asked: float
    servfail: float
    nxdomain: float
    p99_ms: float | None
    """The bound of the histogram's bucket that it is in; the last one stands for more, too."""
    in_flight: int
    """In the later one."""
    lines: float
    """Of all relays; in datagram mode a datagram is one."""
    forwarded: float
    lines_dropped: float


def rates(before: dict[str, Any], after: dict[str, Any]) -> Rates:
    """`after` less `before`, by their uptimes."""
    seconds = max(after["uptime_seconds"] - before["uptime_seconds"], 0.1)
    old, new = before["dns"], after["dns"]

    def per_second(*path: str) -> float:
        return max(_total(new, path) - _total(old, path), 0.0) / float(seconds)

    before_by_source = old["questions"]["sources"]
    sources = {name: count - before_by_source[name] for name, count in new["questions"]["sources"].items()}
    return Rates(
        per_second("questions", "received"),
        per_second("questions", "answered"),
        hit_ratio(sources),
        per_second("upstream", "asked"),
        per_second("questions", "rcodes", "SERVFAIL"),
        per_second("questions", "rcodes", "NXDOMAIN"),
        _quantile_ms(old["latency"], new["latency"], 0.99),
        new["questions"]["in_flight"],
        *(
            max(_lines(after, fate) - _lines(before, fate), 0) / float(seconds)
            for fate in ("received", "forwarded", "dropped")
        ),
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
        f"{found.lines:.0f}",
        f"{found.forwarded:.0f}",
        f"{found.lines_dropped:.0f}",
    )


RATES_HEAD = (
    *("questions/s", "answers/s", "hits", "upstream/s", "NXDOMAIN/s", "SERVFAIL/s", "p99 <", "in flight"),
    *("lines/s", "forwarded/s", "dropped/s"),
)


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


def kernel_drops(status: dict[str, Any]) -> dict[str, int]:
    """Datagrams that the kernel dropped, by listening address."""
    drops = dict(status["dns"]["questions"]["kernel_drops"])
    for relay in status["udp"]:
        drops |= relay["kernel_drops"]
    return drops


def _lines(status: dict[str, Any], fate: str) -> int:
    counts = [relay["ledger"][fate] for relay in status["udp"]]
    return sum(sum(count.values()) if isinstance(count, dict) else count for count in counts)


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
