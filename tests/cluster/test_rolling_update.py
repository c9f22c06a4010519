"""`sidestep run` on the real API server while its StatsD pods are replaced under load: what is counted arrives, once.

The pods are addresses in a network namespace, for slices can't hold loopback ones; the load never leaves it.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.lab.tools import Unavailable
from tests.cluster.api_server import endpoint_slice
from tests.control.eventually import eventually
from tests.control.sidestep import Sidestep
from tests.testbed import netns
from tests.testbed.api_server import RealApiServer
from tests.testbed.control_plane import ControlPlane

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

RELAY = ("127.0.0.1", 8125)
PORT = 9125
PODS = 100
AT_ONCE = 4
"""So many pods are replaced in one step."""
DATAGRAMS = 50
"""Sent at a time, every hundredth of a second."""
LINES_PER_STEP = 600
"""What is sent between two steps, at least."""
NAMES = [f"load.{number}" for number in range(2000)]
"""So many that every pod gets some."""
SO_RCVBUFFORCE, IP_PKTINFO = 33, 8


class Pods:
    """All pods of the Service, as one socket: what came in total, and what came to a pod after it was given up.

    Datagrams queue in the order in which the relay sent them. So the first one to a new pod tells that the relay has
    applied the change that brought it, and from there on none may go to the pods that this change took away.
    """

    def __init__(self, namespace: netns.NetworkNamespace) -> None:
        self.totals: Counter[str] = Counter()
        self.reached: set[str] = set()
        self.late: list[str] = []
        self._gone: set[str] = set()
        self._new: set[str] = set()
        self._leaving: set[str] = set()
        self._applied = asyncio.Event()
        self._socket = namespace.socket(socket.SOCK_DGRAM, ("0.0.0.0", PORT))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 * 1024 * 1024)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    async def applied(self, new: Sequence[str], leaving: Sequence[str]) -> None:
        """Wait until the relay has applied the change that was just made."""
        self._new, self._leaving = set(new), set(leaving)
        self._applied.clear()
        async with asyncio.timeout(20):
            await self._applied.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                datagram, ancillary, _, _ = self._socket.recvmsg(65535, 64)
                *_, target = struct.unpack("=I4s4s", ancillary[0][2])
                self._count(socket.inet_ntoa(target), datagram)

    def _count(self, pod: str, datagram: bytes) -> None:
        self.reached.add(pod)
        if pod in self._new:
            self._gone |= self._leaving
            self._new = set()
            self._applied.set()
        elif pod in self._gone:
            self.late.append(f"{pod}: {datagram[:80]!r}")
        for line in datagram.splitlines():
            name, _, value = line.decode().removesuffix("|c").partition(":")
            self.totals[name] += int(value)


class Load:
    """Counters from one socket, from before the first change until after the last."""

    def __init__(self, namespace: netns.NetworkNamespace) -> None:
        self.totals: Counter[str] = Counter()
        self.lines = 0
        self._socket = namespace.socket(socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._socket.connect(RELAY)
        self._sending = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        while True:
            for _ in range(DATAGRAMS):
                name, value = NAMES[self.lines * 7 % len(NAMES)], self.lines % 9 + 1
                self._socket.send(b"%s:%d|c" % (name.encode(), value))
                self.totals[name] += value
                self.lines += 1
            await asyncio.sleep(0.01)

    async def goes_on(self, lines: int) -> None:
        """Wait until so many more were sent."""
        wanted = self.lines + lines
        await eventually(lambda: self.lines >= wanted)

    async def stop(self) -> None:
        self._sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sending
        self._socket.close()


class Node:
    """Sidestep at work before the pods, and the load on it."""

    def __init__(self, sidestep: Sidestep, api_server: RealApiServer, pods: Pods, load: Load) -> None:
        self._sidestep = sidestep
        self._api_server = api_server
        self.pods = pods
        self.load = load

    async def slice(self, ready: Sequence[str], terminating: Sequence[str] = ()) -> None:
        """The Service's endpoints from now on."""
        leaving = {"ready": False, "serving": True, "terminating": True}
        endpoints = [*ready, *({"addresses": [pod], "conditions": leaving} for pod in terminating)]
        await self._api_server.put(endpoint_slice("statsd", endpoints, port=PORT))

    async def status(self) -> dict[str, Any]:
        return dict((await self._sidestep.status())["udp"][0])

    async def folding(self) -> bool:
        return bool((await self.status())["fold"]["lines"])

    async def settled(self) -> dict[str, Any]:
        """Stop the load; the ledger once everything sent is in it and nothing waits for an endpoint any more."""
        await self.load.stop()

        async def settled() -> bool:
            status = await self.status()
            return bool(status["ledger"]["received"] == self.load.lines and not status["fold"]["lines"])

        await eventually(settled)
        return dict((await self.status())["ledger"])


