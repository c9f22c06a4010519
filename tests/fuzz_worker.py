"""Mutated packets through a running `sidestep run`: as its clients over UDP and TCP, and as its upstream."""

import asyncio
import re
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from urllib.request import urlopen

from tests.control.eventually import eventually
from tests.control.sidestep import Sidestep
from tests.fakes import WAIT, UdpStub
from tests.fuzz_scanner import Offence
from tests.wires import corpus, mutate

BURST = 64
"""Datagrams between two questions that must be answered: they fit into a socket's buffer."""
TCP_EVERY = 16
"""Bursts between two that go over TCP."""
TOLD_EVERY = 256
"""Bursts between two reports of progress."""
MOST_A_SECOND = 8000
"""Packets, so that about as many questions are in flight all the time: each has a few KiB."""
MOST_RESIDENT = 128 << 20
"""Bytes of memory; a worker with 8,192 questions in flight and a full cache of 1 MiB has about 80 MiB."""
MOST_GROWTH = 12 << 20
"""Bytes that it may gain in the second half of a run that is long enough to fill everything in the first."""
LONG = 400_000
CACHE = {"size": "1MiB", "max_ttl": "5s", "stale": "10s"}
_GOOD = b"\x04good\x07example\0"
_ADDRESS = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4\xc0\0\2\1"


def good_question(number: int) -> bytes:
    """Always answered well by the upstream below; the first label makes it another name."""
    label = b"%d" % number
    head = number.to_bytes(4, "big")[2:] + b"\1\0\0\1\0\0\0\0\0\0"
    return head + bytes((len(label),)) + label + _GOOD + b"\0\1\0\1"


def random_question(random: Random) -> bytes:
    """A name that nobody asked for before."""
    label = b"%08x" % random.getrandbits(32)
    name = b"\x08" + label + b"\x07example\0"
    return (
        random.randbytes(2)
        + b"\1\0\0\1\0\0\0\0\0\0"
        + name
        + random.choice((b"\0\1", b"\0\x1c", b"\0\x10"))
        + b"\0\1"
    )


