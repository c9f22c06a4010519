"""The image, built once in a run, and a cluster of the lab that has the base's manifests."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.lab import control_plane, tools
from proxy.lab.cluster import PROGRAMS, Cluster, running
from proxy.lab.traffic import Traffic
from tests import peers
from tests.deploy.container import PATHS, Volumes, manifests
from tests.deploy.setting import Setting

SCRIPT = peers.ROOT / "tests" / "deploy" / "build-image"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's file system."""
    missing = [program for program in ("buildah", "debootstrap") if peers.find(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("needs root to build an image")
    directory = tmp_path_factory.mktemp("image") / "root"
    subprocess.run([SCRIPT, directory], check=True, timeout=600)
    return directory


@pytest.fixture(scope="module")
def deployed() -> Iterator[Cluster]:
    """A cluster with the manifests applied: the API server has them, nobody acts on them."""
    try:
        tools.require_root()
        tools.require(*PROGRAMS, *control_plane.PROGRAMS, "kube-proxy", "nsenter", "unshare")
    except tools.Unavailable as missing:
        pytest.skip(str(missing))
    with running("nftables") as cluster:
        assert cluster.api is not None
        for manifest in manifests():
            path = PATHS[manifest["kind"]].format(namespace=manifest["metadata"].get("namespace"))
            cluster.api.ask("POST", f"{path}?fieldValidation=Strict", manifest)
        yield cluster


@pytest.fixture
def setting(deployed: Cluster, image: Path) -> Iterator[Setting]:
    cluster = deployed
    cluster.reset()
    dns = cluster.service("kube-system/kube-dns", "10.96.0.10", 53, port_name="dns", protocols=("UDP", "TCP"))
    with ExitStack() as stack:
        traffic = stack.enter_context(Traffic(cluster.run.directory))
        for name in ("client", "dns-1", "dns-2", "outside"):
            cluster.pod(name)
        for name in ("dns-1", "dns-2", "outside"):
            traffic.dns_server(cluster.pods[name], f"{cluster.pods[name].address}:53")
        cluster.set_endpoints(dns, [cluster.pods[name].address for name in ("dns-1", "dns-2")])
        cluster.wait_synced()
        volumes = Volumes(cluster, f"nameserver {cluster.pods['outside'].address}\n")
        stack.callback(volumes.remove)
        yield Setting(cluster, dns, volumes, image, traffic)
