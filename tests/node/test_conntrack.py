"""Dumps that are interrupted, refused and bounded, and deletions, by a scripted kernel; then the real one."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.core.flows import Flow
from proxy.node import conntrack, conntrack_wire
from proxy.node.conntrack import ConntrackError, Dump
from tests import peers
from tests.node import entries
from tests.node.replies import ScriptedKernel, done, entry, error, flow

ADDRESS = ("10.96.0.20:8125",)
INTERRUPTED = conntrack_wire.NLM_F_DUMP_INTR


def dump(kernel: ScriptedKernel, addresses: Sequence[str] | None = ADDRESS) -> Dump[Flow]:
    return conntrack.dump(addresses, lambda _: True, lambda given: given, connect=kernel.connect)


def test_a_dump_is_what_came_until_its_end() -> None:
    kernel = ScriptedKernel([entry(flow()) + entry(flow(id=8)), entry(flow(id=9)), done()])
    assert dump(kernel) == Dump((flow(), flow(id=8), flow(id=9)), 3, 0, True)
    assert kernel.closed == 1


def test_only_what_is_kept_stays() -> None:
    kernel = ScriptedKernel([entry(flow()) + entry(flow(id=8)), done()])
    kept = conntrack.dump(
        ADDRESS, lambda _: True, lambda given: given.id if given.id == 8 else None, connect=kernel.connect
    )
    assert kept == Dump((8,), 2, 0, True)


@pytest.mark.parametrize(
    "broken",
    [
        [entry(flow()), OSError(errno.ENOBUFS, "")],
        [entry(flow()), done(errno.EINTR)],
        [entry(flow(), flags=2 | INTERRUPTED), done()],
        [entry(flow()), done(flags=2 | INTERRUPTED)],
        [conntrack_wire.HEADER.pack(16, conntrack_wire.NLMSG_OVERRUN, 0, 1, 0)],
    ],
)
def test_an_interrupted_dump_is_told_and_read_again(broken: list[bytes | OSError]) -> None:
    kernel = ScriptedKernel(broken, [entry(flow()), entry(flow(id=8)), done()])
    again = dump(kernel)
    assert (again.found, again.interrupted, again.whole) == ((flow(), flow(id=8)), 1, True)
    assert (kernel.opened, kernel.closed) == (2, 2)


def test_a_dump_that_is_always_interrupted_has_what_came_and_says_so() -> None:
    kernel = ScriptedKernel(*[[entry(flow(id=number)), done(errno.EINTR)] for number in range(conntrack.TRIES)])
    found = dump(kernel)
    assert (found.interrupted, found.whole) == (conntrack.TRIES, False)
    assert [one.id for one in found.found] == list(range(conntrack.TRIES))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (error(errno.EPERM), "it takes root or CAP_NET_ADMIN"),
        (error(errno.EOPNOTSUPP), "modprobe nf_conntrack_netlink"),
        (done(errno.ENOMEM), "Cannot allocate memory"),
        (TimeoutError(), "did not answer"),
        (b"", "empty"),
    ],
)
def test_a_refusal_says_why(answer: bytes | OSError, told: str) -> None:
    with pytest.raises(ConntrackError, match=told):
        dump(ScriptedKernel([answer]))


def test_few_addresses_are_looked_up_by_the_kernel_and_many_in_one_dump() -> None:
    kernel = ScriptedKernel([done()], [done()])
    dump(kernel, ["[fd00:96::20]:8125", *ADDRESS, "[fd00:96::21]:8125"])  # of IPv6 the port is looked up, once
    assert [request[16] for request in kernel.sent] == [socket.AF_INET, socket.AF_INET6]
    assert bytes([10, 96, 0, 20]) in kernel.sent[0]
    kernel = ScriptedKernel([done()])
    dump(kernel, [f"10.96.0.{last}:53" for last in range(conntrack.MOST_FILTERED + 1)])
    assert bytes([10, 96, 0]) not in kernel.sent[0]


def test_flows_from_an_address_are_looked_up_by_it() -> None:
    kernel = ScriptedKernel([entry(flow(destination="10.244.1.9:40000")), done()])
    found = conntrack.dump(ADDRESS, lambda _: True, lambda given: given, connect=kernel.connect, sources=True)
    wanted = conntrack_wire.dump_request(socket.AF_INET, "UDP", ADDRESS[0], sources=True)
    assert (len(found.found), kernel.sent) == (1, [wanted])
    assert wanted != conntrack_wire.dump_request(socket.AF_INET, "UDP", ADDRESS[0])


def test_whole_networks_are_one_dump_a_family() -> None:
    kernel = ScriptedKernel([entry(flow()), done()], [done()])
    assert dump(kernel, None).found == (flow(),)
    assert [request[16] for request in kernel.sent] == [socket.AF_INET, socket.AF_INET6]


def test_what_a_kernel_without_filters_sends_is_filtered_here() -> None:
    kernel = ScriptedKernel([entry(flow()), entry(flow(destination="10.96.0.30:53")), done()])
    found = dump(kernel)
    assert (found.found, found.read) == ((flow(),), 2)


def test_a_deletion_is_done_or_was_not_needed() -> None:
    kernel = ScriptedKernel([error(0), error(errno.ENOENT)])
    assert list(conntrack.delete([flow(), flow(id=8)], connect=kernel.connect)) == [True, False]
    kernel = ScriptedKernel([error(errno.EPERM)])
    with pytest.raises(ConntrackError, match="CAP_NET_ADMIN"):
        list(conntrack.delete([flow()], connect=kernel.connect))


INSIDE = pytest.mark.skipif(
    os.geteuid() != 0 or peers.find("unshare") is None or not sys.platform.startswith("linux"),
    reason="needs root and unshare for a network namespace",
)


@INSIDE
@pytest.mark.parametrize("name", ["filtered", "whole", "deletion", "protocols"])
def test_the_real_kernel(name: str) -> None:
    """In a network namespace of its own: this file again, as a program."""
    command = ["unshare", "--net", sys.executable, "-m", "tests.node.test_conntrack", name]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


STALE, OTHER, SIX = "10.244.9.9:8125", "10.96.0.53:53", "[fd00:96::20]:8125"


def _filled() -> None:
    entries.create([("10.9.0.1:4000", ADDRESS[0], STALE), ("10.9.0.1:4001", ADDRESS[0], ADDRESS[0])])
    entries.create([("[fd00::1]:99", SIX, "[fd00:244::9]:8125")])
    entries.create((client, OTHER, "10.244.1.2:53") for client in entries.clients(300))
    assert entries.count() == 303


def _real(addresses: Sequence[str] | None) -> Dump[Flow]:
    return conntrack.dump(addresses, lambda to: to in (*ADDRESS, SIX), lambda given: given)


def _told(found: Dump[Flow]) -> set[tuple[str, str, str]]:
    return {(one.source, one.destination, one.target) for one in found.found}


def _filtered() -> None:
    _filled()
    found = _real([*ADDRESS, SIX])
    assert _told(found) == {
        ("10.9.0.1:4000", ADDRESS[0], STALE),
        ("10.9.0.1:4001", ADDRESS[0], ADDRESS[0]),
        ("[fd00::1]:99", SIX, "[fd00:244::9]:8125"),
    }
    assert found.whole
    assert all(0 < one.expires <= 600 for one in found.found)


def _whole() -> None:
    _filled()
    found = _real(None)
    assert len(found.found) == 3
    assert found.read == 303


def _deletion() -> None:
    _filled()
    found = {one.source: one for one in _real(ADDRESS).found}
    stale = found["10.9.0.1:4000"]
    assert list(conntrack.delete([stale, stale])) == [True, False]
    assert entries.count() == 302
    # Another entry with the same addresses isn't the one that was meant. An id tells of an entry's place in memory,
    # so others take the place that has just become free.
    entries.create([(f"10.9.0.2:{port}", ADDRESS[0], "10.244.1.7:8125") for port in range(20000, 20256)])
    entries.create([("10.9.0.1:4000", ADDRESS[0], "10.244.1.7:8125")])
    assert list(conntrack.delete([stale])) == [False]
    assert entries.count() == 559
    assert list(conntrack.delete(_real([SIX]).found)) == [True]
    assert entries.count() == 558


def _protocols() -> None:
    _filled()
    assert conntrack.dump([OTHER], lambda _: True, lambda given: given, "TCP").found == ()
    assert len(conntrack.dump([OTHER], lambda _: True, lambda given: given, "UDP").found) == 300


if __name__ == "__main__":
    {"filtered": _filtered, "whole": _whole, "deletion": _deletion, "protocols": _protocols}[sys.argv[1]]()
