"""One page for people: the table, and for each scenario what happened when, as a drawing. Nothing is fetched."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryFile

from proxy.lab.outcome import BIN_MS, PATHS, Outcome, Timeline
from proxy.lab.output import HEAD, Surroundings, remarks, rows, summary
from proxy.lab.scenario import Result, Verdict

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent);
  --good: light-dark(#2a78b8, #5aa9e6); --bad: light-dark(#c43d2b, #ff8a75) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 3rem 0 .25rem } h2 small { font-weight: normal; opacity: .6 }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: normal; opacity: .6 }
td, th { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }
td { font-variant-numeric: tabular-nums } .number { text-align: right }
.failed { color: var(--bad) } .skipped, .unseen { opacity: .6 }
p { max-width: 48rem } .said { opacity: .75; margin: .25rem 0 } a { color: inherit }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif } svg text { fill: currentColor }
.delivered { fill: var(--good) } .misdelivered { fill: var(--bad) }
.sent { fill: none; stroke: currentColor; stroke-opacity: .55; stroke-dasharray: 2 2 }
.axis { stroke: currentColor; stroke-opacity: .35 } .mark { stroke: currentColor; stroke-opacity: .5 }
.faint { opacity: .7 }
.key { display: inline-block; width: .8rem; height: .8rem; margin: 0 .35rem 0 1rem; vertical-align: -.1rem }
"""
_CLASSES = {Verdict.FAILED: "failed", Verdict.SKIPPED: "skipped", Verdict.NOT_SHOWN: "unseen"}

_KEY = (
    f'<p class="said">In the drawings, per {BIN_MS} ms: <i class="key" style="background:var(--good)"></i>delivered'
    '<i class="key" style="background:var(--bad)"></i>misdelivered, each when it arrived; dashed: sent. '
    "A bar that would be too high has its count beside it.</p>"
)
_WIDTH, _LEFT, _RIGHT = 960, 44, 8
_PANEL, _GAP, _MARKS = 84, 26, 13
_ROOM = 2.0
"""A panel is so many times as high as the most that was sent in 100 ms."""
_NAMES = {"kube-proxy": "through kube-proxy", "sidestep": "through Sidestep"}


def prepare(directory: Path) -> None:
    """Make the directory where needed, and see that files can be made there. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=directory).close()


def write(directory: Path, results: Sequence[Result], surroundings: Surroundings) -> Path:
    """`index.html` in the directory, which is made where needed. Returns its path; raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "index.html"
    path.write_text(page(results, surroundings), encoding="utf-8")
    return path


