"""The lab's cluster for tests: each kind is started at most once in a run, and empty at the start of each test."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from proxy.lab import control_plane, tools
from proxy.lab.cluster import PROGRAMS, Cluster, Mode, running

Kind = tuple[Mode, int, bool]
"""Mode of kube-proxy, number of nodes, whether there is an overlay between them."""


class Clusters:
    """Clusters that run, by kind."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[Kind, Cluster] = {}

    def get(self, mode: Mode, *, nodes: int = 1, overlay: bool = False) -> Cluster:
        """An empty one of this kind."""
        kind = mode, nodes, overlay
        if kind not in self._running:
            self._running[kind] = self._stack.enter_context(running(mode, nodes=nodes, overlay=overlay))
        else:
            self._running[kind].reset()
        return self._running[kind]


@pytest.fixture(scope="session")
def root() -> None:
    """Skips where no cluster can be made at all."""
    try:
        tools.require_root()
        tools.require(*PROGRAMS)
    except tools.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def clusters(root: None) -> Iterator[Clusters]:
    """Clusters with the real API server and kube-proxy. Skips where these aren't built."""
    try:
        tools.require(*control_plane.PROGRAMS, "kube-proxy")
    except tools.Unavailable as missing:
        pytest.skip(str(missing))
    with ExitStack() as stack:
        yield Clusters(stack)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, clusters: Clusters) -> Cluster:
    """An empty cluster of one node; kube-proxy's mode is nftables unless the test is parametrized with another."""
    return clusters.get(getattr(request, "param", "nftables"))
