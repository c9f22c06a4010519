"""Datagram mode on real sockets: sessions, replies, endpoints that go away or refuse, and what runs out."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.worker import endpoint as endpoint_module
from tests.worker.relaying import PROBE, Peer, Relaying


@pytest.fixture
async def relaying() -> AsyncIterator[Callable[..., Relaying]]:
    made: list[Relaying] = []

    def make(**policy: object) -> Relaying:
        made.append(Relaying("datagram", **policy))
        return made[-1]

    yield make
    for one in made:
        one.close()


def serve(relaying: Relaying, ip: str = "127.0.0.1") -> Peer:
    """An endpoint that answers each datagram with `re:` and the same."""
    peer = relaying.peer(ip)

    def answer() -> None:
        before = len(peer.got)
        peer.read()
        for datagram, source in zip(peer.got[before:], peer.sources[before:], strict=True):
            peer.sock.sendto(b"re:" + datagram, source)

    asyncio.get_running_loop().remove_reader(peer.sock.fileno())
    asyncio.get_running_loop().add_reader(peer.sock.fileno(), answer)
    return peer


@pytest.mark.parametrize(
    ("ip", "asked_at"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("0.0.0.0", "127.0.0.77"), ("::", "::1")],
    ids=lambda ip: ip,
)
async def test_replies_come_from_the_address_that_was_asked(relaying, ip, asked_at):
    relay = relaying()
    upstream = serve(relay)
    relay.configure(upstream)
    server = relay.listen(ip, asked_at)
    client = relay.client(server, "::1" if ":" in ip else "127.0.0.1")
    for text in (b"one", b"", b"two"):
        client.sock.send(text)
    assert await client.received(3) == [b"re:one", b"re:", b"re:two"]
    assert relay.ledger == {"received": 3, "forwarded": 3}
    assert relay.count("replies") == 3
    assert relay.count("datagrams_received") == relay.count("datagrams_sent") == 3
    assert relay.count("sessions_opened") == 1


async def test_a_client_that_asks_two_of_our_addresses_has_two_sessions(relaying):
    relay = relaying()
    upstream = serve(relay)
    relay.configure(upstream)
    _, port = relay.listen("0.0.0.0", "127.0.0.1")
    client = relay.peer()
    for ip in ("127.0.0.5", "127.0.0.6"):
        client.sock.sendto(ip.encode(), (ip, port))
    await client.received(2)
    assert sorted(zip(client.sources, client.got, strict=True)) == [
        (("127.0.0.5", port), b"re:127.0.0.5"),
        (("127.0.0.6", port), b"re:127.0.0.6"),
    ]
    assert relay.count("sessions_opened") == 2


async def test_each_client_gets_its_own_replies(relaying):
    relay = relaying()
    relay.configure(serve(relay))
    server = relay.listen()
    clients = [relay.client(server) for _ in range(10)]
    for number, client in enumerate(clients):
        client.sock.send(b"%d" % number)
    for number, client in enumerate(clients):
        assert await client.received(1) == [b"re:%d" % number]


async def test_a_datagram_of_64_kib_passes_both_ways(relaying):
    relay = relaying()
    relay.configure(serve(relay))
    client = relay.client(relay.listen())
    client.sock.send(bytes(65_500))
    assert await client.received(1) == [b"re:" + bytes(65_500)]


async def test_all_flows_of_one_source_go_to_one_endpoint(relaying):
    relay = relaying()
    upstreams = [relay.peer(f"127.0.0.{number}") for number in range(2, 8)]
    relay.configure(*upstreams)
    server = relay.listen()
    for _ in range(12):
        relay.client(server, "127.0.0.9").sock.send(b"x")
    await relay.settle(server)
    assert sorted(len(upstream.got) for upstream in upstreams) == [0] * 5 + [12]


async def test_packet_spreads_each_datagram_anew_and_takes_replies_from_all(relaying):
    relay = relaying(spread="packet")
    upstreams = [serve(relay, f"127.0.0.{number}") for number in (2, 3, 4)]
    relay.configure(*upstreams)
    client = relay.client(relay.listen())
    for _ in range(9):
        client.sock.send(b"x")
    await client.received(9)
    assert [len(upstream.got) for upstream in upstreams] == [3, 3, 3]
    assert relay.count("sessions_opened") == 1


async def test_a_session_moves_with_its_next_datagram_when_its_endpoint_is_removed(relaying):
    relay = relaying()
    old, new = relay.peer("127.0.0.2"), serve(relay, "127.0.0.3")
    relay.configure(old)
    server = relay.listen()
    client = relay.client(server)
    client.sock.send(b"1")
    await old.received(1)
    relay.configure(new)
    old.sock.sendto(b"late", old.sources[0])
    client.sock.send(b"2")
    assert await client.received(1) == [b"re:2"]
    await relay.settle(server)
    assert client.got == [b"re:2"]
    assert old.got == [b"1"]
    assert relay.count("sessions_opened") == 1


async def test_a_session_stays_where_it_is_when_endpoints_come(relaying):
    relay = relaying()
    first = relay.peer("127.0.0.2")
    relay.configure(first)
    server = relay.listen()
    clients = [relay.client(server, f"127.0.1.{number}") for number in range(20)]
    for round_ in range(2):
        for client in clients:
            client.sock.send(b"%d" % round_)
        await first.received(20 * (round_ + 1))
        relay.configure(first, *(f"127.0.0.3:{port}" for port in range(1, 10)))


async def test_a_refusal_moves_the_session_at_once_and_back_after_a_trial(relaying):
    relay = relaying(eject=5.0)
    a, b = relay.peer("127.0.0.2"), relay.peer("127.0.0.3")
    relay.configure(a, b)
    server = relay.listen()
    client = relay.client(server)
    client.sock.send(b"1")
    await relay.settle(server)
    dead, alive = (a, b) if a.got else (b, a)
    address, port = dead.sock.getsockname()
    dead.close()
    client.sock.send(b"2")  # refused: nobody can know before
    await relay.settle(server)
    client.sock.send(b"3")
    assert await alive.received(1) == [b"3"]
    assert relay.state.ejected == [f"{address}:{port}"]
    assert relay.count("refused") == relay.count("ejected") == 1
    dead = serve_again(relay, address, port)
    relay.clock.advance(5.0)
    client.sock.send(b"trial")
    assert await client.received(1) == [b"re:trial"]
    await relay.settle(server)
    assert relay.state.ejected == []
    client.sock.send(b"4")
    assert await alive.received(2) == [b"3", b"4"]
    assert relay.ledger == {"received": 5, "forwarded": 5}


def serve_again(relay: Relaying, ip: str, port: int) -> Peer:
    peer = relay.peer(ip, port)

    def answer() -> None:
        datagram, source = peer.sock.recvfrom(65_535)
        peer.sock.sendto(b"re:" + datagram, source)

    asyncio.get_running_loop().remove_reader(peer.sock.fileno())
    asyncio.get_running_loop().add_reader(peer.sock.fileno(), answer)
    return peer


async def test_the_only_endpoint_is_used_on_though_it_refuses(relaying):
    relay = relaying()
    upstream = relay.peer()
    relay.configure(upstream)
    server = relay.listen()
    address = upstream.sock.getsockname()
    upstream.close()
    client = relay.client(server)
    for _ in range(5):
        client.sock.send(b"lost")
        await relay.settle(server)
    assert relay.count("refused") > 0
    assert relay.count("ejected") == 0
    upstream = relay.peer(*address)
    client.sock.send(b"heard")
    assert await upstream.received(1) == [b"heard"]
    assert relay.ledger == {"received": 6, "forwarded": 6}


async def test_no_stranger_reaches_a_client_through_its_session(relaying):
    relay = relaying()
    upstream = relay.peer("127.0.0.2")
    relay.configure(upstream)
    server = relay.listen()
    client = relay.client(server)
    client.sock.send(b"x")
    await upstream.received(1)
    stranger = relay.peer("127.0.0.3")
    stranger.sock.sendto(b"forged", upstream.sources[0])
    upstream.sock.sendto(b"true", upstream.sources[0])
    assert await client.received(1) == [b"true"]
    await relay.settle(server)
    assert client.got == [b"true"]


async def test_what_came_before_the_socket_was_connected_is_refused_and_counted(relaying, monkeypatch):
    """The kernel gives a socket its port before its peer: a stranger's datagram may fall between the two."""
    relay = relaying()
    stranger = relay.peer("127.0.0.3")

    class Early(socket.socket):
        def connect(self, peer: object) -> None:
            self.bind(("127.0.0.1", 0))
            stranger.sock.sendto(b"forged", self.getsockname())
            super().connect(peer)

    upstream = serve(relay, "127.0.0.2")
    server = relay.listen()
    client = relay.client(server)
    relay.configure(upstream)
    monkeypatch.setattr(endpoint_module.socket, "socket", Early)
    client.sock.send(b"x")
    assert await client.received(1) == [b"re:x"]
    monkeypatch.undo()
    assert relay.count("replies_refused") == 1
    assert relay.count("replies") == 1


