"""Who asks in the failover scenarios, and what their waiting counts as, on a real cluster of one node."""

import signal
from pathlib import Path

from proxy.lab.cluster import Cluster
from proxy.lab.coredns import PROGRAMS
from proxy.lab.failover_case import ALL, FEW, FOLLOWED_MS, FailoverCase
from proxy.lab.scenario import Run
from tests import peers


def test_few_clients_have_each_word_of_all_of_them() -> None:
    assert len(set(ALL)) == 24
    assert set(FEW) < set(ALL)
    for word in ("place", "to", "how", "version"):
        assert {getattr(one, word) for one in FEW} == {getattr(one, word) for one in ALL}


def test_addresses_are_four() -> None:
    assert {one.address for one in ALL} == {
        "169.254.20.10:53",
        "10.96.0.10:53",
        "[fd00:169:254:20::10]:53",
        "[fd00:10:96::a]:53",
    }


@peers.needs(*PROGRAMS)
def test_a_node_is_as_before_afterwards_and_waiting_counts_from_the_fault(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.node.run("ip", "-o", "addr", "show", "dev", "lo")
    with FailoverCase(cluster, Run("sidestep", "nftables", True, tmp_path, lambda _: None)) as case:
        assert "table inet sidestep" in case.left()
        interface = case.sidestep.status()["node"]["interface"]
        assert (f"link {interface}" in case.left()) == (interface != "lo")
        rules = case.rules()
        case.node.run("nft", "add", "rule", "inet", "sidestep", "output", "counter")
        assert case.rules() == rules + 1
        case.fill_cache(20)
        case.ask(1.5, clients=FEW[:2])
        case.fault(0.5, "SIGKILL")
        case.sidestep.signal(signal.SIGKILL)
        case.wait()
        assert case.lost(lambda client: True, 0.5 + FOLLOWED_MS / 1000) == 0
        outcome = case.outcome("a note", figures={"a figure": 1})
        assert outcome.figures["unfollowed"] == 0
        assert outcome.lost == outcome.figures["made to wait"] > 0
        assert outcome.notes[0] == "a note"
        assert outcome.figures["a figure"] == 1
    assert case.left() == ["address 169.254.20.10"]
    assert cluster.node.run("ip", "-o", "addr", "show", "dev", "lo") == before
