from dataclasses import replace
from pathlib import Path

import pytest

from proxy.cluster.access import Access
from proxy.cluster.informer import Informer
from proxy.cluster.saved import SavedNamespace, SavedSnapshot
from proxy.core.endpoints import Service, Slice, SliceEndpoint
from tests.cluster.api_server import endpoint_slice, service_object
from tests.cluster.fake_api_server import FakeApiServer, answer, refuse
from tests.cluster.following import QUICK, STATSD, following, running
from tests.control.eventually import eventually

NOWHERE = Access("http://192.0.2.1:6443")


@pytest.fixture
async def server(server: FakeApiServer) -> FakeApiServer:
    await server.put(endpoint_slice("statsd", ["10.1.0.1"]))
    return server


def known(*addresses: str, service: str = "statsd", version: str = "50") -> SavedNamespace:
    endpoints = tuple(SliceEndpoint(address) for address in addresses)
    slices = (Slice("monitoring", service, service, "IPv4", (), endpoints, 50),)
    return SavedNamespace(1_000_000.0, version, slices, {service: Service(("10.96.0.9",), True)})


def saved_as(directory: Path, server: str, **namespaces: SavedNamespace) -> SavedSnapshot:
    saved = SavedSnapshot(directory / "endpoints.json", server)
    assert saved.write(namespaces)
    return saved


async def test_before_it_runs_nothing_is_known_and_its_status_says_so() -> None:
    informer = Informer(NOWHERE, [STATSD], lambda: None)
    status = informer.status()
    assert informer.slices() == ()
    assert (status.age_seconds, status.resource_version, status.synced) == (None, None, False)
    assert status.state == "not started"


async def test_without_services_it_is_synced_and_asks_nothing(server: FakeApiServer) -> None:
    async with following(server.access) as follower:
        follower.informer.follow([])
        assert follower.informer.synced
        assert follower.informer.status().state == "nothing to follow"
        follower.informer.follow([STATSD])
        await follower.knows("10.1.0.1")


async def test_it_is_synced_when_every_namespace_was_listed(server: FakeApiServer) -> None:
    async with following(server.access, STATSD, "kube-system/kube-dns") as follower:
        server.answer_next(refuse(500, "Busy"), times=20)
        await follower.until(lambda: len(follower.informer.status().problems) > 0)
        assert not follower.informer.synced
        await follower.synced()


async def test_the_age_is_that_of_the_stream_that_was_heard_of_least(server: FakeApiServer) -> None:
    now = 5000.0
    informer = Informer(server.access, [STATSD, "kube-system/kube-dns"], lambda: None, timing=QUICK, now=lambda: now)
    async with running(informer):
        await eventually(lambda: informer.synced)
        assert informer.status().age_seconds == 0
        now += 30
        [watch] = [one for one in server.watches if one.namespace == "monitoring"]
        watch.lines.put_nowait(b'{"type":"ADDED","object":{"kind":"Pod","metadata":{}}}\n')
        await eventually(lambda: informer.status().problems)
        assert informer.status().age_seconds == 30
        assert informer.status().resource_version == server.version


async def test_what_was_saved_serves_with_its_age_until_the_first_list(server: FakeApiServer, tmp_path: Path) -> None:
    saved = saved_as(tmp_path, server.access.server, monitoring=known("10.9.0.1", "10.9.0.2"))
    server.watch_list = "refused"
    server.answer_next(refuse(500, "Busy"), times=10)
    async with following(server.access, saved=saved) as follower:
        assert follower.addresses() == {"10.9.0.1", "10.9.0.2"}
        assert follower.informer.service(STATSD) == Service(("10.96.0.9",), True)
        age = follower.informer.status().saved_age
        assert age is not None
        assert age > 1e8
        await follower.knows("10.1.0.1")
        assert follower.informer.status().saved_age is None
        assert follower.history[-1] == {"10.1.0.1"}
        assert server.seen[0].query["resourceVersion"] == "50"


