import asyncio
import logging
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.cluster.access import Access
from proxy.cluster.answers import ApiError
from proxy.cluster.api import Api
from proxy.cluster.timing import Timing
from tests.cluster.api_server import endpoint_slice, service_object
from tests.cluster.fake_api_server import FakeApiServer, Handler, answer, drip, hang, refuse, stream

QUICK = Timing(connect=0.5, answer=0.5)


async def list_statsd(access: Access, version: str = "", timing: Timing = QUICK) -> list[bytes]:
    async with Api(access, timing).connect() as connection:
        page = await connection.list("monitoring", ["statsd"], version)
        return [bytes(item) for item in page.items or ()]


async def watch_statsd(access: Access, timing: Timing = QUICK, patience: float = 5.0) -> list[bytes]:
    async with (
        Api(access, timing).connect() as connection,
        connection.watch(
            "monitoring", ["statsd"], "7", seconds=300, initial=False, patience=lambda: patience
        ) as lines,
    ):
        return [line async for line in lines]


async def test_it_gives_all_items_of_all_pages(server: FakeApiServer) -> None:
    server.page_size = 2
    for number in range(5):
        await server.put(endpoint_slice(f"statsd-{number}", []))
    assert len(await list_statsd(server.access)) == 5
    assert len(server.seen) == 3


async def test_a_list_whose_pages_expired_is_taken_anew_and_whole(server: FakeApiServer) -> None:
    server.page_size = 2
    for number in range(5):
        await server.put(endpoint_slice(f"statsd-{number}", []))

    async def expire(request: object) -> object:
        server.page_size = None
        return await refuse(410, "Expired")(request)  # type: ignore[arg-type]

    async with Api(server.access, QUICK).connect() as connection:
        first = asyncio.ensure_future(connection.list("monitoring", ["statsd"], "0"))
        await server.until(lambda: len(server.seen) == 1)
        server.answer_next(expire, "list")  # type: ignore[arg-type]
        page = await first
    assert len(page.items or ()) == 5
    assert "continue" not in server.seen[-1].query
    assert "limit" not in server.seen[-1].query


async def test_a_service_is_given_as_it_is_and_none_if_there_is_none(server: FakeApiServer) -> None:
    await server.put(service_object())
    async with Api(server.access, QUICK).connect() as connection:
        found = await connection.service("monitoring", "statsd")
        assert found is not None
        assert b'"10.96.0.20"' in found
        assert await connection.service("monitoring", "other") is None


async def test_a_watch_takes_lines_over_a_mebibyte(server: FakeApiServer) -> None:
    long = b'{"x": "' + b"y" * 3_000_000 + b'"}'
    server.answer_next(stream(b'{"first": 1}\n', long + b"\n"))
    assert await watch_statsd(server.access) == [b'{"first": 1}', long]


async def test_a_watch_that_breaks_off_between_lines_has_ended_in_order(server: FakeApiServer) -> None:
    server.answer_next(stream(b'{"first": 1}\n', cut=True))
    assert await watch_statsd(server.access) == [b'{"first": 1}']


async def test_half_a_line_is_never_given(server: FakeApiServer) -> None:
    server.answer_next(stream(b'{"first": 1}\n{"sec', cut=True))
    with pytest.raises(ApiError, match="middle of an event") as caught:
        await watch_statsd(server.access)
    assert caught.value.reason == "half_line"