async def test_no_endpoint_drops_and_says_so(relaying):
    relay = relaying()
    server = relay.listen()
    relay.client(server).sock.send(b"x")
    await relay.settle(server)
    assert relay.ledger == {"received": 1, "no_endpoint": 1}
    assert relay.count("sessions_opened") == 0


async def test_a_session_ends_when_nothing_passed_for_a_while(relaying):
    relay = relaying(sessions_idle=60.0)
    upstream = serve(relay)
    relay.configure(upstream)
    server = relay.listen()
    client = relay.client(server)
    client.sock.send(b"1")
    await client.received(1)
    relay.clock.advance(59.0)
    client.sock.send(b"2")
    await client.received(2)
    relay.clock.advance(59.0)
    relay.worker.write_gauges()
    assert relay.count("sessions") == 1
    relay.clock.advance(1.0)
    relay.worker.write_gauges()
    assert relay.count("sessions") == 0
    assert relay.count("sessions_evicted") == 0
    client.sock.send(b"3")
    await client.received(3)
    assert len(set(upstream.sources)) == relay.count("sessions_opened") == 2


async def test_too_many_sessions_evict_the_one_idle_longest(relaying):
    relay = relaying(sessions_max=2)
    upstream = serve(relay)
    relay.configure(upstream)
    server = relay.listen()
    a, b, c = clients = [relay.client(server) for _ in range(3)]
    for client in (a, b, a, c):
        client.sock.send(b"x")
        await relay.settle(server)
    assert relay.count("sessions_evicted") == 1
    upstream.sock.sendto(b"late", upstream.sources[1])
    upstream.sock.sendto(b"late", upstream.sources[0])
    await a.received(3)
    await relay.settle(server)
    assert b.got == [b"re:x"]
    relay.configure(upstream, sessions_max=1)
    assert relay.count("sessions_evicted") == 2
    assert [len(client.got) for client in clients] == [3, 1, 1]


