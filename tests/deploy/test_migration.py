"""docs/migration.md tried out: from NodeLocal DNSCache to Sidestep and back, with clients that ask all the time."""

import contextlib
from collections.abc import Iterator

import pytest

from proxy.lab.coredns import PROGRAMS
from proxy.lab.nodes import LISTENER
from tests import peers
from tests.deploy.container import UNINSTALL
from tests.deploy.nodelocal import NodeLocal
from tests.deploy.setting import LINK_LOCAL, Setting, lose_nothing, lost, probe, status

OPEN_NS = 500_000_000
"""The longest that a question over TCP is under way on a busy machine."""

pytestmark = [peers.needs(*PROGRAMS), pytest.mark.timeout(700)]


@pytest.fixture
def nodelocal(setting: Setting) -> Iterator[NodeLocal]:
    cluster = setting.cluster
    upstream = cluster.service(
        "kube-system/kube-dns-upstream", "10.96.0.11", 53, port_name="dns", protocols=("UDP", "TCP")
    )
    cluster.set_endpoints(upstream, [cluster.pods[name].address for name in ("dns-1", "dns-2")])
    cluster.wait_synced()
    with contextlib.suppress(RuntimeError):
        cluster.node.ip(f"addr del {LISTENER}/32 dev lo")  # it is NodeLocal's to add
    with NodeLocal(cluster.node, setting.dns, upstream, cluster.run.directory) as cache:
        yield cache


def left(setting: Setting) -> str:
    """Everything that Sidestep could have left."""
    node = setting.cluster.node
    files = [path.name for path in setting.volumes.run.parent.iterdir()]
    return "".join([node.run("nft", "list", "tables", "inet"), node.run("ip", "-o", "address"), *files])


def test_sidestep_takes_the_place_of_nodelocal_dnscache_and_gives_it_back(
    setting: Setting, nodelocal: NodeLocal
) -> None:
    asking = setting.asking(node=True)
    with setting.container("first") as first:
        first.start()
        first.wait_until(lambda: first.said("still serves"), "to wait for NodeLocal DNSCache")
        first.wait_until(lambda: probe(first, "livenessProbe") == 200, "to answer")
        assert probe(first, "readinessProbe") == 503
        told = status(first)["node"]
        assert told["waiting_for"].startswith(f"NodeLocal DNSCache (it has {LINK_LOCAL}/udp, ")
        assert set(told["lease"].values()) == {"draining"}
        nodelocal.stop()
        first.wait_serving()
        told = status(first)["node"]
        assert (set(told["lease"].values()), told["waiting_for"], told["untracked"]) == ({"held"}, None, [])
        lose_nothing(asking)

        asking = setting.asking(node=True)
        assert first.stop() == (0, "drained\n")
    nodelocal.start()
    with setting.container("cleanup", UNINSTALL) as cleanup:
        cleanup.start()
        assert cleanup.wait() == 0, cleanup.log
    assert lost(asking, tcp=False) == []
    began, ended = nodelocal.rules_went_in
    cut = lost(asking, tcp=True)
    assert [question for question in cut if not began - OPEN_NS < question.at_ns < ended] == []
    assert "sidestep" not in left(setting).replace("sidestep-lab", "")
    nodelocal.stop()
    assert LISTENER not in left(setting)
