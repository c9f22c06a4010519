"""A real stub resolver in front of Sidestep and a real server behind it."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests import peers
from tests.stubs.lab import MIDDLE, STUBS, Lab

NAMES = (f"host{number}.good.example" for number in itertools.count(1))


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=peers.needs(name)) for name in ("unbound", "dnsmasq", "coredns")],
)
def upstream(request: pytest.FixtureRequest, lab: Lab) -> Iterator[str]:
    """A Sidestep before a real server that forwards to the scripted one."""
    lab.resolv_conf()
    with lab.serving(request.param, listen=MIDDLE), lab.serving("sidestep", upstream=MIDDLE):
        yield request.param


@pytest.mark.parametrize("stub", STUBS)
@pytest.mark.usefixtures("upstream")
def test_it_finds_a_name(lab: Lab, command: Callable[[str], tuple[str, ...]], stub: str) -> None:
    name = next(NAMES)
    first, again = lab.run([*command(stub), name]), lab.run([*command(stub), name])

    assert first.addresses == again.addresses == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]
    assert first.waited == again.waited == []
    assert again.upstream == {}, "the second lookup is the cache's"
