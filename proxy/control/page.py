"""The page for people: one HTML document made from the status, no scripts, nothing fetched from elsewhere."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from proxy.control.text import kernel_drops, milliseconds, percent

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1rem; margin-top: 2rem } h1 small { font-weight: normal; opacity: .6 }
table { border-collapse: collapse; width: 100% } th { text-align: left; font-weight: normal; opacity: .6 }
td, th { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line) }
td { font-variant-numeric: tabular-nums } code { font-size: .95em }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1rem 0 }
.figures b { display: block; font-size: 1.5rem }
svg { width: 100%; height: 4rem } svg + p { margin-top: 0; opacity: .6 }
.up { color: light-dark(#176f2c, #5fd37a) } .down { color: light-dark(#b3261e, #ff8a80) }
"""
_MORE = (
    '<p>More: <a href="/status.json">status.json</a> · <a href="/metrics">metrics</a> · '
    '<a href="/readyz">readyz</a> · <code>sidestep status</code></p>'
)


def page(status: dict[str, Any], not_ready: dict[str, str], rates: Sequence[float]) -> str:
    """The whole document.

    `not_ready` has a reason by listener, and under `endpoints` why none are known; `rates` has the answers per
    second, the newest last.
    """
    parts = (
        _heading(status, ready=not not_ready),
        _figures(status),
        _curve(rates),
        *_notices(status, not_ready.get("endpoints")),
        _listeners(status["listeners"], not_ready),
        *(_relay(relay) for relay in status["udp"]),
        _upstreams(status["dns"]["upstreams"]),
        _workers(status["workers"]),
        _answers(status["dns"]["questions"]["rcodes"]),
        _MORE,
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sidestep</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="5">'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _heading(status: dict[str, Any], *, ready: bool) -> str:
    verdict = _mark("ready" if ready else "not ready", good=ready)
    run = f"{escape(status['version'])}, up {_duration(status['uptime_seconds'])}"
    return f"<h1>Sidestep {verdict} <small>{run}</small></h1>"


def _figures(status: dict[str, Any]) -> str:
    """The numbers to see at a glance; `dropped` is all that went nowhere, by the kernel or by us."""
    questions, cache, relays = status["dns"]["questions"], status["dns"]["cache"], status["udp"]
    lost = sum(questions["dropped"].values()) + sum(kernel_drops(status).values())
    lost += sum(sum(relay["ledger"]["dropped"].values()) for relay in relays)
    figures = {
        "questions": f"{sum(questions['received'].values()):,}",
        "answered from cache": percent(cache["hit_ratio"]),
        "in flight": f"{questions['in_flight']:,}",
        "dropped": f"{lost:,}",
        "cache entries": f"{cache['entries']:,}",
        "cache": _size(cache["bytes"]),
        "lines received": f"{sum(relay['ledger']['received'] for relay in relays):,}",
        "folded": f"{sum(relay['ledger']['folded'] for relay in relays):,}",
    }
    shown = (f"<div><b>{value}</b>{name}</div>" for name, value in figures.items())
    return f'<div class="figures">{"".join(shown)}</div>'


def _notices(status: dict[str, Any], no_endpoints: str | None) -> Iterator[str]:
    """What no table has."""
    if error := status["config"]["error"]:
        yield (
            f"<p>{_mark('The configuration file is wrong', good=False)}; an older one serves. "
            f"<code>{escape(error)}</code></p>"
        )
    if no_endpoints is not None:
        yield f"<p>{_mark('No endpoints are known', good=False)}: {escape(no_endpoints)}</p>"
    for note in status["watch"]["notes"]:
        yield f"<p>{escape(note)}</p>"


def _listeners(listeners: Sequence[dict[str, Any]], not_ready: dict[str, str]) -> str:
    def state(address: str, transport: str) -> str:
        if transport == "unixgram":
            return "is read"
        failure = not_ready.get(f"{address}/{transport}")
        return _mark("answers" if failure is None else failure, good=failure is None)

    return _table(
        "Listeners",
        ("address", "over", "state"),
        [
            (_code(listener["address"]), transport, state(listener["address"], transport))
            for listener in listeners
            for transport in listener["transports"]
        ],
    )


def _relay(relay: dict[str, Any]) -> str:
    """What a relay did with its lines, to whom, and what it holds back: there a developer sees what was sent."""
    counts, name = relay["ledger"], escape(relay["name"])
    fates = [(fate, f"{counts[fate]:,}") for fate in ("received", "forwarded", "folded")]
    fates += [(f"dropped: {escape(reason)}", f"{count:,}") for reason, count in counts["dropped"].items()]
    tables = (
        _table(f"Relay {name}: lines", ("what became of them", "count"), fates),
        _table(
            f"Relay {name}: endpoints",
            ("address", "state"),
            [
                (_code(endpoint["address"]), _mark(endpoint["state"], good=endpoint["state"] in ("ready", "serving")))
                for endpoint in relay["endpoints"]
            ],
        ),
        _table(
            f"Relay {name}: folded until there is an endpoint",
            ("name", "value", "as", "lines"),
            [
                (_code(value["name"]), _code(value["value"]), _code(value["suffix"]), f"{value['lines']:,}")
                for value in reversed(relay["fold"]["values"])
            ],
        ),
        _table(f"Relay {name}: the last malformed lines", ("line",), [(_code(line),) for line in relay["malformed"]]),
    )
    return "".join(tables)


def _upstreams(upstreams: Sequence[dict[str, Any]]) -> str:
    return _table(
        "Upstreams",
        ("zone", "address", "state", "round trip"),
        [
            (
                _code(upstream["zone"]),
                _code(upstream["address"]),
                _mark(upstream["state"], good=upstream["state"] == "up"),
                milliseconds(upstream["rtt_ms"]),
            )
            for upstream in upstreams
        ],
    )


def _workers(workers: Sequence[dict[str, Any]]) -> str:
    return _table(
        "Workers",
        ("role", "pid", "restarts", "state"),
        [
            (
                worker["role"],
                str(worker["pid"] or "-"),
                str(worker["restarts"]),
                _mark("reads" if worker["ready"] else "starts", good=worker["ready"]),
            )
            for worker in workers
        ],
    )


def _answers(rcodes: dict[str, int]) -> str:
    return _table("Answers", ("rcode", "count"), [(name, f"{count:,}") for name, count in rcodes.items()])


def _curve(rates: Sequence[float]) -> str:
    """Answers per second as a line, the newest on the right."""
    highest = max(rates, default=0.0)
    if len(rates) < 2 or not highest:
        return ""
    points = " ".join(
        f"{600 * number / (len(rates) - 1):.1f},{58 - 56 * rate / highest:.1f}" for number, rate in enumerate(rates)
    )
    return (
        f'<svg viewBox="0 0 600 60" preserveAspectRatio="none" role="img" aria-label="answers per second">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" vector-effect="non-scaling-stroke"/></svg>'
        f"<p>answers per second in the last {len(rates)} s: now {rates[-1]:,.0f}, at most {highest:,.0f}</p>"
    )


def _table(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Empty without rows. Title and cells are HTML already."""
    if not rows:
        return ""
    heads = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{heads}</tr>{lines}</table>"


def _mark(text: str, *, good: bool) -> str:
    return f'<span class="{"up" if good else "down"}">{escape(text)}</span>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
