"""What would be done, from wanted and present state."""

from dataclasses import replace

from proxy.node.plan import (
    NODELOCAL_LINK,
    Address,
    Found,
    Plan,
    Wanted,
    as_json,
    as_text,
    drift,
    plan,
    staying,
    things_that_stay,
)
from proxy.node.table import NodeListener, Present, table

OWN = NodeListener("169.254.20.10:53", "udp", fallback=("10.244.1.2:53",))
OWN_TCP = NodeListener("169.254.20.10:53", "tcp", fallback=("10.244.1.2:53",))
OF_SERVICE = NodeListener("10.96.0.10:53", "udp", service=True)
LOOPBACK = NodeListener("127.0.0.1:53", "udp")
ALL = (OWN, OWN_TCP, OF_SERVICE, LOOPBACK)
WANTED = Wanted(ALL, "serving", 0.5, "sidestep0", "me")
NOTHING = Found(None, (Address("127.0.0.1", "lo", ours=False),))


def present(listeners: tuple[NodeListener, ...] = ALL, run: str = "me", fingerprint: str = "f") -> Present:
    digest = table([one for one in listeners if one.leasable], "serving", 0.5).digest
    return Present(frozenset(), frozenset(), frozenset(), run, digest, (), False, fingerprint)


def whole(*more: Address) -> Found:
    ours = (Address("169.254.20.10", "sidestep0"), Address("10.96.0.10", "sidestep0"))
    return Found(present(), (*NOTHING.addresses, *ours, *more))


def nothing_is_done(planned: Plan) -> bool:
    return not (planned.transaction or planned.add or planned.remove)


def test_from_nothing_each_address_is_added_once() -> None:
    planned = plan(WANTED, NOTHING)
    assert [address.ip for address in planned.add] == ["169.254.20.10", "10.96.0.10"]
    assert planned.transaction.startswith("add table inet sidestep\n")
    assert planned.untrack == ("169.254.20.10:53", "10.96.0.10:53")
    assert not nothing_is_done(planned)


def test_where_all_is_as_wanted_there_is_nothing_to_do() -> None:
    assert nothing_is_done(plan(WANTED, whole(), "f"))


def test_another_runs_table_is_written_anew() -> None:
    assert plan(WANTED, replace(whole(), table=present(run="other")), "f").transaction


def test_a_table_that_somebody_changed_is_written_anew() -> None:
    assert plan(WANTED, whole(), "before").transaction


def test_only_our_own_addresses_are_removed() -> None:
    found = whole(Address("169.254.20.99", "sidestep0"), Address("192.0.2.1", "eth0", ours=False))
    assert [address.ip for address in plan(WANTED, found, "f").remove] == ["169.254.20.99"]


def test_what_is_leaving_keeps_its_address() -> None:
    leaving = (NodeListener("169.254.20.99:53", "udp"),)
    planned = plan(replace(WANTED, leaving=leaving), whole(Address("169.254.20.99", "sidestep0")), "f")
    assert planned.remove == ()
    assert planned.untrack == ("169.254.20.10:53", "10.96.0.10:53", "169.254.20.99:53")
    assert "leaving4 { 169.254.20.99 . udp . 53 }" in planned.transaction


def test_what_is_leaving_gets_no_address_any_more() -> None:
    leaving = (NodeListener("169.254.20.99:53", "udp"),)
    assert plan(replace(WANTED, leaving=leaving), whole(), "f").add == ()
    assert drift(replace(WANTED, leaving=leaving), whole(), "f")["address"] == []


def test_an_address_that_others_gave_is_not_added() -> None:
    found = Found(None, (Address("169.254.20.10", "eth0", ours=False),))
    assert [address.ip for address in plan(WANTED, found).add] == ["10.96.0.10"]


def test_an_address_on_a_link_that_is_down_is_missing() -> None:
    down = Found(present(), tuple(replace(address, up=False) for address in whole().addresses))
    assert [address.ip for address in plan(WANTED, down, "f").add] == ["169.254.20.10", "10.96.0.10"]


