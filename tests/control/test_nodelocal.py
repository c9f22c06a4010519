"""NodeLocal DNSCache on our addresses is named; somebody else who has them is not taken for it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.control.nodelocal import in_the_way
from proxy.control.text import findings
from tests.node.network import LINK_LOCAL, Network, a_network, run

BOUND = (
    "import socket, sys; s = socket.socket(type=2); s.bind((sys.argv[1], 53)); print(flush=True); sys.stdin.read()"
)


@pytest.fixture
def network() -> Iterator[Network]:
    with a_network() as network:
        run("ip addr add 169.254.20.10/32 dev lo; ip addr add 10.96.0.10/32 dev lo")
        yield network


def its_interface() -> None:
    run("ip link add nodelocaldns type bridge; ip link set nodelocaldns up")
    run("ip addr add 169.254.20.10/32 dev nodelocaldns")


def test_it_is_known_by_the_interface_that_has_the_address(network: Network) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("169.254.20.10", 53))
        assert in_the_way([LINK_LOCAL]) is None
        its_interface()
        told = in_the_way(["10.96.0.10:53", LINK_LOCAL])
        assert told is not None
        assert told.startswith(f"NodeLocal DNSCache (it has {LINK_LOCAL}/udp, ")
    assert in_the_way([LINK_LOCAL]) is None  # its interface may be left, nobody listens


def test_it_is_known_by_its_name(network: Network, tmp_path: Path) -> None:
    program = tmp_path / "node-cache"
    program.symlink_to(sys.executable)
    with ExitStack() as stack:
        process = subprocess.Popen(
            [program, "-c", BOUND, "169.254.20.10"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        assert in_the_way([LINK_LOCAL]) == (
            f"NodeLocal DNSCache (it has {LINK_LOCAL}/udp, node-cache (pid {process.pid}))"
        )


def test_people_are_told_what_it_does_to_us() -> None:
    status = {
        "config": {"error": None},
        "dns": {"upstreams": []},
        "udp": [],
        "watch": {"notes": []},
        "node": {"lease": {}, "waiting_for": "NodeLocal DNSCache (it has X)", "untracked": ["X/udp"]},
    }
    waiting, untracked = findings(status, [])
    assert waiting.startswith("NodeLocal DNSCache (it has X) still serves; remove it")
    assert "keep packets to X/udp untracked: they can't fail over" in untracked
