"""`sidestep conntrack` on a node of the lab with the real API server and the real kube-proxy, in both of its modes.

What kube-proxy leaves behind is found, what is right is left alone, and what was deleted goes right afterwards.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.lab import cluster as lab
from proxy.lab.cluster import Cluster
from proxy.lab.services import Endpoint, Service, slices_of
from proxy.lab.tools import Unavailable
from tests.control.eventually import eventually
from tests.testbed.control_plane import ACCOUNT, MANIFESTS, PATHS, Refused

ADDRESS = "10.96.0.20"
NAME = "monitoring/statsd"
MODES: tuple[lab.Mode, ...] = ("iptables", "nftables")
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"], loop_scope="function")


@pytest.fixture(scope="module", params=MODES)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with ExitStack() as stack:
        try:
            made = stack.enter_context(lab.running(request.param))
        except Unavailable as unavailable:
            pytest.skip(str(unavailable))
        yield made


class Statsd:
    """A StatsD Service, pods that only have an address, a sender with ports of its own, and the command."""

    def __init__(self, cluster: Cluster, directory: Path, stack: ExitStack) -> None:
        self.cluster = cluster
        self.directory = directory
        self.stack = stack
        self.sender = cluster.pod("sender")
        self.first, self.second = cluster.pod("first"), cluster.pod("second")
        self.sockets: dict[int, socket.socket] = {}
        self.config(kubeconfig=str(cluster.kubeconfig))

    def config(self, **kubernetes: str) -> None:
        relay = {"name": "statsd", "listen": ["169.254.20.10:8125"], "service": NAME, "port": "main"}
        sections = {"udp": [relay], "kubernetes": kubernetes}
        (self.directory / "config.yaml").write_text(json.dumps(sections))

    def service(self, *endpoints: str) -> Service:
        made = self.cluster.service(NAME, ADDRESS, 8125)
        self.cluster.set_endpoints(made, endpoints)
        self.cluster.wait_synced()
        return made

    def send_once(self, port: int) -> None:
        """A datagram from this port, always from the same socket."""
        if port not in self.sockets:
            made = self.sender.socket(socket.SOCK_DGRAM, (self.sender.address, port))
            self.sockets[port] = self.stack.enter_context(closing(made))
        self.sockets[port].sendto(b"paid:1|c", (ADDRESS, 8125))

    async def send(self, port: int, expected: str) -> None:
        """Datagrams from this port until conntrack has its flow, which goes to `ip:port`."""
        await eventually(lambda: _goes_to(self, port, expected))

    def target(self, port: int) -> str | None:
        source = f"{self.sender.address}:{port}"
        flows = self.cluster.conntrack().flows(f"{ADDRESS}:8125")
        return next((flow.target for flow in flows if flow.source == source), None)

    def conntrack(self, *words: str) -> tuple[int, set[tuple[str, str, str, str]], str]:
        """Exit status, flows and what stood on stderr."""
        command = [sys.executable, "-m", "proxy", "conntrack", "--config", str(self.directory / "config.yaml")]
        ran = subprocess.run(
            [*self.cluster.node.prefix, *command, "-o", "json", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        flows: list[dict[str, Any]] = json.loads(ran.stdout) if ran.stdout else []
        told = {(one["source"], one["service"], one["target"], one["reason"]) for one in flows}
        return ran.returncode, told, ran.stderr


@pytest.fixture
def statsd(cluster: Cluster, tmp_path: Path) -> Iterator[Statsd]:
    with ExitStack() as stack:
        yield Statsd(cluster, tmp_path, stack)
    cluster.reset()


async def test_a_flow_that_a_kube_proxy_away_left_is_deleted_and_goes_right_when_it_is_back(statsd: Statsd) -> None:
    first, second = statsd.first.address, statsd.second.address
    service = statsd.service(first)
    await statsd.send(4000, f"{first}:8125")
    assert statsd.conntrack() == (0, set(), "")
    statsd.cluster.kube_proxy.stop()
    statsd.cluster.set_endpoints(service, [second])
    stale = {(f"{statsd.sender.address}:4000", NAME, f"{first}:8125", "target is no endpoint")}
    assert statsd.conntrack() == (1, stale, "")
    statsd.cluster.kube_proxy.start()
    statsd.cluster.wait_synced()
    await statsd.send(4001, f"{second}:8125")
    # Whether kube-proxy itself cleans up at its start or not, nothing stale is left now.
    assert statsd.conntrack("--delete")[0] == 0
    assert statsd.conntrack() == (0, set(), "")
    assert statsd.target(4001) == f"{second}:8125"
    await statsd.send(4000, f"{second}:8125")


async def test_a_service_scaled_to_zero_is_found(statsd: Statsd) -> None:
    """kubernetes#139628: kube-proxy leaves these."""
    first = statsd.first.address
    service = statsd.service(first)
    await statsd.send(4000, f"{first}:8125")
    statsd.cluster.set_endpoints(service, [])
    statsd.cluster.wait_synced()
    stale = {(f"{statsd.sender.address}:4000", NAME, f"{first}:8125", "target is no endpoint")}
    assert statsd.conntrack("--delete") == (0, stale, "")
    assert statsd.target(4000) is None


