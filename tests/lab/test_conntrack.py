"""What `conntrack -L` prints, as flows."""

from proxy.lab.conntrack import Flow, parse

LISTED = """\
udp      17 25 src=10.244.1.9 dst=10.96.0.20 sport=40000 dport=8125 [UNREPLIED] src=10.244.1.2 dst=10.244.1.9 sport=8125 dport=40000 mark=0 use=1
udp      17 29 src=10.244.1.9 dst=10.244.1.4 sport=5353 dport=53 src=10.244.1.4 dst=10.244.1.9 sport=53 dport=5353 [ASSURED] mark=0 use=1
icmp     1 29 src=10.244.1.9 dst=10.244.1.4 type=8 code=0 id=9 src=10.244.1.4 dst=10.244.1.9 type=0 code=0 id=9 mark=0 use=1
"""  # noqa: E501


def test_a_flow_shows_where_its_datagrams_go() -> None:
    service, direct = parse(LISTED)
    assert service == Flow("10.244.1.9:40000", "10.96.0.20:8125", "10.244.1.2:8125")
    assert direct == Flow("10.244.1.9:5353", "10.244.1.4:53", "10.244.1.4:53")
