"""`sidestep run` with relays, from outside: real processes, real sockets, endpoints from a file or an API server."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from tests.control.eventually import eventually
from tests.control.sidestep import Sidestep, command
from tests.control.test_workers import free_address
from tests.fakes import WAIT


class Sink:
    """A StatsD server that keeps every line."""

    def __init__(self, ip: str, port: int) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((ip, port))
        self.sock.setblocking(False)
        self.address = "{}:{}".format(*self.sock.getsockname())
        self.lines: list[str] = []
        self._arrived = asyncio.Condition()
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._read)
        self._tasks: set[asyncio.Task[None]] = set()

    def _read(self) -> None:
        self.lines += self.sock.recv(65535).decode().split("\n")
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    async def received(self, count: int) -> list[str]:
        """All lines, as soon as there are so many."""
        async with asyncio.timeout(WAIT), self._arrived:
            await self._arrived.wait_for(lambda: len(self.lines) >= count)
        return self.lines

    def total(self, name: str) -> int:
        """The sum of a counter."""
        return sum(int(line.split(":")[1].split("|")[0]) for line in self.lines if line.startswith(f"{name}:"))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.sock.fileno())
        self.sock.close()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def slice_of(*addresses: str, port: str = "statsd", service: str = "statsd", **conditions: bool) -> dict[str, Any]:
    """An EndpointSlice of endpoints on one port."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-1",
            "namespace": "monitoring",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": port, "protocol": "UDP", "port": int(address.partition(":")[2])} for address in addresses[:1]
        ],
        "endpoints": [
            {"addresses": [address.partition(":")[0]], "conditions": conditions or {"ready": True}}
            for address in addresses
        ],
    }


async def is_so(found: Awaitable[Any], wanted: Any) -> bool:
    return await found == wanted