@pytest.mark.parametrize(
    ("handler", "reason", "said"),
    [
        (answer(b"<html>log in</html>", content_type="text/html"), "not_json", "<html>log in"),
        (answer(b""), "not_json", "it is empty"),
        (answer(b"[" * 200_000), "not_json", r"\[\["),
        (answer(b'{"kind": "PodList", "metadata": {"resourceVersion": "1"}}'), "other_kind", "a PodList"),
        (answer(b'{"kind": "EndpointSliceList", "metadata": {}}'), "other_kind", "without a version"),
        (answer(b"<html>proxy</html>", 502, "text/html"), "status", "502 text/html: it begins with b'<html>proxy"),
        (answer(b"", 307, Location="http://192.0.2.1/"), "status", "redirect to http://192.0.2.1/"),
        (refuse(403, "Forbidden"), "status", "403 Forbidden"),
        (hang, "timeout", "no answer in time"),
        (drip, "timeout", "no answer in time"),
    ],
)
async def test_an_answer_that_is_no_list_is_an_error_with_its_url_and_beginning(
    server: FakeApiServer, handler: Handler, reason: str, said: str
) -> None:
    server.answer_next(handler)
    with pytest.raises(ApiError, match=said) as caught:
        await list_statsd(server.access)
    assert caught.value.reason == reason
    assert f"{server.access.server}/apis/discovery.k8s.io/v1/namespaces/monitoring/endpointslices" in str(
        caught.value
    )


async def test_a_redirect_is_not_followed_and_no_token_goes_elsewhere(server: FakeApiServer, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = FakeApiServer(tmp_path / "elsewhere")
    await elsewhere.start()
    for code in (301, 302, 303, 307, 308):
        server.answer_next(answer(b"", code, Location=f"{elsewhere.access.server}/"))
        with pytest.raises(ApiError, match="not followed"):
            await list_statsd(server.access)
    assert not elsewhere.seen
    await elsewhere.stop()


async def test_it_tells_410_a_too_large_version_and_retry_after(server: FakeApiServer) -> None:
    server.answer_next(refuse(410, "Gone"))
    with pytest.raises(ApiError) as caught:
        await list_statsd(server.access)
    assert caught.value.reason == "expired"
    with pytest.raises(ApiError) as caught:
        await list_statsd(server.access, "999999")
    assert caught.value.reason == "too_large_version"
    server.answer_next(refuse(429, "TooManyRequests", retry_after="17"))
    with pytest.raises(ApiError) as caught:
        await list_statsd(server.access)
    assert (caught.value.status, caught.value.retry_after) == (429, 17)


@pytest.mark.parametrize(
    ("told", "heard"), [(3, 3.0), (0, None), (-1000, None), pytest.param(10**400, 1e9, id="huge")]
)
async def test_a_wait_that_a_status_asks_for_is_never_less_than_none(
    server: FakeApiServer, told: int, heard: float | None
) -> None:
    details = f'{{"retryAfterSeconds": {told}}}'
    server.answer_next(answer(f'{{"kind": "Status", "code": 429, "details": {details}}}'.encode(), 429))
    with pytest.raises(ApiError) as caught:
        await list_statsd(server.access)
    assert (caught.value.status, caught.value.retry_after) == (429, heard)


async def test_nothing_that_listens_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ApiError, match=f"127.0.0.1:{port}") as caught:
        await list_statsd(Access(f"http://127.0.0.1:{port}"))
    assert caught.value.reason == "connection"


async def test_a_handshake_that_hangs_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        access = Access(f"https://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ApiError, match="no connection in time") as caught:
            await list_statsd(access, timing=replace(QUICK, connect=0.1))
    assert caught.value.reason == "timeout"


async def test_a_server_that_speaks_no_http_is_a_connection_error() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as listening:
        access = Access(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        with pytest.raises(ApiError) as caught:
            await list_statsd(access)
    assert caught.value.reason == "connection"


async def test_a_token_that_cannot_be_read_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match=str(tmp_path / "token")) as caught:
        await list_statsd(Access("http://127.0.0.1:1", token_file=tmp_path / "token"))
    assert caught.value.reason == "credentials"


async def test_names_cannot_leave_their_place_in_the_path(server: FakeApiServer) -> None:
    async with Api(server.access, QUICK).connect() as connection:
        assert await connection.service("monitoring", "../../secrets/x") is None
    assert "secrets" not in {one.resource for one in server.seen}


async def test_a_server_given_by_name_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    Api(Access("https://kubernetes.default.svc"), QUICK)
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "needs DNS" in warning.getMessage()
    caplog.clear()
    Api(Access("https://10.96.0.1"), QUICK)
    assert not caplog.records