async def test_only_services_that_are_wanted_come_from_disk(tmp_path: Path) -> None:
    saved = saved_as(tmp_path, NOWHERE.server, monitoring=known("10.9.0.1", service="other"))
    informer = Informer(NOWHERE, [STATSD], lambda: None, saved=saved)
    assert informer.slices() == ()
    assert informer.service("monitoring/other") is None


async def test_a_saved_version_of_a_server_that_is_younger_is_given_up(server: FakeApiServer, tmp_path: Path) -> None:
    saved = saved_as(tmp_path, server.access.server, monitoring=known("10.9.0.1", version="999999"))
    async with following(server.access, saved=saved) as follower:
        await follower.knows("10.1.0.1")


async def test_changes_are_saved_and_a_disk_that_fails_does_no_harm(server: FakeApiServer, tmp_path: Path) -> None:
    path = tmp_path / "run" / "endpoints.json"
    saved = SavedSnapshot(path, server.access.server)
    async with following(server.access, saved=saved) as follower:
        await follower.knows("10.1.0.1")
        path.parent.mkdir()
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.until(path.exists)
        await server.put(endpoint_slice("statsd", ["10.1.0.3"]))

        def addresses() -> list[str]:
            return [end.address for one in saved.load()["monitoring"].slices for end in one.endpoints]

        await follower.until(lambda: addresses() == ["10.1.0.3"])


async def test_what_is_saved_is_renewed_although_nothing_changes(server: FakeApiServer, tmp_path: Path) -> None:
    saved = SavedSnapshot(tmp_path / "endpoints.json", server.access.server)
    async with following(server.access, timing=replace(QUICK, refresh_saved=0.02), saved=saved) as follower:
        await follower.synced()
        first = (await follower.until(saved.load))["monitoring"].at
        server.bookmark()
        await follower.until(lambda: saved.load()["monitoring"].at > first)


async def test_a_service_is_asked_for_again_at_each_clean_end(server: FakeApiServer) -> None:
    await server.put(service_object())
    async with following(server.access, timing=replace(QUICK, shortest_watch=0.0)) as follower:
        await follower.until(lambda: follower.informer.service(STATSD))
        await server.put(service_object(cluster_ip="10.96.0.21", local_only=True))
        server.end_watches()
        await follower.until(lambda: follower.informer.service(STATSD) == _local("10.96.0.21", follower.informer))
        await server.delete("Service", "monitoring", "statsd")
        server.end_watches()
        await follower.until(lambda: follower.informer.service(STATSD) is None)


async def test_a_service_that_cannot_be_read_now_is_asked_for_again_and_the_last_one_counts(
    server: FakeApiServer,
) -> None:
    await server.put(service_object())
    async with following(server.access, timing=replace(QUICK, shortest_watch=0.0)) as follower:
        before = await follower.until(lambda: follower.informer.service(STATSD))
        server.answer_next(refuse(500, "Busy"), "get", times=3)
        server.answer_next(answer(b"<html>"), "get")
        server.end_watches()
        await follower.until(lambda: follower.informer.status().problems.get("unreadable"))
        assert follower.informer.service(STATSD) == before
        assert follower.informer.status().error is None


async def test_a_mistake_of_ours_is_told_and_the_watch_begins_anew(
    server: FakeApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    failing = True

    def changed() -> None:
        if failing:
            raise ZeroDivisionError("our mistake")

    await server.put(service_object())
    informer = Informer(server.access, [STATSD], changed, timing=QUICK)
    async with running(informer):
        await eventually(lambda: informer.status().problems.get("mistake", 0) >= 2)
        assert "our mistake" in caplog.text
        failing = False
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await eventually(lambda: [end.address for one in informer.slices() for end in one.endpoints] == ["10.1.0.2"])


def _local(ip: str, informer: Informer) -> Service:
    found = informer.service(STATSD)
    assert found is not None
    return replace(found, cluster_ips=(ip,), local_only=True)
