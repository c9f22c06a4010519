"""kube-proxy's rules as values: read from what nft and iptables print, written so that they read back the same."""

from proxy.lab.rules import Frontend, from_iptables, from_nft, to_iptables

STATSD = Frontend("10.96.0.20", "udp", 8125)
EMPTY = Frontend("10.96.0.21", "udp", 8125)
DNS = Frontend("10.96.0.10", "tcp", 53)

NFT = """\
table ip kube-proxy {
	map no-endpoint-services {
		type ipv4_addr . inet_proto . inet_service : verdict
		comment "vmap to drop or reject packets to services with no endpoints"
		elements = { 10.96.0.21 . udp . 8125 comment "monitoring/empty:statsd" : goto reject-chain }
	}

	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.10 . tcp . 53 : goto service-AAAAAAAA-dns/tcp,
			10.96.0.20 . udp . 8125 : goto service-XTVCXYO3-statsd }
	}

	chain service-XTVCXYO3-statsd {
		meta l4proto udp dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8125, 1 : 10.244.1.3 . 8125 }
	}

	chain service-AAAAAAAA-dns/tcp {
		ip daddr 10.96.0.10 tcp dport 53 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
		numgen random mod 1 vmap { 0 : goto endpoint-5OJB2KTY-kube-system/kube-dns/tcp/dns-tcp__10.244.1.4/53 }
	}
}
"""

IPTABLES = """\
*filter
-A KUBE-SERVICES -d 10.96.0.21/32 -p udp -m comment --comment "has no endpoints" -m udp --dport 8125 -j REJECT
COMMIT
*nat
-A KUBE-SEP-B -s 10.244.1.2/32 -m comment --comment "monitoring/statsd:statsd" -j KUBE-MARK-MASQ
-A KUBE-SEP-B -p udp -m comment --comment "monitoring/statsd:statsd" -m udp -j DNAT --to-destination 10.244.1.2:8125
-A KUBE-SEP-Q -p udp -m comment --comment "monitoring/statsd:statsd" -m udp -j DNAT --to-destination 10.244.1.3:8125
-A KUBE-SERVICES -d 10.96.0.20/32 -p udp -m comment --comment "x cluster IP" -m udp --dport 8125 -j KUBE-SVC-N
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-N ! -s 10.244.0.0/16 -d 10.96.0.20/32 -p udp -m udp --dport 8125 -j KUBE-MARK-MASQ
-A KUBE-SVC-N -m comment --comment "a -> 10.244.1.2:8125" -m statistic --mode random --probability 0.5 -j KUBE-SEP-B
-A KUBE-SVC-N -m comment --comment "a -> 10.244.1.3:8125" -j KUBE-SEP-Q
COMMIT
"""


def test_nft_rules_are_read_in_the_shape_of_this_kube_proxy_and_of_older_ones() -> None:
    assert from_nft(NFT) == {
        STATSD: {"10.244.1.2:8125", "10.244.1.3:8125"},
        DNS: {"10.244.1.4:53"},
        EMPTY: frozenset(),
    }


def test_iptables_rules_are_read() -> None:
    assert from_iptables(IPTABLES) == {STATSD: {"10.244.1.2:8125", "10.244.1.3:8125"}, EMPTY: frozenset()}


def test_no_rules_are_no_frontends() -> None:
    assert from_nft("") == from_iptables("") == {}


def test_written_rules_spread_evenly() -> None:
    targets = frozenset({"10.244.1.2:8125", "10.244.1.3:8125", "10.244.1.4:8125"})
    written = to_iptables(
        {STATSD: frozenset({"10.244.1.2:8125", "10.244.1.3:8125", "10.244.1.4:8125"})}, "10.244.0.0/16"
    )
    chances = [line.split("--probability ")[1].split()[0] for line in written.splitlines() if "--probability" in line]
    assert chances == ["0.3333333333", "0.5000000000"]
    assert from_iptables(written) == {STATSD: targets}
