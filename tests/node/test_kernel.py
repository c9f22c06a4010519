"""Plans carried out in a network namespace: what is there afterwards, and what nobody may touch."""

import itertools
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.node import addresses as node_addresses
from proxy.node import kernel as kernels
from proxy.node import nft
from proxy.node.kernel import Kernel, clean_up
from proxy.node.nft import NodeError
from proxy.node.plan import Address
from proxy.node.table import Entry, NodeListener
from tests.node.network import (
    COREDNS,
    COREDNS6,
    KINDS,
    LINK_LOCAL,
    LINK_LOCAL6,
    SERVICE,
    a_namespace,
    addresses,
    flows,
    rules,
    run,
)

OWN = NodeListener(LINK_LOCAL, "udp", fallback=(COREDNS,))
OWN6 = NodeListener(LINK_LOCAL6, "udp", fallback=(COREDNS6,))
OF_SERVICE = NodeListener(SERVICE, "udp", service=True)
STATSD = NodeListener("169.254.20.11:8125", "udp", relay=True)
ALL = [OWN, OWN6, OF_SERVICE, STATSD]


@pytest.fixture(autouse=True)
def _namespace() -> Iterator[None]:
    with a_namespace():
        yield


def rule_lines() -> list[str]:
    """All that nft knows here, but for the run that wrote it."""
    return [line for line in run("nft -s list ruleset").splitlines() if "comment" not in line]


