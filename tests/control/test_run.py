"""A whole run as its users see it: the command, its processes, its log, its sockets."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import dns.rcode
import pytest

from proxy.worker.privileges import Capability
from tests.control.eventually import eventually
from tests.control.sidestep import Sidestep
from tests.control.test_workers import free_address
from tests.fakes import ScriptedUpstream, UdpStub, question, reply

OUR_NAME = Path("/proc/self/comm").read_text().strip()
"""What this process is called: python, or pytest."""


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    await upstream.start()
    upstream.answer("www.example", "A", "www.example. 300 A 192.0.2.10")
    yield upstream
    await upstream.stop()
    await asyncio.sleep(0)


@pytest.fixture
async def sidestep(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Sidestep]:
    sidestep = Sidestep(tmp_path, upstream.address)
    yield sidestep
    await sidestep.stop()


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_answers_and_says_where_it_listens_and_forwards(
    sidestep: Sidestep, upstream: ScriptedUpstream
) -> None:
    await sidestep.start()
    assert (await sidestep.ask("www.example")).answer[0].to_text() == "www.example. 300 IN A 192.0.2.10"
    assert sidestep.lines(f"listening on {sidestep.address}")
    assert sidestep.lines(f"forwarding . to {upstream.address}")
    host, _, port = sidestep.address.rpartition(":")
    assert f"dig @{host} -p {port} " in (await sidestep.said("ready"))["message"]


async def test_a_port_in_use_ends_it_with_the_name_of_who_has_it(sidestep: Sidestep) -> None:
    host, _, port = sidestep.address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((host, int(port)))
        await sidestep.start(ready=False)
        assert await sidestep.ended() == 2
    assert sidestep.lines(f"{sidestep.address}/udp: the port is in use by {OUR_NAME}")
    assert sidestep.lines(f"(pid {os.getpid()})")


async def test_a_wrong_file_ends_it_with_every_error(sidestep: Sidestep) -> None:
    sidestep.write("dns:\n  listen: [nonsense]\n  timeout: 0s\n")
    await sidestep.start(ready=False)
    assert await sidestep.ended() == 2
    assert sidestep.lines(f"{sidestep.config}:2:")
    assert sidestep.lines(f"{sidestep.config}:3:")


async def test_a_killed_worker_costs_no_question_and_no_cache(sidestep: Sidestep, upstream: ScriptedUpstream) -> None:
    await sidestep.start()
    await sidestep.ask("www.example")
    await sidestep.ask("www.example")
    worker = await sidestep.worker()
    os.kill(worker, signal.SIGSTOP)
    host, _, port = sidestep.address.rpartition(":")
    stubs = [UdpStub((host, int(port))) for _ in range(20)]
    for stub in stubs:
        stub.send(question("www.example").to_wire())
    os.kill(worker, signal.SIGKILL)
    for stub in stubs:
        await stub.receive()
        stub.close()
    assert upstream.questions("www.example") == [("www.example", "A")]
    assert (await sidestep.status())["workers"][0]["restarts"] == 1


async def test_a_worker_that_stands_still_is_replaced(sidestep: Sidestep) -> None:
    await sidestep.start()
    worker = await sidestep.worker()
    os.kill(worker, signal.SIGSTOP)
    await sidestep.said("stood still")
    await sidestep.said("reads after", times=2)
    assert (await sidestep.ask("www.example")).rcode() == dns.rcode.NOERROR
    assert not alive(worker)


async def test_sigterm_answers_what_is_in_flight_and_exits_0(sidestep: Sidestep, upstream: ScriptedUpstream) -> None:
    upstream.silent("slow.example")
    await sidestep.start()
    worker = await sidestep.worker()
    answer = asyncio.ensure_future(sidestep.ask("slow.example"))
    await upstream.received(1)
    sidestep.process.send_signal(signal.SIGTERM)
    await sidestep.said("draining")
    query = upstream.asked[0]
    upstream.udp.sendto(reply(query, "slow.example. 60 A 192.0.2.20").to_wire(), upstream.sources[0])
    assert (await answer).answer[0].to_text() == "slow.example. 60 IN A 192.0.2.20"
    assert await sidestep.ended() == 0
    assert not alive(worker)


async def test_a_signal_to_all_of_its_processes_drains_like_one_to_control(
    sidestep: Sidestep, upstream: ScriptedUpstream
) -> None:
    """A terminal's Ctrl-C reaches the process group, systemd's SIGTERM the control group."""
    upstream.silent("slow.example")
    await sidestep.start()
    answer = asyncio.ensure_future(sidestep.ask("slow.example"))
    await upstream.received(1)
    worker = await sidestep.worker()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker, number)
    sidestep.process.send_signal(signal.SIGTERM)
    await sidestep.said("draining")
    upstream.udp.sendto(reply(upstream.asked[0], "slow.example. 60 A 192.0.2.20").to_wire(), upstream.sources[0])
    assert (await answer).answer
    assert await sidestep.ended() == 0
    assert not sidestep.lines("restarting")


async def test_a_hangup_of_its_terminal_reloads_and_ends_no_worker(sidestep: Sidestep) -> None:
    await sidestep.start()
    worker = await sidestep.worker()
    os.kill(worker, signal.SIGHUP)
    sidestep.process.send_signal(signal.SIGHUP)
    await sidestep.said("configuration reloaded")
    assert (await sidestep.ask("www.example")).answer
    assert await sidestep.worker() == worker


async def test_a_second_signal_ends_it_at_once(sidestep: Sidestep, upstream: ScriptedUpstream) -> None:
    upstream.silent("slow.example")
    await sidestep.start()
    host, _, port = sidestep.address.rpartition(":")
    stub = UdpStub((host, int(port)))
    stub.send(question("slow.example").to_wire())
    await upstream.received(1)
    sidestep.process.send_signal(signal.SIGTERM)
    await sidestep.said("draining")
    sidestep.process.send_signal(signal.SIGINT)
    assert await sidestep.ended() == 128 + signal.SIGINT
    stub.close()


async def test_workers_end_with_control_even_when_they_are_stopped(sidestep: Sidestep) -> None:
    sidestep.write(workers={"dns": 2})
    await sidestep.start()
    pids = [worker["pid"] for worker in (await sidestep.status())["workers"]]
    os.kill(pids[0], signal.SIGSTOP)
    sidestep.process.kill()
    await sidestep.ended()
    await eventually(lambda: not any(alive(pid) for pid in pids))


async def test_all_its_processes_are_in_its_session(sidestep: Sidestep) -> None:
    await sidestep.start()
    assert os.getsid(await sidestep.worker()) == os.getsid(sidestep.process.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to give up")
async def test_a_worker_of_root_is_nobody_and_may_do_nothing(sidestep: Sidestep) -> None:
    await sidestep.start()
    await sidestep.ask("www.example")
    worker = Path(f"/proc/{await sidestep.worker()}/status")
    text = await asyncio.to_thread(worker.read_text)
    status = dict(line.split(":\t", 1) for line in text.splitlines())
    assert status["Uid"].split() == status["Gid"].split() == ["65532"] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to give up")
async def test_control_of_root_keeps_only_what_it_needs(sidestep: Sidestep) -> None:
    await sidestep.start()
    text = await asyncio.to_thread(Path(f"/proc/{sidestep.process.pid}/status").read_text)
    status = dict(line.split(":\t", 1) for line in text.splitlines())
    needed = sum(1 << capability for capability in Capability)
    assert {int(status[name], 16) & ~needed for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
    os.kill(await sidestep.worker(), signal.SIGKILL)  # another one is started by what is left
    await sidestep.said("reads after", times=2)
    assert (await sidestep.ask("www.example")).answer


async def test_tcp_clients_leave_descriptors_for_questions_upstream(sidestep: Sidestep) -> None:
    """Not of one address: no client may have all connections."""
    await sidestep.start("sh", "-c", 'ulimit -n 260; exec "$@"', "sh")
    clients = []
    try:
        for number in range(1, 255):
            clients.append(socket.socket())
            clients[-1].bind((f"127.0.1.{number}", 0))
            await asyncio.get_running_loop().run_in_executor(None, clients[-1].connect, host_and_port(sidestep))
            clients[-1].sendall(b"\0")  # half a length: not idle
        await eventually(lambda: metric(sidestep, 'sidestep_dns_tcp_clients_refused_total{cap="total"}'))
        assert (await sidestep.ask("www.example")).answer
    finally:
        for client in clients:
            client.close()


def host_and_port(sidestep: Sidestep) -> tuple[str, int]:
    host, _, port = sidestep.address.rpartition(":")
    return host, int(port)


async def test_a_stop_leaves_no_admin_socket(sidestep: Sidestep) -> None:
    await sidestep.start()
    assert sidestep.socket.is_socket()
    sidestep.process.send_signal(signal.SIGTERM)
    assert await sidestep.ended() == 0
    assert not sidestep.socket.exists()


async def test_a_stop_leaves_the_admin_socket_of_another_alone(sidestep: Sidestep) -> None:
    await sidestep.start()
    sidestep.socket.unlink()
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(sidestep.socket))
        sidestep.process.send_signal(signal.SIGTERM)
        assert await sidestep.ended() == 0
        assert sidestep.socket.is_socket()


async def test_two_workers_answer_on_one_address(sidestep: Sidestep) -> None:
    sidestep.write(workers={"dns": 2})
    await sidestep.start()
    for _ in range(20):
        assert (await sidestep.ask("www.example")).answer
    assert [worker["ready"] for worker in (await sidestep.status())["workers"]] == [True, True]


async def test_a_reload_keeps_the_cache_and_follows_the_listeners(
    sidestep: Sidestep, upstream: ScriptedUpstream
) -> None:
    await sidestep.start()
    await sidestep.ask("www.example")
    worker = await sidestep.worker()
    second = free_address()
    sidestep.write(listen=[second])
    sidestep.process.send_signal(signal.SIGHUP)
    await sidestep.said("configuration reloaded")
    assert (await sidestep.ask("www.example", address=second)).answer
    assert len(upstream.asked) == 1
    assert await sidestep.worker() == worker
    status = await sidestep.status()
    assert [listener["address"] for listener in status["listeners"]] == [second]
    host, _, port = sidestep.address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free_again:
        await eventually(lambda: _binds(free_again, host, int(port)))


def _binds(sock: socket.socket, host: str, port: int) -> bool:
    try:
        sock.bind((host, port))
    except OSError:
        return False
    return True


async def test_a_changed_file_is_reloaded_without_a_signal(sidestep: Sidestep) -> None:
    await sidestep.start()
    second = free_address()
    sidestep.write(listen=[sidestep.address, second])
    await sidestep.said("configuration reloaded")
    assert (await sidestep.ask("www.example", address=second)).answer
    assert (await sidestep.ask("www.example")).answer


async def test_a_reload_follows_the_number_of_workers(sidestep: Sidestep) -> None:
    await sidestep.start()
    first = await sidestep.worker()
    sidestep.write(workers={"dns": 3})
    await sidestep.said("reads after", times=2)
    pids = [worker["pid"] for worker in (await sidestep.status())["workers"]]
    assert len(pids) == 3
    assert pids[0] == first
    sidestep.write(workers={"dns": 1})
    await sidestep.said("configuration reloaded", times=2)
    await eventually(lambda: not any(alive(pid) for pid in pids[1:]))
    for _ in range(20):
        assert (await sidestep.ask("www.example")).answer
    assert [worker["pid"] for worker in (await sidestep.status())["workers"]] == [first]


async def test_a_bad_reload_keeps_the_old_one_and_says_so(sidestep: Sidestep) -> None:
    await sidestep.start()
    good = sidestep.config.read_text()
    sidestep.write("dns: {listen: 5}\n")
    line = await sidestep.said("not reloaded")
    assert f"{sidestep.config}:1:" in line["message"]
    assert line["level"] == "error"
    assert (await sidestep.ask("www.example")).answer
    assert f"{sidestep.config}:1:" in (await sidestep.status())["config"]["error"]
    assert await metric(sidestep, "sidestep_config_last_reload_successful") == 0
    sidestep.write(good)
    await sidestep.said("configuration reloaded")
    assert (await sidestep.status())["config"]["error"] is None
    assert await metric(sidestep, "sidestep_config_last_reload_successful") == 1


async def test_a_reload_that_cannot_have_its_port_keeps_the_old_ones(sidestep: Sidestep) -> None:
    await sidestep.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        sidestep.write(listen=[f"127.0.0.1:{other.getsockname()[1]}"])
        assert "in use" in (await sidestep.said("not reloaded"))["message"]
    assert (await sidestep.ask("www.example")).answer


async def test_a_resolv_conf_is_followed(sidestep: Sidestep, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Upstreams of a resolv.conf have port 53, which only root may have; so only the policy is looked at."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 192.0.2.1\n")
    sidestep.write(zones=[{"suffix": ".", "upstreams": {"resolv_conf": str(resolv_conf)}}])
    await sidestep.start()
    assert sidestep.lines("forwarding . to 192.0.2.1:53")
    resolv_conf.write_text("nameserver 192.0.2.2\nnameserver 192.0.2.3\n")
    await sidestep.said("forwarding . to 192.0.2.2:53, 192.0.2.3:53")
    resolv_conf.write_text("")
    assert str(resolv_conf) in (await sidestep.said("not reloaded"))["message"]
    resolv_conf.write_text("nameserver 192.0.2.4\n")
    await sidestep.said("forwarding . to 192.0.2.4:53")


async def test_a_resolv_conf_that_comes_late_is_found(sidestep: Sidestep, tmp_path: Path) -> None:
    await sidestep.start()
    resolv_conf = tmp_path / "resolv.conf"
    sidestep.write(zones=[{"suffix": ".", "upstreams": {"resolv_conf": str(resolv_conf)}}])
    assert "no such file; list addresses" in (await sidestep.said("not reloaded"))["message"]
    resolv_conf.write_text("nameserver 192.0.2.1\n")
    await sidestep.said("forwarding . to 192.0.2.1:53")
    assert (await sidestep.status())["config"]["error"] is None


async def metric(sidestep: Sidestep, name: str) -> float:
    reader, writer = await asyncio.open_unix_connection(str(sidestep.socket))
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))
