"""What people and programs get from the lab: a line per step, the table with its notes, JSON."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

import click
import msgspec

from proxy.lab.outcome import Outcome
from proxy.lab.scenario import Result, Scenario, Verdict

if TYPE_CHECKING:
    from rich.console import Console

HEAD = ("scenario", "mode", "path", "sent", "delivered", "misdelivered", "lost", "worst outage", "verdict")
_LEFT = {"scenario", "mode", "path", "verdict"}
_NAMES = {"kube-proxy": "kube-proxy", "sidestep": "Sidestep"}
_COLOURS = {
    Verdict.AS_EXPECTED: "green",
    Verdict.NOT_SHOWN: "yellow",
    Verdict.SKIPPED: "yellow",
    Verdict.FAILED: "red",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the results were made on and with."""

    kernel: str
    kube_proxy: str
    """`kube-proxy v1.36.3`, or that its rules were written by the lab."""


def rows(results: Iterable[Result]) -> Iterator[tuple[str, ...]]:
    """Two rows for each result, the second with Sidestep's figures; one for a result without any."""
    for result in results:
        head: tuple[str, ...] = result.scenario.name, result.mode
        verdict = result.verdict.value
        if not result.outcomes:
            yield (*head, "-", "-", "-", "-", "-", "-", verdict)
        for path, outcome in result.outcomes.items():
            yield (*head, _NAMES[path], *_figures(outcome), verdict)
            head, verdict = ("", ""), ""


def _shown(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _figures(outcome: Outcome) -> tuple[str, ...]:
    counts = outcome.sent, outcome.delivered, outcome.misdelivered, outcome.lost
    return (*(f"{count:,}" for count in counts), f"{outcome.worst_outage_ms:,.0f} ms")


def remarks(results: Iterable[Result]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """For each result that has any: its name, and what the table has no column for."""
    for result in results:
        said = list(result.reasons)
        for path, outcome in result.outcomes.items():
            told = [f"{name} {_shown(number)}" for name, number in outcome.figures.items()]
            told += [f"{outcome.late:,} were kept and came late"] if outcome.late else []
            told += outcome.notes
            said += [f"{_NAMES[path]}: {'; '.join(told)}"] if told else []
        if said:
            yield f"{result.scenario.name} ({result.mode})", tuple(said)


def summary(results: Sequence[Result]) -> str:
    """`12 as expected, 1 failed`."""
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "nothing was run"


def plain(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Columns aligned by spaces: numbers to the right."""
    table = [head, *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if name in _LEFT else cell.rjust(width)
            for cell, width, name in zip(line, widths, head, strict=True)
        ).rstrip()
        for line in table
    )


def print_results(results: Sequence[Result], surroundings: Surroundings, out: IO[str] | None = None) -> None:
    """The table, then the remarks, with colours on a terminal."""
    out = out or sys.stdout
    made_with = f"{surroundings.kube_proxy}, Linux {surroundings.kernel}"
    if not results:
        click.echo(summary(results), file=out)
    elif not out.isatty():
        click.echo(plain(HEAD, rows(results)), file=out)
        for name, said in remarks(results):
            click.echo("\n".join([f"\n{name}", *(f"  {line}" for line in said)]), file=out)
        click.echo(f"\n{summary(results)}; {made_with}", file=out)
    else:
        _print_drawn(results, made_with, out)


def _print_drawn(results: Sequence[Result], made_with: str, out: IO[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    for name in HEAD:
        justify: Literal["left", "right"] = "left" if name in _LEFT else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name != "scenario")
    for row in rows(results):
        *cells, verdict = row
        lost = [Text(cell, "red" if at in (5, 6) and cell not in ("0", "-") else "") for at, cell in enumerate(cells)]
        table.add_row(*lost, Text(verdict, _COLOURS[Verdict(verdict)] if verdict else ""))
    if console.measure(table, options=console.options.update(width=1000)).maximum <= console.width:
        console.print(table)
    else:
        _print_narrow(results, console)
    for name, said in remarks(results):
        console.print(f"[bold]{escape(name)}[/bold]")
        for line in said:
            console.print(Text(f"  {line}"))
    console.print(Text(f"\n{summary(results)}; {made_with}"))


def _print_narrow(results: Iterable[Result], console: "Console") -> None:
    """The same where a table has no room: scenario, mode and verdict on a line above their figures."""
    from rich.text import Text

    found = list(rows(results))
    head, *figures = plain(HEAD[2:8], [row[2:8] for row in found]).splitlines()
    console.print(Text(f"  {head}", "bold"))
    for (name, mode, *_, verdict), line in zip(found, figures, strict=True):
        if name:
            console.print(Text.assemble(f"{name} ({mode}): ", (verdict, _COLOURS[Verdict(verdict)])))
        console.print(Text(f"  {line}"))


def as_json(results: Iterable[Result], surroundings: Surroundings) -> dict[str, Any]:
    """For programs: what the table and the remarks say, with the timelines."""
    return {
        "kernel": surroundings.kernel,
        "kube_proxy": surroundings.kube_proxy,
        "results": [
            {
                "scenario": result.scenario.name,
                "title": result.scenario.title,
                "source": result.scenario.source,
                "mode": result.mode,
                "verdict": result.verdict.value,
                "reasons": list(result.reasons),
                "paths": {
                    path: {**msgspec.to_builtins(outcome), "lost": outcome.lost}
                    for path, outcome in result.outcomes.items()
                },
            }
            for result in results
        ],
    }


def scenario_list(scenarios: Iterable[Scenario]) -> list[dict[str, Any]]:
    """What `lab list` says, for programs."""
    return [
        {
            "scenario": scenario.name,
            "title": scenario.title,
            "story": scenario.story,
            "source": scenario.source,
            "modes": list(scenario.modes),
        }
        for scenario in scenarios
    ]


@contextmanager
def progress(out: IO[str] | None = None) -> Iterator[Callable[[str], None]]:
    """What to call with each step: a line each, on a terminal above a spinner."""
    out = out or sys.stderr
    if not out.isatty():
        yield lambda step: click.echo(step, file=out)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out)
    with console.status("Ctrl-C takes everything down"):
        yield lambda step: console.print(Text(step, "dim"))
