"""`sidestep conntrack` in a network namespace with DNAT as kube-proxy has it: what it finds, and what it deletes.

Pods are addresses of the namespace's own loopback link; entries of every kind come from real datagrams.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from proxy.lab.tools import Unavailable
from tests import peers
from tests.control.sidestep import COMMAND, execute
from tests.testbed import netns
from tests.testbed.netns import NetworkNamespace

STATSD = "10.96.0.20"
SERVICE = "monitoring/statsd"
BACKENDS = ("nft", "iptables-nft")
pytestmark = [
    peers.needs("ip", "nft", "iptables-nft", "conntrack"),
    pytest.mark.asyncio(loop_factories=["asyncio"]),  # it is a process in any case
]

WAY_OUT = (
    "link add out type veth peer name far",
    "link set out up",
    "link set far up",
    "route add 10.96.0.0/16 dev out",
    f"neighbour add {STATSD} lladdr 02:00:00:00:00:01 dev out",
)
"""Where packets to Service addresses go that nothing translates: to nobody, as by a default route."""

NFT = """\
flush ruleset
table ip kube-proxy {
  chain prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain output { type nat hook output priority -100; jump services; }
  chain services {
    %s
  }
}
"""


class Node:
    """The namespace, its DNAT rules, senders with a port of their own, and the command."""

    def __init__(self, namespace: NetworkNamespace, backend: str, directory: Path, stack: ExitStack) -> None:
        self.namespace = namespace
        self.backend = backend
        self.directory = directory
        self.stack = stack
        self.senders: dict[int, socket.socket] = {}
        self.configure()

    async def run(self, *words: str) -> str:
        code, out, err = await execute(*self.namespace.prefix, peers.find(words[0]) or words[0], *words[1:])
        assert code == 0, err
        return out

    async def translate(self, targets: Mapping[str, str]) -> None:
        """Exactly these DNAT rules from now on, by `ip:port`.

        The one for what is invalid keeps conntrack at work where there is no other: it runs while a rule needs it.
        """
        pairs = [(to.split(":"), target) for to, target in targets.items()]
        if self.backend == "nft":
            rules = [f"ip daddr {ip} udp dport {port} dnat to {target}" for (ip, port), target in pairs]
            rules.append("ct state invalid counter")
            (self.directory / "rules.nft").write_text(NFT % "\n    ".join(rules))
            await self.run("nft", "-f", str(self.directory / "rules.nft"))
            return
        await self.run("iptables-nft", "-t", "nat", "-F")
        for chain in ("PREROUTING", "OUTPUT"):
            for (ip, port), target in pairs:
                rule = f"-t nat -A {chain} -d {ip} -p udp --dport {port} -j DNAT --to-destination {target}"
                await self.run("iptables-nft", *rule.split())
        always = "-t nat -A OUTPUT -m conntrack --ctstate INVALID -j ACCEPT"
        await self.run("iptables-nft", *always.split())

    def send(self, port: int, to: str = f"{STATSD}:8125", source: str = "10.244.1.99") -> None:
        """One datagram from this port, always from the same socket."""
        if port not in self.senders:
            self.senders[port] = self.stack.enter_context(
                closing(self.namespace.socket(socket.SOCK_DGRAM, (source, port)))
            )
        ip, _, number = to.rpartition(":")
        self.senders[port].sendto(b"paid:1|c", (ip, int(number)))

    def listen(self, address: str) -> socket.socket:
        ip, _, port = address.rpartition(":")
        return self.stack.enter_context(closing(self.namespace.socket(socket.SOCK_DGRAM, (ip, int(port)))))

    def configure(self, *, listen: str = f"{STATSD}:8125", more: str = "") -> None:
        (self.directory / "config.yaml").write_text(
            f"udp: [{{name: statsd, listen: ['{listen}'], service: {SERVICE}, port: statsd}}]\n"
            f"endpoints_file: {self.directory}/endpoints.yaml\n{more}"
        )

    def endpoints(self, *addresses: str, port: int = 8125, conditions: str = "{}") -> None:
        made = "".join(f"  - {{addresses: [{one}], conditions: {conditions}}}\n" for one in addresses)
        (self.directory / "endpoints.yaml").write_text(
            "kind: EndpointSlice\n"
            "metadata: {namespace: monitoring, labels: {kubernetes.io/service-name: statsd}}\n"
            f"addressType: IPv4\nports: [{{name: statsd, protocol: UDP, port: {port}}}]\n"
            f"endpoints:\n{made or '  []'}\n"
        )

    async def conntrack(self, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        """Exit status, flows and what stood on stderr."""
        command = [*COMMAND, "conntrack", "--config", str(self.directory / "config.yaml"), "-o", "json", *words]
        code, out, err = await execute(*self.namespace.prefix, *command)
        return code, json.loads(out) if out else [], err

    async def entries(self) -> list[str]:
        return [line for line in (await self.run("conntrack", "-L", "-p", "udp")).splitlines() if "udp" in line]


@pytest.fixture(params=BACKENDS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with ExitStack() as stack:
        try:
            namespace = stack.enter_context(netns.made())
        except Unavailable as unavailable:
            pytest.skip(str(unavailable))
        namespace.ip(*WAY_OUT)
        yield Node(namespace, request.param, tmp_path, stack)


def told(flows: list[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    return {(one["source"], one["service"], one["target"], one["reason"]) for one in flows}


async def test_a_flow_to_a_pod_that_is_gone_is_found_and_deleted_and_the_others_are_left(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125", "10.96.0.10:53": "10.244.1.7:53"})
    node.send(4000)
    node.send(4001)
    node.send(4002, "10.96.0.10:53")
    await node.translate({f"{STATSD}:8125": "10.244.1.8:8125"})
    node.send(4003)
    node.endpoints("10.244.1.8")

    stale = {
        ("10.244.1.99:4000", SERVICE, "10.244.1.7:8125", "target is no endpoint"),
        ("10.244.1.99:4001", SERVICE, "10.244.1.7:8125", "target is no endpoint"),
    }
    code, flows, err = await node.conntrack()
    assert (code, told(flows), err) == (1, stale, "")
    assert {one["address"] for one in flows} == {f"{STATSD}:8125"}
    code, flows, _ = await node.conntrack("--delete")
    assert (code, told(flows)) == (0, stale)
    assert all(one["deleted"] for one in flows)
    left = await node.entries()
    assert len(left) == 2
    assert {"4002", "4003"} == {part.split("=")[1] for line in left for part in line.split()[4:6] if "sport" in part}
    assert (await node.conntrack())[:2] == (0, [])

    node.send(4000)  # the same socket, and now it reaches the one that is there
    assert any("sport=4000" in line and "src=10.244.1.8" in line for line in await node.entries())
    assert (await node.conntrack())[:2] == (0, [])


async def test_a_service_without_endpoints_leaves_only_stale_flows(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.send(4000)
    node.endpoints()
    code, flows, _ = await node.conntrack()
    assert (code, [one["reason"] for one in flows]) == (1, ["target is no endpoint"])


async def test_an_endpoint_whose_port_changed_is_another_port(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.send(4000)
    node.endpoints("10.244.1.7", port=9125)
    code, flows, _ = await node.conntrack()
    assert (code, told(flows)) == (1, {("10.244.1.99:4000", SERVICE, "10.244.1.7:8125", "other port")})


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("{ready: false, serving: true, terminating: true}", 0),
        ("{ready: false, serving: false, terminating: true}", 1),
        ("{ready: false, serving: false, terminating: false}", 1),
    ],
)
async def test_a_pod_that_terminates_and_still_serves_keeps_its_flows(
    node: Node, conditions: str, expected: int
) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.send(4000)
    node.endpoints("10.244.1.7", conditions=conditions)
    code, flows, _ = await node.conntrack()
    assert (code, len(flows)) == (expected, expected)


async def test_what_was_sent_before_there_was_a_rule_is_pinned(node: Node) -> None:
    await node.run("ip", "address", "add", f"{STATSD}/32", "dev", "lo")
    await node.translate({})
    node.send(4000)
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.send(4000)
    node.send(4001)
    node.endpoints("10.244.1.7")
    pinned = {("10.244.1.99:4000", SERVICE, f"{STATSD}:8125", "pinned to local delivery without DNAT")}
    code, flows, _ = await node.conntrack("--delete")
    assert (code, told(flows)) == (0, pinned)
    node.send(4000)
    assert (await node.conntrack())[:2] == (0, [])
    assert all("src=10.244.1.7" in line for line in await node.entries())


async def test_what_leaves_the_node_untranslated_is_pinned_as_well(node: Node) -> None:
    await node.translate({})
    node.send(4000)
    node.endpoints("10.244.1.7")
    code, flows, _ = await node.conntrack()
    assert (code, [one["reason"] for one in flows]) == (1, ["pinned without DNAT"])


async def test_where_the_proxy_serves_without_kernel_rules_delivery_here_is_what_is_meant(node: Node) -> None:
    await node.run("ip", "address", "add", "169.254.20.10/32", "dev", "lo")
    await node.translate({})
    node.configure(listen="169.254.20.10:8125")
    node.endpoints("10.244.1.7")
    listener = node.listen("169.254.20.10:8125")
    node.send(4000, "169.254.20.10:8125")
    assert (await node.conntrack())[:2] == (0, [])
    node.configure(listen="169.254.20.10:8125", more="node: {manage: true}\n")
    code, flows, _ = await node.conntrack()
    assert (code, [one["reason"] for one in flows]) == (1, ["pinned to local delivery without DNAT"])
    listener.close()
    node.configure(listen="169.254.20.10:8125")
    assert (await node.conntrack())[0] == 1


async def test_packets_and_age_are_there_when_the_kernel_keeps_them(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.endpoints()
    node.send(4000)
    code, flows, _ = await node.conntrack()
    assert (flows[0]["packets"], flows[0]["age_seconds"]) == (None, None)
    for name in ("acct", "timestamp"):
        await node.run("sysctl", "-w", f"net.netfilter.nf_conntrack_{name}=1")
    for _ in range(3):
        node.send(4001)
    code, flows, _ = await node.conntrack()
    assert code == 1
    counted = {one["source"]: one for one in flows}["10.244.1.99:4001"]
    assert counted["packets"] == 3
    assert 0 <= counted["age_seconds"] < 60
    assert 0 < counted["expires_seconds"] <= 180


async def test_for_people_it_is_a_table_with_how_to_get_what_is_missing(node: Node) -> None:
    await node.translate({f"{STATSD}:8125": "10.244.1.7:8125"})
    node.endpoints()
    node.send(4000)
    words = [*COMMAND, "conntrack", "--config", str(node.directory / "config.yaml")]
    code, out, _ = await execute(*node.namespace.prefix, *words)
    assert code == 1
    assert "1 stale UDP flow" in out
    assert "10.244.1.99:4000" in out
    assert "sysctl -w net.netfilter.nf_conntrack_acct=1" in out
    code, out, _ = await execute(*node.namespace.prefix, *words, "--delete")
    assert code == 0
    assert "1 deleted" in out
    code, out, _ = await execute(*node.namespace.prefix, *words)
    assert (code, out) == (0, "no stale flow\n")


async def test_a_service_without_slices_is_told_of(node: Node) -> None:
    await node.translate({})
    (node.directory / "endpoints.yaml").write_text("")
    code, _, err = await node.conntrack()
    assert code == 0
    assert f"Service {SERVICE} has no EndpointSlice" in err


async def test_without_capabilities_it_cannot_run(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    (tmp_path / "endpoints.yaml").write_text("")
    file.write_text(
        f"udp: [{{name: a, listen: ['10.96.0.20:8125'], service: {SERVICE}, port: statsd}}]\n"
        f"endpoints_file: {tmp_path}/endpoints.yaml\n"
    )
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if peers.find("setpriv") else []
    code, out, err = await execute(*drop, *COMMAND, "conntrack", "--config", str(file))
    assert (code, out) == (2, "")
    assert "it takes root or CAP_NET_ADMIN" in err


async def test_without_a_service_to_judge_by_it_cannot_run() -> None:
    code, out, err = await execute(*COMMAND, "conntrack")
    assert (code, out) == (2, "")
    assert "no Service is known" in err


@pytest.mark.parametrize(
    "words",
    [
        ("--service-cidr", "10.96.0.1/16"),
        ("--watch", "--service-cidr", "10.96.0.0/16"),
        ("--watch", "--every", "0s"),
        ("--watch", "--every", "often"),
        ("--textfile", "/tmp/metrics.prom"),
    ],
)
async def test_options_that_make_no_sense_are_refused(words: tuple[str, ...]) -> None:
    code, out, err = await execute(*COMMAND, "conntrack", *words)
    assert (code, out) == (2, "")
    assert "Error" in err
