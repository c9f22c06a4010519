"""StatsD mode on real sockets: endpoints that change, refuse and have short paths, and a ledger that stays true."""

import errno
import random
import re
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.worker import arrivals
from proxy.worker.endpoint import EndpointSocket
from proxy.worker.mmsg import kernel_drops
from tests.worker.relaying import PROBE, Peer, Relaying, bound


@pytest.fixture
async def relaying() -> AsyncIterator[Callable[..., Relaying]]:
    made: list[Relaying] = []

    def make(**policy: object) -> Relaying:
        made.append(Relaying("statsd", **policy))
        return made[-1]

    yield make
    for one in made:
        one.close()


def sums(*peers: Peer) -> Counter[str]:
    """What the counters in all that came add up to."""
    total: Counter[str] = Counter()
    for peer in peers:
        for line in peer.lines:
            name, value, rate = re.fullmatch(r"([^:]+):([-\d.]+)\|c(?:\|@([\d.]+))?", line.decode()).groups()
            total[name] += round(float(value) / float(rate or 1))
    return total


@pytest.fixture(params=["batched", "plain"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(arrivals, "batches_work", lambda: False)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    ("ip", "asked_at"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("0.0.0.0", "127.0.0.77"), ("::", "::1")]
)
async def test_lines_pass_as_they_are(relaying, ip, asked_at):
    relay = relaying()
    endpoint = relay.peer("::1" if ":" in ip else "127.0.0.1")
    relay.configure(endpoint)
    server = relay.listen(ip, asked_at)
    client = relay.client(server, "::1" if ":" in ip else "127.0.0.1")
    client.sock.send(b"a:1|c\nb:2|ms|@0.5|#x:y\r\n")
    await endpoint.received(1)
    await relay.settle(server)
    assert sorted(endpoint.lines) == [b"a:1|c", b"b:2|ms|@0.5|#x:y"]
    assert relay.ledger == {"received": 2, "forwarded": 2}
    assert relay.count("datagrams_received") == 1
    assert relay.count("datagrams_sent") == len(endpoint.got)


async def test_a_burst_leaves_packed_in_the_same_wake_up(relaying):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    sock = bound("127.0.0.1")
    client = relay.client(sock.getsockname())
    for number in range(200):
        client.sock.send(b"page.views:%d|c" % number)
    server = relay.listen_on(sock, "127.0.0.1")
    await relay.settle(server)
    assert sorted(endpoint.lines) == sorted(b"page.views:%d|c" % number for number in range(200))
    assert len(endpoint.got) == 1
    assert kernel_drops(sock) == 0


async def test_long_datagrams_leave_time_for_others(relaying):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    sock = bound("127.0.0.1")
    client = relay.client(sock.getsockname())
    for _ in range(80):
        client.sock.send(b"\n".join([b"some.counter:1|c"] * 200))
    relay.listen_on(sock, "127.0.0.1")
    read = relay.worker._listening[1].read
    taken = []
    while read():
        taken.append(relay.count("received"))
        assert relay.unaccounted == 0
    assert taken == [32 * 200, 64 * 200, 80 * 200]


async def test_a_datagram_of_64_kib_passes_in_pieces_of_whole_lines(relaying):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    server = relay.listen()
    lines = [b"some.counter:%d|c" % number for number in range(3300)]
    datagram = b"\n".join(lines)
    assert 60_000 < len(datagram) < 65_507
    relay.client(server).sock.send(datagram)
    await relay.settle(server)
    assert endpoint.lines == lines
    assert max(map(len, endpoint.got)) <= 8932


async def test_a_fixed_source_port_follows_its_endpoint(relaying):
    """The point of it all: nothing pins a flow."""
    relay = relaying()
    old, new = relay.peer("127.0.0.2"), relay.peer("127.0.0.3")
    relay.configure(old)
    server = relay.listen()
    client = relay.client(server)
    for number in range(100):
        client.sock.send(b"n%d:1|c" % number)
    await relay.settle(server)
    before = len(old.got)
    client.sock.send(b"waits:1|c")
    relay.configure(new)
    for number in range(100):
        client.sock.send(b"n%d:1|c" % number)
    await relay.settle(server)
    assert len(old.got) == before
    assert sums(old, new) == Counter({f"n{number}": 2 for number in range(100)} | {"waits": 1})
    assert relay.ledger == {"received": 201, "forwarded": 201}


async def test_sums_are_the_same_through_no_endpoint_at_all(relaying):
    relay = relaying()
    old, new = relay.peer("127.0.0.2"), relay.peer("127.0.0.3")
    relay.configure(old)
    server = relay.listen()
    client = relay.client(server)

    def send() -> None:
        for number in range(50):
            client.sock.send(b"n%d:2|c\nn%d:1|c|@0.5" % (number, number))

    send()
    await relay.settle(server)
    relay.configure()
    for _ in range(3):
        send()
    await relay.settle(server)
    assert relay.ledger == {"received": 400, "forwarded": 100, "folded": 300}
    assert relay.count("fold_lines") == 300
    assert {folded.name for folded in relay.state.folded} <= {f"n{number}" for number in range(50)}
    assert len(relay.state.folded) == 100
    relay.configure(new)
    for _ in range(100):
        relay.clock.advance(0.1)
    send()
    await relay.settle(server)
    assert sums(old, new) == Counter({f"n{number}": 20 for number in range(50)})
    assert relay.ledger == {"received": 500, "forwarded": 200, "folded": 300}
    assert relay.count("fold_lines") == 0
    assert relay.count("released") == 100
    assert relay.state.folded == []


async def test_a_refusal_moves_its_lines_to_the_others(relaying):
    relay = relaying(eject=5.0)
    dead, alive = relay.peer("127.0.0.2"), relay.peer("127.0.0.3")
    address = dead.address
    relay.configure(dead, alive)
    dead.close()
    server = relay.listen()
    client = relay.client(server)
    names = [b"n%d:1|c" % number for number in range(64)]
    client.sock.send(b"\n".join(names))  # what went to the dead one is lost: nobody could know
    await relay.settle(server)
    client.sock.send(b"\n".join(names))
    await relay.settle(server)
    assert set(alive.lines) == set(names)
    assert relay.count("refused") == relay.count("ejected") == 1
    assert relay.state.ejected == [address]
    assert relay.ledger == {"received": 128, "forwarded": 128}


async def test_an_ejected_endpoint_gets_one_datagram_on_trial_and_is_back(relaying):
    relay = relaying(eject=5.0, spread="packet")
    dead, alive = relay.peer("127.0.0.2"), relay.peer("127.0.0.3")
    where = dead.sock.getsockname()
    relay.configure(dead, alive)
    dead.close()
    server = relay.listen()
    client = relay.client(server)

    async def send(times: int = 10) -> None:
        for _ in range(times):
            client.sock.send(b"n:1|c")
            await relay.settle(server)

    await send()
    assert relay.count("ejected") == 1
    relay.clock.advance(4.9)
    back = relay.peer(*where)
    await send()
    assert back.got == []
    relay.clock.advance(0.1)
    await send()
    assert len(back.got) == 1
    assert relay.state.ejected == [back.address]
    relay.clock.advance(0.25)
    await send()
    assert len(back.got) > 4
    assert relay.state.ejected == []
    assert relay.unaccounted == 0


async def test_a_trial_that_is_refused_ejects_again(relaying):
    relay = relaying(eject=5.0, spread="packet")
    dead, alive = relay.peer("127.0.0.2"), relay.peer("127.0.0.3")
    relay.configure(dead, alive)
    dead.close()
    server = relay.listen()
    client = relay.client(server)
    for _ in range(3):
        for _ in range(6):
            client.sock.send(b"n:1|c")
            await relay.settle(server)
        relay.clock.advance(5.0)
    assert relay.count("refused") == relay.count("ejected") == 3
    assert sums(alive) == Counter({"n": 18 - 3})
    assert relay.ledger == {"received": 18, "forwarded": 18}


async def test_no_more_than_half_are_ejected(relaying):
    relay = relaying()
    dead = [relay.peer(f"127.0.0.{number}") for number in (2, 3, 4)]
    relay.configure(*dead)
    for peer in dead:
        peer.close()
    server = relay.listen()
    client = relay.client(server)
    for _ in range(5):
        client.sock.send(b"\n".join(b"n%d:1|c" % number for number in range(64)))
        await relay.settle(server)
    assert len(relay.state.ejected) == 1
    assert relay.ledger == {"received": 320, "forwarded": 320}


async def test_the_only_endpoint_may_refuse_as_often_as_it_likes(relaying):
    relay = relaying(spread="packet")
    dead = relay.peer()
    relay.configure(dead)
    where = dead.sock.getsockname()
    dead.close()
    sock = bound("127.0.0.1")
    client = relay.client(sock.getsockname())
    for _ in range(300):
        client.sock.send(b"n:1|c")
    server = relay.listen_on(sock, "127.0.0.1")
    await relay.settle(server)
    assert relay.count("ejected") == 0
    back = relay.peer(*where)
    relay.clock.advance(1.0)
    client.sock.send(b"back:1|c")
    for _ in range(100):
        relay.clock.advance(0.1)
    await relay.settle(server)
    assert b"back:1|c" in back.lines
    assert relay.unaccounted == 0


async def test_an_endpoint_without_a_route_is_passed_over_until_there_is_one(relaying):
    """A broadcast address: connecting to it needs a permission that we don't have."""
    relay = relaying()
    relay.configure("255.255.255.255:9")
    server = relay.listen()
    client = relay.client(server)
    client.sock.send(b"n:1|c")
    await relay.settle(server)
    assert relay.ledger == {"received": 1, "folded": 1}
    endpoint = relay.peer()
    relay.configure("255.255.255.255:9", endpoint)
    for _ in range(100):
        relay.clock.advance(0.1)
    client.sock.send(b"\n".join(b"n%d:1|c" % number for number in range(64)))
    await relay.settle(server)
    assert relay.ledger == {"received": 65, "forwarded": 64, "folded": 1}
    assert sums(endpoint).total() == 65


async def test_all_of_them_get_a_mirrored_line_and_it_counts_once(relaying):
    relay = relaying(spread="all")
    endpoints = [relay.peer(f"127.0.0.{number}") for number in (2, 3)]
    relay.configure(*endpoints)
    server = relay.listen()
    relay.client(server).sock.send(b"n:1|c")
    await relay.settle(server)
    assert [endpoint.got for endpoint in endpoints] == [[b"n:1|c"]] * 2
    assert relay.ledger == {"received": 1, "forwarded": 1}
    assert relay.count("datagrams_sent") == 2


async def test_one_source_goes_to_one_endpoint_if_asked(relaying):
    relay = relaying(spread="source")
    endpoints = [relay.peer(f"127.0.0.{number}") for number in (2, 3, 4)]
    relay.configure(*endpoints)
    server = relay.listen()
    for client in range(10):
        for _ in range(3):  # each time from another port
            relay.client(server, f"127.0.1.{client}").sock.send(b"from%d:1|c" % client)
    await relay.settle(server)
    homes = [set(endpoint.lines) for endpoint in endpoints]
    assert sum(map(len, homes)) == 10
    assert sums(*endpoints) == Counter({f"from{client}": 3 for client in range(10)})


async def test_a_source_past_its_rate_is_dropped_whatever_its_ports(relaying):
    relay = relaying(datagrams_per_second=3)
    relay.configure(relay.peer())
    server = relay.listen()
    for _ in range(5):
        relay.client(server, "127.0.0.9").sock.send(b"n:1|c\nm:1|c")
    relay.client(server, "127.0.0.8").sock.send(b"n:1|c")
    await relay.settle(server)
    assert relay.ledger == {"received": 11, "forwarded": 7, "rate_limited": 4}


@pytest.mark.usefixtures("reading")
async def test_the_probe_comes_back_and_counts_nowhere(relaying):
    relay = relaying()
    server = relay.listen("0.0.0.0", "127.0.0.77")
    prober = relay.client(server)
    prober.sock.send(PROBE.encode())
    assert await prober.received(1) == [PROBE.encode()]
    assert relay.ledger == {}
    assert relay.count("datagrams_received") == 0


async def test_only_the_exact_probe_is_answered(relaying):
    relay = relaying()
    server = relay.listen()
    prober = relay.client(server)
    for forged in (PROBE.encode()[:-1], PROBE.encode() + b"\n", b""):
        prober.sock.send(forged)
    await relay.settle(server)
    assert prober.got == []
    assert relay.count("datagrams_received") == 3
    assert relay.unaccounted == 0


async def test_no_probe_means_that_nothing_is_answered(relaying):
    relay = relaying(probe="")
    endpoint = relay.peer()
    relay.configure(endpoint)
    client = relay.client(relay.listen())
    client.sock.send(b"")
    client.sock.send(b"n:1|c")
    await endpoint.received(1)
    assert client.got == []


async def test_garbage_is_dropped_and_a_sample_kept(relaying):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    server = relay.listen()
    relay.client(server).sock.send(b"good:1|c\nnonsense\n\n")
    await relay.settle(server)
    assert endpoint.lines == [b"good:1|c"]
    assert relay.ledger == {"received": 2, "forwarded": 1, "malformed": 1}
    assert relay.state.malformed == ["nonsense"]


async def test_a_unix_socket_is_a_listener_too(relaying, tmp_path):
    relay = relaying(spread="source", lines_per_second=5)
    endpoint = relay.peer()
    relay.configure(endpoint)
    path = relay.listen_unix(tmp_path / "statsd.sock")
    client = relay.unix_client(path)
    client.sock.send(b"\n".join(b"n%d:1|c" % number for number in range(5)))
    client.sock.send(b"late:1|c")  # the same user from another socket would be as late
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    assert len((await endpoint.received(1))[0].splitlines()) == 5
    await relay.settle(relay.listen())
    assert relay.ledger == {"received": 6, "forwarded": 5, "rate_limited": 1}


async def test_a_unix_datagram_that_nobody_could_read_counts_as_oversize(relaying, tmp_path):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    client = relay.unix_client(relay.listen_unix(tmp_path / "statsd.sock"))
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    try:
        client.sock.send(bytes(300_000))
    except OSError:
        pytest.skip("net.core.wmem_max lets nobody send so much")
    client.sock.send(b"n:1|c")
    assert await endpoint.received(1) == [b"n:1|c"]
    await relay.settle(relay.listen())
    assert relay.ledger == {"received": 2, "forwarded": 1, "oversize": 1}


async def test_a_line_that_no_path_takes_is_dropped_and_the_rest_passes(relaying):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    server = relay.listen()
    relay.client(server).sock.send(b"n:1|c\nlong:1|c|#" + b"x" * 9000 + b"\nm:1|c")
    await relay.settle(server)
    assert sorted(endpoint.lines) == [b"m:1|c", b"n:1|c"]
    assert relay.ledger == {"received": 3, "forwarded": 2, "oversize": 1}
    assert relay.state.limits == {endpoint.address: 8932}


LOW_PATH = textwrap.dedent("""
    import asyncio, socket, subprocess, sys
    from tests.worker.relaying import Relaying

    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    async def main():
        relay = Relaying("statsd")
        endpoint = relay.peer("127.0.0.1")
        relay.configure(endpoint)
        server = relay.listen()
        client = relay.client(server)
        print("limit", relay.state.limits[endpoint.address])
        lines = [b"some.counter.%d:1|c" % number for number in range(500)]
        client.sock.send(b"\\n".join(lines))
        await relay.settle(server)
        first = max(map(len, endpoint.got))
        ip("link", "set", "lo", "mtu", "1450")
        del endpoint.got[:]
        client.sock.send(b"\\n".join(lines))
        await relay.settle(server)
        print("lowered", relay.count("path_lowered"), relay.state.limits[endpoint.address])
        print("longest", first, max(map(len, endpoint.got)))
        print("whole", endpoint.lines == lines, relay.unaccounted, relay.ledger)
        ip("link", "set", "lo", "mtu", "1500")
        relay.clock.advance(60)
        relay.worker.write_gauges()
        print("raised", relay.state.limits[endpoint.address])
        relay.close()
        opaque = Relaying("datagram")
        endpoint = opaque.peer("127.0.0.1")
        opaque.configure(endpoint)
        server = opaque.listen()
        opaque.client(server).sock.send(bytes(5000))
        await opaque.settle(server)
        print("opaque", [len(datagram) for datagram in endpoint.got], opaque.ledger)
        opaque.close()

    subprocess.run(["ip", "link", "set", "lo", "up", "mtu", "3000"], check=True)
    asyncio.run(main())
""")


def test_a_path_that_takes_less_than_before_is_packed_for_anew() -> None:
    """In a network namespace of its own, whose loopback gets a shorter MTU."""
    inside = ["unshare", "--net", sys.executable, "-c", LOW_PATH]
    try:
        possible = (
            subprocess.run(["unshare", "--net", "ip", "link"], capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("needs root, unshare and ip to have a network namespace")
    ran = subprocess.run(inside, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    said = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert said["limit"] == str(3000 - 28)
    assert said["lowered"] == "1 1422"
    first, second = map(int, said["longest"].split())
    assert 2900 < first <= 2972
    assert 1380 < second <= 1422
    assert said["whole"] == "True 0 {'received': 1000, 'forwarded': 1000}"
    assert said["raised"] == "1472"
    assert said["opaque"] == "[5000] {'received': 1, 'forwarded': 1}"  # in fragments: it may not be cut


ERRORS = (
    errno.EAGAIN,
    errno.ENOBUFS,
    errno.EPERM,
    errno.ENETUNREACH,
    errno.EINVAL,
    errno.ECONNREFUSED,
    errno.EMSGSIZE,
)


def fail_at_random(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """Have the kernel refuse a tenth of what is sent, for all reasons that it may have."""
    send = EndpointSocket.send

    def failing(sock: EndpointSocket, datagram: bytes) -> int:
        return chance.choice(ERRORS) if chance.random() < 0.1 else send(sock, datagram)

    monkeypatch.setattr(EndpointSocket, "send", failing)


async def test_what_the_kernel_will_not_send_costs_no_count(relaying, monkeypatch):
    chance = random.Random(20_261_126)
    fail_at_random(monkeypatch, chance)
    relay = relaying(lines_per_second=0)
    endpoints = [relay.peer(f"127.0.0.{number}") for number in (2, 3, 4)]
    server = relay.listen()
    client = relay.client(server)
    wanted: Counter[str] = Counter()
    for turn in range(200):
        if turn % 10 == 0:
            relay.configure(*(endpoint for endpoint in endpoints if chance.random() < 0.6))
        names = [f"n{chance.randrange(40)}" for _ in range(20)]
        wanted.update(names)
        client.sock.send("\n".join(f"{name}:1|c" for name in names).encode())
        if chance.random() < 0.3:
            await relay.settle(server)
            relay.clock.advance(chance.choice([0.001, 0.1, 2.0]))
    await relay.settle(server)
    monkeypatch.undo()
    relay.configure(*endpoints)
    for _ in range(100):
        relay.clock.advance(0.1)
    await relay.settle(server)
    assert sums(*endpoints) == wanted
    assert relay.ledger.keys() == {"received", "forwarded", "folded"}
    assert relay.unaccounted == 0


@pytest.mark.parametrize("error", [errno.ECONNREFUSED, errno.EMSGSIZE, errno.EAGAIN])
async def test_what_the_kernel_would_not_send_at_first_keeps_its_place(relaying, monkeypatch, error):
    send, errors = EndpointSocket.send, [0, error]

    def failing(sock: EndpointSocket, datagram: bytes) -> int:
        return (errors.pop() if errors else 0) or send(sock, datagram)

    monkeypatch.setattr(EndpointSocket, "send", failing)
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    server = relay.listen()
    relay.client(server).sock.send(b"\n".join(b"%s:%d|g" % (b"g" * 40, number) for number in range(1000)))
    for _ in range(10):
        await relay.settle(server)
        relay.clock.advance(0.1)
    await relay.settle(server)
    values = [int(line[41:-2]) for line in endpoint.lines]
    assert (values == sorted(values), values[-1]) == (True, 999)


async def test_what_the_kernel_drops_is_all_that_is_missing(relaying):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    sock = bound("127.0.0.1")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client = relay.client(sock.getsockname())
    for _ in range(1000):
        client.sock.send(b"n:1|c")
    dropped = kernel_drops(sock)
    relay.listen_on(sock, "127.0.0.1")
    await relay.stop()
    assert 0 < dropped < 1000
    assert relay.ledger == {"received": 1000 - dropped, "forwarded": 1000 - dropped}


async def test_the_ledger_is_true_under_random_faults(relaying, monkeypatch):
    """Endpoints come, go and refuse; lines of every kind, garbage and long ones; limits; time passes."""
    chance = random.Random(20_261_125)
    fail_at_random(monkeypatch, chance)
    relay = relaying(fold_bytes=20_000, fold_age=20.0, lines_per_second=60)
    peers = [relay.peer(f"127.0.0.{number}") for number in range(2, 7)]
    closed: list[tuple[str, int]] = []
    server = relay.listen()
    clients = [relay.client(server, f"127.0.1.{number}") for number in range(3)]
    for _ in range(400):
        match chance.randrange(8):
            case 0:
                alive = [peer for peer in peers if chance.random() < 0.4]
                dead = [f"{ip}:{port}" for ip, port in closed if chance.random() < 0.4]
                relay.configure(*alive, *dead, spread=chance.choice(["name", "name+tags", "source", "packet", "all"]))
            case 1 if len(peers) > 1:
                peer = peers.pop(chance.randrange(len(peers)))
                closed.append(peer.sock.getsockname())
                peer.close()
            case 2 if closed:
                peers.append(relay.peer(*closed.pop()))
            case 3:
                relay.clock.advance(chance.choice([0.01, 0.3, 5.0, 15.0]))
            case _:
                lines = [random_line(chance) for _ in range(chance.randrange(30))]
                chance.choice(clients).sock.send(b"\n".join(lines)[:65_000])
        if chance.random() < 0.5:
            await relay.settle(server)
        assert relay.unaccounted == 0
    await relay.settle(server)
    assert relay.unaccounted == 0
    assert {"forwarded", "malformed", "oversize", "rate_limited"} <= relay.ledger.keys()
    assert any(name.startswith("evicted_") for name in relay.ledger)
    assert relay.count("fold_lines") <= relay.count("folded")
    relay.close()
    assert relay.unaccounted == 0
    assert relay.count("fold_lines") == 0


def random_line(chance: random.Random) -> bytes:
    name = b"n%d" % chance.randrange(200)
    return chance.choice(
        [
            name + b":%d|c" % chance.randrange(10),
            name + b":%d|c|@0.1|#a:b" % chance.randrange(10),
            name + b":-3|g",
            name + b":3|g",
            name + b":%d|ms" % chance.randrange(300),
            name + b":%d|s" % chance.randrange(300),
            b"_e{5,4}:title|text",
            b"_sc|check|0",
            name + b":1|c|#" + b"x" * chance.choice([10, 2000, 9000]),
            b"garbage",
            chance.randbytes(20),
            b"",
        ]
    )


async def test_a_relay_that_is_gone_counts_what_it_had_folded_as_evicted(relaying):
    relay = relaying()
    server = relay.listen()
    relay.client(server).sock.send(b"n:1|c\nn:2|c\nt:1|ms")
    await relay.settle(server)
    assert relay.ledger == {"received": 3, "folded": 3}
    relay.worker.configure([], [])
    assert relay.ledger == {"received": 3, "evicted_counter": 2, "evicted_timer": 1}
    assert relay.worker.listening == []


async def test_a_drain_relays_what_waits_and_evicts_what_can_go_nowhere(relaying):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    sock = bound("127.0.0.1")
    client = relay.client(sock.getsockname())
    for _ in range(300):
        client.sock.send(b"n:1|c")
    relay.listen_on(sock, "127.0.0.1")
    await relay.stop()
    await endpoint.received(1)
    assert relay.ledger == {"received": 300, "forwarded": 300}
    nowhere = relaying()
    server = nowhere.listen()
    nowhere.client(server).sock.send(b"n:1|c")
    await nowhere.stop()
    assert nowhere.ledger == {"received": 1, "evicted_counter": 1}


async def test_received_is_counted_before_anything_leaves(relaying):
    """So a worker that is killed in between owes lines, and never has too many."""
    relay = relaying()
    seen: list[int] = []
    endpoint = relay.peer()
    relay.configure(endpoint)
    sock = next(iter(relay.worker._relays["r"]._sockets.values()))
    send = sock._send
    sock._send = lambda payload: (seen.append(relay.unaccounted), send(payload))[1]
    server = relay.listen()
    relay.client(server).sock.send(b"a:1|c\nb:1|c")
    await relay.settle(server)
    assert seen == [2]
    assert relay.unaccounted == 0


async def test_full_queues_of_the_kernel_cost_no_line(relaying):
    relay = relaying()
    endpoint = relay.peer()
    relay.configure(endpoint)
    sock = next(iter(relay.worker._relays["r"]._sockets.values()))
    refuse = 3
    send = sock._send

    def failing(payload: bytes) -> int:
        nonlocal refuse
        if refuse:
            refuse -= 1
            raise BlockingIOError(11, "full")
        return send(payload)

    sock._send = failing
    server = relay.listen()
    relay.client(server).sock.send(b"a:1|c\nb:1|c")
    await relay.settle(server)
    for _ in range(100):
        relay.clock.advance(0.1)
    while sums(endpoint).total() < 2:
        await endpoint.received(len(endpoint.got) + 1)
    assert sums(endpoint) == Counter({"a": 1, "b": 1})
    assert relay.unaccounted == 0
