"""The zone with the longest suffix of a name decides who is asked; a name of no zone is REFUSED."""

import pytest

from proxy.core.message import Ede
from proxy.core.policy import DnsPolicy, Zone
from tests.fakes import Handler, World, ede_codes, reply


def tells(text: str) -> Handler:
    """A server that answers everything with this TXT record."""
    return lambda query: reply(query, f'{query.question[0].name} 60 TXT "{text}"')


async def start(world: World, *suffixes: str) -> None:
    """One upstream per zone, which answers TXT with the zone's name."""
    await world.start(upstreams=len(suffixes))
    zones = []
    for upstream, suffix in zip(world.upstreams, suffixes, strict=True):
        upstream.on_any(tells(suffix))
        zones.append(Zone(suffix, (upstream.address,)))
    world.worker.configure(DnsPolicy(tuple(zones)))


async def asked_in(world: World, name: str) -> str:
    """The zone whose upstream answered for `name`."""
    text: str = (await world.ask(name, "TXT")).answer[0][0].to_text()
    return text.strip('"')


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("dns.svc.cluster.local", "svc.cluster.local"),
        ("svc.cluster.local", "svc.cluster.local"),
        ("pod.cluster.local", "cluster.local"),
        ("cluster.local", "cluster.local"),
        ("local", "."),
        ("www.example", "."),
        ("mycluster.local", "."),
        ("notsvc.cluster.local", "cluster.local"),
        ("DNS.SVC.CLUSTER.LOCAL", "svc.cluster.local"),
    ],
)
async def test_the_longest_suffix_wins(world: World, name: str, zone: str) -> None:
    await start(world, ".", "cluster.local", "svc.cluster.local")
    assert await asked_in(world, name) == zone
    assert sum(len(upstream.asked) for upstream in world.upstreams) == 1


async def test_a_final_dot_and_letter_case_of_a_suffix_mean_nothing(world: World) -> None:
    await start(world, ".", "Cluster.Local.")
    assert await asked_in(world, "a.cluster.local") == "Cluster.Local."


async def test_a_name_of_no_zone_is_refused(world: World) -> None:
    await start(world, "cluster.local")
    answer = await world.ask("www.example", use_edns=0)
    assert (answer.rcode(), ede_codes(answer)) == (5, [Ede.NOT_AUTHORITATIVE])
    assert world.upstream.asked == []


async def test_a_failing_zone_is_no_reason_to_ask_a_shorter_one(world: World) -> None:
    await start(world, ".", "cluster.local")
    world.upstreams[1].on_any(lambda query: reply(query, rcode="SERVFAIL"))
    assert (await world.ask("a.cluster.local", "TXT")).rcode() == 2
    assert world.upstreams[0].asked == []


async def test_a_reload_keeps_the_cache_and_what_is_in_flight(world: World) -> None:
    await world.start(upstreams=2)
    old, new = world.upstreams
    world.worker.configure(DnsPolicy((Zone(".", (old.address,)),)))
    old.answer("kept.example", "A", "kept.example 60 A 192.0.2.1")
    old.silent("flying.example")
    await world.ask("kept.example")
    stub = world.send("flying.example")
    await old.received(2)
    world.worker.configure(DnsPolicy((Zone(".", (new.address,)),)))
    old.send(1, reply(old.asked[1], "flying.example 60 A 192.0.2.1"))
    assert (await stub.answer()).answer
    assert (await world.ask("kept.example")).answer
    assert new.questions() == []


async def test_a_reload_keeps_what_is_known_of_upstreams_that_stay(world: World) -> None:
    await world.start(upstreams=2)
    before = world.worker.resolver.zones.upstreams
    before[0].down = True
    addresses = tuple(upstream.address for upstream in world.upstreams)
    world.worker.configure(DnsPolicy((Zone(".", (addresses[0],)),)))
    assert world.worker.resolver.zones.upstreams == [before[0]]


async def test_an_address_that_is_named_twice_is_one_upstream(world: World) -> None:
    await world.start()
    address = world.upstream.address
    world.worker.configure(DnsPolicy((Zone(".", (address, address), (address,)),)))
    assert (await world.ask("www.example")).rcode() == 2
    assert len(world.upstream.asked) == 1
    assert len(world.worker.resolver.zones.upstreams) == 1