class EvilUpstream:
    """Answers right, mutated, with other messages altogether, truncated, twice or not at all."""

    def __init__(self, random: Random) -> None:
        self.sent: list[bytes] = []
        """Replies since the last burst began."""
        self._random = random
        self._answers = [wire for wire in corpus() if wire[2] & 0x80]
        self._tcp: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    async def start(self) -> str:
        while True:
            self._udp.bind(("127.0.0.1", 0))
            self._udp.setblocking(False)
            self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            port = self._udp.getsockname()[1]
            try:
                self._tcp = await asyncio.start_server(self._serve, "127.0.0.1", port)
                break
            except OSError:
                self._udp.close()
                self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._drain)
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._udp.fileno())
        self._udp.close()
        self._tcp.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)

    def _drain(self) -> None:
        for _ in range(256):
            try:
                wire, source = self._udp.recvfrom(65535)
            except (BlockingIOError, ConnectionError):
                return
            for message in self._replies(wire):
                try:
                    self._udp.sendto(message, source)
                except (BlockingIOError, ConnectionError):
                    pass

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                for message in self._replies(await reader.readexactly(length)):
                    cut = self._random.random() < 0.05  # a length that isn't that of the message
                    writer.write((len(message) + cut).to_bytes(2, "big") + message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _replies(self, query: bytes) -> list[bytes]:
        at = 12
        while query[at]:
            at += query[at] + 1
        asked = query[12 : at + 5]
        right = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + asked + _ADDRESS
        if asked[:-4].endswith(_GOOD):
            return [right]
        chance = self._random.random()
        if chance < 0.3 and asked[-4:-2] == b"\0\1":
            replies = [right]
        elif chance < 0.4:
            replies = []
        elif chance < 0.5:
            replies = [query[:2] + b"\x83\x80\0\1\0\0\0\0\0\0" + asked]
        elif chance < 0.75:
            replies = [query[:2] + mutate(self._random, (right,))[2:], right]
        else:
            other = self._random.choice(self._answers)
            same = query[:2] + other[2:12] + asked + other[12 + len(asked) :]
            replies = [query[:2] + mutate(self._random, (same, other))[2:]]
        self.sent += replies
        return replies


class EvilClients:
    """Sends bursts, each followed by a question that must be answered."""

    def __init__(self, address: str, random: Random, upstream: EvilUpstream) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._random = random
        self._upstream = upstream
        self._queries = [wire for wire in corpus() if not wire[2] & 0x80]
        self._stubs = [UdpStub(self._address) for _ in range(8)]
        self._number = 0
        self.packets: list[bytes] = []
        """The burst that was sent last."""

    async def burst(self, size: int) -> None:
        """Raises `Offence` when the good question behind it gets no answer."""
        self._number += 1
        self._upstream.sent.clear()
        packets = self.packets = [self._packet() for _ in range(size)]
        try:
            async with asyncio.timeout(WAIT):
                if self._number % TCP_EVERY:
                    await self._over_udp(packets)
                else:
                    await self._over_tcp(packets)
        except TimeoutError:
            raise Offence("no answer after these questions and replies", packets, self._upstream.sent) from None

    def close(self) -> None:
        for stub in self._stubs:
            stub.close()

    def _packet(self) -> bytes:
        chance = self._random.random()
        if chance < 0.2:
            return random_question(self._random)
        if chance < 0.3:
            return self._random.choice(self._queries)
        return mutate(self._random, corpus() if chance < 0.5 else self._queries)

    async def _over_udp(self, packets: list[bytes]) -> None:
        stub = self._stubs[self._number % len(self._stubs)]
        for packet in packets:
            stub.send(packet)
        asked = good_question(self._number)
        stub.send(asked)
        while (await stub.receive())[12 : len(asked)] != asked[12:]:
            pass

    async def _over_tcp(self, packets: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        asked = good_question(self._number)
        try:
            for packet in (*packets, asked):
                writer.write(len(packet).to_bytes(2, "big") + packet)
            await writer.drain()
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                if (await reader.readexactly(length))[12 : len(asked)] == asked[12:]:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # it may hang up on who breaks the rules
        finally:
            writer.close()


async def run(packets: int, seed: int) -> AsyncIterator[tuple[int, int]]:
    """Send that many packets, telling now and then how many are done and the worker's resident bytes."""
    random = Random(seed)
    upstream = EvilUpstream(random)
    with tempfile.TemporaryDirectory() as directory:
        sidestep = Sidestep(Path(directory), await upstream.start())
        sidestep.write(cache=CACHE)
        await sidestep.start()
        clients = EvilClients(sidestep.address, random, upstream)
        try:
            pid = await sidestep.worker()
            half = 0
            started = time.monotonic()
            for done in range(0, packets, BURST):
                await asyncio.sleep(started + done / MOST_A_SECOND - time.monotonic())
                await clients.burst(min(BURST, packets - done))
                if restarted := sidestep.lines("restarting it"):
                    raise Offence(
                        f"{restarted[0]['message']}: {traceback_of(sidestep)}", clients.packets, upstream.sent
                    )
                if done % (BURST * TOLD_EVERY) == 0:
                    yield done, resident(pid)
                if done <= packets // 2 < done + BURST:
                    half = resident(pid)
            end = resident(pid)
            await check_end(sidestep, pid)
            assert end < MOST_RESIDENT, f"the worker has {end} bytes"
            assert packets < LONG or end - half < MOST_GROWTH, f"the worker grew from {half} to {end} bytes"
            yield packets, end
        finally:
            clients.close()
            await sidestep.stop()
            await upstream.stop()


def traceback_of(sidestep: Sidestep) -> str:
    """What a process wrote that was no log line."""
    return "".join(line["message"] for line in sidestep.log if line["level"] == "raw")


async def check_end(sidestep: Sidestep, pid: int) -> None:
    """The same worker still answers, nothing is left in flight, and its ledger is even."""
    worker = (await sidestep.status())["workers"][0]
    assert (worker["pid"], worker["restarts"]) == (pid, 0)
    assert (await sidestep.ask("1.good.example")).answer
    await eventually(lambda: balance(sidestep) == 0)
    warnings = [line for line in sidestep.log if line["level"] in ("error", "raw")]
    assert not warnings, warnings[:3]


def balance(sidestep: Sidestep) -> int:
    """Questions received and neither answered nor dropped under a reason, by `/metrics`."""
    text = urlopen(f"http://{sidestep.admin}/metrics").read().decode()
    sums = dict.fromkeys(("received", "answered", "dropped"), 0)
    for name, value in re.findall(r"^sidestep_dns_questions_(\w+)_total(?:{[^}]*})? (\S+)$", text, re.MULTILINE):
        if name in sums:
            sums[name] += int(float(value))
    return sums["received"] - sums["answered"] - sums["dropped"]


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
