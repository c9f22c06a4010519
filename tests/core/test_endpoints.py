"""From slices to endpoints: each item of the watch checklist that is about their content, then what always holds."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.endpoint_choice import endpoints_of, must_apply, place_zone, service_address, usable
from proxy.core.endpoints import (
    Endpoint,
    Place,
    PortOfService,
    Service,
    ServicePort,
    Slice,
    SliceEndpoint,
    SlicePort,
)

STATSD = SlicePort("statsd", "UDP", 8125)
HERE = Place("node-a", "zone-1")
LOCAL_ONLY = Service(local_only=True)


def slice_of(
    *endpoints: SliceEndpoint,
    ports: Sequence[SlicePort] = (STATSD,),
    name: str = "statsd-1",
    service: str = "statsd",
    family: str = "IPv4",
    version: int = 0,
) -> Slice:
    return Slice("monitoring", name, service, family, tuple(ports), endpoints, version)  # type: ignore[arg-type]


def pod(last: int, target: str = "", **changed: object) -> SliceEndpoint:
    """A ready pod at 10.244.1.`last`."""
    return replace(SliceEndpoint(f"10.244.1.{last}", target=target), **changed)


def serving(last: int, target: str = "", **changed: object) -> SliceEndpoint:
    return pod(last, target, ready=False, terminating=True, **changed)


def terminated(last: int, target: str = "", **changed: object) -> SliceEndpoint:
    return serving(last, target, serving=False, **changed)


def starting(last: int, target: str = "") -> SliceEndpoint:
    return pod(last, target, ready=False, serving=False)


def chosen(
    *slices: Slice,
    port: str | int = "statsd",
    place: Place = HERE,
    routable: Iterable[str] | None = None,
    service: Service | None = None,
) -> tuple[Endpoint, ...]:
    """`routable`: the only IPs that are; all are by default."""
    return endpoints_of(
        slices,
        ServicePort("monitoring/statsd", port),
        place,
        lambda ip: routable is None or ip in routable,
        service,
    )


def states(endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """The state by the end of the address, without the port."""
    return {one.address.rpartition(":")[0].removeprefix("10.244.1."): one.state for one in endpoints}


def addresses(endpoints: Iterable[Endpoint]) -> list[str]:
    return [one.address for one in endpoints]


# --- the checklist ---


def test_item_14_other_services_slices_are_left_out() -> None:
    other = replace(slice_of(pod(2)), namespace="elsewhere")
    assert states(chosen(slice_of(pod(1)), other, slice_of(pod(3), service="statsd-2"))) == {"1": "ready"}


def test_item_15_all_slices_of_a_service_are_united() -> None:
    found = chosen(slice_of(pod(1), pod(2)), slice_of(pod(3), name="b"), slice_of(name="c"))
    assert addresses(found) == ["10.244.1.1:8125", "10.244.1.2:8125", "10.244.1.3:8125"]


def test_item_16_an_address_that_stands_twice_is_one_endpoint() -> None:
    assert states(chosen(slice_of(pod(1, "a"), pod(1, "a")), slice_of(pod(1, "a"), name="b"))) == {"1": "ready"}


@pytest.mark.parametrize("address", [1, 2])
def test_item_16_a_pod_in_two_slices_moves_and_the_newer_slice_decides(address: int) -> None:
    old = slice_of(pod(1, "a"), pod(9, "z"), version=7)
    new = slice_of(terminated(address, "a"), name="b", version=8)
    assert states(chosen(old, new)) == states(chosen(new, old)) == {str(address): "terminating", "9": "ready"}


def test_item_16_a_pod_whose_port_changed_is_not_sent_to_at_the_old_one() -> None:
    old = slice_of(pod(1, "a"), version=7)
    new = slice_of(pod(1, "a"), name="b", version=8, ports=[SlicePort("statsd", "UDP", 9125)])
    assert addresses(chosen(old, new)) == ["10.244.1.1:9125"]


def test_item_16_without_a_target_the_address_tells_who_moves() -> None:
    old, new = slice_of(pod(1), version=7), slice_of(serving(1), name="b", version=8)
    assert states(chosen(old, new)) == {"1": "serving"}


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [(pod, serving), (pod, terminated), (pod, starting), (serving, terminated), (serving, starting)],
)
def test_item_16_an_address_used_again_belongs_to_who_is_alive_whatever_is_newer(stronger, weaker) -> None:
    alive = slice_of(stronger(1, "new"), version=7)
    dead = slice_of(weaker(1, "old"), name="b", version=8)
    alone = chosen(alive)
    assert chosen(alive, dead) == chosen(dead, alive) == alone
    assert alone[0].target == "new"


def test_item_16_of_two_that_are_as_alive_the_newer_slice_has_the_address() -> None:
    found = chosen(slice_of(pod(1, "old"), version=7), slice_of(pod(1, "new"), name="b", version=8))
    assert found == (Endpoint("10.244.1.1:8125", "ready", "new"),)


def test_item_16_pods_on_one_host_address_with_ports_of_their_own_are_two_endpoints() -> None:
    other = slice_of(pod(1, "b"), name="b", ports=[SlicePort("statsd", "UDP", 9125)])
    assert addresses(chosen(slice_of(pod(1, "a")), other)) == ["10.244.1.1:8125", "10.244.1.1:9125"]


def test_item_17_conditions_that_are_not_given_mean_ready() -> None:
    assert chosen(slice_of(SliceEndpoint("10.244.1.1"))) == (Endpoint("10.244.1.1:8125", "ready"),)


def test_item_18_only_ready_ones_are_used_while_there_are_any() -> None:
    found = chosen(slice_of(pod(1), serving(2), terminated(3), starting(4)))
    assert states(found) == {"1": "ready", "2": "terminating", "3": "terminating"}
    assert usable(found) == ("10.244.1.1:8125",)


def test_item_18_without_a_ready_one_those_serving_and_terminating_are_used() -> None:
    found = chosen(slice_of(serving(2), terminated(3), starting(4)))
    assert states(found) == {"2": "serving", "3": "terminating"}
    assert usable(found) == ("10.244.1.2:8125",)


def test_item_18_unready_ones_are_never_used() -> None:
    assert usable(chosen(slice_of(terminated(3), starting(4)))) == ()
    assert chosen(slice_of(pod(4, ready=False))) == ()


def test_item_19_a_port_with_an_empty_name_is_found_by_it() -> None:
    nameless = slice_of(pod(1), ports=[SlicePort("", "UDP", 53)])
    assert addresses(chosen(nameless, port="")) == ["10.244.1.1:53"]
    assert chosen(nameless, port="statsd") == ()
    assert chosen(slice_of(pod(1)), port="") == ()


@pytest.mark.parametrize("protocol", ["TCP", "SCTP", "udp", ""])
def test_item_19_only_udp_counts(protocol: str) -> None:
    ports = [SlicePort("statsd", protocol, 8125), SlicePort("statsd", "UDP", 8126)]
    assert addresses(chosen(slice_of(pod(1), ports=ports))) == ["10.244.1.1:8126"]
    assert chosen(slice_of(pod(1), ports=ports), port=8125) == ()


def test_item_19_a_port_by_number_is_the_endpoints_own() -> None:
    ports = [SlicePort("statsd", "UDP", 8125), SlicePort("other", "UDP", 8126), SlicePort("same", "UDP", 8126)]
    assert addresses(chosen(slice_of(pod(1), ports=ports), port=8126)) == ["10.244.1.1:8126"]
    assert chosen(slice_of(pod(1), ports=[SlicePort("8126", "UDP", 8125)]), port=8126) == ()


def test_item_20_slices_with_other_numbers_for_the_port_name_count_too() -> None:
    other = slice_of(pod(2), name="b", ports=[SlicePort("statsd", "UDP", 9125)])
    assert addresses(chosen(slice_of(pod(1)), other)) == ["10.244.1.1:8125", "10.244.1.2:9125"]


def test_item_21_a_thousand_endpoints_in_ten_slices_are_all_there() -> None:
    slices = [
        slice_of(
            *(SliceEndpoint(f"10.{index}.0.{last}", target=f"{index}-{last}") for last in range(100)),
            name=f"s{index}",
        )
        for index in range(10)
    ]
    asked: list[str] = []
    found = endpoints_of(slices, ServicePort("monitoring/statsd", "statsd"), HERE, lambda ip: not asked.append(ip))
    assert len(found) == len(usable(found)) == 1000
    assert asked == []


IPV4, IPV6 = pod(1, "a"), SliceEndpoint("fd00::1", target="a")


@pytest.mark.parametrize(
    ("routable", "address"),
    [
        ({"10.244.1.1", "fd00::1"}, "10.244.1.1:8125"),
        ({"10.244.1.1"}, "10.244.1.1:8125"),
        ({"fd00::1"}, "[fd00::1]:8125"),
        (set(), "10.244.1.1:8125"),
    ],
)
def test_item_22_a_pod_with_two_families_is_one_endpoint_at_the_routable_address(routable, address) -> None:
    slices = [slice_of(IPV4), slice_of(IPV6, name="b", family="IPv6", version=9)]
    assert chosen(*slices, routable=routable) == (Endpoint(address, "ready", "a"),)


def test_item_22_a_pod_with_one_family_keeps_it() -> None:
    assert addresses(chosen(slice_of(IPV6, family="IPv6"), routable=())) == ["[fd00::1]:8125"]
    assert addresses(chosen(slice_of(IPV4), routable=())) == ["10.244.1.1:8125"]


def test_item_22_a_family_of_another_pod_is_an_endpoint_of_its_own() -> None:
    other = replace(IPV6, target="b")
    assert len(chosen(slice_of(IPV4), slice_of(other, family="IPv6"))) == 2


NODE_A, NODE_B, NO_NODE = ("node-a",), ("node-b",), ()
ZONE_1, ZONE_2, NO_ZONE = ("zone-1",), ("zone-2",), ()


@pytest.mark.parametrize(
    ("first", "second", "used"),
    [
        ((NODE_A, NO_ZONE), (NODE_B, NO_ZONE), "1"),
        ((("node-b", "node-a"), NO_ZONE), (NODE_A, NO_ZONE), "12"),
        ((NODE_B, NO_ZONE), (NODE_B, NO_ZONE), "12"),
        ((NODE_A, NO_ZONE), (NO_NODE, NO_ZONE), "12"),
        ((NO_NODE, ZONE_1), (NO_NODE, ZONE_2), "1"),
        ((NO_NODE, ZONE_1), (NO_NODE, NO_ZONE), "12"),
        ((NO_NODE, ZONE_2), (NO_NODE, ZONE_2), "12"),
        ((NODE_A, ZONE_2), (NODE_B, ZONE_1), "1"),
        ((NODE_B, ZONE_2), (NODE_B, ZONE_1), "2"),
        ((NODE_A, ZONE_2), (NO_NODE, ZONE_1), "2"),
    ],
)
def test_item_23_hints_count_only_if_every_ready_one_has_them_and_one_means_here(first, second, used) -> None:
    hinted = [
        pod(last, for_nodes=nodes, for_zones=zones) for last, (nodes, zones) in enumerate((first, second), start=1)
    ]
    assert "".join(states(chosen(slice_of(*hinted)))) == used


def test_item_23_those_that_are_not_ready_need_no_hints() -> None:
    found = chosen(slice_of(pod(1, for_zones=ZONE_1), pod(2, for_zones=ZONE_2), serving(3), starting(4)))
    assert states(found) == {"1": "ready", "3": "terminating"}


def test_item_23_those_serving_are_used_wherever_they_are() -> None:
    assert states(chosen(slice_of(serving(1, for_zones=ZONE_1), serving(2, for_zones=ZONE_2)))) == {
        "1": "serving",
        "2": "serving",
    }


@pytest.mark.parametrize("place", [Place(), Place("node-c", "zone-3")])
def test_item_23_no_hint_means_an_unknown_place(place: Place) -> None:
    hinted = [pod(1, for_nodes=NODE_A, for_zones=ZONE_1), pod(2, for_nodes=NODE_B, for_zones=ZONE_2)]
    assert len(chosen(slice_of(*hinted), place=place)) == 2


def test_item_24_with_a_local_policy_only_this_nodes_endpoints_are_used() -> None:
    slices = slice_of(pod(1, node="node-a"), pod(2, node="node-b"), pod(3))
    assert states(chosen(slices, service=LOCAL_ONLY)) == {"1": "ready"}
    assert len(chosen(slices, service=Service())) == 3


def test_item_24_with_a_local_policy_and_none_here_nothing_is_used() -> None:
    assert chosen(slice_of(pod(2, node="node-b")), service=LOCAL_ONLY) == ()
    assert chosen(slice_of(pod(3)), place=Place(), service=LOCAL_ONLY) == ()


def test_item_24_with_a_local_policy_those_serving_here_come_before_ready_ones_elsewhere() -> None:
    slices = slice_of(serving(1, node="node-a"), pod(2, node="node-b"), terminated(3, node="node-a"))
    assert states(chosen(slices, service=LOCAL_ONLY)) == {"1": "serving", "3": "terminating"}


def test_item_24_with_a_local_policy_hints_do_not_count() -> None:
    slices = slice_of(pod(1, node="node-a", for_zones=ZONE_2), pod(2, node="node-a", for_zones=ZONE_1))
    assert len(chosen(slices, service=LOCAL_ONLY)) == 2


def test_item_25_ready_is_trusted_even_of_one_that_terminates() -> None:
    # publishNotReadyAddresses makes the API server say so.
    assert states(chosen(slice_of(pod(1, terminating=True, serving=False)))) == {"1": "ready"}


# --- what control asks beside ---


def endpoint(last: int, state: str = "ready") -> Endpoint:
    return Endpoint(f"10.244.1.{last}:8125", state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "now"),
    [
        ([endpoint(1)], [endpoint(1), endpoint(2)], False),
        ([endpoint(1)], [endpoint(1), endpoint(2, "terminating")], False),
        ([endpoint(1, "serving")], [endpoint(1)], False),
        ([endpoint(1, "terminating")], [], False),
        ([], [], False),
        ([endpoint(1)], [endpoint(2)], True),
        ([endpoint(1), endpoint(2)], [endpoint(1), endpoint(2, "terminating")], True),
        ([endpoint(1)], [], True),
        ([], [endpoint(1)], True),
        ([endpoint(1, "terminating")], [endpoint(1, "serving")], True),
    ],
)
def test_a_change_waits_unless_a_used_one_goes_or_the_first_one_comes(old, new, now) -> None:
    assert must_apply(old, new) is now


def test_our_zone_is_what_an_endpoint_on_our_node_says() -> None:
    slices = [
        slice_of(pod(1, node="node-b", zone="zone-2"), pod(2, node="node-a")),
        slice_of(pod(3, node="node-a", zone="zone-1"), service="other"),
    ]
    assert place_zone(slices, "node-a") == "zone-1"
    assert place_zone(slices, "node-c") == ""
    assert place_zone([slice_of(pod(1, zone="zone-1"))], "") == ""


DNS = (
    PortOfService("dns-tcp", "TCP", 53, "dns-tcp"),
    PortOfService("dns", "UDP", 53, 10053),
    PortOfService("", "UDP", 54, 10054),
)


@pytest.mark.parametrize(
    ("ips", "port", "address"),
    [
        (("10.96.0.10",), "dns", "10.96.0.10:53"),
        (("10.96.0.10",), 10053, "10.96.0.10:53"),
        (("10.96.0.10",), "", "10.96.0.10:54"),
        (("fd00::a", "10.96.0.10"), "dns", "10.96.0.10:53"),
        (("fd00::a",), "dns", "[fd00::a]:53"),
        (("10.96.0.10",), 53, None),
        (("10.96.0.10",), "dns-tcp", None),
        (("10.96.0.10",), "other", None),
        (("None",), "dns", None),
        ((), "dns", None),
    ],
)
def test_a_service_is_asked_at_its_own_port_for_the_wanted_one(ips, port, address) -> None:
    assert service_address(Service(ips, ports=DNS), port) == address


# --- what always holds ---

slice_endpoints = st.builds(
    SliceEndpoint,
    address=st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ready=st.booleans(),
    serving=st.booleans(),
    terminating=st.booleans(),
    target=st.sampled_from(["", "a", "b", "c"]),
    node=st.sampled_from(["", "node-a", "node-b"]),
    for_zones=st.sampled_from([(), ("zone-1",), ("zone-2",)]),
    for_nodes=st.sampled_from([(), ("node-a",), ("node-b",)]),
)
ports = st.lists(st.sampled_from([STATSD, SlicePort("statsd", "UDP", 9125), SlicePort("", "UDP", 8125)]), max_size=2)


def as_ipv6(endpoint: SliceEndpoint) -> SliceEndpoint:
    return replace(endpoint, address=f"fd00::{endpoint.address[-1]}")


@st.composite
def any_slices(draw: st.DrawFn) -> list[Slice]:
    slices = []
    for index in range(draw(st.integers(0, 4))):
        family = draw(st.sampled_from(["IPv4", "IPv6"]))
        endpoints = draw(st.lists(slice_endpoints, max_size=4))
        slices.append(
            slice_of(
                *(endpoints if family == "IPv4" else map(as_ipv6, endpoints)),
                ports=draw(ports),
                name=f"s{index}",
                family=family,
                version=draw(st.integers(0, 2)),
            )
        )
    return slices


reachable = st.sets(st.sampled_from([f"10.0.0.{last}" for last in "123"] + [f"fd00::{last}" for last in "123"]))
policies = st.sampled_from([None, Service(), LOCAL_ONLY])
wanted_ports = st.sampled_from(["statsd", "", 8125])


@given(any_slices(), st.randoms(use_true_random=False), reachable, policies, wanted_ports)
def test_the_order_of_slices_and_of_endpoints_in_them_makes_no_difference(
    slices, random, routable, policy, port
) -> None:
    shuffled = [replace(one, endpoints=tuple(random.sample(one.endpoints, len(one.endpoints)))) for one in slices]
    random.shuffle(shuffled)
    first = chosen(*slices, port=port, routable=routable, service=policy)
    assert chosen(*shuffled, port=port, routable=routable, service=policy) == first


@given(any_slices(), reachable, policies, wanted_ports)
def test_an_address_stands_once_and_a_pod_has_one_family(slices, routable, policy, port) -> None:
    found = chosen(*slices, port=port, routable=routable, service=policy)
    assert len(set(addresses(found))) == len(found)
    for target in {one.target for one in found} - {""}:
        assert len({one.address.startswith("[") for one in found if one.target == target}) == 1


@given(any_slices(), reachable, policies, wanted_ports)
def test_ready_and_serving_never_stand_together_and_all_come_from_a_slice(slices, routable, policy, port) -> None:
    found = chosen(*slices, port=port, routable=routable, service=policy)
    assert not {"ready", "serving"} <= {one.state for one in found}
    said = {(endpoint.address, endpoint.target) for one in slices for endpoint in one.endpoints}
    assert {(one.address.rpartition(":")[0].strip("[]"), one.target) for one in found} <= said


@given(st.lists(st.sampled_from([pod, serving, terminated, starting]), max_size=6))
def test_none_is_usable_only_if_none_is_ready_and_none_is_serving(kinds) -> None:
    found = usable(chosen(slice_of(*(kind(last, f"p{last}") for last, kind in enumerate(kinds)))))
    best = pod if pod in kinds else serving
    assert found == tuple(f"10.244.1.{last}:8125" for last, kind in enumerate(kinds) if kind is best)
