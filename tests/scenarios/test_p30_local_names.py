"""P30: names that mean something only here never leave, and a denial never crosses a zone (RFC 6761, 6303, 8020)."""

import dns.reversename
import pytest

from proxy.core.policy import DnsPolicy, Zone
from tests.fakes import World, soa


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "app.localhost"])
async def test_localhost_is_the_loopback_address(world: World, name: str) -> None:
    await world.start()
    assert (await world.ask(name, "A")).answer[0][0].to_text() == "127.0.0.1"
    assert (await world.ask(name, "AAAA")).answer[0][0].to_text() == "::1"
    nodata = await world.ask(name, "MX")
    assert (nodata.rcode(), nodata.answer, len(nodata.authority)) == (0, [], 1)
    assert world.upstream.asked == []


@pytest.mark.parametrize("name", ["invalid", "x.invalid", "a.b.INVALID"])
async def test_invalid_does_not_exist(world: World, name: str) -> None:
    await world.start()
    answer = await world.ask(name)
    assert (answer.rcode(), len(answer.authority)) == (3, 1)
    assert world.upstream.asked == []


async def test_names_that_only_look_like_them_are_asked(world: World) -> None:
    await world.start()
    for name in ("notlocalhost", "localhost.example", "invalid.example", "myinvalid"):
        await world.ask(name)
    assert len(world.upstream.asked) == 4


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_the_loopback_address_is_localhost(world: World, address: str) -> None:
    await world.start()
    name = dns.reversename.from_address(address).to_text()
    assert (await world.ask(name, "PTR")).answer[0][0].to_text() == "localhost."
    assert world.upstream.asked == []


@pytest.mark.parametrize("address", ["127.9.9.9", "169.254.20.10", "fe80::1"])
async def test_other_loopback_and_link_local_addresses_have_no_name(world: World, address: str) -> None:
    await world.start()
    assert (await world.ask(dns.reversename.from_address(address).to_text(), "PTR")).rcode() == 3
    assert world.upstream.asked == []


@pytest.mark.parametrize("address", ["10.1.2.3", "172.16.0.1", "172.31.9.9", "192.168.1.1"])
async def test_private_addresses_have_no_name_out_there(world: World, address: str) -> None:
    await world.start()
    assert (await world.ask(dns.reversename.from_address(address).to_text(), "PTR")).rcode() == 3
    assert world.upstream.asked == []


@pytest.mark.parametrize("address", ["172.32.0.1", "192.0.2.1", "11.0.0.1"])
async def test_public_addresses_are_asked(world: World, address: str) -> None:
    await world.start()
    await world.ask(dns.reversename.from_address(address).to_text(), "PTR")
    assert len(world.upstream.asked) == 1


async def test_private_addresses_are_asked_of_a_service_and_of_a_zone_of_their_own(world: World) -> None:
    await world.start(upstreams=2)
    service, own = world.upstreams
    world.worker.configure(
        DnsPolicy((Zone(".", (service.address,), service=True), Zone("168.192.in-addr.arpa", (own.address,))))
    )
    await world.ask("3.2.1.10.in-addr.arpa", "PTR")
    await world.ask("1.1.168.192.in-addr.arpa", "PTR")
    assert service.questions() == [("3.2.1.10.in-addr.arpa", "PTR")]
    assert own.questions() == [("1.1.168.192.in-addr.arpa", "PTR")]


async def test_the_link_local_zone_itself_is_answered_here(world: World) -> None:
    await world.start()
    assert (await world.ask("254.169.in-addr.arpa", "SOA")).rcode() == 3
    assert world.upstream.asked == []


async def test_a_denial_from_one_zone_does_not_reach_another(world: World) -> None:
    await world.start(upstreams=2)
    cluster, outside = world.upstreams
    world.worker.configure(DnsPolicy((Zone("cluster.local", (cluster.address,)), Zone(".", (outside.address,)))))
    outside.answer("local", "A", rcode="NXDOMAIN", authority=[soa("local.")])
    cluster.answer("dns.cluster.local", "A", "dns.cluster.local 5 A 10.96.0.10")
    cluster.answer("www.example.cluster.local", "A", rcode="NXDOMAIN", authority=[soa("cluster.local.")])
    outside.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    assert (await world.ask("local")).rcode() == 3
    assert (await world.ask("dns.cluster.local")).answer
    assert (await world.ask("www.example.cluster.local")).rcode() == 3
    assert (await world.ask("www.example")).answer
