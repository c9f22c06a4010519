"""Real senders and receivers over loopback: numbers are exact, and nothing outlives its owner."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.lab.outcome import Membership, tally, tally_questions
from proxy.lab.traffic import NUMBERS_PER_SENDER, Traffic, TrafficFailed
from tests import peers
from tests.lab.inside import Here


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    with Traffic(tmp_path) as traffic:
        yield traffic


def free_port() -> int:
    return peers.free_port("0.0.0.0")


def free_ports(count: int) -> str:
    """A range of so many ports, none of which is in use anywhere."""
    while True:
        low = min(free_port(), 65000)
        with ExitStack() as held:
            try:
                for port in range(low, low + count):
                    held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("", port))
            except OSError:
                continue
            return f"{low}-{low + count - 1}"


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    "how", [{}, {"source_ports": "fresh"}, {"source_ports": "ten", "connected": True, "size_bytes": 1432}]
)
def test_what_is_sent_is_what_arrives(traffic: Traffic, how: dict[str, object]) -> None:
    listen = free_address()
    sink = traffic.statsd_sink(Here("a"), listen)
    ports = "fresh" if how.get("source_ports") == "fresh" else free_ports(10 if how else 1)
    sender = traffic.statsd_sender(
        Here("client"),
        listen,
        rate=2000,
        seconds=0.1,
        source_ports=ports,
        connected=bool(how.get("connected")),
        size_bytes=int(str(how.get("size_bytes", 0))),
    )
    sender.start()
    sender.wait(20)
    sink.finish()
    membership = Membership()
    membership.add("a", 0)
    outcome = tally(sender.sent(), sink.arrivals(), membership)
    assert (outcome.sent, outcome.delivered, outcome.notes) == (200, 200, ())
    assert sender.summary["cpu_us"] > 0
    assert sink.summary == {"received": 200, "datagrams": 200, "foreign": 0, "drops": 0}
    assert {row.number // NUMBERS_PER_SENDER for row in sender.sent()} == {1}  # one process began before it
    sources = {line.split()[3] for line in sink.log.read_text().splitlines()}
    assert len(sources) > 10 if ports == "fresh" else len(sources) == (10 if how else 1)


def test_a_sender_is_paced_by_deadline(traffic: Traffic) -> None:
    sender = traffic.statsd_sender(Here("client"), free_address(), rate=500, seconds=0.2, source_ports="fresh")
    sender.start()
    sender.wait(20)
    times = [one.at_ns for one in sender.sent()]
    due = [round(turn * 1e9 / 500) for turn in range(100)]
    late = [at - times[0] - when for at, when in zip(times, due, strict=True)]
    # The first may itself have been late by no more than the summary says; none is early.
    assert min(late) >= -sender.summary["behind_ms"] * 1e6


def test_a_sender_that_is_finished_early_knows_what_it_sent(traffic: Traffic) -> None:
    listen = free_address()
    sink = traffic.statsd_sink(Here("a"), listen)
    sender = traffic.statsd_sender(Here("client"), listen, rate=100, seconds=600, source_ports="fresh")
    sender.start()
    while not sink.arrivals():
        pass
    sender.finish()
    sink.finish()
    assert 0 < len(sender.sent()) == sender.summary["sent"] == len(sink.arrivals()) < 60_000


def test_a_sender_that_never_began_sent_nothing(traffic: Traffic) -> None:
    sender = traffic.statsd_sender(Here("client"), free_address(), rate=100, seconds=1, source_ports="fresh")
    sender.finish()
    assert (sender.sent(), sender.summary["sent"]) == ([], 0)


def test_a_connected_sender_hears_refusals(traffic: Traffic) -> None:
    sender = traffic.statsd_sender(
        Here("client"), free_address(), rate=1000, seconds=0.05, source_ports=str(free_port()), connected=True
    )
    sender.start()
    sender.wait(20)
    assert {one.error for one in sender.sent()} == {"", "ECONNREFUSED"}


def test_a_receiver_empties_its_socket_before_it_ends(traffic: Traffic) -> None:
    listen = free_address()
    sink = traffic.statsd_sink(Here("a"), listen)
    host, _, port = listen.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        for number in range(500):
            sending.sendto(b"lab.%d.1:1|c\nlab.%d.1:1|c\nother:1|c" % (2 * number, 2 * number + 1), (host, int(port)))
    sink.finish()
    assert sorted(one.number for one in sink.arrivals()) == list(range(1000))
    assert sink.datagrams() == 500


def test_a_receiver_that_is_killed_leaves_what_it_had_read(traffic: Traffic) -> None:
    listen = free_address()
    sink = traffic.statsd_sink(Here("a"), listen)
    sender = traffic.statsd_sender(Here("client"), listen, rate=1000, seconds=600, source_ports="fresh")
    sender.start()
    while len(sink.arrivals()) < 10:
        pass
    sink.kill()
    sender.finish()
    assert 10 <= len(sink.arrivals()) <= len(sender.sent())


def test_processes_end_with_the_run(tmp_path: Path) -> None:
    with Traffic(tmp_path) as traffic:
        sink = traffic.statsd_sink(Here("a"), free_address())
        assert Path(f"/proc/{sink.pid}").exists()
    assert not Path(f"/proc/{sink.pid}").exists()


def test_a_receiver_that_cannot_listen_says_why(traffic: Traffic) -> None:
    listen = free_address()
    traffic.statsd_sink(Here("a"), listen)
    with pytest.raises(TrafficFailed, match=r"statsd-sink in b failed: OSError: .*in use"):
        traffic.statsd_sink(Here("b"), listen)


@pytest.mark.parametrize(
    "how", [{"source_ports": "fresh"}, {"source_ports": "fresh", "edns_bytes": 4096}, {"tcp": True}]
)
def test_questions_are_answered(traffic: Traffic, how: dict[str, object]) -> None:
    listen = free_address()
    server = traffic.dns_server(Here("dns"), listen, addresses=20)
    asker = traffic.questioner(
        Here("client"),
        listen,
        name="n{number}.example",
        kinds=["A", "AAAA"],
        rate=1000,
        seconds=0.05,
        source_ports="fresh",
        tcp=bool(how.get("tcp")),
        edns_bytes=int(str(how.get("edns_bytes", 0))),
    )
    asker.start()
    asker.wait(20)
    server.finish()
    questions = asker.questions()
    assert tally_questions(questions, within=10).delivered == len(questions) == 100
    assert {(one.kind, one.answers) for one in questions if one.answers} >= {("A", 20)}
    # 20 addresses of IPv6 need more than 512 bytes: without EDNS they come over TCP.
    assert {one.answers for one in questions if one.kind == "AAAA"} == {20}
    assert asker.summary["truncated"] == (50 if how == {"source_ports": "fresh"} else 0)
    assert len({name for _, _, name in server.asked()}) == 50


def test_a_dns_server_does_what_it_is_told(traffic: Traffic) -> None:
    listen = free_address()
    server = traffic.dns_server(Here("dns"), listen, known=["www.example", ".test"])

    def ask(name: str, timeout: float = 10) -> tuple[int, float]:
        asker = traffic.questioner(
            Here("client"), listen, name=name, rate=100, seconds=0.01, source_ports="fresh", timeout=timeout
        )
        asker.start()
        asker.wait(30)
        (one,) = asker.questions()
        return one.rcode, one.milliseconds if one.answered_ns else 0

    assert [ask(name)[0] for name in ("www.example", "a.test", "example", "a.www.example")] == [0, 0, 3, 3]
    server.servfail()
    assert ask("www.example")[0] == 2
    server.slow(150)
    rcode, milliseconds = ask("www.example")
    assert rcode == 0
    assert milliseconds >= 150
    server.silent()
    assert ask("www.example", timeout=0.1)[0] == -1
    server.answer()
    assert ask("www.example")[0] == 0


def test_a_fixed_source_port_stays(traffic: Traffic) -> None:
    listen, port = free_address(), free_port()
    traffic.dns_server(Here("dns"), listen)
    asker = traffic.questioner(Here("c"), listen, name="a.test", rate=500, seconds=0.1, source_ports=str(port))
    asker.start()
    asker.wait(20)
    assert tally_questions(asker.questions(), within=10).lost == 0
