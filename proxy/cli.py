"""The command `sidestep`. Exit status: 0 fine, 1 found something, 2 cannot run.

Each command imports what it needs, so that none waits for what another one does.
"""

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxy import __version__
from proxy.control.errors import CannotRun

if TYPE_CHECKING:
    from proxy.control.client import AdminClient
    from proxy.control.text import Table

_F = TypeVar("_F", bound=Callable[..., Any])

FOUND_SOMETHING = 1
CANNOT_RUN = 2

# Whether it can be read is found by who reads it, with advice.
_FILE = click.Path(path_type=Path, readable=False)


def _config_option(help_text: str) -> Callable[[_F], _F]:
    return click.option("--config", type=_FILE, metavar="FILE", help=help_text)


_config = _config_option("Configuration file; without one the defaults apply.")
_config_of_no_use = _config_option("Accepted, as by every command, and not read.")
_output = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="For people or for programs.",
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "lab"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "lab":
            return super().get_command(ctx, cmd_name)
        from proxy.lab.commands import lab

        return lab

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CannotRun as error:
            click.echo(f"sidestep: {error}", err=True)
            sys.exit(CANNOT_RUN)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            click.echo("sidestep: cannot write: the disk is full; make room or write elsewhere", err=True)
            sys.exit(CANNOT_RUN)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="sidestep %(version)s")
def main() -> None:
    """Node-local DNS cache and UDP proxy for Kubernetes, past conntrack's DNAT."""


@main.command()
@_config
@click.option("--log-format", type=click.Choice(["json", "text"]), help="Default: text on a terminal, else JSON.")
def run(config: Path | None, log_format: str | None) -> None:
    """Run the proxy until SIGTERM; without a file DNS on 127.0.0.1:5300 and [::1]:5300, StatsD on 127.0.0.1:8125."""
    # Until the loop takes them: nothing serves yet, and PID 1 of a container would ignore a SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from proxy import logs
    from proxy.control.service import serve

    chosen = log_format or logs.format_for(bool(sys.stderr and sys.stderr.isatty()))
    sys.exit(serve(config, "json" if chosen == "json" else "text"))


@main.command("check-config")
@click.argument("file", type=_FILE, required=False)
@_config_option("The same as FILE.")
def check_config(file: Path | None, config: Path | None) -> None:
    """Say what is wrong with FILE, one line an error: FILE:LINE:COLUMN: KEY: reason."""
    from proxy.settings import SettingsError, SettingsUnreadable, load

    path = file or config
    if path is None:
        raise click.UsageError("name the file to check")
    if file is not None and config is not None:
        raise click.UsageError("name one file, as FILE or with --config")
    try:
        load(path)
    except SettingsError as error:
        click.echo(str(error), err=True)
        sys.exit(FOUND_SOMETHING)
    except SettingsUnreadable as error:
        raise CannotRun(str(error)) from error
    click.echo(f"{path} is fine")


@main.command()
@_config_of_no_use
def schema(config: Path | None) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from proxy.settings import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
@_config
@_output
def status(config: Path | None, output: str) -> None:
    """How the running proxy is; exit status 1 when something needs a look."""
    from proxy.control.text import findings, status_tables

    client = _client(config)
    found, not_ready = client.status(), client.readiness()
    trouble = findings(found, not_ready)
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        _print_tables(status_tables(found))
        for line in trouble:
            click.echo(f"! {line}")
    sys.exit(FOUND_SOMETHING if trouble else 0)


@main.command()
@_config
@_output
@click.option("--count", type=click.IntRange(1), help="End after so many lines; else on Ctrl-C.")
def top(config: Path | None, output: str, count: int | None) -> None:
    """Rates of the running proxy, a line each second."""
    import msgspec

    from proxy.control.text import RATES_HEAD, rates, rates_row

    client = _client(config)
    widths = [len(name) for name in RATES_HEAD]
    try:
        before = client.status()
        if output == "text":
            click.echo("  ".join(RATES_HEAD))
        while count is None or count > 0:
            time.sleep(1)
            after = client.status()
            found = rates(before, after)
            if output == "json":
                click.echo(json.dumps(msgspec.to_builtins(found)))
            else:
                cells = zip(rates_row(found), widths, strict=True)
                click.echo("  ".join(cell.rjust(width) for cell, width in cells))
            before = after
            count = None if count is None else count - 1
    except KeyboardInterrupt:
        pass


@main.command()
@_config
@_output
@click.argument("name", required=False)
@click.argument("qtype", metavar="[TYPE]", default="A")
@click.option("--statsd", metavar="LINE", help="A StatsD line in place of NAME: where would it go?")
def explain(config: Path | None, output: str, name: str | None, qtype: str, statsd: str | None) -> None:
    """Ask NAME through the running proxy and print each step."""
    if (name is None) == (statsd is None):
        raise click.UsageError("give either NAME or --statsd LINE")
    client = _client(config)
    answer = client.explain_statsd(statsd) if statsd is not None else client.explain(str(name), qtype.upper())
    if output == "json":
        click.echo(json.dumps(answer, indent=2))
    elif statsd is not None:
        for relay in answer["relays"]:
            for step in relay["steps"]:
                click.echo(f"{relay['name']}: {step}")
    else:
        for step in answer["steps"]:
            click.echo(step)
        for record in answer["records"]:
            click.echo(f"  {record}")


