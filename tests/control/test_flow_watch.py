"""`sidestep conntrack --watch`: a dry run first, then exactly the stale flows, none while endpoints are unknown."""

import asyncio
import json
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.control.flow_watch import text_of, watch
from tests import peers
from tests.cluster.fake_api_server import FakeApiServer
from tests.control.sidestep import COMMAND, execute
from tests.control.test_stale_flows import SERVICE, STATSD, Node, node
from tests.fakes import WAIT

__all__ = ["node"]
as_a_process = pytest.mark.asyncio(loop_factories=["asyncio"])
in_a_namespace = peers.needs("ip", "nft", "iptables-nft", "conntrack")


class Watching:
    """A running watch and all that it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []

    async def said(self, kind: str, **values: Any) -> dict[str, Any]:
        """The next event like this."""
        assert self.process.stdout
        async with asyncio.timeout(2 * WAIT):
            async for line in self.process.stdout:
                event = json.loads(line)
                self.events.append(event)
                if event["event"] == kind and all(event[name] == value for name, value in values.items()):
                    return event
        raise AssertionError(f"no {kind} in {self.events}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(2 * WAIT):
            await self.process.communicate()
        return int(self.process.returncode or 0)


@asynccontextmanager
async def watching(node: Node, *words: str) -> AsyncIterator[Watching]:
    config = str(node.directory / "config.yaml")
    command = [*COMMAND, "conntrack", "--config", config, "-o", "json", "--watch", "--every", "50ms", *words]
    process = await asyncio.create_subprocess_exec(*node.namespace.prefix, *command, stdin=DEVNULL, stdout=PIPE)
    try:
        yield Watching(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@in_a_namespace
@as_a_process
async def test_a_dry_run_says_what_it_would_delete_and_deletes_nothing(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.send(4000)
    node.endpoints("10.244.1.8")
    async with watching(node) as watched:
        stale = await watched.said("stale")
        assert (stale["source"], stale["service"], stale["target"]) == (
            "10.244.1.99:4000",
            SERVICE,
            "10.244.1.7:8125",
        )
        for _ in range(3):
            assert (await watched.said("round"))["stale"] == 1
        assert await watched.stop() == 0
    assert [one["event"] for one in watched.events].count("stale") == 1
    assert len(await node.entries()) == 1


@in_a_namespace
@as_a_process
async def test_with_delete_only_the_stale_flows_go_and_the_metrics_say_so(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125", "10.96.0.10:53": "10.244.1.7:53"})
    node.send(4000)
    node.send(4002, "10.96.0.10:53")
    node.endpoints("10.244.1.7")
    metrics = node.directory / "conntrack.prom"
    async with watching(node, "--delete", "--textfile", str(metrics)) as watched:
        await watched.said("round", stale=0)
        await node.translate({f"{STATSD}:8125": "10.244.1.8:8125"})
        node.send(4001)
        node.endpoints("10.244.1.7", "10.244.1.8")
        await watched.said("round", stale=0)
        node.endpoints("10.244.1.8")
        deleted = await watched.said("deleted")
        assert (deleted["source"], deleted["target"]) == ("10.244.1.99:4000", "10.244.1.7:8125")
        node.send(4000)
        for _ in range(2):
            await watched.said("round", stale=0)
        assert await watched.stop(signal.SIGINT) == 0
    assert [one["event"] for one in watched.events].count("deleted") == 1
    left = await node.entries()
    assert len(left) == 3
    assert any("sport=4000" in line and "src=10.244.1.8" in line for line in left)
    text = metrics.read_text()
    labels = f'{{reason="target is no endpoint",service="{SERVICE}"}}'
    assert f"sidestep_conntrack_deleted_total{labels} 1.0" in text
    assert 'sidestep_conntrack_looks_total{outcome="whole"}' in text


@in_a_namespace
@as_a_process
async def test_a_service_whose_slices_went_away_is_gone(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.send(4000)
    node.endpoints("10.244.1.7")
    async with watching(node, "--delete") as watched:
        await watched.said("round", stale=0)
        # Its address is another Service's now, with an endpoint that this one never had.
        await node.translate({f"{STATSD}:8125": "10.244.3.3:9999"})
        node.send(4001)
        (node.directory / "endpoints.yaml").write_text("")
        assert (await watched.said("deleted"))["reason"] == "Service is gone"
        await watched.said("round", stale=0)
    assert ["sport=4001" in line for line in await node.entries()] == [True]


@in_a_namespace
@as_a_process
async def test_while_the_endpoints_cannot_be_read_nothing_is_judged(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.send(4000)
    node.endpoints("10.244.1.7")
    async with watching(node, "--delete") as watched:
        await watched.said("round", stale=0)
        (node.directory / "endpoints.yaml").write_text("kind: [")
        assert "endpoints are wrong" in (await watched.said("paused"))["why"]
        node.endpoints("10.244.1.7")
        await watched.said("round", stale=0)
    assert len(await node.entries()) == 1


async def test_before_the_api_server_told_endpoints_nothing_is_judged(tmp_path: Path) -> None:
    server = FakeApiServer(tmp_path)
    await server.start()
    await server.freeze()
    config = tmp_path / "config.yaml"
    config.write_text(
        f"udp: [{{name: statsd, listen: ['{STATSD}:8125'], service: {SERVICE}, port: statsd}}]\n"
        f"kubernetes: {{server: '{server.access.server}', token_file: {server.token_file}}}\n"
    )
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.ensure_future(watch(config, every=0.01, deleting=True, textfile=None, say=events.put_nowait))
    async with asyncio.timeout(WAIT):
        event = await events.get()
    assert event["event"] == "paused"
    assert "has told no endpoints yet" in event["why"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert events.empty()
    await server.thaw()
    await server.stop()


@as_a_process
async def test_without_a_service_to_follow_it_cannot_run() -> None:
    code, _, err = await execute(*COMMAND, "conntrack", "--watch")
    assert code == 2
    assert "--watch follows the Services of the configuration" in err


WORDS = f"10.244.1.99:4000 to {SERVICE} at {STATSD}:8125, goes to 10.244.1.7:8125"
FLOW = {
    "source": "10.244.1.99:4000",
    "service": SERVICE,
    "address": f"{STATSD}:8125",
    "target": "10.244.1.7:8125",
    "reason": "other port",
    "packets": 9,
}


@pytest.mark.parametrize(
    ("event", "deleting", "line"),
    [
        (
            {"event": "stale", **FLOW},
            False,
            f"would delete: {WORDS}: other port, 9 packets",
        ),
        ({"event": "paused", "why": "so"}, True, "nothing is judged: so"),
        ({"event": "round", "stale": 3, "deleted": 0, "deferred": 0}, True, ""),
        (
            {"event": "round", "stale": 3, "deleted": 2, "deferred": 1},
            True,
            "3 stale, 2 deleted, 1 left for the next look",
        ),
        ({"event": "round", "stale": 3, "deleted": 0, "deferred": 0, "note": "interrupted"}, False, "interrupted"),
    ],
)
def test_for_people_an_event_is_a_line_if_it_is_news(event: dict[str, Any], deleting: bool, line: str) -> None:
    assert text_of(event, deleting) == line


def test_a_deleted_flow_is_told_as_such() -> None:
    assert text_of({"event": "deleted", **FLOW}, True).startswith("deleted: 10.244.1.99:4000")
    assert text_of({"event": "gone", **FLOW}, True).startswith("was gone: ")
