"""Addresses of Services, remembered when they go, and flows that are deleted only when two looks agree."""

from dataclasses import replace

from proxy.core import flow_watch
from proxy.core.endpoint_choice import live
from proxy.core.endpoints import PortOfService, Service, ServicePort, SlicePort
from proxy.core.flow_watch import FormerServices, Sweep, addresses_of
from proxy.core.flows import ServiceAddress, StaleFlow
from tests.core.test_endpoints import pod, serving, slice_of, starting, terminated
from tests.core.test_flows import LIVE, flow, statsd


def stale(identifier: int, source: str = "10.244.1.9:4000") -> StaleFlow:
    return StaleFlow(flow("10.244.1.99:8125", id=identifier, source=source), "monitoring/statsd", "other port")


def test_live_is_what_is_ready_or_serves_while_it_terminates() -> None:
    found = slice_of(pod(1), serving(2), terminated(3), starting(4))
    wanted = ServicePort("monitoring/statsd", "statsd")
    assert live([found], wanted) == {"10.244.1.1:8125", "10.244.1.2:8125"}


def test_both_families_of_a_pod_are_live_wherever_it_is() -> None:
    ipv4 = slice_of(pod(1, "uid-1", node="node-b", for_nodes=("node-b",)))
    ipv6 = slice_of(replace(pod(1, "uid-1"), address="fd00::1"), name="statsd-6", family="IPv6")
    assert live([ipv4, ipv6], ServicePort("monitoring/statsd", 8125)) == {"10.244.1.1:8125", "[fd00::1]:8125"}


def test_a_service_has_an_address_for_each_ip_and_udp_port() -> None:
    service = Service(
        ("10.96.0.20", "fd00:96::20"),
        ports=(PortOfService("statsd", "UDP", 8125, 9125), PortOfService("web", "TCP", 80, 80)),
    )
    slices = [slice_of(pod(7), ports=[SlicePort("statsd", "UDP", 9125), SlicePort("web", "TCP", 80)])]
    targets = frozenset({"10.244.1.7:9125"})
    assert list(addresses_of("monitoring/statsd", service, slices)) == [
        ServiceAddress("10.96.0.20:8125", "monitoring/statsd", targets),
        ServiceAddress("[fd00:96::20]:8125", "monitoring/statsd", targets),
    ]


def test_a_service_whose_slices_went_away_is_gone_with_the_endpoints_that_it_had() -> None:
    former = FormerServices()
    assert former.with_former([statsd()], []) == [statsd()]
    moved = replace(statsd(), targets=frozenset({"10.244.1.70:8125"}))
    former.with_former([moved], [])
    for now in ([moved], []):
        (gone,) = former.with_former(now, ["monitoring/statsd"])
        assert gone.gone
        assert gone.former == LIVE | {"10.244.1.70:8125"}
    assert former.with_former([statsd()], []) == [statsd()]


def test_what_never_had_slices_is_not_told_of() -> None:
    assert FormerServices().with_former([statsd()], ["monitoring/statsd"]) == []


def test_the_former_endpoints_of_an_address_are_bounded() -> None:
    former = FormerServices()
    count = flow_watch.MOST_FORMER + 5
    for number in range(count):
        former.with_former([replace(statsd(), targets=frozenset({f"10.244.1.1:{number}"}))], [])
    (gone,) = former.with_former([], ["monitoring/statsd"])
    assert gone.former is not None
    assert len(gone.former) == flow_watch.MOST_FORMER
    assert "10.244.1.1:0" not in gone.former
    assert f"10.244.1.1:{count - 1}" in gone.former


def test_a_flow_is_due_when_two_looks_in_a_row_found_it() -> None:
    sweep = Sweep(10)
    first = sweep.next_round([stale(1)])
    assert (first.new, first.due) == ((), ())
    second = sweep.next_round([stale(1), stale(2)])
    assert second.new == second.due == (stale(1),)
    third = sweep.next_round([stale(1), stale(2)])
    assert (third.new, third.due) == ((stale(2),), (stale(1), stale(2)))


def test_an_entry_that_was_made_anew_begins_again() -> None:
    sweep = Sweep(10)
    sweep.next_round([stale(1)])
    assert sweep.next_round([stale(2)]).due == ()


def test_a_look_that_failed_is_none_of_the_two() -> None:
    sweep = Sweep(10)
    sweep.next_round([stale(1)])
    sweep.forget()
    assert sweep.next_round([stale(1)]).due == ()
    assert sweep.next_round([stale(1)]).due == (stale(1),)


def test_a_flow_that_came_back_is_told_again() -> None:
    sweep = Sweep(10)
    for _ in range(2):
        sweep.next_round([stale(1)])
    sweep.next_round([])
    sweep.next_round([stale(1)])
    assert sweep.next_round([stale(1)]).new == (stale(1),)


def test_only_so_many_are_due_in_a_round() -> None:
    sweep = Sweep(3)
    flows = [stale(number, f"10.244.1.9:{number}") for number in range(5)]
    sweep.next_round(flows)
    second = sweep.next_round(flows)
    assert (second.due, second.deferred, len(second.new)) == (tuple(flows[:3]), 2, 5)
    third = sweep.next_round(flows[3:])
    assert (third.due, third.deferred) == (tuple(flows[3:]), 0)