class Relaying(Sidestep):
    """A run with one relay, whose endpoints are in a file."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.listen = free_address()
        self.endpoints = directory / "endpoints.yaml"
        self.source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.source.bind(("127.0.0.1", 0))

    def relay(self, *slices: dict[str, Any], **keys: Any) -> None:
        """Write both files: a relay with these keys, and these slices."""
        self.point_to(*slices)
        relay = {"name": "statsd", "listen": [self.listen], "service": "monitoring/statsd", "port": "statsd", **keys}
        self.write(udp=[relay], endpoints_file=str(self.endpoints))

    def point_to(self, *slices: dict[str, Any]) -> None:
        new = self.endpoints.with_suffix(".new")
        new.write_text("---\n".join(json.dumps(one) + "\n" for one in slices))
        new.rename(self.endpoints)

    def send(self, *lines: str) -> None:
        """All lines in one datagram, from a source port that stays the same."""
        host, _, port = self.listen.rpartition(":")
        self.source.sendto("\n".join(lines).encode(), (host, int(port)))

    async def udp(self) -> Any:
        return (await self.status())["udp"][0]

    async def ledger(self) -> Any:
        return (await self.udp())["ledger"]

    async def until(self, **wanted: Any) -> Any:
        """The ledger, as soon as it says this."""

        async def there() -> bool:
            ledger = await self.ledger()
            return all(ledger[name] == value for name, value in wanted.items())

        await eventually(there)
        return await self.ledger()

    async def states(self) -> dict[str, str]:
        return {endpoint["address"]: endpoint["state"] for endpoint in (await self.udp())["endpoints"]}

    async def applied(self, **states: str) -> None:
        async def there() -> bool:
            return await self.states() == states

        await eventually(there)

    async def stop(self) -> None:
        self.source.close()
        await super().stop()


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Relaying]:
    run = Relaying(tmp_path)
    yield run
    if hasattr(run, "process"):
        await run.stop()


@pytest.fixture
async def sinks() -> AsyncIterator[list[Sink]]:
    port = port_of(free_address())
    sinks = [Sink(f"127.0.0.{number}", port) for number in (2, 3)]
    yield sinks
    for sink in sinks:
        sink.close()


async def test_lines_go_to_the_endpoint_of_the_file_and_are_counted(run: Relaying, sinks: list[Sink]) -> None:
    run.relay(slice_of(sinks[0].address))
    await run.start()
    run.send("a:1|c", "b:2|ms", "garbage")
    assert sorted(await sinks[0].received(2)) == ["a:1|c", "b:2|ms"]
    ledger = await run.until(received=3)
    assert ledger == {"received": 3, "forwarded": 2, "folded": 0, "dropped": {"malformed": 1}}
    status = await run.status()
    assert [worker["role"] for worker in status["workers"]] == ["dns", "relay"]
    assert status["udp"][0]["endpoints"][0].items() >= {"address": sinks[0].address, "state": "ready"}.items()
    assert status["watch"]["source"] == "file"


async def test_what_waits_for_an_endpoint_is_shown_and_so_is_what_made_no_sense(run: Relaying) -> None:
    run.relay()
    await run.start()
    run.send("a.b:1|c|#x:y", "a.b:2|c|#x:y", "garbage")

    async def shown() -> Any:
        relay = await run.udp()
        return relay["fold"]["values"], relay["malformed"]

    value = {"name": "a.b", "kind": "counter", "value": "3", "suffix": "c|#x:y", "lines": 2}
    await eventually(lambda: is_so(shown(), ([value], ["garbage"])))
    code, out, _ = await command("status", "--config", str(run.config))
    assert (code, "a.b" in out, "garbage" in out) == (1, True, True)
    host, _, port = run.admin.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    assert "<code>a.b</code>" in page


async def test_a_replaced_endpoint_gets_nothing_more_from_the_same_source_port(
    run: Relaying, sinks: list[Sink]
) -> None:
    old, new = sinks
    run.relay(slice_of(old.address))
    await run.start()
    run.send("a:1|c")
    await old.received(1)
    run.point_to(slice_of(new.address))
    await run.applied(**{new.address: "ready"})
    for _ in range(50):
        run.send("a:1|c")
    await run.until(forwarded=51)
    await eventually(lambda: new.total("a") == 50)
    assert old.total("a") == 1


async def test_through_zero_endpoints_the_sum_stays_the_same(run: Relaying, sinks: list[Sink]) -> None:
    run.relay(slice_of(sinks[0].address))
    await run.start()
    run.send("a:1|c")
    await sinks[0].received(1)
    run.point_to()
    await run.applied()
    for _ in range(20):
        run.send("a:2|c", "a:3|c")
    ledger = await run.until(received=41)
    assert (ledger["folded"], ledger["dropped"]) == (40, {})
    assert (await run.udp())["fold"]["lines"] == 40
    run.point_to(slice_of(sinks[1].address))
    await eventually(lambda: sinks[1].total("a") == 100)
    assert sinks[1].lines == ["a:100|c"]
    ledger = await run.ledger()
    assert (ledger["received"], ledger["forwarded"], ledger["folded"]) == (41, 1, 40)


async def test_a_file_of_endpoints_that_is_wrong_is_told_and_the_last_good_one_serves(
    run: Relaying, sinks: list[Sink]
) -> None:
    run.relay(slice_of(sinks[0].address))
    await run.start()
    broken = slice_of(sinks[1].address)
    broken["endpoints"][0]["addresses"] = ["nowhere"]
    run.point_to(broken)
    line = await run.said("not reloaded")
    assert f"{run.endpoints}:1:" in line["message"]
    assert "nowhere" in line["message"]
    run.send("a:1|c")
    await sinks[0].received(1)
    assert "nowhere" in (await run.status())["config"]["error"]


async def test_a_file_of_endpoints_that_takes_for_ever_keeps_nothing_else_waiting(
    run: Relaying, sinks: list[Sink]
) -> None:
    run.relay(slice_of(sinks[0].address))
    await run.start()
    run.endpoints.unlink()
    os.mkfifo(run.endpoints)
    run.process.send_signal(signal.SIGHUP)
    # Opened for reading: from now on the run waits for somebody who writes.
    writer = await asyncio.to_thread(os.open, run.endpoints, os.O_WRONLY)
    assert (await run.status())["watch"]["source"] == "file"
    run.send("a:1|c")
    await sinks[0].received(1)
    os.write(writer, json.dumps(slice_of(sinks[1].address)).encode())
    os.close(writer)
    await run.applied(**{sinks[1].address: "ready"})


async def test_a_service_without_slices_is_named_and_no_reason_to_be_unready(run: Relaying) -> None:
    run.relay(slice_of("127.0.0.2:8125", service="other"))
    await run.start()
    note = "Service monitoring/statsd has no EndpointSlice; does it exist?"
    assert (await run.status())["watch"]["notes"] == [note]
    assert await asyncio.to_thread(run.client.readiness) == []
    code, out, _ = await command("status", "--config", str(run.config))
    assert (code, f"! {note}" in out) == (1, True)


async def test_what_several_relays_lack_is_said_once(run: Relaying) -> None:
    run.point_to()
    relays = [
        {"name": f"to-{port}", "listen": [free_address()], "service": "monitoring/statsd", "port": port}
        for port in ("statsd", 8125)
    ]
    run.write(udp=relays, endpoints_file=str(run.endpoints))
    await run.start()
    assert len((await run.status())["watch"]["notes"]) == 1


async def test_a_port_that_the_service_lacks_is_named(run: Relaying) -> None:
    run.relay(slice_of("127.0.0.2:8125", port="metrics"))
    await run.start()
    assert (await run.status())["watch"]["notes"] == [
        "Service monitoring/statsd has no UDP port 'statsd'; it has 'metrics'"
    ]


async def test_an_endpoint_that_is_the_relay_itself_gets_nothing(run: Relaying) -> None:
    run.relay(slice_of(run.listen))
    await run.start()
    run.send("a:1|c")
    await run.until(received=1, folded=1)
    assert await run.states() == {}
    assert f"endpoint {run.listen} is a listener of this proxy and left out" in (await run.status())["watch"]["notes"]


async def test_a_terminating_endpoint_is_used_only_while_none_is_ready(run: Relaying, sinks: list[Sink]) -> None:
    leaving = slice_of(sinks[0].address, ready=False, serving=True, terminating=True)
    run.relay(leaving)
    await run.start()
    assert await run.states() == {sinks[0].address: "serving"}
    run.send("a:1|c")
    await sinks[0].received(1)
    ready = slice_of(sinks[1].address)
    ready["metadata"]["name"] = "statsd-2"
    run.point_to(leaving, ready)
    await run.applied(**{sinks[0].address: "terminating", sinks[1].address: "ready"})


async def test_a_killed_relay_worker_is_replaced_and_what_waited_is_relayed(run: Relaying, sinks: list[Sink]) -> None:
    run.relay(slice_of(sinks[0].address))
    await run.start()
    pid = next(worker["pid"] for worker in (await run.status())["workers"] if worker["role"] == "relay")
    os.kill(pid, signal.SIGSTOP)
    for _ in range(100):
        run.send("a:1|c")
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: sinks[0].total("a") == 100)
    assert (await run.until(received=100))["forwarded"] == 100


async def test_a_stop_relays_what_was_sent_before_it(run: Relaying, sinks: list[Sink]) -> None:
    run.relay(slice_of(sinks[0].address))
    await run.start()
    for _ in range(500):
        run.send("a:1|c")
    run.process.send_signal(signal.SIGTERM)
    assert await run.ended() == 0
    await eventually(lambda: sinks[0].total("a") == 500)


async def test_a_unix_socket_is_a_listener_like_any_other_and_goes_with_the_run(
    run: Relaying, sinks: list[Sink], tmp_path: Path
) -> None:
    path = tmp_path / "statsd.sock"
    run.relay(slice_of(sinks[0].address), listen=[run.listen, f"unix:{path}"])
    await run.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"a:1|c", str(path))
    assert await sinks[0].received(1) == ["a:1|c"]
    run.process.send_signal(signal.SIGTERM)
    assert await run.ended() == 0
    assert not path.exists()


async def test_a_reload_adds_and_removes_relays(run: Relaying, sinks: list[Sink]) -> None:
    run.relay(slice_of(sinks[0].address))
    await run.start()
    first, run.listen = run.listen, free_address()
    run.relay(slice_of(sinks[0].address), name="other")
    await run.said("configuration reloaded")
    run.send("a:1|c")
    await sinks[0].received(1)
    assert [relay["name"] for relay in (await run.status())["udp"]] == ["other"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port_of(first)))


async def test_datagrams_go_both_ways_in_datagram_mode(run: Relaying) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.2", 0))
        for sock in (server, run.source):
            sock.settimeout(WAIT)
        run.relay(slice_of("{}:{}".format(*server.getsockname())), mode="datagram")
        await run.start()
        run.send("\0binary")
        data, via = await asyncio.to_thread(server.recvfrom, 100)
        server.sendto(b"reply to " + data, via)
        reply, sender = await asyncio.to_thread(run.source.recvfrom, 100)
    assert (reply, "{}:{}".format(*sender)) == (b"reply to \0binary", run.listen)
    assert (await run.until(received=1, forwarded=1))["dropped"] == {}

    async def sessions() -> Any:
        return (await run.udp())["sessions"]

    await eventually(lambda: is_so(sessions(), 1))


async def test_datagrams_that_have_nowhere_to_go_are_said_to_be_dropped(run: Relaying) -> None:
    run.relay(mode="datagram", service=None, port=None)
    await run.start()
    await run.said("to nobody: what comes is dropped")
    run.send("opaque")
    await run.until(received=1, dropped={"no_endpoint": 1})
    _, out, _ = await command("status", "--config", str(run.config))
    assert "nobody, all is dropped" in out


async def test_a_line_is_explained_without_being_sent(run: Relaying, sinks: list[Sink]) -> None:
    run.relay(slice_of(sinks[0].address, sinks[1].address))
    await run.start()
    code, out, _ = await command("explain", "--statsd", "a.b:1|c|#x:y", "--config", str(run.config), "-o", "json")
    (relay,) = json.loads(out)["relays"]
    assert (code, relay["name"]) == (0, "statsd")
    run.send("a.b:7|c")
    await run.until(forwarded=1)
    (got,) = [sink for sink in sinks if sink.lines]
    assert got.address.partition(":")[0] == relay["endpoint"].partition(":")[0]
    code, out, _ = await command("explain", "--statsd", "nonsense", "--config", str(run.config))
    assert (code, "malformed" in out) == (0, True)


async def test_the_metrics_have_the_ledger(run: Relaying, sinks: list[Sink]) -> None:
    run.relay(slice_of(sinks[0].address))
    await run.start()
    run.send("a:1|c", "garbage")
    await run.until(received=2, forwarded=1)
    host, _, port = run.admin.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    assert 'sidestep_relay_received_total{relay="statsd"} 2.0' in text
    assert 'sidestep_relay_dropped_total{reason="malformed",relay="statsd"} 1.0' in text
    assert 'sidestep_relay_endpoints{relay="statsd",state="ready"} 1.0' in text


async def test_naming_a_service_outside_a_cluster_is_refused_with_what_to_do(
    run: Relaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    relay = {"name": "statsd", "listen": [run.listen], "service": "monitoring/statsd", "port": "statsd"}
    run.write(udp=[relay])
    await run.start(ready=False)
    assert await run.ended() == 2
    text = " ".join(line["message"] for line in run.log)
    assert "monitoring/statsd" in text
    assert "kubernetes.server" in text
    assert "endpoints_file" in text


async def test_a_missing_endpoints_file_ends_it_with_2(run: Relaying) -> None:
    run.relay()
    run.endpoints.unlink()
    await run.start(ready=False)
    assert await run.ended() == 2
    assert any(f"cannot read {run.endpoints}" in line["message"] for line in run.log)
