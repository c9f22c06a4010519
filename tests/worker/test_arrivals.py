"""What is told of datagrams that arrive, by each way of reading them."""

import os
import socket
from collections.abc import Iterator

import pytest

from proxy.worker import arrivals
from proxy.worker.arrivals import BATCH, Arrivals, BatchedArrivals, PlainArrivals, Sender, UnixArrivals, open_arrivals
from tests.worker.relaying import bound

WHERE = {"127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.77", "::1": "::1", "::": "::1"}


@pytest.fixture(params=[BatchedArrivals, PlainArrivals], ids=["batched", "plain"])
def kind(request: pytest.FixtureRequest) -> type[Arrivals]:
    return request.param


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for sock in opened:
        sock.close()


def listen(sockets: list[socket.socket], ip: str) -> socket.socket:
    sockets.append(bound(ip))
    return sockets[-1]


def client(sockets: list[socket.socket], listening: socket.socket, ip: str, asked_at: str) -> socket.socket:
    sockets.append(bound(ip))
    sockets[-1].connect((asked_at, listening.getsockname()[1]))
    sockets[-1].settimeout(2)
    return sockets[-1]


@pytest.mark.parametrize("ip", WHERE)
def test_it_takes_what_waits_and_answers_from_the_address_asked(sockets, kind, ip):
    listening = listen(sockets, ip)
    own = "::1" if ":" in ip else "127.0.0.9"
    arriving = kind(listening)
    a, b = (client(sockets, listening, own, WHERE[ip]) for _ in range(2))
    for sender, text in ((a, b"1"), (b, b""), (a, b"3")):
        sender.send(text)
    assert arriving.take() == [b"1", b"", b"3"]
    assert [arriving.source(i) for i in range(3)] == [own] * 3
    keys = [arriving.key(i) for i in range(3)]
    assert keys[0] == keys[2] != keys[1]
    assert arriving.reply(b"to b", arriving.sender(1))
    assert b.recv(100) == b"to b"
    assert arriving.take() == []


def test_a_sender_that_asks_another_address_is_another_one(sockets, kind):
    listening = listen(sockets, "0.0.0.0")
    arriving = kind(listening)
    asking = listen(sockets, "127.0.0.1")
    for ip in ("127.0.0.2", "127.0.0.3"):
        asking.sendto(b"x", (ip, listening.getsockname()[1]))
    arriving.take()
    assert arriving.key(0) != arriving.key(1)
    assert arriving.source(0) == arriving.source(1)


def test_it_takes_no_more_than_a_batch(sockets, kind):
    listening = listen(sockets, "127.0.0.1")
    arriving = kind(listening)
    sender = client(sockets, listening, "127.0.0.1", "127.0.0.1")
    for number in range(BATCH + 1):
        sender.send(b"%d" % number)
    assert arriving.take() == [b"%d" % number for number in range(BATCH)]
    assert arriving.take() == [b"%d" % BATCH]


def test_it_takes_the_longest_datagrams_whole(sockets, kind):
    listening = listen(sockets, "127.0.0.1")
    arriving = kind(listening)
    sender = client(sockets, listening, "127.0.0.1", "127.0.0.1")
    longest = os.urandom(65_507)
    for _ in range(2):
        sender.send(longest)
    assert arriving.take() == [longest, longest]


def test_what_the_kernel_will_not_send_back_is_told(sockets, kind):
    arriving = kind(listen(sockets, "127.0.0.1"))
    assert not arriving.reply(b"x", Sender(("127.0.0.1", 0)))


def test_a_closed_socket_brings_nothing(sockets):
    listening = listen(sockets, "127.0.0.1")
    arriving = PlainArrivals(listening)
    listening.close()
    assert arriving.take() == []
    assert not arriving.reply(b"x", Sender(("127.0.0.1", 9)))


def test_sources_are_remembered_but_not_without_end(sockets, monkeypatch):
    monkeypatch.setattr(arrivals, "_MOST_SOURCES", 2)
    listening = listen(sockets, "127.0.0.1")
    arriving = BatchedArrivals(listening)
    for number in range(1, 6):
        client(sockets, listening, f"127.0.0.{number}", "127.0.0.1").send(b"x")
    arriving.take()
    assert [arriving.source(i) for i in range(5)] == [f"127.0.0.{number}" for number in range(1, 6)]
    assert len(arriving._sources) <= 2


def test_datagrams_of_a_unix_socket_tell_their_user(sockets, tmp_path):
    listening = unix(sockets, str(tmp_path / "in"))
    arriving = UnixArrivals(listening)
    named, nameless = unix(sockets, str(tmp_path / "client")), unix(sockets)
    for sender in (named, nameless):
        sender.sendto(b"x", str(tmp_path / "in"))
    assert arriving.take() == [b"x", b"x"]
    assert [arriving.source(i) for i in range(2)] == [f"uid:{os.geteuid()}"] * 2
    assert arriving.key(0) != arriving.key(1)
    assert arriving.reply(b"back", arriving.sender(0))
    assert named.recv(100) == b"back"
    assert not arriving.reply(b"back", arriving.sender(1))


def test_a_unix_sender_passes_no_descriptors_in(sockets, tmp_path):
    arriving = UnixArrivals(unix(sockets, str(tmp_path / "in")))
    sender = unix(sockets)
    sender.connect(str(tmp_path / "in"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        socket.send_fds(sender, [b"x"], [sender.fileno()] * 4)
    assert arriving.take() == [b"x"] * 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_unix_datagram_that_is_cut_is_counted_and_left_out(sockets, tmp_path):
    arriving = UnixArrivals(unix(sockets, str(tmp_path / "in")))
    sender = unix(sockets)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    for size in (arrivals._UNIX_BYTES + 1, 1):
        try:
            sender.sendto(bytes(size), str(tmp_path / "in"))
        except OSError:
            pytest.skip("net.core.wmem_max lets nobody send so much")
    assert [arriving.take(), arriving.take()] == [[], [b"\0"]]
    assert arriving.cut == 1


def unix(sockets: list[socket.socket], name: str | None = None) -> socket.socket:
    sockets.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    if name is not None:
        sockets[-1].bind(name)
    sockets[-1].settimeout(2)
    return sockets[-1]


def test_it_chooses_how_to_read(sockets, tmp_path, monkeypatch):
    assert isinstance(open_arrivals(unix(sockets, str(tmp_path / "in"))), UnixArrivals)
    assert isinstance(open_arrivals(listen(sockets, "127.0.0.1")), BatchedArrivals)
    monkeypatch.setattr(arrivals, "batches_work", lambda: False)
    assert isinstance(open_arrivals(listen(sockets, "127.0.0.1")), PlainArrivals)
