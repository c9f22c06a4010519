"""Where the rule looks for a question's type and name, and reading its counter. test_scenarios.py runs the rules."""

import re

import pytest

from proxy.lab import dns_wire
from proxy.lab.lost_half import first_aaaa, second_of_a_flow, vanished

PODS = "10.244.1.0/24"
LISTED = """\
table ip sidestep-lab-lost-half {
	chain leaving {
		type filter hook postrouting priority 110; policy accept;
		ip daddr 10.244.1.0/24 udp dport 53 ct state new ct original packets > 1 counter packets 12 bytes 816 @nh,0,8 set 0
	}
}
"""  # noqa: E501


@pytest.mark.parametrize("name", ["0123456789.example.com", "abc.shop.svc.cluster.local"])
def test_type_and_first_label_are_where_the_rule_looks(name: str) -> None:
    datagram = bytes(8) + dns_wire.question(7, name, "AAAA")
    places = re.findall(r"@th,(\d+),(\d+)", first_aaaa(PODS, name))
    found = {datagram[int(at) // 8 : (int(at) + int(size)) // 8] for at, size in places}
    assert found == {name.partition(".")[0].encode(), b"\x00\x1c"}


def test_only_questions_to_the_pods_are_meant() -> None:
    for rule in (second_of_a_flow(PODS), first_aaaa(PODS, "a.example.com")):
        assert rule.count(f"ip daddr {PODS} udp dport 53 ") == rule.count("counter") == 1


def test_the_counter_says_how_many_vanished() -> None:
    assert vanished(LISTED) == 12
    with pytest.raises(ValueError, match="no counter"):
        vanished("table ip sidestep-lab-lost-half {\n}\n")
