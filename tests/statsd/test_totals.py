"""Real StatsD clients before Sidestep, a real StatsD server behind it: its totals are what the clients sent."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.control.sidestep import Sidestep
from tests.control.test_workers import free_address
from tests.statsd.exporter import PORT, exporting, needs_exporter, totals
from tests.statsd.senders import KINDS, Kind, Sender, sending

OLD, NEW = "127.0.81.1", "127.0.81.2"

pytestmark = needs_exporter


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """A client library, or a skip with the reason."""
    chosen = KINDS[request.param]
    if chosen.missing:
        pytest.skip(chosen.missing)
    return chosen


class Relay:
    """`sidestep run` with one relay whose endpoints are a file's."""

    def __init__(self, directory: Path) -> None:
        self.listen = free_address()
        self.sidestep = Sidestep(directory)
        self._endpoints = directory / "endpoints.yaml"
        self.endpoints(OLD)
        udp = {"name": "statsd", "listen": [self.listen], "service": "monitoring/statsd", "port": "statsd"}
        self.sidestep.write(udp=[{**udp, "mode": "statsd"}], endpoints_file=str(self._endpoints))

    def endpoints(self, *addresses: str) -> None:
        """These are ready from now on, and no others."""
        draft = self._endpoints.with_suffix(".new")
        draft.write_text(
            json.dumps(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "namespace": "monitoring",
                        "name": "statsd-1",
                        "labels": {"kubernetes.io/service-name": "statsd"},
                    },
                    "addressType": "IPv4",
                    "ports": [{"name": "statsd", "protocol": "UDP", "port": PORT}],
                    "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
                }
            )
        )
        draft.replace(self._endpoints)

    async def status(self) -> dict[str, Any]:
        """What `/status.json` says of the relay."""
        relays = (await self.sidestep.status())["udp"]
        return dict(next(relay for relay in relays if relay["name"] == "statsd"))

    async def accounted(self) -> dict[str, Any]:
        """The ledger. Nothing may have been dropped."""
        ledger = dict((await self.status())["ledger"])
        assert ledger["dropped"] == {}
        return ledger


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    made = Relay(tmp_path)
    await made.sidestep.start()
    try:
        yield made
    finally:
        await made.sidestep.stop()


async def keep_sending(sender: Sender, until: Callable[[], Any]) -> None:
    """Round after round, without a pause that would let the relay's queue run dry, until the condition holds."""
    async with asyncio.timeout(30):
        while not until():
            await sender.round()


async def test_they_are_the_same_without_a_relay(kind: Kind) -> None:
    """That what a round adds up to is right, and that this server counts all of it."""
    with exporting(OLD) as exporters:
        async with sending(kind, f"{OLD}:{PORT}") as sender:
            for _ in range(20):
                await sender.round()
            await totals(kind, sender.rounds, exporters)


async def test_they_are_the_same_through_the_relay(relay: Relay, kind: Kind) -> None:
    with exporting(OLD) as exporters:
        async with sending(kind, relay.listen) as sender:
            for _ in range(20):
                await sender.round()
            await totals(kind, sender.rounds, exporters)
    ledger = await relay.accounted()
    assert ledger["forwarded"] > 20
    assert ledger["folded"] == 0


async def test_they_are_the_same_through_a_replaced_endpoint(relay: Relay, kind: Kind) -> None:
    with exporting(OLD, NEW) as (old, new):
        async with sending(kind, relay.listen) as sender:
            await keep_sending(sender, old.lines)
            port = sender.ports()
            relay.endpoints(NEW)
            await keep_sending(sender, new.lines)
            await sender.round()  # the change may have come in the middle of the one before
            await totals(kind, sender.rounds, [old, new])
            at_old = old.lines()
            for _ in range(20):
                await sender.round()
            await totals(kind, sender.rounds, [old, new])
            assert old.lines() == at_old, "nothing goes to an address that is no longer the Service's"
            assert sender.ports() == port
            assert len(port) == 1, "one source port all the time"
    assert (await relay.accounted())["folded"] == 0


async def test_they_are_the_same_through_a_time_without_endpoints(relay: Relay, kind: Kind) -> None:
    with exporting(OLD, NEW) as (old, new):
        async with sending(kind, relay.listen) as sender:
            await keep_sending(sender, old.lines)
            port = sender.ports()
            relay.endpoints()
            async with asyncio.timeout(30):
                while not (await relay.status())["ledger"]["folded"]:
                    await sender.round()
            before = sender.rounds
            for _ in range(20):
                await sender.round()
            assert new.lines() == 0
            relay.endpoints(NEW)
            await totals(kind, sender.rounds, [old, new])
            assert sender.rounds == before + 20, "what was folded came without a line that pushes it"
            await sender.round()
            await totals(kind, sender.rounds, [old, new])
            assert sender.ports() == port
            assert len(port) == 1, "one source port all the time"
    assert (await relay.accounted())["folded"] > 0
