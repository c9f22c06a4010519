"""A relay worker as control starts it: a process with a channel, a ledger in shared memory, and nothing else."""

import asyncio
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.core import ledger
from proxy.core.counters import HEARTBEAT
from proxy.core.policy import RelayPolicy
from proxy.worker.channel import ConfigureRelays, Drain, Drained, Listener, Ready, RelayReport, control_end
from tests.fakes import WAIT
from tests.worker.relaying import PROBE, Peer, bound

STATSD = RelayPolicy("statsd", 0, "statsd", "name", probe=PROBE)
DATAGRAM = RelayPolicy("syslog", 1, "datagram", "source", probe=PROBE)

NOTHING_LEFT_TO_IMPORT = """
import sys
from proxy.worker import __main__ as worker, privileges

class Unreadable:
    def find_spec(self, name, path=None, target=None):
        print("late import of", name, file=sys.stderr, flush=True)

def drop(uid, gid):
    sys.meta_path[:] = [Unreadable()]

privileges.drop = drop
worker.main()
"""


class Worker:
    """The process, and control's end of its channel."""

    def __init__(self, *command: str) -> None:
        self.memory_fd = os.memfd_create("ledger")
        os.ftruncate(self.memory_fd, ledger.SLOTS * 8)
        self.memory = memoryview(mmap.mmap(self.memory_fd, ledger.SLOTS * 8)).cast("Q")
        self.said: list[Any] = []
        self._heard = asyncio.Event()
        self._command = command or ("-m", "proxy.worker")
        self.listening: dict[int, socket.socket] = {}
        self.listeners: list[Listener] = []
        self.start()

    def start(self) -> None:
        """Another process with the same ledger."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = ["--role", "relay", "--channel", str(theirs.fileno()), "--counters", str(self.memory_fd)]
        options += ["--name", "relay-0", "--log-format", "json"]
        self.process = subprocess.Popen(
            [sys.executable, "-P", *self._command, *options],
            pass_fds=(theirs.fileno(), self.memory_fd),
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.channel = control_end(ours, self._hear, self._heard.set)
        self.given: set[int] = set()

    def _hear(self, message: Any) -> None:
        self.said.append(message)
        self._heard.set()

    async def heard(self, wanted: Callable[[Any], bool]) -> Any:
        """The first message that is wanted, which is then forgotten."""
        async with asyncio.timeout(WAIT):
            while not any(map(wanted, self.said)):
                self._heard.clear()
                await self._heard.wait()
        found = next(filter(wanted, self.said))
        self.said.remove(found)
        return found

    def listen(self, sock: socket.socket, relay: str) -> None:
        """Lend it a socket with the next configuration."""
        number = len(self.listeners) + 1
        transport = "unixgram" if sock.family == socket.AF_UNIX else "udp"
        self.listening[number] = sock
        self.listeners.append(Listener(number, "", transport, relay))

    def configure(self, *relays: RelayPolicy) -> None:
        new = [listener.id for listener in self.listeners if listener.id not in self.given]
        self.given |= set(new)
        self.channel.send(
            ConfigureRelays(list(relays), self.listeners, new), [self.listening[number].fileno() for number in new]
        )

    def block(self, policy: RelayPolicy) -> memoryview:
        return ledger.block(self.memory, policy.block)

    async def ended(self) -> tuple[int, str]:
        """Its exit status and what it wrote."""
        _, written = await asyncio.to_thread(self.process.communicate, timeout=WAIT)
        return self.process.returncode, written.decode()

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.communicate()
        for sock in self.listening.values():
            sock.close()
        os.close(self.memory_fd)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def make(*command: str) -> Worker:
        workers.append(Worker(*command))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


@pytest.fixture
async def peer() -> AsyncIterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def make(to: socket.socket | None = None, ip: str = "127.0.0.1") -> Peer:
        peers.append(Peer(bound(ip)))
        if to is not None:
            peers[-1].sock.connect(to.getsockname())
        return peers[-1]

    yield make
    for one in peers:
        one.close()


def is_ready(message: Any) -> bool:
    return isinstance(message, Ready)


def is_drained(message: Any) -> bool:
    return isinstance(message, Drained)


async def test_it_relays_both_modes_reports_and_drains_without_a_late_import(start, peer, tmp_path: Path):
    """Once it has given up root, the interpreter's library may be unreadable."""
    worker = start("-c", NOTHING_LEFT_TO_IMPORT)
    statsd, syslog, unix = bound("127.0.0.1"), bound("0.0.0.0"), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    unix.bind(str(tmp_path / "in"))
    for sock, relay in ((statsd, "statsd"), (syslog, "syslog"), (unix, "statsd")):
        worker.listen(sock, relay)
    endpoint = peer()
    worker.configure(STATSD, replace(DATAGRAM, endpoints=(endpoint.address,)))
    await worker.heard(is_ready)
    assert worker.memory[HEARTBEAT] > 0

    client = peer(statsd)
    client.sock.send(b"n:1.5|c\nn:0.1|c|@0.3\ng:+1.25|g\ns:\xc3\xa9|s\nt:1.5|ms\n_e{1,1}:a|\x1b\ngarbage\xff\x1b")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
        local.sendto(b"n:2|c", str(tmp_path / "in"))
    report = await worker.heard(lambda said: isinstance(said, RelayReport) and len(said.relays[0].folded) >= 4)
    assert [state.name for state in report.relays] == ["statsd", "syslog"]
    assert len(report.relays[0].malformed) == 1

    other = peer()
    other.sock.connect(("127.0.0.1", syslog.getsockname()[1]))
    other.sock.send(b"opaque")
    assert await endpoint.received(1) == [b"opaque"]
    endpoint.sock.sendto(b"reply", endpoint.sources[0])
    assert await other.received(1) == [b"reply"]

    worker.configure(replace(STATSD, endpoints=(endpoint.address,)), DATAGRAM)
    await endpoint.received(2)
    worker.channel.send(Drain())
    await worker.heard(is_drained)
    assert await worker.ended() == (0, "")
    assert [ledger.unaccounted(worker.block(policy)) for policy in (STATSD, DATAGRAM)] == [0, 0]