async def test_sessions_make_room_when_sockets_run_out(relaying):
    relay = relaying()
    relay.configure(serve(relay))
    relay.worker._budget.left = 2
    server = relay.listen()
    clients = [relay.client(server) for _ in range(4)]
    for client in clients:
        client.sock.send(b"x")
        await client.received(1)
    assert relay.count("sessions_evicted") == 2
    assert relay.ledger == {"received": 4, "forwarded": 4}


async def test_it_drops_what_can_get_no_socket_and_goes_on(relaying):
    relay = relaying()
    relay.configure(serve(relay))
    relay.worker._budget.left = 0
    server = relay.listen()
    client = relay.client(server)
    client.sock.send(b"x")
    await relay.settle(server)
    assert relay.ledger == {"received": 1, "session_limit": 1}
    relay.worker._budget.left = 1
    client.sock.send(b"y")
    await client.received(1)


async def test_it_survives_a_process_without_descriptors(relaying, monkeypatch):
    relay = relaying()
    relay.configure(serve(relay))
    server = relay.listen()
    clients = [relay.client(server) for _ in range(3)]
    clients[0].sock.send(b"x")
    await clients[0].received(1)
    refused = 0
    done = asyncio.Event()

    def failing(*args: object) -> socket.socket:
        nonlocal refused
        refused += 1
        if refused == 2:
            done.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(endpoint_module.socket, "socket", failing)
    clients[1].sock.send(b"y")
    await done.wait()
    monkeypatch.undo()
    assert relay.ledger == {"received": 2, "forwarded": 1, "session_limit": 1}
    assert relay.count("sessions_evicted") == 1
    clients[2].sock.send(b"z")
    await clients[2].received(1)