@pytest.fixture
async def node(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Node]:
    async with contextlib.AsyncExitStack() as stack:
        try:
            namespace = stack.enter_context(netns.made())
        except Unavailable as unavailable:
            pytest.skip(str(unavailable))
        api_server = RealApiServer(control_plane, tmp_path)
        await api_server.open()
        stack.push_async_callback(api_server.close)
        await stack.enter_async_context(namespace.reaching("127.0.0.1", control_plane.port))
        pods = Pods(namespace)
        stack.callback(pods.close)
        access = api_server.access
        sidestep = Sidestep(tmp_path)
        relay = {
            "name": "statsd",
            "listen": [f"{RELAY[0]}:{RELAY[1]}"],
            "service": "monitoring/statsd",
            "port": "statsd",
        }
        sidestep.write(
            json.dumps(
                {
                    "udp": [relay],
                    "kubernetes": {
                        "server": access.server,
                        "token_file": str(access.token_file),
                        "ca_file": str(access.ca_file),
                    },
                    "admin": {"listen": "127.0.0.1:9253", "socket": str(sidestep.socket)},
                }
            )
        )
        await sidestep.start(*namespace.prefix)
        stack.push_async_callback(sidestep.stop)
        load = Load(namespace)
        stack.push_async_callback(load.stop)
        yield Node(sidestep, api_server, pods, load)


OLD = [f"10.244.1.{number + 1}" for number in range(PODS)]
NEW = [f"10.244.2.{number + 1}" for number in range(PODS)]


async def test_no_line_is_lost_or_sent_to_a_pod_that_is_gone_in_a_rolling_update(node: Node) -> None:
    await node.slice(OLD)
    await node.pods.applied(OLD, [])
    for first in range(0, PODS, AT_ONCE):
        after = first + AT_ONCE
        await node.slice([*NEW[:after], *OLD[after:]], terminating=OLD[first:after])
        await node.pods.applied(NEW[first:after], OLD[first:after])
        await node.load.goes_on(LINES_PER_STEP)
    await node.load.goes_on(len(NAMES))

    ledger = await node.settled()
    await eventually(lambda: node.pods.totals == node.load.totals)
    assert not node.pods.late
    assert node.pods.reached >= set(NEW)
    assert ledger["forwarded"] + ledger["folded"] == node.load.lines
    assert ledger["dropped"] == {}


async def test_what_is_counted_while_there_is_no_pod_reaches_the_next_ones(node: Node) -> None:
    await node.slice(OLD)
    await node.pods.applied(OLD, [])
    await node.slice([])
    await eventually(node.folding)
    await node.load.goes_on(LINES_PER_STEP)
    await node.slice(NEW)
    await node.pods.applied(NEW, OLD)
    await node.load.goes_on(LINES_PER_STEP)

    ledger = await node.settled()
    await eventually(lambda: node.pods.totals == node.load.totals)
    assert not node.pods.late
    assert ledger["folded"] > 0
    assert ledger["forwarded"] + ledger["folded"] == node.load.lines
    assert ledger["dropped"] == {}
