"""The page for people: one HTML document made from the status, no scripts, nothing fetched from elsewhere."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from proxy.control.text import kernel_drops

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


def page(status: dict[str, Any], not_ready: dict[str, str], rates: Sequence[float]) -> str:
    """The whole document; `not_ready` has a reason by listener, `rates` the last answers per second."""
    dns, config = status["dns"], status["config"]
    questions, cache, relays = dns["questions"], dns["cache"], status["udp"]
    verdict = _mark("ready", good=True) if not not_ready else _mark("not ready", good=False)
    lost = sum(questions["dropped"].values()) + sum(kernel_drops(status).values())
    lost += sum(sum(relay["ledger"]["dropped"].values()) for relay in relays)
    heading = f"{escape(status['version'])}, up {_duration(status['uptime_seconds'])}"
    figures = {
        "questions": f"{sum(questions['received'].values()):,}",
        "answered from cache": "-" if cache["hit_ratio"] is None else f"{cache['hit_ratio']:.1%}",
        "in flight": f"{questions['in_flight']:,}",
        "dropped": f"{lost:,}",
        "cache entries": f"{cache['entries']:,}",
        "cache": _size(cache["bytes"]),
        "lines received": f"{sum(relay['ledger']['received'] for relay in relays):,}",
        "folded": f"{sum(relay['ledger']['folded'] for relay in relays):,}",
    }
    parts = [
        f"<h1>Sidestep {verdict} <small>{heading}</small></h1>",
        '<div class="figures">',
        *(f"<div><b>{value}</b>{name}</div>" for name, value in figures.items()),
        "</div>",
        _curve(rates),
    ]
    if config["error"]:
        parts.append(
            f"<p>{_mark('The configuration file is wrong', good=False)}; an older one serves. "
            f"<code>{escape(config['error'])}</code></p>"
        )
    parts += [f"<p>{escape(note)}</p>" for note in status["watch"]["notes"]]
    parts += _table(
        "Listeners",
        ("address", "over", "state"),
        [
            (
                _code(listener["address"]),
                transport,
                _listener(not_ready.get(f"{listener['address']}/{transport}"))
                if transport != "unixgram"
                else "is read",
            )
            for listener in status["listeners"]
            for transport in listener["transports"]
        ],
    )
    for relay in relays:
        parts += _relay(relay)
    parts += _table(
        "Upstreams",
        ("zone", "address", "state", "round trip"),
        [
            (
                _code(upstream["zone"]),
                _code(upstream["address"]),
                _mark(upstream["state"], good=upstream["state"] == "up"),
                "-" if upstream["rtt_ms"] is None else f"{upstream['rtt_ms']:.1f} ms",
            )
            for upstream in dns["upstreams"]
        ],
    )
    parts += _table(
        "Workers",
        ("role", "pid", "restarts", "state"),
        [
            (
                worker["role"],
                str(worker["pid"] or "-"),
                str(worker["restarts"]),
                _mark("reads" if worker["ready"] else "starts", good=worker["ready"]),
            )
            for worker in status["workers"]
        ],
    )
    parts += _table(
        "Answers", ("rcode", "count"), [(name, f"{count:,}") for name, count in questions["rcodes"].items()]
    )
    parts.append(
        '<p>More: <a href="/status.json">status.json</a> · <a href="/metrics">metrics</a> · '
        '<a href="/readyz">readyz</a> · <code>sidestep status</code></p>'
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sidestep</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="5">'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _relay(relay: dict[str, Any]) -> Iterator[str]:
    """What a relay did with its lines, to whom, and what it holds back: there a developer sees what was sent."""
    counts, name = relay["ledger"], escape(relay["name"])
    fates = [(fate, f"{counts[fate]:,}") for fate in ("received", "forwarded", "folded")]
    fates += [(f"dropped: {escape(reason)}", f"{count:,}") for reason, count in counts["dropped"].items()]
    yield from _table(f"Relay {name}: lines", ("what became of them", "count"), fates)
    yield from _table(
        f"Relay {name}: endpoints",
        ("address", "state"),
        [
            (_code(endpoint["address"]), _mark(endpoint["state"], good=endpoint["state"] in ("ready", "serving")))
            for endpoint in relay["endpoints"]
        ],
    )
    yield from _table(
        f"Relay {name}: folded until there is an endpoint",
        ("name", "value", "as", "lines"),
        [
            (_code(value["name"]), _code(value["value"]), _code(value["suffix"]), f"{value['lines']:,}")
            for value in reversed(relay["fold"]["values"])
        ],
    )
    yield from _table(
        f"Relay {name}: the last malformed lines", ("line",), [(_code(line),) for line in relay["malformed"]]
    )


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


def _table(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Cells are HTML already."""
    if not rows:
        return []
    return [
        f"<h2>{title}</h2><table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>",
        *(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows),
        "</table>",
    ]


def _listener(failure: str | None) -> str:
    return _mark("answers", good=True) if failure is None else _mark(failure, good=False)


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