async def test_an_endpoint_without_a_route_is_passed_over(relaying):
    """A broadcast address: connecting to it needs a permission that we don't have."""
    relay = relaying(spread="packet")
    upstream = serve(relay)
    relay.configure("255.255.255.255:9", upstream)
    server = relay.listen()
    client = relay.client(server)
    for _ in range(4):
        client.sock.send(b"x")
    await client.received(4)
    assert relay.ledger == {"received": 4, "forwarded": 4}
    relay.configure("255.255.255.255:9")
    client.sock.send(b"x")
    await relay.settle(server)
    assert relay.ledger == {"received": 5, "forwarded": 4, "unsendable": 1}


async def test_a_source_past_its_rate_is_dropped_whatever_its_ports(relaying):
    relay = relaying(datagrams_per_second=3)
    upstream = relay.peer()
    relay.configure(upstream)
    server = relay.listen()
    for _ in range(5):
        relay.client(server, "127.0.0.9").sock.send(b"x")
    relay.client(server, "127.0.0.8").sock.send(b"other")
    await relay.settle(server)
    assert relay.ledger == {"received": 6, "forwarded": 4, "rate_limited": 2}


async def test_the_probe_comes_back_and_counts_nowhere(relaying):
    relay = relaying()
    upstream = relay.peer()
    relay.configure(upstream)
    server = relay.listen("0.0.0.0", "127.0.0.77")
    prober = relay.client(server)
    prober.sock.send(PROBE.encode())
    assert await prober.received(1) == [PROBE.encode()]
    prober.sock.send(PROBE.encode() + b"!")
    await upstream.received(1)
    assert relay.ledger == {"received": 1, "forwarded": 1}
    assert relay.count("datagrams_received") == 1


async def test_clients_of_a_unix_socket_get_replies_if_they_have_a_name(relaying, tmp_path):
    relay = relaying()
    upstream = serve(relay)
    relay.configure(upstream)
    path = relay.listen_unix(tmp_path / "in.sock")
    named = relay.unix_client(path, tmp_path / "client.sock")
    nameless = relay.unix_client(path)
    nameless.sock.send(b"1")
    await upstream.received(1)
    named.sock.send(b"2")
    assert await named.received(1) == [b"re:2"]
    assert relay.count("replies") == 1
    assert relay.count("replies_unsendable") == 1


async def test_what_no_datagram_can_carry_is_dropped_as_oversize(relaying, tmp_path):
    """Over a Unix socket longer ones come than over UDP."""
    relay = relaying()
    upstream = serve(relay)
    relay.configure(upstream)
    path = relay.listen_unix(tmp_path / "in.sock")
    client = relay.unix_client(path, tmp_path / "client.sock")
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.sock.send(bytes(100_000))
    client.sock.send(b"x")
    assert await client.received(1) == [b"re:x"]
    assert relay.ledger == {"received": 2, "forwarded": 1, "oversize": 1}


async def test_a_listener_that_goes_takes_its_sessions_along(relaying):
    relay = relaying()
    upstream = relay.peer()
    relay.configure(upstream)
    server = relay.listen()
    client = relay.client(server)
    client.sock.send(b"x")
    await upstream.received(1)
    client.sock.send(b"last")
    relay.listeners.clear()
    relay.configure(upstream)
    assert relay.worker.listening == []
    assert await upstream.received(2) == [b"x", b"last"]
    relay.worker.write_gauges()
    assert relay.count("sessions") == 0
    assert relay.ledger == {"received": 2, "forwarded": 2}
