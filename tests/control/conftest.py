"""Every coroutine test in here runs on both loops that control may run on."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.control import node_config
from tests.node.network import Network, a_network


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def network() -> Iterator[Network]:
    """A node with a pod and CoreDNS; this thread is on the node."""
    with a_network() as network:
        yield network


@pytest.fixture
def config(network: Network, tmp_path: Path) -> Path:
    """For a run on that node."""
    return node_config.write(tmp_path)