async def test_an_endpoint_whose_port_changed_is_found_until_kube_proxy_knows(statsd: Statsd) -> None:
    """kube-proxy 1.36 compares ports as well and cleans up by itself; it did not while it was away."""
    first = statsd.first.address
    service = statsd.service(first)
    await statsd.send(4000, f"{first}:8125")
    statsd.cluster.kube_proxy.stop()
    namespace, _, name = NAME.partition("/")
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}-lab"
    (changed,) = slices_of(replace(service, target_port=9125), (Endpoint(first),))
    statsd.cluster.api.ask("PUT", path, changed)
    stale = {(f"{statsd.sender.address}:4000", NAME, f"{first}:8125", "other port")}
    assert statsd.conntrack() == (1, stale, "")
    statsd.cluster.kube_proxy.start()
    await statsd.send(4000, f"{first}:9125")
    assert statsd.conntrack() == (0, set(), "")


def _goes_to(statsd: Statsd, port: int, target: str) -> bool:
    statsd.send_once(port)
    return statsd.target(port) == target


async def test_a_deleted_service_is_found_by_whoever_may_list_services(statsd: Statsd) -> None:
    """kubernetes#141371."""
    first = statsd.first.address
    service = statsd.service(first)
    await statsd.send(4000, f"{first}:8125")
    statsd.cluster.delete_service(service)
    statsd.cluster.wait_synced()
    code, flows, err = statsd.conntrack("--delete")
    gone = {(f"{statsd.sender.address}:4000", f"{ADDRESS}:8125", f"{first}:8125", "Service is gone")}
    assert (code, flows) == (0, gone)
    assert f"Service {NAME} does not exist" in err
    assert statsd.target(4000) is None


async def test_an_address_that_another_service_has_now_is_judged_by_that_one(statsd: Statsd) -> None:
    first, second = statsd.first.address, statsd.second.address
    service = statsd.service(first)
    await statsd.send(4000, f"{first}:8125")
    statsd.cluster.kube_proxy.stop()
    statsd.cluster.delete_service(service)
    other = statsd.cluster.service("shop/events", ADDRESS, 8125)
    statsd.cluster.set_endpoints(other, [second])
    code, flows, _ = statsd.conntrack()
    stale = {(f"{statsd.sender.address}:4000", "shop/events", f"{first}:8125", "target is no endpoint")}
    assert (code, flows) == (1, stale)


async def test_what_was_sent_while_kube_proxy_knew_no_service_is_pinned(statsd: Statsd) -> None:
    statsd.cluster.kube_proxy.stop()
    statsd.cluster.kube_proxy.clean()
    statsd.cluster.node.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
    statsd.cluster.node.run("nft", "add table ip held; add chain ip held in { type filter hook input priority 0; }")
    statsd.cluster.node.run("nft", "add rule ip held in ct state invalid counter")
    try:
        service = statsd.cluster.service(NAME, ADDRESS, 8125)
        statsd.cluster.set_endpoints(service, [statsd.first.address])
        await statsd.send(4000, f"{ADDRESS}:8125")
        pinned = {(f"{statsd.sender.address}:4000", NAME, f"{ADDRESS}:8125", "pinned to local delivery without DNAT")}
        assert statsd.conntrack() == (1, pinned, "")
        statsd.cluster.kube_proxy.start()
        statsd.cluster.wait_synced()
        assert statsd.conntrack("--delete")[0] == 0
        await statsd.send(4000, f"{statsd.first.address}:8125")
        assert statsd.conntrack() == (0, set(), "")
    finally:
        statsd.cluster.node.run("nft", "delete table ip held")
        statsd.cluster.node.run("ip", "address", "del", f"{ADDRESS}/32", "dev", "lo")


async def test_with_the_daemonsets_own_rights_the_configured_service_is_judged(statsd: Statsd) -> None:
    first, second = statsd.first.address, statsd.second.address
    service = statsd.service(first)
    await statsd.send(4000, f"{first}:8125")
    statsd.cluster.kube_proxy.stop()
    statsd.cluster.set_endpoints(service, [second])
    token = statsd.directory / "token"
    token.write_text(_account_token(statsd.cluster))
    statsd.config(server=statsd.cluster.api.url, token_file=str(token), ca_file=str(statsd.cluster.api.ca_file))
    code, flows, err = statsd.conntrack()
    stale = {(f"{statsd.sender.address}:4000", NAME, f"{first}:8125", "target is no endpoint")}
    assert (code, flows) == (1, stale)
    assert "403" in err
    assert "only the Services of the configuration are looked at" in err


def _account_token(cluster: Cluster) -> str:
    """Of `deploy/base`'s service account, which is made where it isn't there yet."""
    for file in MANIFESTS:
        for item in yaml.safe_load_all(file.read_text()):
            try:
                cluster.api.ask("POST", PATHS[item["kind"]], item)
            except Refused as refused:
                if refused.status != 409:
                    raise
    path = f"{PATHS['ServiceAccount']}/{ACCOUNT}/token"
    return str(cluster.api.ask("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])
