"""The kernel's part of a run, on a node of network namespaces: who answers a pod and the node itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from proxy.control.errors import CannotRun
from proxy.control.node import NodeKeeper
from proxy.node import addresses as node_addresses
from proxy.node.table import NodeListener
from proxy.settings.sections import Node
from tests.control.eventually import eventually
from tests.node.network import (
    COREDNS,
    COREDNS6,
    COREDNS_TOO,
    KINDS,
    KUBE_PROXY,
    LINK_LOCAL,
    LINK_LOCAL6,
    SERVICE,
    Client,
    Network,
    addresses,
    flows,
    go_on,
    rules,
    run,
    stop,
)

SECRET = "\0sidestep-probe:test"
NODE = Node(lease=0.3, probe=0.05)
DNS = [
    NodeListener(address, transport, fallback=fallback)
    for address, fallback in ((LINK_LOCAL, (COREDNS,)), (LINK_LOCAL6, (COREDNS6,)))
    for transport in ("udp", "tcp")
]
NODELOCAL = "".join(
    f"{program} -t raw {{change}} {chain} -p tcp {end} -j NOTRACK\n"
    for program, ip in (("iptables", "169.254.20.10"), ("ip6tables", "fd00:169::10"))
    for chain, end in (
        ("PREROUTING", f"-d {ip} --dport 53"),
        ("OUTPUT", f"-s {ip} --sport 53"),
        ("OUTPUT", f"-d {ip} --dport 53"),
    )
)


def keeper(check: float = 60.0, node: Node = NODE) -> NodeKeeper:
    return NodeKeeper(node, SECRET, check=check)


@contextlib.asynccontextmanager
async def running(node: NodeKeeper) -> AsyncIterator[None]:
    task = asyncio.ensure_future(node.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def held(node: NodeKeeper, listeners: Sequence[NodeListener] = DNS) -> Callable[[], bool]:
    return lambda: node.not_held() == {} and all(node.status()["lease"].get(one.name) == "held" for one in listeners)


async def answers(client: Client, name: str) -> None:
    """It is this one that answers, sooner or later."""
    await eventually(lambda: asyncio.to_thread(lambda: client.ask() == name))


CLIENTS = [
    pytest.param(address, transport, here, id=f"{where} {transport} {address}")
    for address in (LINK_LOCAL, LINK_LOCAL6)
    for transport in ("udp", "tcp")
    for where, here in (("pod", True), ("node", False))
]


async def test_the_first_answer_takes_the_lease(network: Network) -> None:
    node = keeper()
    node.prepare(DNS)
    async with running(node):
        client = network.client(LINK_LOCAL, "udp", inside=network.pod)
        await answers(client, "coredns")
        assert set(node.status()["lease"].values()) == {"lost"}
        assert node.not_held().keys() == {one.name for one in DNS}
        network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6)
        await eventually(held(node))
        assert client.ask() == "sidestep"
    node.stop()


@pytest.mark.parametrize(("address", "transport", "pod"), CLIENTS)
async def test_a_hang_fails_over_and_comes_back(network: Network, address: str, transport: str, pod: bool) -> None:
    node = keeper()
    node.prepare(DNS)
    listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6)
    inside = network.pod if pod else None
    one_port = network.client(address, transport, inside=inside)
    async with running(node):
        await eventually(held(node))
        assert one_port.ask(5) == "sidestep"
        stop(listener)
        await answers(one_port, "coredns")
        for _ in range(5):
            assert one_port.ask(5) == "coredns"
            assert network.client(address, transport, inside=inside).ask(5) == "coredns"
        await eventually(lambda: node.status()["lost"].get(f"{address}/{transport}") == 1)
        go_on(listener)
        await eventually(held(node))
        for _ in range(5):
            assert one_port.ask(5) == "sidestep"
            assert network.client(address, transport, inside=inside).ask(5) == "sidestep"
    node.stop()


@pytest.mark.parametrize("pod", [True, False])
@pytest.mark.parametrize("address", [LINK_LOCAL, LINK_LOCAL6])
async def test_a_connection_stays_where_it_began(network: Network, address: str, pod: bool) -> None:
    node = keeper()
    node.prepare(DNS)
    listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6)
    inside = network.pod if pod else None
    async with running(node):
        await eventually(held(node))
        stop(listener)
        await answers(network.client(address, "tcp", inside=inside), "coredns")
        elsewhere = network.client(address, "tcp kept", inside=inside)
        assert elsewhere.ask(5) == "coredns"
        go_on(listener)
        await eventually(held(node))
        here = network.client(address, "tcp kept", inside=inside)
        assert here.ask(5) == "sidestep"
        assert elsewhere.ask(5) == "coredns"
        await node.drain(quiet=0.1)
        assert network.client(address, "tcp", inside=inside).ask(5) == "coredns"
        assert here.ask(5) == "sidestep"
        assert elsewhere.ask(5) == "coredns"
    node.stop()


@pytest.mark.parametrize("pod", [True, False])
@pytest.mark.parametrize("address", [LINK_LOCAL, LINK_LOCAL6])
async def test_a_connection_stays_with_nodelocal_dnscache_when_its_rules_go(
    network: Network, address: str, pod: bool
) -> None:
    run(NODELOCAL.format(change="-A"))
    node = keeper()
    node.prepare(DNS, "NodeLocal DNSCache")
    network.answering("node-cache", LINK_LOCAL, LINK_LOCAL6)
    inside = network.pod if pod else None
    here = network.client(address, "tcp kept", inside=inside)
    assert here.ask(5) == "node-cache"
    run(NODELOCAL.format(change="-D"))
    assert here.ask(5) == "node-cache"
    assert network.client(address, "tcp", inside=inside).ask(5) == "coredns"
    assert here.ask(5) == "node-cache"
    node.stop()


async def test_a_service_falls_back_to_kube_proxy(network: Network) -> None:
    run(KUBE_PROXY)
    listeners = [NodeListener(SERVICE, "udp", service=True, fallback=(COREDNS_TOO,))]
    node = keeper()
    node.prepare(listeners)
    listener = network.answering("sidestep", SERVICE)
    clients = [network.client(SERVICE, "udp", inside=inside) for inside in (network.pod, None)]
    async with running(node):
        await eventually(held(node, listeners))
        assert [client.ask(5) for client in clients] == ["sidestep"] * 2
        stop(listener)
        for client in clients:
            await answers(client, "coredns")
        go_on(listener)
        await eventually(held(node, listeners))
        assert [client.ask(5) for client in clients] == ["sidestep"] * 2
    listener.kill()
    node.stop()
    assert "10.96.0.10/32" not in addresses()
    assert network.client(SERVICE, "udp", inside=network.pod).ask(5) == "coredns"


async def test_a_service_without_kube_proxys_rules_falls_back_to_the_endpoints(network: Network) -> None:
    node = keeper()
    node.prepare([NodeListener(SERVICE, "udp", service=True, fallback=(COREDNS_TOO,))])
    for inside in (network.pod, None):
        assert network.client(SERVICE, "udp", inside=inside).ask(5) == "coredns too"
    node.stop()


async def test_a_relay_keeps_its_lease_by_the_secret(network: Network) -> None:
    statsd = NodeListener("169.254.20.10:8125", "udp", fallback=(COREDNS,), relay=True)
    node = keeper()
    node.prepare([statsd])
    listener = network.answering("sidestep", statsd.address)
    client = network.client(statsd.address, "udp", inside=network.pod)
    async with running(node):
        await eventually(held(node, [statsd]))
        assert client.ask(5) == "sidestep"
        stop(listener)
        await answers(client, "coredns")
    node.stop()


async def test_without_an_endpoint_nothing_is_tracked(network: Network) -> None:
    bare = [NodeListener(LINK_LOCAL, "udp"), NodeListener(LINK_LOCAL, "tcp")]
    node = keeper()
    node.prepare(bare)
    listener = network.answering("sidestep", LINK_LOCAL)
    clients = [network.client(LINK_LOCAL, "udp", inside=inside) for inside in (network.pod, None)]
    stop(listener)
    assert [client.ask() for client in clients] == [None, None]
    assert flows("169.254.20.10") == []
    await node.update([NodeListener(LINK_LOCAL, "udp", fallback=(COREDNS,))], NODE)
    assert [client.ask(5) for client in clients] == ["coredns"] * 2
    await node.update(bare, NODE)
    go_on(listener)
    assert [client.ask(5) for client in clients] == ["sidestep"] * 2
    node.stop()


async def test_a_lease_outlives_a_change_of_endpoints(network: Network) -> None:
    node = keeper()
    node.prepare(DNS)
    listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6)
    async with running(node):
        await eventually(held(node))
        client = network.client(LINK_LOCAL, "udp", inside=network.pod)
        for turn in range(20):
            endpoints = (COREDNS_TOO,) if turn % 2 == 0 else (COREDNS, COREDNS_TOO)
            await node.update([NodeListener(LINK_LOCAL, "udp", fallback=endpoints)], NODE)
            assert client.ask(5) == "sidestep"
        await node.update([NodeListener(LINK_LOCAL, "udp", fallback=(COREDNS_TOO,))], NODE)
        stop(listener)
        await answers(client, "coredns too")
    node.stop()


async def test_a_reload_with_other_addresses_takes_the_old_ones_away_last(network: Network) -> None:
    new = [NodeListener("169.254.20.11:53", "udp", fallback=(COREDNS,))]
    node = keeper()
    node.prepare(DNS)
    old_listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6)
    async with running(node):
        await eventually(held(node))
        await node.update(new, NODE)
        old = network.client(LINK_LOCAL, "udp", inside=network.pod)
        assert old.ask(5) in ("sidestep", "coredns")
        network.answering("new", "169.254.20.11:53")
        await eventually(held(node, new))
        assert network.client("169.254.20.11:53", "udp", inside=network.pod).ask(5) == "new"
        old_listener.kill()
        await node.settle()
        assert [one for one in addresses() if one.startswith("169.254.20.")] == ["169.254.20.11/32"]
    node.stop()


@pytest.mark.parametrize("pod", [True, False])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_what_is_no_longer_listed_falls_back_before_its_socket_closes(
    network: Network, transport: str, pod: bool
) -> None:
    kept = NodeListener("169.254.20.11:53", "udp", fallback=(COREDNS,))
    node = keeper()
    node.prepare([*DNS, kept])
    listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6, kept.address)
    inside = network.pod if pod else None
    client = network.client(LINK_LOCAL, transport, inside=inside)
    connected = network.client(LINK_LOCAL, "tcp kept", inside=inside)
    async with running(node):
        await eventually(held(node, [*DNS, kept]))
        assert client.ask(5) == connected.ask(5) == "sidestep"
        await node.update([kept], NODE)
        for _ in range(5):
            assert client.ask(5) == network.client(LINK_LOCAL, transport, inside=inside).ask(5) == "coredns"
        assert connected.ask(5) == "sidestep"
        await node.update([*DNS, kept], NODE)  # as after a reload that failed
        await eventually(held(node, [*DNS, kept]))
        await answers(client, "sidestep")
    listener.kill()
    node.stop()


async def test_a_service_that_the_next_run_does_not_list_is_kube_proxys_with_every_flow(network: Network) -> None:
    run(KUBE_PROXY)
    old, new = keeper(), keeper()
    both = [*DNS, NodeListener(SERVICE, "udp", service=True)]
    old.prepare(both)
    listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6, SERVICE)
    one_port = network.client(SERVICE, "udp", inside=network.pod)
    async with running(old):
        await eventually(held(old, both))
        assert one_port.ask(5) == "sidestep"
        new.prepare(DNS)
        assert [one_port.ask(5) for _ in range(5)] == ["coredns"] * 5
    listener.kill()
    await new.settle()
    assert "10.96.0.10/32" not in addresses()
    assert one_port.ask(5) == "coredns"
    new.stop()


async def test_a_new_run_takes_over_after_a_sigkill(network: Network) -> None:
    killed = keeper()
    killed.prepare(DNS)
    listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6)
    async with running(killed):
        await eventually(held(killed))
    listener.kill()
    client = network.client(LINK_LOCAL, "udp", inside=network.pod)
    await answers(client, "coredns")
    node = keeper()
    node.prepare(DNS)
    assert client.ask(5) == "coredns"
    network.answering("again", LINK_LOCAL, LINK_LOCAL6)
    async with running(node):
        await eventually(held(node))
        assert client.ask(5) == "again"
        assert addresses().count("169.254.20.10/32") == 1
    killed.stop()
    assert client.ask(5) is not None
    node.stop()


async def test_flows_from_before_the_table_fail_over_as_well(network: Network) -> None:
    run("ip addr add 169.254.20.10/32 dev lo; nft add table ip other;")
    run("nft 'add chain ip other in { type filter hook input priority 0; }'; nft add rule ip other in ct state new")
    listener = network.answering("sidestep", LINK_LOCAL)
    client = network.client(LINK_LOCAL, "udp", inside=network.pod)
    assert client.ask(5) == "sidestep"
    assert len(flows("169.254.20.10")) == 1
    node = keeper()
    node.prepare(DNS[:2])
    async with running(node):
        await eventually(held(node, DNS[:2]))
        assert client.ask(5) == "sidestep"
        stop(listener)
        await answers(client, "coredns")
    node.stop()


@pytest.mark.parametrize(
    "damage", ["nft flush ruleset", "nft delete table inet sidestep", "ip addr del 169.254.20.10/32 dev {interface}"]
)
async def test_damage_is_repaired_and_counted(network: Network, damage: str) -> None:
    node = keeper(check=0.05)
    node.prepare(DNS)
    listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6)
    client = network.client(LINK_LOCAL, "udp", inside=network.pod)
    async with running(node):
        await eventually(held(node))
        assert client.ask(5) == "sidestep"
        run(damage.format(interface=node.status()["interface"]))
        await eventually(lambda: sum(node.status()["repairs"].values()))
        await answers(client, "sidestep")
        stop(listener)
        await answers(client, "coredns")
    node.stop()


async def test_a_drain_is_proved_and_undone(network: Network) -> None:
    node = keeper()
    node.prepare(DNS)
    network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6)
    client = network.client(LINK_LOCAL, "udp", inside=network.pod)
    async with running(node):
        await eventually(held(node))
        assert client.ask(5) == "sidestep"
        assert await node.drain(quiet=0.1) == {}
        assert set(node.status()["lease"].values()) == {"draining"}
        assert set(node.not_held().values()) == {"draining"}
        assert client.ask(5) == "coredns"
        await node.update(
            [NodeListener(one.address, one.transport, fallback=(COREDNS_TOO, COREDNS6)) for one in DNS], NODE
        )
        assert network.client(LINK_LOCAL, "udp", inside=network.pod).ask(5) == "coredns too"
        await node.undrain()
        await eventually(held(node))
        await answers(client, "sidestep")
    node.stop()


async def test_a_drain_that_clients_do_not_follow_says_which_listener_they_still_ask(network: Network) -> None:
    bare = NodeListener(LINK_LOCAL, "udp")
    node = keeper()
    node.prepare([bare])
    network.answering("sidestep", LINK_LOCAL)
    client = network.client(LINK_LOCAL, "udp", inside=network.pod)

    async def keep_asking() -> None:
        while True:
            await asyncio.to_thread(client.ask)

    asking = asyncio.ensure_future(keep_asking())
    try:
        arrived = await node.drain(quiet=30.0, within=1.0)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert arrived.keys() == {bare.name}
    assert arrived[bare.name] > 0
    node.stop()


@pytest.mark.parametrize("interface", KINDS)
async def test_a_stop_leaves_pods_with_their_resolver(
    network: Network, interface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_addresses, "KIND", KINDS[interface])
    node = keeper()
    node.prepare([*DNS, NodeListener(SERVICE, "udp", service=True)])
    listener = network.answering("sidestep", LINK_LOCAL, LINK_LOCAL6, SERVICE)
    known = network.client(LINK_LOCAL, "udp", inside=network.pod)
    async with running(node):
        await eventually(held(node))
        assert known.ask(5) == "sidestep"
        assert node.status()["interface"] == interface
        await node.drop()
        assert known.ask(5) == "coredns"
    listener.kill()
    node.stop()
    for inside in (network.pod, None):
        for transport in ("udp", "tcp"):
            for address in (LINK_LOCAL, LINK_LOCAL6):
                assert network.client(address, transport, inside=inside).ask(5) == "coredns"
    assert known.ask(5) == "coredns"
    assert "10.96.0.10/32" not in addresses()


async def test_a_run_that_was_taken_over_touches_nothing(network: Network) -> None:
    old, new = keeper(check=0.05), keeper()
    old.prepare(DNS)
    async with running(old):
        new.prepare(DNS)
        await eventually(lambda: old.status()["taken_over"])
        before = rules()
        await old.drop()
        old.stop()
    assert rules() == before
    new.stop()


async def test_a_kernel_without_nf_tables_is_refused(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nft").write_text(
        "#!/bin/sh\necho 'cache initialization failed: Protocol not supported' >&2; exit 1\n"
    )
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    node = keeper()
    with pytest.raises(CannotRun, match="iptables cannot hold a lease"):
        node.prepare(DNS)
    assert "169.254.20.10/32" not in addresses()
    node.stop()