@pytest.fixture(params=KINDS)
def interface(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What holds addresses: `lo` where the kernel can make no link for them, a link of ours where it can."""
    name: str = request.param
    monkeypatch.setattr(node_addresses, "KIND", KINDS[name])
    return name


def kernel(at: float = 1e9) -> Kernel:
    return Kernel("sidestep0", lambda: at)


def ips() -> set[str]:
    """All but those that every link has."""
    found = {address.partition("/")[0] for address in addresses()} - {"127.0.0.1", "::1"}
    return {ip for ip in found if not ip.startswith("fe80:")}


def links() -> set[str]:
    """Those that we made."""
    return node_addresses.our_links("lo")


def test_set_up_brings_table_and_addresses(interface: str) -> None:
    kernel().set_up(ALL, 0.5)
    assert "table inet sidestep" in rules()
    assert ips() == {"169.254.20.10", "169.254.20.11", "10.96.0.10", "fd00:169::10"}
    assert {one.interface for one in node_addresses.present() if one.ours and one.up} == {interface}


def test_set_up_again_changes_nothing(interface: str) -> None:
    one = kernel()
    one.set_up(ALL, 0.5)
    one.settle()
    before = rules()
    one.set_up(ALL, 0.5)
    one.settle()
    assert rules() == before
    assert one.repair() == []


def test_a_new_run_takes_over_what_a_killed_one_left(interface: str) -> None:
    kernel().set_up([OWN, OF_SERVICE], 0.5)
    run("nft add element inet sidestep lease4 '{ 169.254.20.10 . udp . 53 timeout 1h }'")
    new = kernel()
    new.set_up([OWN, STATSD], 0.7, take_over=True)
    assert "169.254.20.10 . udp . 53" in run("nft list set inet sidestep lease4")
    assert "timeout 700ms" in rules()
    assert "10.96.0.10" in ips()
    new.settle()
    assert ips() == {"169.254.20.10", "169.254.20.11"}
    assert rules().count("table inet sidestep") == 1


def test_a_new_run_writes_no_rule_a_second_time() -> None:
    kernel().set_up(ALL, 0.5, take_over=True)
    killed = rule_lines()
    kernel().set_up(ALL, 0.5, take_over=True)
    assert rule_lines() == killed


def test_a_table_of_another_version_is_replaced() -> None:
    run(
        "nft add table inet sidestep; nft add set inet sidestep lease4 '{ type ipv4_addr; }';"
        "nft add chain inet sidestep old '{ type filter hook input priority 5; policy accept; }';"
        "nft add rule inet sidestep old ip daddr @lease4 drop"
    )
    kernel().set_up(ALL, 0.5)
    assert "chain old" not in rules()
    assert "@lease4 notrack" in rules()


def test_what_others_made_stays_untouched(interface: str) -> None:
    run(
        "nft add table inet other; nft add chain inet other sidestep;"
        "nft add table ip sidestep; nft add chain ip sidestep prerouting;"
        "ip addr add 169.254.20.11/32 dev lo; ip addr add 192.0.2.1/32 dev lo"
    )
    others = rules()
    one = kernel()
    one.set_up([*ALL, NodeListener("192.0.2.1:53", "tcp", fallback=(COREDNS,))], 0.5)
    one.settle()
    one.take_down()
    clean_up(ALL)
    assert rules() == others
    assert ips() == {"169.254.20.11", "192.0.2.1"}


def test_without_listeners_there_is_nothing() -> None:
    one = kernel()
    one.set_up([NodeListener("127.0.0.1:53", "udp"), NodeListener("0.0.0.0:53", "tcp")], 0.5)
    assert rules() == ""
    assert one.repair() == []
    one.take_down()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("nft flush ruleset", "the table inet sidestep is gone"),
        ("nft flush chain inet sidestep prerouting", "the table inet sidestep was changed"),
        ("nft add element inet sidestep bare4 '{{ 10.96.0.10 . udp . 53 }}'", "the table inet sidestep was changed"),
        ("ip addr del 169.254.20.10/32 dev {interface}", "the address 169.254.20.10 is gone"),
        ("ip link set {interface} down", "the address 169.254.20.10 is gone"),
    ],
)
def test_damage_is_found_and_repaired(damage: str, found: str, interface: str) -> None:
    one = kernel()
    one.set_up(ALL, 0.5)
    before, had = run("nft -s list ruleset"), ips()
    run(damage.format(interface=interface))
    assert found in one.repair()
    assert run("nft -s list ruleset") == before
    assert ips() == had
    assert one.repair() == []
    assert sum(one.repairs.values()) >= 1


def test_a_link_that_somebody_deleted_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_addresses, "KIND", KINDS["sidestep0"])
    one = kernel()
    one.set_up(ALL, 0.5)
    had = ips()
    run("ip link del sidestep0")
    assert "the address 169.254.20.10 is gone" in one.repair()
    assert ips() == had
    assert links() == {"sidestep0"}


def test_a_lease_and_the_packets_of_others_are_no_damage() -> None:
    one = kernel()
    one.set_up(ALL, 0.5)
    run("nft add element inet sidestep lease4 '{ 169.254.20.10 . udp . 53 timeout 1h }'; nft add table inet other")
    assert one.repair() == []


def test_of_two_runs_the_later_one_has_it() -> None:
    old, new = kernel(), kernel(at=0.0)
    old.set_up(ALL, 0.5)
    new.set_up(ALL[:2], 0.5, take_over=True)
    before = rules()
    assert old.taken_over()
    assert old.repair() == []
    old.set_up([OWN], 0.5)
    old.switch("draining")
    old.settle()
    old.take_down()
    assert rules() == before
    assert not new.taken_over()


def test_the_old_run_takes_it_back_if_the_new_one_failed() -> None:
    old, new = kernel(), kernel(at=0.0)
    old.set_up(ALL, 0.5)
    new.set_up(ALL[:2], 0.5, take_over=True)
    old.set_up(ALL, 0.5, take_over=True)
    assert new.taken_over()
    assert not old.taken_over()


@pytest.mark.parametrize("rest", ["", "nft add set inet sidestep run '{ type mark; comment \"somebody\"; }'"])
def test_a_table_that_no_run_wrote_is_damage(rest: str) -> None:
    one = kernel()
    one.set_up(ALL, 0.5)
    before = run("nft -s list ruleset")
    run(f"nft delete table inet sidestep; nft add table inet sidestep; {rest}")
    assert one.repair() == ["the table inet sidestep was changed"]
    assert run("nft -s list ruleset") == before


def test_a_saved_table_of_an_earlier_run_is_damage(tmp_path: Path) -> None:
    kernel().set_up([OWN], 0.5)
    run(f"nft list ruleset > {tmp_path}/saved")
    one = kernel()
    one.set_up(ALL, 0.5, take_over=True)
    run(f"nft flush ruleset; nft -f {tmp_path}/saved")
    assert one.repair() == ["the table inet sidestep was changed"]
    assert not one.taken_over()


def test_other_listeners_come_before_the_old_ones_go(interface: str) -> None:
    one = kernel()
    one.set_up([OWN], 0.5)
    one.set_up([STATSD], 0.5)
    assert ips() == {"169.254.20.10", "169.254.20.11"}
    assert f"{OWN.element} : goto" in rules()
    one.settle()
    assert ips() == {"169.254.20.11"}
    assert "169.254.20.10" not in rules()


def test_a_stop_leaves_our_own_addresses_with_their_fallback(interface: str) -> None:
    one = kernel()
    one.set_up(ALL, 0.5)
    one.take_down()
    left = rules()
    assert ips() == {"169.254.20.10", "169.254.20.11", "fd00:169::10"}
    assert "10.96.0.10" not in left
    assert f"{OWN.element} : goto" in left
    assert f"{OWN6.element} : goto" in left
    assert "update @lease" not in left
    assert links() == {interface} - {"lo"}


def test_a_stop_leaves_nothing_of_services_alone(interface: str) -> None:
    one = kernel()
    one.set_up([OF_SERVICE], 0.5)
    one.take_down()
    assert (rules(), ips(), links()) == ("", set(), set())


def test_clean_up_takes_everything_away_and_finds_nothing_more(interface: str) -> None:
    one = kernel()
    one.set_up(ALL, 0.5)
    one.take_down()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        run("ip route add 10.244.1.2 dev lo")
        client.sendto(b"?", ("169.254.20.10", 53))
    assert len(flows("169.254.20.10")) == 1
    removed = clean_up([])
    assert "table inet sidestep" in removed
    assert f"address 169.254.20.10 on {interface}" in removed
    assert ("link sidestep0" in removed) == (interface == "sidestep0")
    assert "1 conntrack entries" in removed
    assert (rules(), ips(), flows("169.254.20.10")) == ("", set(), [])
    assert links() == set()
    assert clean_up([]) == []


def test_flows_that_conntrack_pinned_to_us_are_forgotten() -> None:
    run("nft add table inet other; nft 'add chain inet other in { type filter hook input priority 0; }'")
    run("nft add rule inet other in ct state new accept; ip addr add 169.254.20.10/32 dev lo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"?", ("169.254.20.10", 53))
        assert len(flows("169.254.20.10")) == 1
        kernel().set_up([OWN], 0.5)
        assert flows("169.254.20.10") == []


def test_clean_up_ends_connections_to_the_fallback() -> None:
    run("nft add table inet other; nft 'add chain inet other in { type filter hook input priority 0; }'")
    run("nft add rule inet other in ct state new accept")
    kernel().set_up([NodeListener(LINK_LOCAL, "tcp", fallback=("10.244.1.2:53",))], 0.5)
    run("ip addr add 10.244.1.2/32 dev lo")
    with socket.create_server(("10.244.1.2", 53)), socket.create_connection(("169.254.20.10", 53), 5):
        assert "dport=53" in run("conntrack -L -p tcp --orig-dst 169.254.20.10 2>/dev/null")
        assert "1 conntrack entries" in clean_up([])
    assert run("conntrack -L -p tcp --orig-dst 169.254.20.10 2>/dev/null") == ""


def test_a_link_of_an_earlier_name_goes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_addresses, "KIND", KINDS["sidestep0"])
    Kernel("before0").set_up([OWN], 0.5)
    kernel().set_up([OWN, STATSD], 0.5, take_over=True)
    assert links() == {"before0", "sidestep0"}
    assert {"link before0", "link sidestep0"} < set(clean_up([]))
    assert links() == set()


def test_transactions_of_others_are_followed_by_a_look_at_the_table_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = kernel()
    one.set_up(ALL, 0.5)
    one.repair()
    looks: list[str] = []
    listing = nft.listing

    def watched(what: str) -> list[Entry] | None:
        looks.append(what)
        return listing(what)

    monkeypatch.setattr(nft, "listing", watched)
    assert one.repair() == []
    assert looks == []
    run("nft add table inet other")
    assert one.repair() == []
    assert looks == ["table inet sidestep"]


def test_without_ipv6_on_the_interface_it_is_told_and_a_stop_leaves_what_it_always_does() -> None:
    run("sysctl -qw net.ipv6.conf.lo.disable_ipv6=1")
    failed = kernel()
    with pytest.raises(NodeError, match=r"fd00:169::10: IPv6 is disabled on lo; .*net\.ipv6\.conf\.lo\.disable_ipv6"):
        failed.set_up([OF_SERVICE, OWN, OWN6], 0.5, take_over=True)
    assert "10.96.0.10" in ips()
    failed.set_up([OF_SERVICE, OWN], 0.5, take_over=True)
    with pytest.raises(NodeError):
        failed.set_up([OF_SERVICE, OWN, OWN6], 0.5, take_over=True)
    failed.take_down()
    assert ips() == {"169.254.20.10"}
    assert "update @lease" not in rules()
    assert f"{OWN.element} : goto" in rules()


def test_rules_of_what_left_go_later_if_they_could_not_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = kernel()
    one.set_up([OWN, STATSD], 0.5)
    one.set_up([STATSD], 0.5)

    def refuse(_: str) -> None:
        raise NodeError("busy")

    with monkeypatch.context() as patched:
        patched.setattr(nft, "carry_out", refuse)
        with pytest.raises(NodeError, match="busy"):
            one.settle()
    one.settle()
    assert "169.254.20.10" not in rules()
    assert one.repair() == []


def test_what_a_stop_left_outlives_a_start_that_fails() -> None:
    stopped, failed = kernel(), kernel()
    stopped.set_up([OWN, OWN6, OF_SERVICE], 0.5)
    stopped.settle()
    stopped.take_down()
    failed.set_up([STATSD, OF_SERVICE], 0.5, take_over=True)
    failed.take_down()
    assert ips() == {"169.254.20.10", "169.254.20.11", "fd00:169::10"}
    for listener, endpoint in ((OWN, "ip to 10.244.1.2:53"), (OWN6, "ip6 to [fd00:244::2]:53")):
        assert f"{listener.element} : goto" in rules()
        assert f"dnat {endpoint}" in rules()


def test_others_who_write_rules_all_the_time_are_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "generation", itertools.count().__next__)
    one = kernel()
    one.set_up(ALL, 0.5)
    assert [one.repair() for _ in range(3)] == [[], [], []]


def test_on_our_link_the_addresses_of_others_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_addresses, "KIND", KINDS["sidestep0"])
    one = kernel()
    one.set_up([OWN, STATSD], 0.5)
    run("ip addr add 192.0.2.77/32 dev sidestep0; ip link add other0 alias sidestep type veth peer name other1")
    one.set_up([OWN], 0.5)
    one.settle()
    assert ips() == {"169.254.20.10", "192.0.2.77"}
    assert "link sidestep0" not in clean_up([])
    assert ips() == {"192.0.2.77"}
    assert "other0" in run("ip link")


def test_a_change_that_fails_leaves_all_as_it_was() -> None:
    run("sysctl -qw net.ipv6.conf.lo.disable_ipv6=1")
    one = kernel()
    one.set_up([OWN, STATSD], 0.5)
    run("nft add element inet sidestep lease4 '{ 169.254.20.10 . udp . 53 timeout 1h }'")
    before = rule_lines()
    with pytest.raises(NodeError):
        one.set_up([OWN, OWN6, NodeListener("169.254.20.12:53", "udp")], 0.5)
    assert rule_lines() == before
    assert ips() == {"169.254.20.10", "169.254.20.11"}
    assert one.repair() == []


def transactions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rules after each transaction from now on."""
    steps: list[str] = []
    carry_out = nft.carry_out

    def watched(transaction: str) -> None:
        carry_out(transaction)
        steps.append(rules())

    monkeypatch.setattr(nft, "carry_out", watched)
    return steps


def test_packets_are_not_tracked_before_dnat_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = transactions(monkeypatch)
    kernel().set_up([OWN, NodeListener(SERVICE, "udp", service=True, fallback=(COREDNS,))], 0.5)
    first, last = steps
    assert "type nat" not in first
    assert "@bare4 notrack" in first
    assert OWN.element in first
    assert "10.96.0.10" not in first  # kube-proxy has it until we answer
    assert "type nat" in last
    assert "@bare4 notrack" not in last


def test_what_a_stop_left_translates_until_the_next_start_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one = kernel()
    one.set_up(ALL, 0.5)
    one.take_down()
    steps = transactions(monkeypatch)
    kernel().set_up(ALL, 0.5)
    assert len(steps) == 1
    assert "type nat" in steps[0]


@pytest.mark.parametrize(("ip", "family"), [("169.254.20.10", "ipv4"), ("fd00::10", "ipv6")])
def test_a_flow_that_began_with_our_reply_is_forgotten(ip: str, family: str) -> None:
    run("nft add table inet other; nft 'add chain inet other in { type filter hook input priority 0; }'")
    run(f"nft add rule inet other in ct state new accept; ip addr add {ip} dev lo nodad")
    kind = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as listener, socket.socket(kind, socket.SOCK_DGRAM) as client:
        listener.bind((ip, 53))
        client.bind((ip, 45000))
        tracked = f"conntrack -L -f {family} -p udp 2>/dev/null | grep -o 'sport=[0-9]* dport=[0-9]*' | sort"
        for _ in range(100):  # on a busy machine an IPv6 address's first datagrams were seen to leave no entry
            listener.sendto(b"!", (ip, 45000))
            if "sport=53 dport=45000" in run(tracked):
                break
        client.sendto(b"?", (ip, 53))
        client.sendto(b"?", (ip, 9))
        assert "sport=53 dport=45000" in run(tracked)
        address = f"[{ip}]:53" if ":" in ip else f"{ip}:53"
        kernel().set_up([NodeListener(address, "udp", fallback=(COREDNS, COREDNS6))], 0.5)
        assert run(tracked).split("\n")[:-1] == ["sport=45000 dport=9", "sport=9 dport=45000"]


def test_an_interface_that_is_there_is_used_and_not_removed() -> None:
    run("ip link add sidestep0 type veth peer name other0")
    one = kernel()
    one.set_up([OWN], 0.5)
    assert one.interface == "sidestep0"
    assert Address("169.254.20.10", "sidestep0") in node_addresses.present()
    clean_up([OWN])
    assert "169.254.20.10" not in ips()
    assert "sidestep0" in run("ip link")


@pytest.fixture
def fake_nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "nft"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (
            "netlink: Error: cache initialization failed: Protocol not supported",
            "no nf_tables.*iptables cannot hold a lease.*node.manage: false",
        ),
        ("Error: Could not process rule: Operation not supported", "no nf_tables.*iptables cannot hold a lease"),
        ("Operation not permitted (you must be root)", "CAP_NET_ADMIN"),
        ("Error: syntax error", "nft refused: Error: syntax error"),
    ],
)
def test_what_is_in_the_way_is_told_with_advice(fake_nft: Path, says: str, told: str) -> None:
    fake_nft.write_text(f"#!/bin/sh\necho '{says}' >&2; exit 1\n")
    fake_nft.chmod(fake_nft.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(NodeError, match=told):
        kernel().set_up([OWN], 0.5)
    assert ips() == set()


@pytest.mark.parametrize("said", ["", "[]", '{"nftables": [7]}', '{"nftables": [{"set": {}}]}'])
def test_an_answer_of_nft_that_makes_no_sense_is_told(fake_nft: Path, said: str) -> None:
    fake_nft.write_text(f"#!/bin/sh\necho '{said}'\n")
    fake_nft.chmod(fake_nft.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(NodeError, match=r"nft's answer makes no sense .*`nft -j list table inet sidestep` shows it"):
        kernel().set_up([OWN], 0.5)


def test_a_node_without_nft_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft.shutil, "which", lambda *_, **__: None)
    with pytest.raises(NodeError, match=r"nft is missing; install .*iptables cannot hold a lease"):
        kernel().set_up([OWN], 0.5)