@main.command()
@_config
@_output
@click.option("--delete", is_flag=True, help="Delete exactly the flows that are listed.")
@click.option("--watch", is_flag=True, help="Look again and again; without --delete only say what would be deleted.")
@click.option("--every", default="10s", show_default=True, metavar="DURATION", help="With --watch: how often.")
@click.option(
    "--textfile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --watch: metrics, for node_exporter.",
)
@click.option(
    "--service-cidr",
    multiple=True,
    metavar="CIDR",
    help="Where ClusterIPs lie, for an API server older than 1.33 that may be asked for all Services.",
)
def conntrack(
    config: Path | None,
    output: str,
    delete: bool,
    watch: bool,
    every: str,
    textfile: Path | None,
    service_cidr: tuple[str, ...],
) -> None:
    """UDP flows whose target is no current endpoint of their Service; exit status 1 when there are any."""
    import asyncio
    from ipaddress import ip_network

    from proxy.settings.units import parse_duration

    try:
        ranges = [ip_network(text) for text in service_cidr]
        seconds = parse_duration(every)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if seconds <= 0:
        raise click.UsageError("--every 0s would never rest; give a duration such as 10s")
    if watch:
        if ranges:
            raise click.UsageError("--watch follows the configured Services only, so --service-cidr has no use there")
        _watch_flows(config, output, delete, seconds, textfile)
        return
    if textfile is not None:
        raise click.UsageError("--textfile goes with --watch")
    from proxy.control import stale_flows

    found = asyncio.run(stale_flows.find(config, ranges))
    outcomes = stale_flows.delete(found.flows) if delete else None
    if output == "json":
        # One by one: there may be as many as the table holds.
        for number, flow in enumerate(found.flows):
            told = stale_flows.as_json(flow) | ({} if outcomes is None else {"deleted": outcomes[number]})
            click.echo(("[" if number == 0 else ",\n ") + json.dumps(told), nl=False)
        click.echo("]" if found.flows else "[]")
    elif not found.flows:
        click.echo("no stale flow")
    else:
        _print_tables([stale_flows.table(found.flows)])
        if outcomes is not None:
            click.echo(f"{sum(outcomes)} deleted")
        for line in stale_flows.missing_columns(found.flows):
            click.echo(f"for {line}")
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    sys.exit(FOUND_SOMETHING if found.flows and not delete else 0)


def _watch_flows(config: Path | None, output: str, delete: bool, every: float, textfile: Path | None) -> None:
    import asyncio

    from proxy.control.flow_watch import text_of, watch

    def say(event: dict[str, Any]) -> None:
        line = json.dumps(event) if output == "json" else text_of(event, delete)
        if line:
            click.echo(line)

    async def until_stopped() -> None:
        task = asyncio.ensure_future(watch(config, every=every, deleting=delete, textfile=textfile, say=say))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            pass

    if not delete and output == "text":
        click.echo("a dry run: nothing is deleted without --delete")
    asyncio.run(until_stopped())


@main.command()
@_config
@_output
def drain(config: Path | None, output: str) -> None:
    """Take the running proxy out of the packets' path, and wait until none comes any more; exit status 1 if some do.

    Where the environment has SIDESTEP_INSTANCE, only the run that has the same.
    """
    arriving = _client(config, limit=30.0).drain(os.environ.get("SIDESTEP_INSTANCE"))
    if output == "json":
        click.echo(json.dumps({"still_arriving": arriving or {}, "successor": arriving is None}))
    elif arriving is None:
        click.echo("another instance serves now: nothing to drain")
    else:
        for listener, packets in arriving.items():
            click.echo(f"! {packets} packets still came to {listener}")
        click.echo("drained" if not arriving else "the lease is down, but packets still come")
    sys.exit(FOUND_SOMETHING if arriving else 0)


@main.command()
@_config
@_output
def undrain(config: Path | None, output: str) -> None:
    """Let the running proxy back into the packets' path."""
    _client(config).undrain()
    click.echo("{}" if output == "json" else "back in the path with its next answer")


@main.command()
@_config
@_output
def plan(config: Path | None, output: str) -> None:
    """What a start would set up in this node's kernel, and what of it stays after a stop."""
    from proxy.control.node_commands import Planned

    planned = Planned(config)
    click.echo(json.dumps(planned.json(), indent=2) if output == "json" else "\n".join(planned.text()))


@main.command()
@_config
@_output
def cleanup(config: Path | None, output: str) -> None:
    """Take away everything that sidestep left on this node; none may run."""
    from proxy.control.node_commands import cleanup as clean_up

    removed = clean_up(config)
    if output == "json":
        click.echo(json.dumps({"removed": removed}))
    else:
        click.echo("\n".join(f"removed {thing}" for thing in removed) or "nothing was left")


@main.command()
@_config_of_no_use
@_output
def version(config: Path | None, output: str) -> None:
    """Print the version."""
    click.echo(json.dumps({"version": __version__}) if output == "json" else f"sidestep {__version__}")


def _client(config: Path | None, limit: float = 10.0) -> "AdminClient":
    from proxy.control.client import AdminClient
    from proxy.control.configuration import read_settings

    return AdminClient(Path(read_settings(config)[0].admin.socket), limit)


def _print_tables(tables: Iterable["Table"]) -> None:
    from proxy.control.text import plain

    if not sys.stdout.isatty():
        click.echo("\n\n".join(plain(table) for table in tables))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    for table in tables:
        drawn = RichTable(*table.head, title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