async def test_a_drain_leaves_nothing_in_the_queue(start, peer):
    worker = start()
    sock, endpoint = bound("127.0.0.1"), peer()
    worker.listen(sock, "statsd")
    worker.configure(replace(STATSD, endpoints=(endpoint.address,)))
    await worker.heard(is_ready)
    client = peer(sock)
    worker.process.send_signal(signal.SIGSTOP)
    for number in range(300):
        client.sock.send(b"n%d:1|c" % number)
    worker.channel.send(Drain())
    worker.process.send_signal(signal.SIGCONT)
    await worker.heard(is_drained)
    endpoint.read()
    assert sorted(endpoint.lines) == sorted(b"n%d:1|c" % number for number in range(300))
    assert (await worker.ended())[0] == 0


async def test_what_waits_outlives_a_killed_worker(start, peer):
    worker = start()
    sock, endpoint = bound("127.0.0.1"), peer()
    worker.listen(sock, "statsd")
    policy = replace(STATSD, endpoints=(endpoint.address,))
    worker.configure(policy)
    await worker.heard(is_ready)
    client = peer(sock)
    client.sock.send(b"a:1|c")
    await endpoint.received(1)
    client.sock.send(PROBE.encode())
    await client.received(1)  # so the first one is counted
    worker.process.send_signal(signal.SIGSTOP)
    for _ in range(300):
        client.sock.send(b"b:1|c")
    worker.process.kill()
    await worker.ended()
    worker.channel.close()
    worker.start()
    worker.configure(policy)
    await worker.heard(is_ready)
    while endpoint.lines.count(b"b:1|c") < 300:
        await endpoint.received(len(endpoint.got) + 1)
    worker.channel.send(Drain())
    await worker.heard(is_drained)
    await worker.ended()
    assert worker.block(policy)[ledger.RECEIVED] == worker.block(policy)[ledger.FORWARDED] == 301


async def test_it_ends_when_control_is_gone(start):
    worker = start()
    worker.configure(STATSD)
    await worker.heard(is_ready)
    worker.channel.close()
    assert (await worker.ended())[0] == 0


async def test_a_dns_worker_cannot_be_started_without_its_journal():
    command = [sys.executable, "-m", "proxy.worker", "--channel", "0", "--counters", "0", "--name", "x"]
    ran = await asyncio.to_thread(
        subprocess.run, [*command, "--log-format", "json"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "--journal" in ran.stderr
