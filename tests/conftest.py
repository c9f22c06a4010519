"""What tests of several packages share: the control plane, started at most once in a run."""

from collections.abc import Iterator

import pytest

from tests import peers
from tests.testbed import control_plane as testbed


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testbed.ControlPlane]:
    """etcd and kube-apiserver with `deploy/base` applied. Skips where they aren't installed."""
    missing = [program for program in testbed.PROGRAMS if peers.find(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (make testbed builds kube-apiserver)")
    with testbed.running(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
