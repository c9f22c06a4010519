"""Items 1 to 13 and 26 to 28 of the checklist for watch clients, each against the fake API server."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from proxy.cluster.timing import Timing
from tests.cluster.api_server import endpoint_slice
from tests.cluster.certificates import make_certificate, server_context
from tests.cluster.fake_api_server import FakeApiServer, answer, drip, hang, refuse, stream
from tests.cluster.following import QUICK, STATSD, following

LONG_ENOUGH = replace(QUICK, shortest_watch=0.0)
"""However soon a watch ends, it ended in order."""


@pytest.fixture
async def server(server: FakeApiServer) -> FakeApiServer:
    await server.put(endpoint_slice("statsd", ["10.1.0.1"]))
    return server


def line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


async def test_item_01_the_first_list_takes_what_the_server_has_in_memory_and_the_watch_goes_on_from_there(
    server: FakeApiServer,
) -> None:
    server.watch_list = "refused"
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        await server.until(lambda: len(server.asked("watch")) == 2)
        [listed] = server.asked("list")
        assert listed.query["resourceVersion"] == "0"
        assert server.asked("watch")[-1].query["resourceVersion"] == server.version


async def test_item_02_after_an_expired_watch_it_lists_from_the_last_version(server: FakeApiServer) -> None:
    server.watch_list = "refused"
    async with following(server.access, timing=LONG_ENOUGH) as follower:
        await follower.knows("10.1.0.1")
        last = server.version
        await server.put(endpoint_slice("other", [], service="monitoring/other"))
        await server.compact()
        await server.until(lambda: len(server.asked("list")) == 2)
        assert server.asked("list")[-1].query["resourceVersion"] == last
        assert server.asked("list")[-1].query["resourceVersionMatch"] == "NotOlderThan"


async def test_item_02_only_if_that_list_is_expired_too_it_lists_the_newest(server: FakeApiServer) -> None:
    server.watch_list = "refused"
    async with following(server.access, timing=LONG_ENOUGH) as follower:
        await follower.knows("10.1.0.1")
        await server.put(endpoint_slice("other", [], service="monitoring/other"))
        server.answer_next(refuse(410, "Expired"), "list")
        await server.compact()
        await server.until(lambda: len(server.asked("list")) == 3)
        assert "resourceVersion" not in server.asked("list")[-1].query


async def test_item_02_a_version_that_is_too_large_is_given_up(server: FakeApiServer) -> None:
    await server.remember()
    await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
    async with following(server.access, timing=replace(LONG_ENOUGH, silence=0.3)) as follower:
        await follower.knows("10.1.0.2")
        await server.restore()
        await follower.knows("10.1.0.1")


@pytest.mark.parametrize("form", ["status", "event"])
async def test_item_03_410_counts_as_a_status_and_as_an_event(
    server: FakeApiServer, form: Literal["status", "event"]
) -> None:
    server.expired_form = form
    async with following(server.access, timing=LONG_ENOUGH) as follower:
        await follower.knows("10.1.0.1")
        await server.put(endpoint_slice("other", [], service="monitoring/other"))
        await server.compact()
        await follower.until(lambda: follower.informer.status().problems.get("expired"))
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")


async def test_item_04_a_list_replaces_all_at_once_and_what_was_known_serves_until_then(
    server: FakeApiServer,
) -> None:
    await server.put(endpoint_slice("statsd-2", ["10.1.0.2"]))
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1", "10.1.0.2")
        await server.stop()
        await server.delete("EndpointSlice", "monitoring", "statsd")
        await server.put(endpoint_slice("statsd-3", ["10.1.0.3"]))
        await server.compact()
        assert follower.addresses() == {"10.1.0.1", "10.1.0.2"}
        told = len(follower.history)
        await server.start()
        await follower.knows("10.1.0.2", "10.1.0.3")
        assert follower.history[told:] == [{"10.1.0.2", "10.1.0.3"}]


async def test_item_05_a_bookmark_moves_the_version(server: FakeApiServer) -> None:
    async with following(server.access, timing=LONG_ENOUGH) as follower:
        await follower.knows("10.1.0.1")
        assert server.asked("watch")[0].query["allowWatchBookmarks"] == "true"
        await server.put(endpoint_slice("other", [], service="monitoring/other"))
        server.bookmark()
        await follower.until(lambda: follower.informer.status().resource_version == server.version)
        server.end_watches()
        await server.until(lambda: len(server.asked("watch")) == 2)
        assert server.asked("watch")[-1].query["resourceVersion"] == server.version


async def test_item_05_it_follows_a_server_without_bookmarks(server: FakeApiServer) -> None:
    server.watch_list = "refused"
    async with following(server.access, timing=replace(LONG_ENOUGH, silence=0.2)) as follower:
        await follower.knows("10.1.0.1")
        await server.until(lambda: len(server.asked("list")) == 3)
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")


async def test_item_06_a_watch_that_ends_in_order_goes_on_from_the_last_version(server: FakeApiServer) -> None:
    async with following(server.access, timing=LONG_ENOUGH) as follower:
        await follower.knows("10.1.0.1")
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")
        for count in range(2, 6):
            server.end_watches()
            await server.until(lambda count=count: len(server.asked("watch")) == count and bool(server.watches))
        watches = server.asked("watch")
        assert {one.query["resourceVersion"] for one in watches[1:]} == {server.version}
        assert all("sendInitialEvents" not in one.query for one in watches[1:])
        seconds = [int(one.query["timeoutSeconds"]) for one in watches]
        assert all(300 <= one <= 600 for one in seconds)
        assert len(set(seconds)) > 1
        assert follower.informer.status().restarts == 0


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_item_07_a_busy_server_is_asked_for_the_same_watch_again(server: FakeApiServer, code: int) -> None:
    async with following(server.access, timing=LONG_ENOUGH) as follower:
        await follower.knows("10.1.0.1")
        server.answer_next(refuse(code, "Busy", retry_after="0"), "watch", times=5)
        server.end_watches()
        await server.until(lambda: len(server.asked("watch")) == 7)
        assert {one.query["resourceVersion"] for one in server.asked("watch")[1:]} == {server.version}
        assert not server.asked("list")


async def test_item_07_it_waits_as_long_as_the_server_asks_for(server: FakeApiServer) -> None:
    async with following(server.access, timing=replace(LONG_ENOUGH, most_retry_after=0.7)) as follower:
        await follower.knows("10.1.0.1")
        server.answer_next(refuse(429, "TooManyRequests", retry_after="86400"), "watch")
        server.end_watches()
        state = await follower.until(lambda: (found := follower.informer.status().state).startswith("wait") and found)
        assert state.startswith("waiting 0.7")
        await server.until(lambda: len(server.asked("watch")) == 3)


async def test_item_07_a_refused_connection_is_no_reason_to_list(server: FakeApiServer) -> None:
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        await server.stop()
        await follower.until(lambda: follower.informer.status().problems.get("connection", 0) > 5)
        await server.start()
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")
        assert not server.asked("list")
        assert [one.query.get("sendInitialEvents") for one in server.asked("watch")].count("true") == 1


async def test_item_08_a_watch_shorter_than_a_second_is_an_error_and_after_three_it_lists(
    server: FakeApiServer,
) -> None:
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        server.answer_next(stream(), "watch", times=3)
        server.end_watches()
        await server.until(lambda: len(server.asked("watch")) == 5)
        kinds = ["sendInitialEvents" in one.query for one in server.asked("watch")]
        assert kinds == [True, False, False, False, True]
        assert follower.informer.status().problems["short_watch"] >= 3


async def test_item_09_it_watches_with_the_present_objects_first(server: FakeApiServer) -> None:
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        [watch] = server.asked("watch")
        assert watch.query["sendInitialEvents"] == "true"
        assert watch.query["resourceVersionMatch"] == "NotOlderThan"
        assert watch.query["allowWatchBookmarks"] == "true"
        assert not server.asked("list")


async def test_item_09_nothing_serves_before_the_initial_events_have_ended(server: FakeApiServer) -> None:
    objects = [endpoint_slice("statsd", ["10.1.0.1"]), endpoint_slice("statsd-2", ["10.1.0.2"])]
    for number, one in enumerate(objects):
        one["metadata"]["resourceVersion"] = str(90 + number)
    server.answer_next(stream(*(line({"type": "ADDED", "object": one}) for one in objects), hang=True), "watch")
    async with following(server.access) as follower:
        await follower.until(lambda: follower.informer.status().age_seconds is not None)
        assert not follower.addresses()
        assert not follower.informer.synced


@pytest.mark.parametrize("support", ["refused", "ignored"])
async def test_item_09_it_lists_where_the_server_does_not_know_that(
    server: FakeApiServer, support: Literal["refused", "ignored"]
) -> None:
    server.watch_list = support
    async with following(server.access, timing=replace(QUICK, first_word=0.2)) as follower:
        await follower.knows("10.1.0.1")
        assert server.asked("list")
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")


async def test_item_10_the_versions_of_initial_events_are_no_progress(server: FakeApiServer) -> None:
    event = {"type": "ADDED", "object": endpoint_slice("statsd", ["10.1.0.9"])}
    event["object"]["metadata"]["resourceVersion"] = "99"  # type: ignore[index]
    server.answer_next(stream(line(event), cut=True), "watch")
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        assert [one.query["resourceVersion"] for one in server.seen[:2]] == ["0", "0"]
        assert not any("10.1.0.9" in known for known in follower.history)


@pytest.mark.parametrize("silent", [stream(hang=True), drip], ids=["hang", "drip"])
async def test_item_11_a_stream_without_event_or_bookmark_is_dead(server: FakeApiServer, silent: Any) -> None:
    async with following(server.access, timing=replace(LONG_ENOUGH, silence=0.3)) as follower:
        await follower.knows("10.1.0.1")
        server.answer_next(silent, "watch")
        server.end_watches()
        await follower.until(lambda: follower.informer.status().problems.get("silence"))
        assert (follower.informer.status().error, follower.informer.status().restarts) == (None, 0)
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")


async def test_item_11_an_answer_that_never_begins_is_given_up(server: FakeApiServer) -> None:
    async with following(server.access, timing=replace(LONG_ENOUGH, answer=0.2)) as follower:
        await follower.knows("10.1.0.1")
        server.answer_next(hang, "watch")
        server.end_watches()
        await follower.until(lambda: follower.informer.status().problems.get("timeout"))
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")


def test_item_11_silence_means_more_than_the_minute_between_bookmarks() -> None:
    assert Timing().silence == 70.0


async def test_item_12_an_outage_leaves_the_last_endpoints_and_shows_their_age(server: FakeApiServer) -> None:
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        await server.stop()
        await follower.until(lambda: follower.informer.status().problems.get("connection", 0) > 3)
        status = follower.informer.status()
        assert follower.addresses() == {"10.1.0.1"}
        assert set() not in follower.history
        assert status.age_seconds is not None
        assert status.error
        assert "Cannot connect" in status.error
        assert follower.informer.synced
        await server.start()


async def test_item_13_a_rotated_token_is_read_for_the_next_connection(server: FakeApiServer) -> None:
    async with following(server.access, timing=LONG_ENOUGH) as follower:
        await follower.knows("10.1.0.1")
        await server.rotate_token()
        server.end_watches()
        await server.until(lambda: server.seen[-1].token == server.token and bool(server.watches))
        assert follower.informer.status().restarts == 0


async def test_item_13_after_401_the_token_is_read_again(server: FakeApiServer) -> None:
    server.token_file.write_text("stale")
    async with following(server.access) as follower:
        error = await follower.until(lambda: follower.informer.status().error)
        assert "401" in error
        server.token_file.write_text(server.token)
        await follower.knows("10.1.0.1")


async def test_item_13_a_rotated_ca_is_read_for_the_next_connection(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(make_certificate(tmp_path, "stranger")[0].read_bytes())
    server = FakeApiServer(tmp_path, tls=server_context(certificate, key), ca_file=ca_file)
    await server.start()
    await server.put(endpoint_slice("statsd", ["10.1.0.1"]))
    async with following(server.access) as follower:
        error = await follower.until(lambda: follower.informer.status().error)
        assert "certificate verify failed" in error
        assert not server.seen
        ca_file.write_bytes(certificate.read_bytes())
        await follower.knows("10.1.0.1")
    await server.stop()


async def test_item_26_one_watch_a_namespace_with_the_names_as_its_selector(server: FakeApiServer) -> None:
    async with following(server.access, STATSD, "monitoring/events", "kube-system/kube-dns") as follower:
        await follower.synced()
        await server.until(lambda: len(server.watches) == 2)
        selectors = {one.namespace: one.query["labelSelector"] for one in server.asked("watch")}
        assert len(server.asked("watch")) == 2
        assert selectors == {
            "monitoring": "kubernetes.io/service-name in (events,statsd)",
            "kube-system": "kubernetes.io/service-name in (kube-dns)",
        }


async def test_item_26_a_namespace_whose_services_stay_the_same_is_not_asked_again(server: FakeApiServer) -> None:
    async with following(server.access, STATSD, "kube-system/kube-dns") as follower:
        await follower.synced()
        follower.informer.follow([STATSD, "kube-system/kube-dns", "kube-system/metrics"])
        await follower.synced()
        assert [one.namespace for one in server.asked("watch")].count("monitoring") == 1


async def test_item_27_a_removal_is_told_at_once_also_in_a_burst(server: FakeApiServer) -> None:
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        told = len(follower.history)
        await server.put(endpoint_slice("statsd", ["10.1.0.1", "10.1.0.2"]))
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await server.put(endpoint_slice("statsd", ["10.1.0.2", "10.1.0.3"]))
        await follower.knows("10.1.0.2", "10.1.0.3")
        assert follower.history[told:] == [
            {"10.1.0.1", "10.1.0.2"},
            {"10.1.0.2"},
            {"10.1.0.2", "10.1.0.3"},
        ]


async def test_item_28_the_delay_is_counted_from_the_cause_of_the_change(server: FakeApiServer) -> None:
    def caused_before(seconds: float) -> dict[str, str]:
        caused = datetime.fromtimestamp(time.time() - seconds, UTC).isoformat().replace("+00:00", "Z")
        return {"endpoints.kubernetes.io/last-change-trigger-time": caused}

    await server.put(endpoint_slice("old", ["10.1.0.8"], annotations=caused_before(86400)))
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1", "10.1.0.8")
        assert follower.informer.status().event_delay is None
        await server.put(endpoint_slice("statsd", ["10.1.0.2"], annotations=caused_before(500)))
        await follower.knows("10.1.0.2", "10.1.0.8")
        delay = follower.informer.status().event_delay
        assert delay is not None
        assert 500 <= delay < 1000


BAD_INPUT = {
    "html": (answer(b"<html>login</html>", content_type="text/html"), "not_json"),
    "garbage": (stream(b"\x00\xff garbage\n"), "not_json"),
    "half a line": (stream(b'{"type": "MODIFIED", "object": {"kind"', cut=True), "half_line"),
    "redirect": (answer(b"", 302, Location="http://192.0.2.1/"), "status"),
    "other error": (
        stream(line({"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is ill"}})),
        "error_event",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
async def test_bad_answers_are_counted_and_the_last_endpoints_serve(server: FakeApiServer, name: str) -> None:
    handler, reason = BAD_INPUT[name]
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        server.answer_next(handler, "watch")
        server.end_watches()
        await follower.until(lambda: follower.informer.status().problems.get(reason))
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")
        assert set() not in follower.history


BAD_EVENTS = {
    "unreadable": {"type": "MODIFIED", "object": {"kind": "EndpointSlice", "metadata": []}},
    "other_kind": {"type": "DELETED", "object": {"kind": "Pod", "metadata": {"name": "statsd"}}},
    "unknown_event": {"type": "MOVED", "object": {"kind": "EndpointSlice", "metadata": {"name": "statsd"}}},
    "flawed": {
        "type": "ADDED",
        "object": {**endpoint_slice("bad", ["nonsense"]), "ports": None},
    },
}


@pytest.mark.parametrize("reason", BAD_EVENTS)
async def test_bad_events_are_counted_and_the_stream_goes_on(server: FakeApiServer, reason: str) -> None:
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        await server.until(lambda: bool(server.watches))
        server.say(BAD_EVENTS[reason])
        await server.put(endpoint_slice("statsd-2", ["10.1.0.2"]))
        await follower.knows("10.1.0.1", "10.1.0.2")
        status = follower.informer.status()
        assert status.problems == {reason: 1}
        assert status.last_problem
        assert status.restarts == 0


async def test_a_list_of_another_kind_empties_nothing(server: FakeApiServer) -> None:
    server.watch_list = "refused"
    pods = b'{"kind": "PodList", "metadata": {"resourceVersion": "200"}, "items": []}'
    async with following(server.access, timing=LONG_ENOUGH) as follower:
        await follower.knows("10.1.0.1")
        await server.put(endpoint_slice("other", [], service="monitoring/other"))
        server.answer_next(answer(pods), "list")
        await server.compact()
        await follower.until(lambda: follower.informer.status().problems.get("other_kind"))
        assert follower.addresses() == {"10.1.0.1"}


async def test_a_repeated_or_outdated_event_changes_nothing(server: FakeApiServer) -> None:
    async with following(server.access) as follower:
        await follower.knows("10.1.0.1")
        await server.until(lambda: bool(server.watches))
        [old] = server.slices("monitoring", frozenset({"statsd"}))
        await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")
        told = len(follower.history)
        server.say({"type": "MODIFIED", "object": old})
        server.say({"type": "DELETED", "object": old})
        await server.put(endpoint_slice("statsd-2", ["10.1.0.3"]))
        await follower.knows("10.1.0.2", "10.1.0.3")
        assert follower.history[told:] == [{"10.1.0.2", "10.1.0.3"}]


async def test_a_list_comes_in_pages(server: FakeApiServer) -> None:
    server.watch_list, server.page_size = "refused", 2
    for number in range(2, 8):
        await server.put(endpoint_slice(f"statsd-{number}", [f"10.1.0.{number}"]))
    expected = [f"10.1.0.{number}" for number in range(1, 8)]
    async with following(server.access) as follower:
        await follower.knows(*expected)
    assert len(server.asked("list")) == 4
