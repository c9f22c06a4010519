"""`sidestep plan`, a run, its stop and `sidestep cleanup`, as processes on a node of network namespaces."""

import json
from pathlib import Path

import pytest

from proxy.node.addresses import usable_interface
from tests.control.eventually import eventually
from tests.control.sidestep import command
from tests.node.network import COREDNS, LINK_LOCAL, SERVICE, Network, addresses, rules
from tests.node.network import run as run_shell
from tests.node.running import Running


@pytest.fixture
def interface(network: Network) -> str:
    """The one that holds addresses: not every kernel can make one for them."""
    return usable_interface("sidestep0")


def wanted_to_stay(interface: str) -> set[str]:
    """What a stop leaves; the link only where it is ours."""
    return {"address 169.254.20.10", "table inet sidestep", f"link {interface}"} - {"link lo"}


def stay_lines(out: str) -> set[str]:
    return {line.partition(": ")[2] for line in out.splitlines() if "stays" in line}


async def test_plan_says_what_would_be_done_and_does_nothing(network: Network, interface: str, config: Path) -> None:
    before = rules(), addresses()
    code, out, err = await command("plan", "--config", str(config))
    assert (code, err) == (0, "")
    assert f"add address 169.254.20.10 to {interface}" in out
    assert f"dnat ip to {COREDNS}" in out
    assert "listener 10.96.0.10:53/udp: without lease to kube-proxy" in out
    assert "listener 127.0.0.1:53/udp: no lease" in out
    assert stay_lines(out) == wanted_to_stay(interface)
    assert (rules(), addresses()) == before
    _, out, _ = await command("plan", "--config", str(config), "-o", "json")
    planned = json.loads(out)
    assert set(planned["stays"]) == wanted_to_stay(interface)
    assert {one["address"] for one in planned["addresses"]["add"]} == {"169.254.20.10", "10.96.0.10"}


async def test_plan_names_nodelocal_dnscache(network: Network, config: Path) -> None:
    run_shell("ip link add nodelocaldns type bridge; ip link set nodelocaldns up")
    run_shell("ip addr add 169.254.20.10/32 dev nodelocaldns")
    network.answering("node-cache", LINK_LOCAL)
    run_shell("nft add table ip raw; nft add chain ip raw PREROUTING '{ type filter hook prerouting priority raw; }'")
    run_shell("nft add rule ip raw PREROUTING ip daddr 169.254.20.10 udp dport 53 notrack")
    _, out, _ = await command("plan", "--config", str(config))
    *_, waiting, untracked = out.splitlines()
    assert waiting.startswith(f"NodeLocal DNSCache (it has {LINK_LOCAL}/udp, {LINK_LOCAL}/tcp, python")
    assert waiting.endswith("serves now: a start waits for it to leave")
    assert f"keep packets to {LINK_LOCAL}/udp untracked" in untracked
    _, out, _ = await command("plan", "--config", str(config), "-o", "json")
    planned = json.loads(out)
    assert planned["waiting_for"] in waiting
    assert planned["untracked"] == [f"{LINK_LOCAL}/udp"]


async def test_plan_without_node_manage_has_nothing_to_say(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("dns: {}\n")
    assert await command("plan", "--config", str(file)) == (
        0,
        "node.manage is off: nothing would be set up in the kernel\n",
        "",
    )


async def test_what_stays_is_what_plan_says_and_cleanup_takes_it_away(
    network: Network, interface: str, config: Path
) -> None:
    before = rules(), sorted(addresses())
    _, planned, _ = await command("plan", "--config", str(config))
    with Running(config) as run:
        client = network.client(LINK_LOCAL, "udp", inside=network.pod)
        await eventually(lambda: run.ready())
        assert client.ask(5) != "coredns"
        code, out, err = await command("cleanup", "--config", str(config))
        assert (code, out) == (2, "")
        assert "stop it first" in err
        _, out, _ = await command("plan", "--config", str(config))
        assert "table inet sidestep is there as wanted" in out
        assert run.terminate() == 0
    assert stay_lines(planned) == wanted_to_stay(interface)
    left = set(addresses()) - set(before[1])
    assert {one for one in left if not one.startswith("fe80:")} == {"169.254.20.10/32"}
    assert run_shell("nft list tables") == "table inet sidestep\n"
    assert client.ask(5) == "coredns"

    code, out, err = await command("cleanup", "--config", str(config))
    assert (code, err) == (0, "")
    assert "removed table inet sidestep" in out
    assert f"removed address 169.254.20.10 on {interface}" in out
    assert ("removed link" in out) == (interface != "lo")
    assert (rules(), sorted(addresses())) == before
    assert await command("cleanup", "--config", str(config)) == (0, "nothing was left\n", "")


async def test_cleanup_after_a_sigkill_leaves_nothing(network: Network, config: Path, tmp_path: Path) -> None:
    before = rules(), sorted(addresses())
    with Running(config) as run:
        await eventually(lambda: run.ready())
        run.kill()
    assert f"{SERVICE.partition(':')[0]}/32" in addresses()
    await eventually(lambda: not run.anything_runs())
    _, out, _ = await command("cleanup", "--config", str(config), "-o", "json")
    removed = json.loads(out)["removed"]
    assert f"file {tmp_path}/sidestep/admin.sock" in removed
    assert (rules(), sorted(addresses())) == before
    assert not (tmp_path / "sidestep").exists()
