"""What the kernel has, and who looks after it, when a new run takes over, or fails to."""

import asyncio
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import wire
from tests.control.eventually import eventually
from tests.control.node_config import ENDPOINTS
from tests.control.sidestep import command
from tests.control.test_node_commands import stay_lines
from tests.node.network import KUBE_PROXY, SERVICE, Network, addresses, rules
from tests.node.network import run as run_shell
from tests.node.running import Running

LEASES = "nft list set inet sidestep lease4"


@pytest.fixture
def second(config: Path, tmp_path: Path) -> Iterator[Path]:
    """With an address more, and one that it can't have."""
    file = tmp_path / "second.yaml"
    text = config.read_text().replace('"127.0.0.1:53"', '"127.0.0.1:53", "169.254.20.11:53"')
    file.write_text(text + "udp: [{name: s, listen: ['127.0.0.1:8125']}]\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 8125))
        yield file


async def test_after_a_successor_that_cannot_start_the_first_run_has_the_kernel_again(
    config: Path, second: Path, tmp_path: Path
) -> None:
    with Running(config) as run:
        await eventually(run.ready)
        before = addresses()
        assert (await command("run", "--config", str(second)))[0] == 2
        await eventually(lambda: addresses() == before and not run.node()["taken_over"])
        run_shell("nft flush chain inet sidestep prerouting")
        await eventually(lambda: "notrack" in run_shell("nft list chain inet sidestep prerouting"))
        (tmp_path / "endpoints.yaml").write_text(ENDPOINTS.replace("10.244.1.2", "10.244.1.3"))
        await eventually(lambda: "dnat ip to 10.244.1.3" in rules())
        assert (await command("drain", "--config", str(config)))[0] == 0
        assert "elements" not in run_shell(LEASES)
        _, planned, _ = await command("plan", "--config", str(config))
        assert run.terminate() == 0
    assert "10.96.0.10/32" not in addresses()
    assert "169.254.20.10/32" in addresses()
    assert "address 169.254.20.10" in stay_lines(planned)


@pytest.fixture
def fewer(config: Path, tmp_path: Path) -> Path:
    """Of a run that leaves the Service's IP to kube-proxy."""
    run_shell(KUBE_PROXY)
    file = tmp_path / "fewer.yaml"
    file.write_text(config.read_text().replace('"10.96.0.10:53", "127', '"127'))
    return file


@contextmanager
def asked(network: Network, address: str) -> Iterator[list[str | None]]:
    """Meanwhile a client that keeps its source port and one that never does ask in turns; who answered them."""
    clients = [network.client(address, "udp", inside=network.pod) for _ in range(2)]
    done = threading.Event()
    answers: list[str | None] = []

    def ask() -> None:
        while not done.is_set():
            answers.extend([clients[0].ask(0.5), clients[1].fresh().ask(0.5)])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()


async def test_an_address_that_a_reload_takes_off_the_list_costs_nobody_a_question(
    network: Network, config: Path, fewer: Path
) -> None:
    with Running(config) as run:
        await eventually(run.ready)
        with asked(network, SERVICE) as answers:
            os.replace(fewer, config)
            os.kill(run.pid, signal.SIGHUP)
            await eventually(lambda: "10.96.0.10/32" not in addresses())
        assert None not in answers
        assert answers[-1] == "coredns"


async def test_a_question_is_answered_though_its_address_leaves_the_list(
    network: Network, config: Path, fewer: Path
) -> None:
    for file in (config, fewer):
        set_upstream(file, "10.244.1.2:5353")
    upstream = network.socket(socket.AF_INET, socket.SOCK_DGRAM, inside=network.coredns)
    upstream.bind(("10.244.1.2", 5353))
    client = network.socket(socket.AF_INET, socket.SOCK_DGRAM, inside=network.pod)
    client.connect(("10.96.0.10", 53))
    for sock in (upstream, client):
        sock.settimeout(20)
    with Running(config) as run:
        await eventually(run.ready)
        asking = wire.query()
        client.send(asking)
        question, sidestep = await asyncio.to_thread(upstream.recvfrom, 2048)
        os.replace(fewer, config)
        os.kill(run.pid, signal.SIGHUP)
        later = network.client(SERVICE, "udp", inside=network.pod)
        await eventually(lambda: asyncio.to_thread(lambda: later.ask() == "coredns"))
        upstream.sendto(wire.answering(question), sidestep)
        answer = await asyncio.to_thread(client.recv, 2048)
        assert answer[:2] == asking[:2]
        await eventually(lambda: "10.96.0.10/32" not in addresses())


def set_upstream(config: Path, address: str) -> None:
    text = config.read_text()
    config.write_text(text.replace("{service: kube-system/kube-dns, port: 53}", f'["{address}"]'))


async def test_a_reload_that_fails_leaves_nothing_in_the_kernel(config: Path, second: Path) -> None:
    with Running(config) as run:
        await eventually(run.ready)
        before = addresses()
        os.replace(second, config)
        os.kill(run.pid, signal.SIGHUP)
        await eventually(lambda: "169.254.20.11/32" in addresses())
        await eventually(lambda: addresses() == before and "169.254.20.11" not in rules())
        assert run.ready()


async def test_an_address_that_a_successor_does_not_list_costs_nobody_a_question(
    network: Network, config: Path, fewer: Path
) -> None:
    with Running(config) as run:
        await eventually(run.ready)
        with asked(network, SERVICE) as answers, Running(fewer) as successor:
            await eventually(run.ended)
            await eventually(successor.ready)
            await eventually(lambda: "10.96.0.10/32" not in addresses())
        assert None not in answers
        assert answers[-1] == "coredns"


@pytest.fixture
def other(config: Path, tmp_path: Path) -> Path:
    """Of a run that knows nothing of the first one."""
    file = tmp_path / "other.yaml"
    text = config.read_text().replace("9253", "9254").replace("/sidestep/", "/other/")
    file.write_text(re.sub(r"(?<!admin: {)listen: \[.*\]", 'listen: ["169.254.20.11:53"]', text))
    return file


async def test_a_run_that_knows_nothing_of_the_first_one_leaves_it_alone(config: Path, other: Path) -> None:
    with Running(config) as run:
        await eventually(run.ready)
        before = addresses()
        for words in ("run", "cleanup"):
            code, _, err = await command(words, "--config", str(other))
            assert (code, f"a sidestep (pid {run.pid})" in err) == (2, True)
        assert addresses() == before
        assert run.ready()
        assert (run.node()["taken_over"], run.node()["repairs"]) == (False, {"table": 0, "address": 0})
        assert run.terminate() == 0
    with Running(other) as another:
        await eventually(another.ready)


async def test_a_successor_keeps_nothing_of_the_first_run(config: Path) -> None:
    """Its journals are copied, and the copy takes no more memory than they do."""
    with Running(config) as run:
        await eventually(run.ready)
        with Running(config) as successor:
            await eventually(run.ended)
            await eventually(successor.ready)
            (journal,) = memory_files(successor.pid)
            assert journal.st_blocks * 512 < journal.st_size / 16


def memory_files(pid: int) -> list[os.stat_result]:
    """The journals that a process has open."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if "journal" in os.readlink(path):
                found.append(os.stat(path))
    return found
