"""What NodeLocal DNSCache has on a node, found by its interface and by the rules that iptables made for it."""

from collections.abc import Iterator

import pytest

from proxy.node.nodelocal import held, untracked
from proxy.node.table import NodeListener
from tests import peers
from tests.node.network import LINK_LOCAL, LINK_LOCAL6, SERVICE, Network, a_network, run

LISTENERS = [
    NodeListener(address, transport) for address in (LINK_LOCAL, SERVICE, LINK_LOCAL6) for transport in ("udp", "tcp")
]


@pytest.fixture
def network() -> Iterator[Network]:
    with a_network() as network:
        yield network


def test_it_holds_what_is_on_its_interface(network: Network) -> None:
    assert held() == frozenset()
    run("ip link add nodelocaldns type bridge; ip addr add 169.254.20.10/32 dev nodelocaldns")
    assert held() == {"169.254.20.10"}


def test_nothing_is_untracked_where_iptables_has_no_such_rule(network: Network) -> None:
    run("nft add table ip raw; nft add chain ip raw PREROUTING '{ type filter hook prerouting priority raw; }'")
    run("nft add rule ip raw PREROUTING ip daddr 169.254.20.10 udp dport 53 counter")
    assert untracked(LISTENERS) == []


@peers.needs("iptables")
def test_its_rules_name_the_listeners_that_cannot_fail_over(network: Network) -> None:
    comment = "-m comment --comment 'NodeLocal DNS Cache: skip conntrack'"
    run(f"iptables -t raw -I PREROUTING -p udp -d 169.254.20.10 --dport 53 {comment} -j NOTRACK")
    run("iptables -t raw -I OUTPUT -p tcp -d 169.254.20.10 --dport 53 -j NOTRACK")
    run("iptables -t raw -I PREROUTING -p tcp -d 10.96.0.10 --dport 8080 -j NOTRACK")
    run("iptables -t raw -I PREROUTING -p tcp -s 10.96.0.10 -j NOTRACK")
    run("ip6tables -t raw -I PREROUTING -p tcp -d fd00:169::10 --dport 53 -j NOTRACK")
    assert untracked(LISTENERS) == [f"{LINK_LOCAL}/udp", f"{LINK_LOCAL6}/tcp"]