def test_a_link_local_ipv6_address_belongs_to_its_own_interface() -> None:
    listeners = (NodeListener("[fe80::1%eth0]:53", "udp"), NodeListener("[fe80::2%sidestep0]:53", "udp"))
    planned = plan(replace(WANTED, listeners=listeners), NOTHING)
    assert planned.add == (Address("fe80::2", "sidestep0"),)


def test_without_listeners_the_table_goes() -> None:
    planned = plan(replace(WANTED, listeners=(LOOPBACK,)), whole(), "f")
    assert planned.transaction == "delete table inet sidestep\n"
    assert nothing_is_done(plan(replace(WANTED, listeners=()), NOTHING))


def test_drift_is_told_by_kind() -> None:
    assert drift(WANTED, whole(), "f") == {"table": [], "address": []}
    assert drift(WANTED, NOTHING, "f") == {
        "table": ["the table inet sidestep is gone"],
        "address": ["the address 169.254.20.10 is gone", "the address 10.96.0.10 is gone"],
    }
    assert drift(WANTED, whole(), "before")["table"] == ["the table inet sidestep was changed"]


def test_what_stays_is_ours_and_no_services() -> None:
    assert staying(ALL) == (OWN, OWN_TCP)
    assert things_that_stay(WANTED, NOTHING, {"sidestep0"}) == [
        "address 169.254.20.10",
        "table inet sidestep",
        "link sidestep0",
    ]
    assert things_that_stay(WANTED, NOTHING, ()) == ["address 169.254.20.10", "table inet sidestep"]
    assert things_that_stay(replace(WANTED, listeners=(OF_SERVICE, LOOPBACK)), NOTHING, {"sidestep0"}) == []


def test_an_address_stays_on_the_link_where_it_is() -> None:
    renamed = replace(WANTED, interface="sidestep1")
    assert things_that_stay(renamed, whole(), {"sidestep0", "sidestep1"})[-1] == "link sidestep0"


def test_an_address_of_others_is_not_what_we_leave() -> None:
    found = Found(None, (Address("169.254.20.10", "eth0", ours=False),))
    assert things_that_stay(WANTED, found, ()) == ["table inet sidestep"]


def test_people_read_one_line_for_each_thing() -> None:
    stay = things_that_stay(WANTED, NOTHING, ())
    lines = list(as_text(WANTED, NOTHING, plan(WANTED, NOTHING), stay))
    assert [line for line in lines if "stays" in line] == [
        "stays after a stop: address 169.254.20.10",
        "stays after a stop: table inet sidestep",
    ]
    assert "add address 169.254.20.10 to sidestep0" in lines
    assert "listener 169.254.20.10:53/udp: without lease to 10.244.1.2:53" in lines
    assert "table inet sidestep is made, in one transaction:" in lines
    again = list(as_text(WANTED, whole(), plan(WANTED, whole(), "f"), stay))
    assert "table inet sidestep is there as wanted; a start writes the same again" in again


def test_programs_read_the_same() -> None:
    told = as_json(WANTED, NOTHING, plan(WANTED, NOTHING), ["address 169.254.20.10"])
    assert told["stays"] == ["address 169.254.20.10"]
    assert told["table"]["present"] is False
    assert [one["lease"] for one in told["listeners"]] == [True, True, True, False]


def test_an_address_on_nodelocals_interface_becomes_ours_as_well() -> None:
    """It goes when NodeLocal goes, and with it every packet on its way here."""
    its = Address("169.254.20.10", NODELOCAL_LINK, ours=False)
    found = Found(None, (its,))
    assert [address.ip for address in plan(WANTED, found).add] == ["169.254.20.10", "10.96.0.10"]
    assert "the address 169.254.20.10 is gone" in drift(WANTED, found, "")["address"]
    both = Found(present(), (its, *whole().addresses))
    assert nothing_is_done(plan(WANTED, both, "f"))
    assert its not in plan(replace(WANTED, listeners=()), both, "f").remove
    assert "address 169.254.20.10" in things_that_stay(WANTED, both, ())
