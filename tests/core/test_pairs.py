"""A and AAAA asked together: whatever happens in whatever order, both are answered once, in time, and alike."""

from collections.abc import Iterator
from itertools import product

import dns.message
import pytest

from proxy.core.message import Rcode
from tests.core.asking import Asking, FakeClient
from tests.fakes import reply, soa

NAME = "a.example"
RDATA = {1: "A 192.0.2.1", 28: "AAAA 2001:db8::1"}
WHAT_HAPPENS = ["positive", "nodata", "nxdomain", "servfail", "refused", "truncated", "fails", "nothing"]
FAILURES = {"servfail", "refused", "truncated", "fails"}
BEFORE = ["nothing kept", "A fresh", "A stale", "both stale"]


def responded(query: dns.message.Message, how: str) -> dns.message.Message:
    if how == "positive":
        return reply(query, f"{NAME} 5 {RDATA[query.question[0].rdtype]}")
    if how in ("nodata", "nxdomain"):
        rcode = "NXDOMAIN" if how == "nxdomain" else "NOERROR"
        return reply(query, rcode=rcode, authority=[soa(minimum=5)])
    return reply(query, flags=0x0200) if how == "truncated" else reply(query, rcode=how.upper())


def happen(asking: Asking, qtype: int, how: str) -> None:
    """To the oldest open try for this type, if there is one."""
    which = next((at for at, attempt in enumerate(asking.tries) if attempt.lookup.question.qtype == qtype), None)
    if which is None or how == "nothing":
        return
    if how == "fails":
        asking.fail(which=which)
    else:
        asking.answer(lambda query: responded(query, how), which)


def prepared(before: str) -> Asking:
    asking = Asking()
    for rtype in ["A"] * (before != "nothing kept") + ["AAAA"] * (before == "both stale"):
        asking.ask(NAME, rtype)
        asking.answer(lambda query: responded(query, "positive"))
    asking.wait(4.0 if before == "A fresh" else 8.0)
    return asking


def orders() -> Iterator[tuple[int, ...]]:
    """Whose turn it is, of two events each."""
    return (order for order in product((1, 28), repeat=4) if sum(order) == 58)


def may_be_too_late(a: str, aaaa: str) -> bool:
    """Whether a denial may find the other half answered already, and by something that it contradicts."""
    return (a == "nxdomain" and aaaa in ("positive", "nodata")) or (aaaa == "nxdomain" and a in FAILURES)


@pytest.mark.parametrize("first", ["A", "AAAA"])
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("aaaa", WHAT_HAPPENS)
@pytest.mark.parametrize("a", WHAT_HAPPENS)
def test_they_are_answered_once_and_alike(first: str, before: str, a: str, aaaa: str) -> None:
    for order, pause in product(orders(), (0.0, 0.3)):
        asking = prepared(before)
        began = asking.now
        clients = {rtype: FakeClient((f"10.0.0.{len(rtype)}", 5353)) for rtype in ("A", "AAAA")}
        for rtype in (first, "AAAA" if first == "A" else "A"):
            known = asking.ask(NAME, rtype, client=clients[rtype])
            if known is not None:
                clients[rtype].replies.append(known.to_wire())
        for qtype in order:
            happen(asking, qtype, a if qtype == 1 else aaaa)
            asking.wait(pause)
        asking.wait(began + 2.0 - asking.now)
        assert [len(client.replies) for client in clients.values()] == [1, 1], order
        asking.wait(2.0)
        assert asking.resolver.in_flight == 0
        assert not asking.tries
        a_says, aaaa_says = (dns.message.from_wire(client.replies[0]) for client in clients.values())
        if may_be_too_late(a, aaaa):
            continue
        assert (a_says.rcode() == Rcode.NXDOMAIN) == (aaaa_says.rcode() == Rcode.NXDOMAIN), order
        if a_says.answer:
            assert aaaa_says.rcode() == Rcode.NOERROR, order
