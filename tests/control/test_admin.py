"""The admin HTTP over real sockets, with a worker that only pretends to resolve."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.control.admin import Admin
from proxy.control.admin_sockets import open_admin_tcp, open_admin_unix
from proxy.control.client import AdminClient, NotRunning
from proxy.control.configuration import Configuration
from proxy.control.endpoints import Endpoints
from proxy.control.errors import CannotRun
from proxy.control.handover import Estate, Giver
from proxy.control.heartbeats import START_LIMIT
from proxy.control.readiness import Readiness
from proxy.control.relay_workers import RelayWorkers
from proxy.control.sockets import ListenSockets, relay_transports
from proxy.control.state import State
from proxy.core import counters
from tests.control.eventually import eventually
from tests.control.test_workers import FAKE_WORKER, POLICY, Run, free_address


class Served(Run):
    """Workers, and the admin HTTP over TCP and a Unix socket."""

    async def serve(self, directory: Path) -> None:
        await self.start()
        self.path = directory / "run" / "admin.sock"
        file = directory / "sidestep.yaml"
        file.write_text(f'dns: {{listen: ["{self.address}"], zones: [{{suffix: ., upstreams: ["192.0.2.1"]}}]}}\n')
        self.configuration = Configuration(file)
        self.relay = RelayWorkers(ListenSockets("udp[].listen", relay_transports), "json", FAKE_WORKER)
        self.endpoints = Endpoints(lambda: None)
        self.endpoints.follow(self.configuration.now)
        self.state = State(self.configuration, self.workers, self.relay, self.endpoints)
        readiness = Readiness(self.sockets, self.relay.sockets, "secret")
        giver = Giver(directory, lambda: Estate([], []), lambda: None, lambda version: None, lambda: None)
        self.admin = Admin(self.state, readiness, giver)
        address = free_address()
        await self.admin.start(open_admin_tcp(address), open_admin_unix(self.path)[0])
        self.http = aiohttp.ClientSession(f"http://{address}")
        self.unix = aiohttp.ClientSession("http://sidestep", connector=aiohttp.UnixConnector(str(self.path)))

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(path) as response:
            return response.status, await response.text()

    async def json(self, path: str) -> Any:
        return json.loads((await self.get(path))[1])

    async def stop(self) -> None:
        await self.http.close()
        await self.unix.close()
        await self.admin.close()
        await super().stop()


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Served]:
    run = Served()
    await run.serve(tmp_path)
    yield run
    await run.stop()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_run_that_serves_is_healthy_and_ready(run: Served) -> None:
    assert await run.get("/healthz") == (200, '{"status": "ok"}')
    assert await run.get("/readyz") == (200, '{"status": "ok"}')
    assert await run.json("/version") == {"version": "0.1.0"}


async def test_a_worker_that_stands_still_makes_it_neither_healthy_nor_ready(run: Served) -> None:
    os.kill(run.pid, signal.SIGSTOP)
    code, text = await run.get("/readyz")
    assert code == 503
    assert [reason.split(": ")[1] for reason in json.loads(text)["reasons"]] == ["no answer within 1 s"] * 2
    run.state.dns.slots[0].counts[counters.HEARTBEAT] = 0  # long ago
    code, text = await run.get("/healthz")
    assert (code, json.loads(text)["status"]) == (503, "unavailable")


async def test_a_worker_that_still_starts_has_its_time_and_is_healthy(run: Served) -> None:
    os.kill(run.pid, signal.SIGSTOP)
    slot = run.workers.slots[0]
    slot.ready = False
    slot.counts[counters.HEARTBEAT] = time.monotonic_ns() - int((START_LIMIT - 5) * 1e9)
    assert await run.get("/healthz") == (200, '{"status": "ok"}')


async def test_status_has_what_programs_rely_on(run: Served) -> None:
    await eventually(lambda: run.workers.slots[0].report)
    status = await run.json("/status.json")
    assert status["workers"][0].items() >= {"role": "dns", "pid": run.pid, "restarts": 0}.items()
    assert status["dns"]["upstreams"] == [{"zone": ".", "address": "192.0.2.1:53", "state": "up", "rtt_ms": 0.4}]
    assert status["dns"]["cache"].keys() >= {"entries", "bytes"}
    assert (status["udp"], status["watch"]["source"], status["node"]) == ([], "none", {"lease": {}})


async def test_metrics_count_what_workers_did_even_after_they_died(run: Served) -> None:
    for number in range(5):
        run.client.send(number)
    await run.client.answers(5)
    await eventually(lambda: sum(run.state.status()["dns"]["questions"]["answered"].values()) == 5)
    os.kill(run.pid, signal.SIGKILL)
    await eventually(lambda: run.workers.slots[0].ready and run.workers.slots[0].restarts == 1)
    code, text = await run.get("/metrics?names=coredns")
    assert code == 200
    found = samples(text)
    udp = frozenset({("proto", "udp")})
    assert found["sidestep_dns_questions_received_total", udp] == 5
    assert found["sidestep_worker_restarts_total", frozenset({("worker", "dns-0")})] == 1
    assert found["sidestep_config_last_reload_successful", frozenset()] == 1
    server = f"dns://{run.address}"
    response = frozenset({("server", server), ("zone", "."), ("rcode", "NOERROR")})
    assert found["coredns_dns_responses_total", response] == 5


async def test_workers_that_were_replaced_still_count_when_a_reload_wants_fewer(run: Served) -> None:
    run.sockets.open([run.address], 2)
    run.workers.configure(POLICY, 2)
    await run.workers.wait_ready()
    child = run.workers.slots[1].child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    await eventually(lambda: run.workers.slots[1].restarts == 1)
    run.workers.configure(POLICY, 1)
    found = samples((await run.get("/metrics?names=coredns"))[1])
    assert found["coredns_panics_total", frozenset()] == 1


async def test_coredns_names_are_there_only_when_asked_for(run: Served) -> None:
    names = {
        "coredns_dns_requests_total",
        "coredns_dns_request_duration_seconds_bucket",
        "coredns_dns_responses_total",
        "coredns_cache_entries",
        "coredns_cache_hits_total",
        "coredns_cache_requests_total",
        "coredns_cache_served_stale_total",
        "coredns_forward_max_concurrent_rejects_total",
        "coredns_proxy_request_duration_seconds_bucket",
        "coredns_proxy_healthcheck_failures_total",
        "coredns_panics_total",
        "coredns_build_info",
    }
    assert names <= {name for name, _ in samples((await run.get("/metrics?names=coredns"))[1])}
    assert "coredns" not in (await run.get("/metrics"))[1]


async def test_verbs_are_only_on_the_unix_socket_of_its_owner(run: Served) -> None:
    async with run.http.post("/explain", json={"name": "example.com", "type": "A"}) as response:
        assert response.status == 404
    async with run.unix.post("/explain", json={"name": "example.com", "type": "A"}) as response:
        assert (await response.json())["steps"] == ["asked example.com A"]
    for nonsense in (b"[", b'{"name": "a..b", "type": "A"}', b'{"name": "a", "type": "BOGUS"}'):
        async with run.unix.post("/explain", data=nonsense) as response:
            assert response.status == 400
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o600


async def test_a_request_that_is_no_http_is_refused_and_not_logged(
    run: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for nonsense in (b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        reader, writer = await asyncio.open_unix_connection(str(run.path))
        writer.write(nonsense)
        assert b" 400 " in await reader.readline()
        writer.close()
    assert caplog.records == []


async def test_the_page_shows_the_state_and_fetches_nothing(run: Served) -> None:
    run.configuration.status = lambda: {"error": "a.yaml:3:5: <dns>", "path": None}
    code, text = await run.get("/")
    assert code == 200
    assert run.address in text
    assert "a.yaml:3:5: &lt;dns&gt;" in text
    assert "<script" not in text
    assert "http://" not in text
    assert "<svg" not in text  # nothing to draw yet


async def test_the_page_says_why_no_endpoints_are_known(run: Served) -> None:
    run.endpoints.unknown = lambda: "nothing heard yet from the <server>"
    assert "nothing heard yet from the &lt;server&gt;" in (await run.get("/"))[1]


async def test_the_page_draws_the_last_minutes(run: Served) -> None:
    for second, answered in enumerate((0, 100, 300)):
        run.state.history.sample(second, answered)
    text = (await run.get("/"))[1]
    assert 'points="0.0,30.0 600.0,2.0"' in text
    assert 'preserveAspectRatio="none"' in text  # over the whole width
    assert "now 200, at most 200" in text


async def test_the_client_of_the_commands_reads_status_and_explains(run: Served) -> None:
    client = AdminClient(run.path)
    assert (await asyncio.to_thread(client.status))["workers"][0]["pid"] == run.pid
    assert await asyncio.to_thread(client.readiness) == []
    assert (await asyncio.to_thread(client.explain, "a", "A"))["steps"] == ["asked a A"]


async def test_a_socket_that_answers_is_not_taken_over(run: Served) -> None:
    with pytest.raises(CannotRun, match="another process answers there"):
        await asyncio.to_thread(open_admin_unix, run.path)


STRANGER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(b"POST /handover HTTP/1.0\\r\\n\\r\\n")
    print(sock.makefile().read())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
async def test_another_user_is_refused_even_where_the_files_mode_lets_it_in(run: Served) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "admin.sock"
        sock, _ = open_admin_unix(path)
        os.chmod(directory, 0o711)
        os.chmod(path, 0o666)
        await run.admin.start(None, sock)
        command = "/usr/bin/python3", "-c", STRANGER, str(path)
        done = await asyncio.to_thread(subprocess.run, command, user=65534, capture_output=True, text=True)
    assert "403 Forbidden" in done.stdout
    assert "only root and the user that runs sidestep" in done.stdout


def test_a_socket_that_a_dead_run_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    open_admin_unix(path)[0].close()
    with pytest.raises(NotRunning, match="nobody listens"):
        AdminClient(path).status()
    open_admin_unix(path)[0].close()


def test_without_a_socket_the_client_says_that_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no sidestep runs here"):
        AdminClient(tmp_path / "admin.sock").status()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotRun, match=f"{tmp_path}/file/admin.sock"):
        open_admin_unix(tmp_path / "file" / "admin.sock")


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("precious")
    with pytest.raises(CannotRun, match=f"{path}: a file that is no socket is in the way"):
        open_admin_unix(path)
    assert path.read_text() == "precious"


def test_a_read_only_file_system_is_named() -> None:
    with pytest.raises(CannotRun, match=r"/sys/sidestep/admin\.sock: .* admin\.socket"):
        open_admin_unix(Path("/sys/sidestep/admin.sock"))
