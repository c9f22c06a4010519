"""Which rules listeners need in each mode, as text, and what is read from nft's listing."""

from typing import Any

import pytest

from proxy.node.table import MOST_ENDPOINTS, Entry, NodeListener, Table, arrived, read, table, transaction

OWN = NodeListener("169.254.20.10:53", "udp", fallback=("10.244.1.2:53", "[fd00::2]:53", "10.244.1.3:53"))
OWN6 = NodeListener("[fd00:169::10]:53", "tcp", fallback=("10.244.1.2:53", "[fd00::2]:53"))
BARE = NodeListener("169.254.20.10:8125", "udp", relay=True)
OF_SERVICE = NodeListener("10.96.0.10:53", "udp", service=True)


def rules(made: Table, chain: str) -> tuple[str, ...]:
    return made.chains.get(chain, ("", ()))[1]


def all_rules(made: Table) -> list[str]:
    return [rule for _, rules in made.chains.values() for rule in rules]


def test_a_listener_has_parts() -> None:
    one = NodeListener("[fe80::1%eth0]:53", "tcp")
    assert (one.ip, one.interface, one.port, one.version) == ("fe80::1", "eth0", 53, 6)
    assert one.element == "fe80::1 . tcp . 53"
    assert one.name == "[fe80::1%eth0]:53/tcp"


@pytest.mark.parametrize("address", ["0.0.0.0:53", "[::]:53", "127.0.0.1:53", "[::1]:53"])
def test_wildcards_and_loopback_have_no_part_in_it(address: str) -> None:
    assert not NodeListener(address, "udp").leasable
    assert all_rules(table([NodeListener(address, "udp")], "serving", 0.5)) == []


def test_endpoints_are_of_the_listeners_family_and_not_too_many() -> None:
    assert OWN.endpoints == ("10.244.1.2:53", "10.244.1.3:53")
    assert OWN6.endpoints == ("[fd00::2]:53",)
    many = NodeListener("169.254.20.10:53", "udp", fallback=tuple(f"10.0.{n}.1:53" for n in range(200)))
    assert len(many.endpoints) == MOST_ENDPOINTS


@pytest.mark.parametrize("unreachable", ["127.0.0.53:53", "[::1]:53", "[fe80::1%eth0]:53"])
def test_what_dnat_cannot_reach_is_no_endpoint(unreachable: str) -> None:
    own6 = NodeListener("[fd00:169::10]:53", "udp", fallback=(unreachable,))
    own = NodeListener("169.254.20.10:53", "udp", fallback=(unreachable,))
    assert (own6.endpoints, own.endpoints) == ((), ())
    assert own.element in table([own], "serving", 0.5).sets["bare4"][1]


def test_what_leaves_takes_no_lease_and_keeps_its_connections() -> None:
    made = table([OWN, BARE, OF_SERVICE], "serving", 0.5, leaving=[OF_SERVICE])
    assert made.sets["leaving4"][1] == (OF_SERVICE.element,)
    out = rules(made, "output")
    leaves = out.index("ip saddr . meta l4proto . th sport @leaving4 notrack accept")
    assert leaves < min(number for number, rule in enumerate(out) if "update @lease4" in rule)
    for hook in ("prerouting", "output"):
        bare, goes_on, ends, *_ = [rule for rule in rules(made, hook) if "mark" not in rule]
        assert "@bare4 notrack" in bare
        assert goes_on.endswith("@flows4 ip daddr . meta l4proto . th dport @leaving4 notrack")
        assert ends == "ip daddr . meta l4proto . th dport @leaving4 accept"
    assert not any("@leaving" in rule for rule in all_rules(table([OWN, OF_SERVICE], "serving", 0.5)))


def test_what_left_has_no_lease_any_more() -> None:
    before = read(listing(RUN, {"set": {"name": "listeners4", "elem": [{"concat": ["10.96.0.10", "udp", 53]}]}}))
    of_lease = f"element inet sidestep lease4 {{ {OF_SERVICE.element} }}"
    left = transaction(table([OWN], "serving", 0.5), before, "1f").splitlines()
    assert left.index(f"add {of_lease}") < left.index(f"delete {of_lease}")
    assert of_lease not in transaction(table([OWN, OF_SERVICE], "serving", 0.5, leaving=[OF_SERVICE]), before, "1f")


def test_each_endpoint_is_as_likely() -> None:
    three = NodeListener("169.254.20.10:53", "udp", fallback=("10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"))
    made = table([three], "serving", 0.5)
    (chain,) = [name for name in made.chains if name.startswith("to_")]
    assert rules(made, chain) == (
        "meta l4proto udp numgen random mod 3 0 dnat ip to 10.0.0.1:53",
        "meta l4proto udp numgen random mod 2 0 dnat ip to 10.0.0.2:53",
        "meta l4proto udp dnat ip to 10.0.0.3:53",
    )
    assert made.sets["own4"][1] == (f"{three.element} : goto {chain}",)


