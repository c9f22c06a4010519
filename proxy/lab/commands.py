"""`sidestep lab`: what is typed, and exit status 0 fine, 1 an expectation failed, 2 cannot run, 130 interrupted."""

import contextlib
import errno
import json
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from proxy.lab.outcome import MODES, Mode
from proxy.lab.tools import Unavailable

FAILED, CANNOT_RUN, INTERRUPTED = 1, 2, 130

_MODES: dict[str, tuple[Mode, ...]] = {"iptables": ("iptables",), "nftables": ("nftables",), "both": MODES}
_F = TypeVar("_F", bound=Callable[..., Any])

_DIRECTORY = click.Path(path_type=Path, file_okay=False)

_mode = click.option(
    "--mode", type=click.Choice(list(_MODES)), default="both", show_default=True, help="Of kube-proxy."
)
_output = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="For people or for programs."
)


def _choices(command: _F) -> _F:
    """The options of all that runs scenarios."""
    for option in (
        click.option("--report", type=_DIRECTORY, metavar="DIR", help="Write a page with drawings there."),
        _output,
        click.option("--times", type=click.IntRange(1, 100), default=1, help="Run each so often."),
        click.option("--short", is_flag=True, help="A few seconds each, as the tests do."),
        _mode,
    ):
        command = option(command)
    return command


class _Lab(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        from proxy.lab.scenario import UnknownScenario

        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):  # they are RuntimeErrors
            raise
        except (Unavailable, UnknownScenario, RuntimeError) as error:
            click.echo(f"sidestep: {error}", err=True)
            sys.exit(CANNOT_RUN)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ENOSPC):  # others know what to say of these
                raise
            click.echo(f"sidestep: {error}", err=True)
            sys.exit(CANNOT_RUN)


@click.group(cls=_Lab, invoke_without_command=True)
@_choices
@click.option("--cleanup", is_flag=True, help="Remove what earlier runs left, and end.")
def lab(cleanup: bool, **choices: Any) -> None:
    """A small cluster in network namespaces: how the real kube-proxy loses UDP, then the same with Sidestep.

    Without a command every scenario runs. Needs root; `make testbed` builds kube-proxy and the API server.
    """
    context = click.get_current_context()
    # Both sides of a command's name are the same to people; a shell has one mode, so `both` is no word for it.
    one_mode = {} if choices["mode"] == "both" else {"mode": choices["mode"]}
    context.default_map = {"run": choices, "list": {"output": choices["output"]}, "shell": one_mode}
    if cleanup:
        from proxy.lab.namespaces import cleanup as clean

        if not clean(lambda line: click.echo(line, err=True)):
            click.echo("nothing was left", err=True)
        context.exit()
    if context.invoked_subcommand is None:
        _play((), **choices)


@lab.command("run")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_choices
def run_some(names: tuple[str, ...], **choices: Any) -> None:
    """Run the named scenarios."""
    _play(names, **choices)


@lab.command("list")
@_output
def list_all(output: str) -> None:
    """The scenarios, with what happens in production."""
    from proxy.lab.output import scenario_list
    from proxy.lab.scenarios import chosen

    scenarios = chosen(())
    if output == "json":
        click.echo(json.dumps(scenario_list(scenarios), indent=2))
        return
    width = max((len(scenario.name) for scenario in scenarios), default=0)
    for scenario in scenarios:
        click.echo(f"{scenario.name.ljust(width)}  {scenario.title} ({scenario.source})")


@lab.command()
@click.option("--mode", type=click.Choice(MODES), default="nftables", show_default=True, help="Of kube-proxy.")
def shell(mode: Mode) -> None:
    """Bring a cluster up, leave it up, and print the commands to enter it; `lab --cleanup` takes it down."""
    from proxy.lab import output as outputs
    from proxy.lab.shell import bring_up

    try:
        with outputs.progress() as say, _interruptible(say):
            lines = bring_up(mode, say)
    except KeyboardInterrupt:
        _end_interrupted()
    for line in lines:
        click.echo(line)


def _play(names: Sequence[str], *, mode: str, short: bool, times: int, output: str, report: Path | None) -> None:
    """Run, print, and exit. What was finished before an interruption or a failure is reported and printed too."""
    from proxy.lab import output as outputs
    from proxy.lab import report as reports
    from proxy.lab.cluster import Cluster, running
    from proxy.lab.scenario import Result, Verdict
    from proxy.lab.scenarios import chosen
    from proxy.lab.session import play

    scenarios = chosen(names)
    if report is not None:
        with _reporting(report):
            reports.prepare(report)
    results: list[Result] = []
    proxies: dict[str, None] = {}

    def seen(cluster: Cluster) -> None:
        proxies[cluster.kube_proxy.what] = None

    interrupted = False
    ended_by: Exception | None = None
    with outputs.progress() as say:
        try:
            with _interruptible(say):
                found = play(scenarios, _MODES[mode], short=short, times=times, say=say, running=running, seen=seen)
                with contextlib.closing(found):
                    for result in found:
                        results.append(result)
        except KeyboardInterrupt:
            interrupted = True
        except (Unavailable, RuntimeError, OSError) as error:
            if not results:
                raise
            ended_by = error
    results.sort(key=lambda result: (scenarios.index(result.scenario), result.mode))
    surroundings = outputs.Surroundings(platform.release(), ", ".join(proxies) or "no kube-proxy ran")
    if report is not None:  # first: whoever reads the rest may be gone
        with _reporting(report):
            written = reports.write(report, results, surroundings)
    if output == "json":
        click.echo(json.dumps(outputs.as_json(results, surroundings), indent=2))
    else:
        outputs.print_results(results, surroundings)
    if report is not None:
        click.echo(f"report: {written}", err=True)
    if interrupted:
        _end_interrupted()
    if ended_by is not None:
        raise ended_by
    if any(result.verdict is Verdict.FAILED for result in results):
        sys.exit(FAILED)
    if results and all(result.verdict is Verdict.SKIPPED for result in results):
        sys.exit(CANNOT_RUN)


def _end_interrupted() -> NoReturn:
    click.echo("interrupted; everything is taken down", err=True)
    sys.exit(INTERRUPTED)


@contextlib.contextmanager
def _reporting(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot write the report to {directory}: {error.strerror}") from error


@contextlib.contextmanager
def _interruptible(say: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM interrupts; further ones would only stop the taking down."""

    def interrupt(number: int, frame: object) -> None:
        for same in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(same, signal.SIG_IGN)
        say("interrupted: taking everything down")
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
