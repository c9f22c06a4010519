"""A conntrack table filled over netlink, in a node of the lab."""

import sys

from proxy.lab.cluster import Cluster


def test_so_many_established_flows_are_tracked(cluster: Cluster) -> None:
    before = cluster.conntrack().count()
    cluster.node.run(sys.executable, "-m", "proxy.lab.full_table", "1234")
    assert cluster.conntrack().count() >= before + 1234
    listed = cluster.node.run("conntrack", "-L", "-p", "udp", "--orig-dst", "10.255.0.1").splitlines()
    assert len(listed) == 1234
    assert all("[ASSURED]" in line for line in listed)
