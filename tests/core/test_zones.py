"""Which upstreams a name belongs to."""

import pytest

from proxy.core.local_names import wire_name
from proxy.core.policy import DnsPolicy, Zone
from proxy.core.zones import Zones

POLICY = DnsPolicy(
    (
        Zone(".", ("192.0.2.1:53", "192.0.2.2:53"), ("198.51.100.1:53",)),
        Zone("cluster.local.", ("10.96.0.10:53",), ("198.51.100.1:53",)),
        Zone("Corp.Example", ("203.0.113.1:53",)),
        Zone("deep.corp.example.", ()),
    )
)


def no_chance() -> float:
    return 0.5


@pytest.fixture
def zones() -> Zones:
    return Zones(POLICY, None)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("www.example.com", "."),
        (".", "."),
        ("svc.cluster.local", "cluster.local"),
        ("cluster.local", "cluster.local"),
        ("notcluster.local", "."),
        ("local", "."),
        ("a.corp.example", "corp.example"),
        ("a.deep.corp.example", "deep.corp.example"),
    ],
)
def test_the_longest_suffix_wins_at_whole_labels(zones: Zones, name: str, suffix: str) -> None:
    found = zones.find(wire_name(name))
    assert found is not None
    assert found.suffix == wire_name(suffix)


def test_a_label_that_looks_like_a_suffix_is_none(zones: Zones) -> None:
    found = zones.find(b"\x0dcluster\x05local\0")
    assert found is not None
    assert found.suffix == b"\0"


def test_a_name_of_no_zone_has_none() -> None:
    assert Zones(DnsPolicy((Zone("cluster.local.", ("192.0.2.1:53",)),)), None).find(wire_name("example")) is None


def test_endpoints_come_before_the_fallback_and_all_of_them_twice(zones: Zones) -> None:
    root = zones.find(b"\0")
    assert root is not None
    plan = zones.plan(root, no_chance)
    assert {u.address for u in plan[:2]} == {"192.0.2.1:53", "192.0.2.2:53"}
    assert plan[2].address == "198.51.100.1:53"
    assert sorted(map(id, plan[3:])) == sorted(map(id, plan[:3]))


def test_a_single_endpoint_gets_a_second_chance_before_the_fallback(zones: Zones) -> None:
    zone = zones.find(wire_name("cluster.local"))
    assert zone is not None
    endpoint, fallback = zone.upstreams[0], zone.fallback[0]
    assert zones.plan(zone, no_chance) == [endpoint, endpoint, fallback, endpoint, fallback]


def test_what_was_learnt_of_an_upstream_outlives_a_new_policy(zones: Zones) -> None:
    learnt = zones.upstreams[0]
    again = Zones(POLICY, zones)
    other = Zones(DnsPolicy((Zone("example.", ("192.0.2.1:53",)),)), zones)
    assert again.knows(learnt)
    assert not other.knows(learnt)


def test_one_address_in_two_zones_is_two_upstreams(zones: Zones) -> None:
    assert len({id(u) for u in zones.upstreams if u.address == "198.51.100.1:53"}) == 2


def test_a_probe_says_for_whom_it_is(zones: Zones) -> None:
    names = [zones.probe_name(one, b"sidestep-0123abcd") for one in zones.upstreams]
    assert [zones.probed(name) for name in names] == zones.upstreams
    assert names[3].endswith(wire_name("cluster.local"))


@pytest.mark.parametrize("label", [b"sidestep-0123abcd-99", b"sidestep-0123abcd-", b"sidestep-0123abcd"])
def test_a_made_up_probe_is_for_nobody(zones: Zones, label: bytes) -> None:
    assert zones.probed(bytes((len(label),)) + label + b"\0") is None
