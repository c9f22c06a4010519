"""Connected sockets: what they say of a path and of an endpoint that is not there."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.worker import endpoint
from proxy.worker.endpoint import MOST_BYTES, UNKNOWN_PATH, EndpointSocket, OneWaySocket, TwoWaySocket
from proxy.worker.poller import Poller
from tests.fakes import WAIT
from tests.worker.relaying import bound


class Reports:
    def __init__(self) -> None:
        self.seen: list[tuple[EndpointSocket, int]] = []
        self.arrived = asyncio.Event()

    def __call__(self, sock: EndpointSocket, error: int) -> None:
        self.seen.append((sock, error))
        self.arrived.set()


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    poller = Poller(asyncio.get_running_loop())
    yield poller
    poller.close()


@pytest.mark.parametrize("kind", [OneWaySocket, TwoWaySocket])
async def test_it_sends_to_its_endpoint(poller, kind):
    with bound("127.0.0.1") as peer:
        sock = kind(f"127.0.0.1:{peer.getsockname()[1]}", poller, Reports())
        assert sock.send(b"x") == 0
        peer.settimeout(2)
        assert peer.recv(10) == b"x"
        sock.close()


@pytest.mark.parametrize("kind", [OneWaySocket, TwoWaySocket])
async def test_a_refusal_is_reported_without_another_send(poller, kind):
    with bound("127.0.0.1") as peer:
        address = f"127.0.0.1:{peer.getsockname()[1]}"
    reports = Reports()
    sock = kind(address, poller, reports)
    assert sock.send(b"x") == 0
    async with asyncio.timeout(WAIT):
        await reports.arrived.wait()
    assert reports.seen == [(sock, errno.ECONNREFUSED)]
    sock.close()


async def test_a_refusal_shows_in_the_next_send_and_only_there(poller):
    with bound("127.0.0.1") as peer:
        address = f"127.0.0.1:{peer.getsockname()[1]}"
    sock = OneWaySocket(address, poller, Reports())
    assert [sock.send(b"x") for _ in range(4)] == [0, errno.ECONNREFUSED, 0, errno.ECONNREFUSED]
    sock.close()


async def test_nothing_is_reported_of_a_closed_one(poller):
    with bound("127.0.0.1") as peer:
        address = f"127.0.0.1:{peer.getsockname()[1]}"
    reports, later = Reports(), Reports()
    sock, other = (OneWaySocket(address, poller, one) for one in (reports, later))
    sock.send(b"x")
    sock.close()
    other.send(b"x")
    async with asyncio.timeout(WAIT):
        await later.arrived.wait()
    assert reports.seen == []
    other.close()


async def test_what_no_datagram_can_carry_is_an_error_of_its_own(poller):
    for kind in (OneWaySocket, TwoWaySocket):
        sock = kind("127.0.0.1:9", poller, Reports())
        assert sock.send(bytes(65_508)) == errno.EMSGSIZE
        sock.close()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "[::1]:9"])
async def test_no_limit_is_longer_than_jumbo_frames_carry(poller, address):
    sock = OneWaySocket(address, poller, Reports())
    assert sock.limit == sock.path_limit() == MOST_BYTES
    sock.close()


async def test_a_path_without_a_known_mtu_takes_what_fits_everywhere(poller, monkeypatch):
    monkeypatch.setitem(endpoint._MTU, socket.AF_INET, (socket.IPPROTO_IP, 9999))
    sock = OneWaySocket("127.0.0.1:9", poller, Reports())
    assert sock.limit == UNKNOWN_PATH
    sock.close()


async def test_an_address_without_a_route_cannot_be_opened(poller):
    for kind in (OneWaySocket, TwoWaySocket):
        with pytest.raises(OSError, match=r"."):
            kind("255.255.255.255:9", poller, Reports())


async def test_replies_are_read_and_a_strangers_are_told_apart(poller):
    with bound("127.0.0.1") as peer, bound("127.0.0.2") as stranger:
        reports = Reports()
        sock = TwoWaySocket(f"127.0.0.1:{peer.getsockname()[1]}", poller, reports)
        sock.send(b"x")
        peer.settimeout(2)
        _, own = peer.recvfrom(10)
        buffer = memoryview(bytearray(100))
        peer.sendto(b"re", own)
        async with asyncio.timeout(WAIT):
            await reports.arrived.wait()
        assert reports.seen[0] == (sock, 0)
        assert sock.receive_into(buffer) == 2
        assert buffer[:2] == b"re"
        with pytest.raises(BlockingIOError):
            sock.receive_into(buffer)
        sock._sock.connect(stranger.getsockname())
        stranger.sendto(b"forged", own)
        assert sock.receive_into(buffer) is None
        sock.close()
