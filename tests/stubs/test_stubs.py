"""Real stub resolvers in front of Sidestep, while the upstream does each bad thing that makes one of them wait.

"No retry" is told from the packets: no question repeated before its answer came, and where there is something to
find, each question sent exactly once.
"""

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.stubs.lab import STUBS, Lab

V4 = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
BOTH = [*V4, "2001:db8::1"]
NAMES = (f"web{number}" for number in itertools.count(1))
ENDS_ITS_SEARCH = {"nodata": ("musl",), "servfail": ("musl", "c-ares")}
"""Stubs that take such a verdict as final. It is the upstream's and true: a proxy must not change it."""
SEARCHING = [stub.name for stub in STUBS.values() if stub.searches]

Command = Callable[[str], tuple[str, ...]]

# What the upstream does and what a stub is to find then.
FOUND = {
    "good": BOTH,
    "truncated": BOTH,
    "aaaa-servfail": V4,
    "aaaa-refused": V4,
    "aaaa-silent": V4,
    "aaaa-nx": V4,
    "nodata": [],
    "lame": [],
    "nx": [],
    "a-nx": [],
}


@pytest.fixture(scope="module")
def behaviour(request: pytest.FixtureRequest, lab: Lab) -> Iterator[str]:
    """The upstream's behaviour, before a Sidestep of its own: one row must not colour the next."""
    lab.resolv_conf()
    with lab.serving("sidestep"):
        yield request.param


@pytest.mark.parametrize("stub", STUBS)
@pytest.mark.parametrize("behaviour", FOUND, indirect=True)
def test_it_hears_once_what_there_is(lab: Lab, command: Command, behaviour: str, stub: str) -> None:
    seen = lab.run([*command(stub), f"{next(NAMES)}.{behaviour}.example"])

    assert seen.addresses == FOUND[behaviour]
    assert seen.error == ("" if FOUND[behaviour] else "not-found")
    assert seen.waited == []
    assert set(seen.asked.values()) == {1}, seen.asked


@pytest.mark.parametrize("stub", STUBS)
@pytest.mark.parametrize("behaviour", ["servfail", "refused", "silent"], indirect=True)
def test_it_hears_of_a_failure_before_it_asks_again(lab: Lab, command: Command, behaviour: str, stub: str) -> None:
    """Several ask again after SERVFAIL, which musl takes for silence whoever sends it: then the cache must answer."""
    seen = lab.run([*command(stub), f"{next(NAMES)}.{behaviour}.example"])

    assert seen.error.startswith("temporary")
    assert seen.waited == []
    assert max(seen.upstream.values()) <= 3, seen.upstream


@pytest.mark.parametrize("stub", SEARCHING)
@pytest.mark.parametrize("behaviour", ["nx", "a-nx", "nodata", "servfail"], indirect=True)
def test_a_search_goes_on_past_a_suffix(lab: Lab, command: Command, behaviour: str, stub: str) -> None:
    lab.resolv_conf(search=[f"{behaviour}.example", "good.example"])
    seen = lab.run([*command(stub), next(NAMES)])

    assert seen.waited == []
    if stub in ENDS_ITS_SEARCH.get(behaviour, ()):
        assert seen.error == ("not-found" if behaviour == "nodata" else "temporary")
    else:
        assert seen.addresses == BOTH


@pytest.mark.parametrize("behaviour", ["nx"], indirect=True)
def test_a_cold_search_over_three_suffixes_asks_upstream_five_times(
    lab: Lab, command: Command, behaviour: str
) -> None:
    lab.resolv_conf(search=[f"{zone}.{behaviour}.example" for zone in ("default", "svc", "cluster")])
    seen = lab.run([*command("glibc"), f"{next(NAMES)}.good"])

    assert seen.addresses == BOTH
    assert seen.asked.total() == 8
    assert seen.upstream.total() == 5