def test_probes_come_before_leased_packets_and_those_before_answers() -> None:
    out = rules(table([OWN], "serving", 0.5), "output")
    assert [rule.split("@")[1].split()[0] for rule in out] == [
        "listeners4",
        "lease4",
        "lease4",
        "flows4",
        "listeners4",
        "listeners4",
        "listeners4",
    ]
    assert out[0].startswith("meta mark 0x000051de")
    assert "timeout 500ms" in out[4]
    assert out[5].startswith("tcp flags & psh == psh")
    assert all(rule.endswith("notrack") for rule in out)


def test_only_data_refreshes_the_lease_of_tcp() -> None:
    refreshing = [rule for rule in all_rules(table([OWN, OWN6], "serving", 0.5)) if "update @lease" in rule]
    assert len(refreshing) == 4
    assert all(rule.startswith(("meta l4proto udp", "tcp flags & psh == psh")) for rule in refreshing)


def test_a_connection_is_only_ours_if_it_began_here() -> None:
    for hook in ("prerouting", "output"):
        leased = [rule for rule in rules(table([OWN], "serving", 0.5), hook) if "@lease4" in rule and "daddr" in rule]
        udp, begins, goes_on, *_ = leased
        assert udp.startswith("meta l4proto udp ")
        assert begins.startswith("tcp flags & (syn|ack) == syn ")
        assert goes_on.startswith("ip saddr . tcp sport . ip daddr . tcp dport @flows4 ")
        assert all("update @flows4" in rule for rule in (begins, goes_on))
        assert any("@flows4 notrack" in rule for rule in rules(table([OWN], "draining", 0.5), hook))
        assert not any("@flows4" in rule for rule in rules(table([OWN], "stopped", 0.5), hook))


@pytest.mark.parametrize("mode", ["serving", "draining", "stopped"])
@pytest.mark.parametrize("listener", [OWN, OWN6, BARE])
def test_no_packet_to_our_own_listener_is_tracked_without_dnat(listener: NodeListener, mode: Any) -> None:
    made = table([listener, OF_SERVICE], mode, 0.5)
    version = listener.version
    translated = any(element.startswith(listener.element) for element in made.sets[f"own{version}"][1])
    untracked = listener.element in made.sets[f"bare{version}"][1]
    assert translated != untracked
    for hook in ("prerouting", "output"):
        if translated:
            assert any(f"@own{version}" in rule for rule in rules(made, f"own_{hook}"))
        else:
            assert any(f"@bare{version} notrack" in rule for rule in rules(made, hook))


def test_a_service_is_left_to_kube_proxy_first() -> None:
    with_endpoints = NodeListener("10.96.0.10:53", "udp", service=True, fallback=("10.244.1.2:53",))
    made = table([with_endpoints], "serving", 0.5)
    assert "priority -90" in made.chains["service_prerouting"][0]
    assert made.sets["bare4"][1] == ()
    assert not any("nat" in spec for spec, _ in table([OF_SERVICE], "serving", 0.5).chains.values())


@pytest.mark.parametrize("mode", ["serving", "draining"])
def test_what_workers_ask_of_a_service_does_not_come_back_to_us(mode: Any) -> None:
    made = table([OWN, OF_SERVICE], mode, 0.5, 65532)
    asked = "meta skuid 65532 ip daddr . meta l4proto . th dport @services4"
    assert made.sets["services4"][1] == (OF_SERVICE.element,)
    out = rules(made, "output")
    assert out.index(f"{asked} accept") < min(
        number for number, rule in enumerate(out) if "@lease" in rule or "saddr" in rule
    )
    assert "mark" in out[0]
    assert rules(made, "service_output")[-1] == f"{asked} drop"
    assert not any("skuid" in rule for rule in rules(made, "prerouting") + rules(made, "own_output"))
    assert not any("skuid" in rule for rule in all_rules(table([OWN, OF_SERVICE], mode, 0.5)))
    assert not any("skuid" in rule for rule in all_rules(table([OWN], mode, 0.5, 65532)))


@pytest.mark.parametrize("mode", ["draining", "stopped"])
def test_without_serving_no_answer_takes_a_lease(mode: Any) -> None:
    made = table([OWN, OWN6, BARE, OF_SERVICE], mode, 0.5)
    assert not any("@lease" in rule for rule in all_rules(made))
    assert not made.holds_lease


def test_a_drain_counts_what_still_arrives() -> None:
    made = table([OWN, OF_SERVICE], "draining", 0.5)
    assert made.sets["arrived4"][1] == (OF_SERVICE.element, OWN.element)
    assert rules(made, "arriving")
    assert not rules(table([OWN], "serving", 0.5), "arriving")


