"""The image as the DaemonSet's pod in a node of the lab: it answers, holds its leases, and hands over to the next."""

from pathlib import Path

import pytest

from tests.deploy.container import CAPABILITIES
from tests.deploy.setting import LINK_LOCAL, SERVICE, Setting, lose_nothing, probe, status


def credentials(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(700)
def test_it_answers_holds_its_leases_and_follows_the_cluster_with_the_rights_of_the_manifests(
    setting: Setting,
) -> None:
    with setting.container("first") as first:
        first.start()
        first.wait_serving()
        assert [probe(first, name) for name in ("startupProbe", "readinessProbe", "livenessProbe")] == [200] * 3
        asking = setting.asking(seconds=2)
        told = status(first)
        assert told["node"]["lease"] == {
            f"{address}/{transport}": "held" for address in (LINK_LOCAL, SERVICE) for transport in ("udp", "tcp")
        }
        pods = {f"{setting.cluster.pods[name].address}:53" for name in ("dns-1", "dns-2", "outside")}
        assert pods <= {one["address"] for one in told["dns"]["upstreams"]}
        assert told["watch"]["synced"]
        for one in (*asking[False], *asking[True]):
            one.wait(20)
        lose_nothing(asking)

        control = credentials(first.pid)
        mask = f"{sum(1 << CAPABILITIES[name] for name in first.capabilities):016x}"
        assert [control[f"Cap{name}"] for name in ("Eff", "Prm", "Bnd", "Inh", "Amb")] == [
            *[mask] * 3,
            *["0" * 16] * 2,
        ]
        workers = [credentials(pid) for pid in children(first.pid)]
        assert workers
        for worker in workers:
            assert {worker[f"Cap{name}"] for name in ("Eff", "Prm", "Bnd", "Inh", "Amb")} == {"0" * 16}
            assert (worker["Uid"].split()[0], worker["NoNewPrivs"], worker["Seccomp"]) == ("65532", "1", "2")


def test_it_hands_over_to_the_next_pod_and_stops_without_a_loss(setting: Setting) -> None:
    with setting.container("first") as first, setting.container("second") as second:
        first.start()
        first.wait_serving()
        asking = setting.asking()
        second.start()
        second.wait_serving()
        first.wait_until(lambda: first.said("waiting to be stopped"), "to wait")
        assert first.ended is None  # a container that ends is started anew
        assert first.stop() == (0, "another instance serves now: nothing to drain\n")
        node = status(second)["node"]
        assert (set(node["lease"].values()), node["draining"]) == ({"held"}, False)
        lose_nothing(asking)

        asking = setting.asking()
        assert second.stop() == (0, "drained\n")
        lose_nothing(asking)
        assert "10.96.0.10" not in setting.cluster.node.run("ip", "address")