def page(results: Sequence[Result], surroundings: Surroundings) -> str:
    """The whole document."""
    said = dict(remarks(results))
    parts = [
        "<h1>UDP through kube-proxy and through Sidestep</h1>",
        f"<p>{escape(summary(results))}. {escape(surroundings.kube_proxy)}, Linux {escape(surroundings.kernel)}.</p>",
        "<p>Each scenario sends the same traffic through the same fault on both paths.</p>",
        *_table(results),
        _KEY,
    ]
    for result in results:
        name = f"{result.scenario.name} ({result.mode})"
        parts += [
            _heading(result, name),
            f"<p>{escape(result.scenario.story)} ({escape(result.scenario.source)})</p>",
            drawing(result),
            *(f'<p class="said">{escape(line)}</p>' for line in said.get(name, ())),
        ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>sidestep lab</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _heading(result: Result, name: str) -> str:
    verdict = f'<span class="{_CLASSES.get(result.verdict, "")}">{result.verdict}</span>'
    return f"<h2>{escape(result.scenario.title)} <small>{escape(name)}, {verdict}</small></h2>"


def _table(results: Sequence[Result]) -> Iterator[str]:
    numbers = HEAD[3:8]
    yield '<div class="wide"><table><tr>'
    yield from (f"<th{_number(name in numbers)}>{name}</th>" for name in HEAD)
    yield "</tr>"
    classes = {result.verdict.value: _CLASSES.get(result.verdict, "") for result in results}
    for row in rows(results):
        yield "<tr>"
        for name, cell in zip(HEAD, row, strict=True):
            if name == "verdict":
                yield f'<td class="{classes.get(cell, "")}">{escape(cell)}</td>'
            else:
                bad = name in ("misdelivered", "lost") and cell not in ("0", "-")
                yield f"<td{_number(name in numbers, bad)}>{escape(cell)}</td>"
        yield "</tr>"
    yield "</table></div>"


def _number(is_one: bool, is_bad: bool = False) -> str:
    return f' class="number{" failed" if is_bad else ""}"' if is_one else ""


def drawing(result: Result) -> str:
    """Both paths on one axis of time, one above the other; nothing where no path has a timeline."""
    drawn = [(path, result.outcomes[path]) for path in PATHS if path in result.outcomes]
    lines = [(path, outcome, outcome.timeline) for path, outcome in drawn if outcome.timeline]
    if not lines:
        return ""
    bins = max(len(line.sent) for _, _, line in lines)
    fastest = max(max(line.sent) for _, _, line in lines)
    parts: list[str] = []
    top = 0
    for path, _, line in lines:
        top += _GAP + _MARKS * len(line.marks)
        parts += _panel(_NAMES[path], line, top, bins, fastest)
        top += _PANEL
    label = "; ".join(f"{_NAMES[path]}: {_words(outcome)}" for path, outcome, _ in lines)
    parts += _axis(top, bins)
    return f'<svg viewBox="0 0 {_WIDTH} {top + 22}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _words(outcome: Outcome) -> str:
    return (
        f"{outcome.delivered} of {outcome.sent} delivered, {outcome.misdelivered} misdelivered, {outcome.lost} lost"
    )


def _panel(name: str, line: Timeline, top: int, bins: int, fastest: int) -> Iterator[str]:
    step = (_WIDTH - _LEFT - _RIGHT) / bins
    bottom = top + _PANEL

    def height(count: int) -> float:
        # A fold that is released is far more at once than is ever sent, and must leave the rest in sight.
        return min(_PANEL, _PANEL / _ROOM * count / fastest)

    yield f'<text x="{_LEFT}" y="{top - 8 - _MARKS * len(line.marks)}">{name}</text>'
    level = bottom - height(fastest)
    yield f'<text x="{_LEFT - 5}" y="{level + 4:.1f}" text-anchor="end" class="faint">{fastest:,}</text>'
    yield f'<path class="axis" d="M{_LEFT} {bottom}H{_WIDTH - _RIGHT}"/>'
    for at, (delivered, misdelivered) in enumerate(zip(line.delivered, line.misdelivered, strict=True)):
        x, both = _LEFT + at * step, height(delivered + misdelivered)
        if misdelivered:
            yield _bar("misdelivered", x, bottom - both, step, both - height(delivered))
        if delivered:
            yield _bar("delivered", x, bottom - height(delivered), step, height(delivered))
        if (count := delivered + misdelivered) > _ROOM * fastest:
            yield f'<text x="{x + step + 3:.1f}" y="{top + 10}">{count:,}</text>'
    path = "".join(f"V{bottom - height(count):.1f}h{step:.2f}" for count in line.sent)
    yield f'<path class="sent" d="M{_LEFT} {bottom}{path}"/>'
    for row, (at_ms, text) in enumerate(line.marks):
        x = _LEFT + min(max(at_ms / BIN_MS, 0.0), bins) * step
        y = top - _MARKS * (len(line.marks) - row) + 4
        side = f'x="{x + 3:.1f}"' if x < _WIDTH * 0.66 else f'x="{x - 3:.1f}" text-anchor="end"'
        yield f'<path class="mark" d="M{x:.1f} {y - 8}V{bottom}"/><text {side} y="{y}">{escape(text)}</text>'


def _bar(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.2f}" y="{y:.1f}" width="{max(0.5, width - 0.6):.2f}" height="{height:.1f}"/>'


def _axis(top: int, bins: int) -> Iterator[str]:
    seconds = bins * BIN_MS / 1000
    step = next(step for step in (1, 2, 5, 10, 30, 60, 300) if seconds / step <= 16 or step == 300)
    for second in range(0, int(seconds) + 1, step):
        x = _LEFT + second / seconds * (_WIDTH - _LEFT - _RIGHT)
        yield f'<path class="axis" d="M{x:.1f} {top}v4"/>'
        yield f'<text x="{x:.1f}" y="{top + 17}" text-anchor="middle" class="faint">{second} s</text>'