def test_connections_that_begin_with_another_untracked_listener_are_known_while_draining() -> None:
    for hook in ("begun_prerouting", "begun_output"):
        made = table([OWN, OF_SERVICE], "draining", 0.5)
        assert "priority -250" in made.chains[hook][0]
        assert [rule.startswith("ct state untracked tcp flags") for rule in rules(made, hook)] == [True]
        assert not rules(table([OWN, OF_SERVICE], "serving", 0.5), hook)


def test_the_digest_tells_tables_apart() -> None:
    one = table([OWN, BARE], "serving", 0.5)
    assert one.digest == table([BARE, OWN], "serving", 0.5).digest
    others = [table([OWN], "serving", 0.5), table([OWN, BARE], "draining", 0.5), table([OWN, BARE], "serving", 0.6)]
    assert len({one.digest, *(other.digest for other in others)}) == 4


def listing(*entries: dict[str, Any]) -> list[Entry]:
    return [each for entry in entries for each in entry.items()]


RUN = {"set": {"name": "run", "handle": 9, "comment": "sidestep schema 1 run abc table 0123"}}


def test_a_listing_is_read() -> None:
    present = read(listing(RUN, {"chain": {"name": "output"}}, {"map": {"name": "own4"}}))
    assert (present.run, present.digest, present.other) == ("abc", "0123", False)
    assert (present.sets, present.maps, present.chains) == ({"run"}, {"own4"}, {"output"})


@pytest.mark.parametrize("comment", [None, "somebody's", "sidestep schema 7 run abc table 0123"])
def test_a_table_of_others_or_another_version_is_told(comment: str | None) -> None:
    entry = {"name": "run"} if comment is None else {"name": "run", "comment": comment}
    assert read(listing({"set": entry})).other


def test_the_fingerprint_changes_with_rules_and_not_with_leases() -> None:
    lease = {"set": {"name": "lease4", "elem": [{"concat": ["169.254.20.10", "udp", 53]}]}}
    rule = {"rule": {"chain": "output", "handle": 4, "expr": []}}
    one = read(listing(RUN, {"set": {"name": "lease4"}}, rule)).fingerprint
    assert read(listing(RUN, lease, {"rule": {**rule["rule"], "handle": 5}})).fingerprint == one
    assert read(listing(RUN, lease)).fingerprint != one
    elements: list[Any] = [{"concat": ["10.0.0.1", "udp", 1]}, {"concat": ["10.0.0.2", "tcp", 2]}]
    sets = [{"set": {"name": "bare4", "elem": elem}} for elem in (elements, elements[::-1], elements[:1])]
    prints = [read(listing(RUN, entry)).fingerprint for entry in sets]
    assert prints[0] == prints[1] != prints[2]


def test_listeners_and_arrivals_are_read() -> None:
    concat = [["169.254.20.10", "udp", 53], ["fd00::1", "tcp", 53]]
    elements = [{"concat": one} for one in concat]
    sets = [
        {"set": {"name": name, "elem": elem}}
        for name, elem in (("listeners4", elements[:1]), ("services4", elements[:1]), ("listeners6", elements[1:]))
    ]
    assert read(listing(RUN, *sets)).listeners == (
        NodeListener("169.254.20.10:53", "udp", service=True),
        NodeListener("[fd00::1]:53", "tcp"),
    )
    assert read(listing(*sets)).listeners == ()
    counted = [{"elem": {"val": {"concat": one}, "counter": {"packets": 7, "bytes": 9}}} for one in concat]
    assert arrived(listing({"set": {"name": "arrived6", "elem": counted}})) == {
        "169.254.20.10:53/udp": 7,
        "[fd00::1]:53/tcp": 7,
    }


def test_a_transaction_keeps_the_leases_and_nothing_else() -> None:
    before = read(
        listing(RUN, *({"set": {"name": name}} for name in ("lease4", "bare4")), {"chain": {"name": "to_old"}})
    )
    text = transaction(table([OWN], "serving", 0.5), before, "1f")
    assert "flush set inet sidestep bare4" in text
    assert "delete chain inet sidestep to_old" in text
    assert "lease4" not in "".join(line for line in text.splitlines() if line.startswith(("flush", "delete")))
    assert "run 1f table" in text
    drained = transaction(table([OWN], "draining", 0.5), before, "1f")
    assert "flush set inet sidestep lease4" in drained


def test_a_table_of_another_version_is_made_anew() -> None:
    before = read(listing({"set": {"name": "lease4"}}))
    text = transaction(table([OWN], "serving", 0.5), before, "1f")
    assert text.splitlines()[:3] == [
        "add table inet sidestep",
        "delete table inet sidestep",
        "add table inet sidestep",
    ]
