"""What the watch must do with any API server. A subclass has the fixture `api_server`: an `ApiServer` that runs."""

from dataclasses import replace
from pathlib import Path

from proxy.cluster.saved import SavedSnapshot
from tests.cluster.api_server import ApiServer, endpoint_slice, service_object
from tests.cluster.following import QUICK, STATSD, following

IMPATIENT = replace(QUICK, silence=1.0)
"""For servers that are frozen: quiet ones look dead too, and are asked again, without harm. (Their `answer` must be
longer than the 3 s that a real one takes to find that a version is too large.)"""
ELSEWHERE = "elsewhere/other"


def addresses(count: int, network: int = 1) -> list[str]:
    return [f"10.{network}.{number // 250}.{number % 250 + 1}" for number in range(count)]


class WatchContract:
    async def test_it_lists_what_is_there_and_follows_what_changes(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd-a", ["10.1.0.1"]))
        async with following(api_server.access) as follower:
            await follower.knows("10.1.0.1")

            await api_server.put(endpoint_slice("statsd-b", ["10.1.0.2"]))
            await follower.knows("10.1.0.1", "10.1.0.2")
            await api_server.put(endpoint_slice("statsd-a", ["10.1.0.3"]))
            await follower.knows("10.1.0.2", "10.1.0.3")
            await api_server.delete("EndpointSlice", "monitoring", "statsd-b")
            await follower.knows("10.1.0.3")

            assert follower.informer.synced
            assert not follower.informer.status().problems

    async def test_it_sees_only_the_services_that_it_was_given(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("dns", ["10.1.0.1"], service="kube-system/kube-dns"))
        await api_server.put(endpoint_slice("foreign", ["10.1.0.2"], service="monitoring/foreign"))
        await api_server.put(endpoint_slice("statsd", ["10.1.0.3"]))
        await api_server.put(endpoint_slice("events", ["10.1.0.4"], service="monitoring/events"))
        async with following(api_server.access, STATSD, "monitoring/events", "kube-system/kube-dns") as follower:
            await follower.synced()
            await follower.knows("10.1.0.1", "10.1.0.3", "10.1.0.4")

            assert follower.addresses("kube-system/kube-dns") == {"10.1.0.1"}

    async def test_it_drops_a_slice_that_moves_to_another_service(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        async with following(api_server.access) as follower:
            await follower.knows("10.1.0.1")
            await api_server.put(endpoint_slice("statsd", ["10.1.0.1"], service="monitoring/foreign"))
            await follower.knows()

    async def test_it_follows_other_services_after_a_reload(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        await api_server.put(endpoint_slice("events", ["10.1.0.2"], service="monitoring/events"))
        async with following(api_server.access) as follower:
            await follower.knows("10.1.0.1")
            follower.informer.follow([STATSD, "monitoring/events"])
            assert follower.addresses() == {"10.1.0.1"}
            assert not follower.informer.synced
            await follower.knows("10.1.0.1", "10.1.0.2")
            follower.informer.follow(["monitoring/events"])
            assert follower.addresses() == {"10.1.0.2"}
            await follower.synced()

    async def test_services_without_slices_keep_nobody_waiting(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        async with following(api_server.access, STATSD, "monitoring/typo", "nowhere/at-all") as follower:
            await follower.synced()
            assert follower.addresses() == {"10.1.0.1"}

    async def test_it_lists_anew_when_its_version_was_compacted(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd-a", ["10.1.0.1"]))
        async with following(api_server.access) as follower:
            await follower.knows("10.1.0.1")
            for number in range(3):  # Versions that this watch never hears of.
                await api_server.put(endpoint_slice(f"other-{number}", ["10.2.0.1"], service=ELSEWHERE))
            await api_server.compact()
            await api_server.put(endpoint_slice("statsd-b", ["10.1.0.2"]))
            await follower.knows("10.1.0.1", "10.1.0.2")
            await api_server.delete("EndpointSlice", "monitoring", "statsd-a")
            await follower.knows("10.1.0.2")
            assert follower.informer.status().problems["expired"]

    async def test_what_is_known_serves_on_while_the_server_is_frozen(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        async with following(api_server.access, timing=IMPATIENT) as follower:
            await follower.knows("10.1.0.1")
            await api_server.freeze()
            await follower.until(lambda: follower.informer.status().error)
            assert follower.addresses() == {"10.1.0.1"}
            await api_server.thaw()
            await api_server.put(endpoint_slice("statsd", ["10.1.0.2"]))
            await follower.knows("10.1.0.2")
            assert set() not in follower.history

    async def test_what_is_known_serves_on_while_the_server_is_gone(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        async with following(api_server.access) as follower:
            await follower.knows("10.1.0.1")
            await api_server.stop()
            error = await follower.until(lambda: follower.informer.status().error)
            assert api_server.access.server in error
            assert follower.addresses() == {"10.1.0.1"}
            await api_server.start()
            await api_server.put(endpoint_slice("statsd", ["10.1.0.2"]))
            await follower.knows("10.1.0.2")
            assert set() not in follower.history

    async def test_it_goes_back_to_an_older_state_with_a_server_that_was_restored(
        self, api_server: ApiServer
    ) -> None:
        await api_server.put(endpoint_slice("statsd-a", ["10.1.0.1"]))
        await api_server.remember()
        async with following(api_server.access, timing=IMPATIENT) as follower:
            await api_server.put(endpoint_slice("statsd-b", ["10.1.0.2"]))
            for number in range(10):
                await api_server.put(endpoint_slice(f"other-{number}", ["10.2.0.1"], service=ELSEWHERE))
            await api_server.put(endpoint_slice("statsd-a", ["10.1.0.3"]))
            await follower.knows("10.1.0.2", "10.1.0.3")
            await api_server.restore()
            await follower.knows("10.1.0.1")

    async def test_it_reads_its_token_again(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        async with following(api_server.access) as follower:
            await follower.knows("10.1.0.1")
            await api_server.rotate_token()
            await api_server.stop()
            await api_server.start()
            await api_server.put(endpoint_slice("statsd", ["10.1.0.2"]))
            await follower.knows("10.1.0.2")

    async def test_it_says_what_is_forbidden_and_goes_on_when_it_is_allowed(self, api_server: ApiServer) -> None:
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        for verb in ("list", "watch"):
            await api_server.forbid(verb, "endpointslices")
        async with following(api_server.access) as follower:
            error = await follower.until(lambda: follower.informer.status().error)
            assert "403" in error
            assert "endpointslices" in error
            assert not follower.informer.synced
            for verb in ("list", "watch"):
                await api_server.allow(verb, "endpointslices")
            await follower.knows("10.1.0.1")
            await follower.until(lambda: follower.informer.status().error is None)

    async def test_it_knows_a_services_address_and_policy(self, api_server: ApiServer) -> None:
        await api_server.put(service_object(cluster_ip="10.96.0.20", local_only=True))
        async with following(api_server.access) as follower:
            service = await follower.until(lambda: follower.informer.service(STATSD))
            assert service.cluster_ips == ("10.96.0.20",)
            assert service.local_only
            assert follower.informer.service("monitoring/other") is None

    async def test_it_works_without_leave_to_read_services(self, api_server: ApiServer) -> None:
        await api_server.put(service_object())
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        await api_server.forbid("get", "services")
        async with following(api_server.access) as follower:
            await follower.knows("10.1.0.1")
            await follower.until(lambda: follower.informer.status().problems.get("service_forbidden"))
            assert follower.informer.service(STATSD) is None
            assert follower.informer.status().error is None

    async def test_it_takes_1000_endpoints_in_10_slices_and_1000_in_one(self, api_server: ApiServer) -> None:
        for number in range(10):
            await api_server.put(endpoint_slice(f"statsd-{number}", addresses(100, number + 1)))
        async with following(api_server.access) as follower:
            await follower.until(lambda: len(follower.addresses()) == 1000)
            crowd = [
                {
                    "addresses": [address],
                    "targetRef": {"kind": "Pod", "namespace": "monitoring", "name": f"statsd-{address}" + "x" * 150},
                }
                for address in addresses(1000, 20)
            ]
            await api_server.put(endpoint_slice("statsd-crowd", crowd))
            await follower.until(lambda: len(follower.addresses()) == 2000)

    async def test_it_ends_right_after_a_rolling_update_of_100_pods(self, api_server: ApiServer) -> None:
        old, new = addresses(100, 1), addresses(100, 2)
        await api_server.put(endpoint_slice("statsd", old))
        async with following(api_server.access) as follower:
            await follower.knows(*old)
            for number in range(1, 101):
                await api_server.put(endpoint_slice("statsd", new[:number] + old[number:]))
            await follower.knows(*new)
            assert all(len(known) == 100 for known in follower.history)

    async def test_it_starts_from_disk_while_the_server_is_away(self, api_server: ApiServer, tmp_path: Path) -> None:
        saved = SavedSnapshot(tmp_path / "endpoints.json", api_server.access.server)
        await api_server.put(endpoint_slice("statsd-a", ["10.1.0.1"]))
        await api_server.put(endpoint_slice("statsd-b", ["10.1.0.2"]))
        async with following(api_server.access, saved=saved) as follower:
            await follower.knows("10.1.0.1", "10.1.0.2")
            await follower.until(lambda: [len(one.slices) for one in saved.load().values()] == [2])
        await api_server.delete("EndpointSlice", "monitoring", "statsd-a")
        await api_server.stop()
        async with following(api_server.access, saved=saved) as follower:
            assert follower.addresses() == {"10.1.0.1", "10.1.0.2"}
            assert follower.informer.status().saved_age is not None
            await follower.until(lambda: follower.informer.status().error)
            assert not follower.informer.synced
            await api_server.start()
            await follower.knows("10.1.0.2")
            assert follower.informer.status().saved_age is None

    async def test_it_asks_for_nothing_that_it_has_no_need_of(self, api_server: ApiServer) -> None:
        await api_server.put(service_object())
        await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
        async with following(api_server.access) as follower:
            await follower.knows("10.1.0.1")
            await follower.until(lambda: follower.informer.service(STATSD))
        assert await api_server.requested() <= {
            ("list", "endpointslices"),
            ("watch", "endpointslices"),
            ("get", "services"),
        }
