"""What is asked of the API server, over plain HTTP: slices by list and watch, one Service, a whole kind.

It takes answers apart as far as HTTP, JSON and `Status` go; what objects mean is not its business.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver

from proxy.cluster.access import Access
from proxy.cluster.addresses import RememberedAddresses, needs_dns
from proxy.cluster.answers import ApiError, ObjectList, Status
from proxy.cluster.credentials import CredentialsError, CredentialsReader
from proxy.cluster.lines import LineSplitter, LineTooLong
from proxy.cluster.slices import SERVICE_LABEL
from proxy.cluster.timing import Timing

PAGE = 500
MOST_LIST_BYTES = 256 * 1024 * 1024
MOST_SERVICE_BYTES = 1024 * 1024

_log = logging.getLogger("sidestep.cluster")


class Api:
    """The way to one API server; credentials are read again for each `connect`."""

    def __init__(self, access: Access, timing: Timing) -> None:
        self.server = access.server
        self._server_name = access.server_name or None
        self._timing = timing
        self._reader = CredentialsReader(access)
        self._reading = asyncio.Lock()
        self._resolver: AbstractResolver | None = None
        if needs_dns(access.server):
            _log.warning("the API server %s is given by name: the first connection needs DNS", access.server)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator["Connection"]:
        """A connection for a list, a GET or a watch after each other. Raises ApiError for credentials."""
        try:
            async with self._reading:
                shown = await asyncio.to_thread(self._reader.read)
        except CredentialsError as error:
            raise ApiError(f"{self.server}: {error}", "credentials") from error
        self._resolver = self._resolver or RememberedAddresses(ThreadedResolver())
        headers = {"Accept": "application/json", "User-Agent": "sidestep"}
        if shown.token:
            headers["Authorization"] = f"Bearer {shown.token}"
        connector = aiohttp.TCPConnector(
            ssl=shown.tls if shown.tls else True, resolver=self._resolver, use_dns_cache=False
        )
        async with aiohttp.ClientSession(
            connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=1024 * 1024
        ) as session:
            yield Connection(session, self.server, self._server_name, self._timing)


class Connection:
    """What is asked in one session. Everything raises ApiError, and nothing else that the network can cause."""

    def __init__(self, session: aiohttp.ClientSession, server: str, server_name: str | None, timing: Timing) -> None:
        self._session = session
        self._server = server
        self._server_name = server_name
        self._timing = timing

    async def list(self, namespace: str, services: Iterable[str], version: str) -> ObjectList:
        """All slices of these Services, at least as new as `version` (`""`: the newest)."""
        url = self._url("apis/discovery.k8s.io/v1", namespace, "endpointslices")
        since = {"resourceVersion": version, "resourceVersionMatch": "NotOlderThan"} if version else {}
        return await self._pages(url, _selector(services), since, "EndpointSliceList")

    async def everything(self, group: str, resource: str, kind: str) -> Sequence[msgspec.Raw]:
        """All objects of a kind in the cluster, as they are now; `group` such as `api/v1`."""
        return (await self._pages(f"{self._server}/{group}/{resource}", {}, {}, f"{kind}List")).items or ()

    @contextlib.asynccontextmanager
    async def watch(
        self,
        namespace: str,
        services: Iterable[str],
        version: str,
        *,
        seconds: int,
        initial: bool,
        patience: Callable[[], float],
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A watch that the server has begun: events as JSON, one a line, until it ends it in order.

        `initial`: the present objects come first. `patience`: how many seconds without an event are too many now.
        """
        url = self._url("apis/discovery.k8s.io/v1", namespace, "endpointslices")
        query = {**_selector(services), "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        if initial:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        if version:
            query["resourceVersion"] = version
        async with (
            self._answer(url, query, total=None) as response,
            contextlib.aclosing(_lines(url, response, patience)) as lines,
        ):
            yield lines

    async def service(self, namespace: str, name: str) -> bytes | None:
        """One Service as JSON; None if there is none."""
        try:
            return await self._body(self._url("api/v1", namespace, "services", name), {}, MOST_SERVICE_BYTES)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _pages(self, url: str, query: Mapping[str, str], since: Mapping[str, str], kind: str) -> ObjectList:
        page = await self._page(url, {**query, **since, "limit": str(PAGE)}, kind)
        items = page.items or []
        while page.metadata.continue_:
            more = {**query, "limit": str(PAGE), "continue": page.metadata.continue_}
            try:
                page = await self._page(url, more, kind)
            except ApiError as error:
                if error.status != 410:
                    raise
                # The history that the pages come from was compacted: the newest, then, and all at once.
                page, items = await self._page(url, query, kind), []
            items += page.items or []
        page.items = items
        return page

    async def _page(self, url: str, query: Mapping[str, str], kind: str) -> ObjectList:
        body = await self._body(url, query, MOST_LIST_BYTES)
        try:
            page = msgspec.json.decode(body, type=ObjectList)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(f"GET {url}: no {kind}: {error}: {_begin(body)}", "not_json") from error
        if page.kind != kind or not page.metadata.resource_version:
            wrong = f"a {page.kind or 'list'}" + ("" if page.metadata.resource_version else " without a version")
            raise ApiError(f"GET {url}: answered {wrong[:100]} instead of an {kind}", "other_kind")
        return page

    async def _body(self, url: str, query: Mapping[str, str], most: int) -> bytes:
        async with self._answer(url, query, total=self._timing.answer) as response:
            with _as_api_error(url, "timeout"):
                return await _read_whole(url, response, most)

    @contextlib.asynccontextmanager
    async def _answer(
        self, url: str, query: Mapping[str, str], *, total: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response with status 200. Nothing is followed: a redirect would take the token elsewhere."""
        timing = self._timing
        longest = max(timing.silence, timing.answer)
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=timing.connect, sock_read=longest)
        with _as_api_error(url, "timeout"):
            async with asyncio.timeout(timing.answer):
                response = await self._session.get(
                    url,
                    params=query,
                    timeout=timeout,
                    allow_redirects=False,
                    server_hostname=self._server_name,
                )
        async with response:
            if response.status != 200:
                with _as_api_error(url, "timeout"):
                    async with asyncio.timeout(timing.answer):
                        raise await _refusal(url, response)
            yield response

    def _url(self, group: str, namespace: str, *rest: str) -> str:
        path = "/".join(quote(part, safe="") for part in (namespace, *rest))
        return f"{self._server}/{group}/namespaces/{path}"


async def _lines(
    url: str, response: aiohttp.ClientResponse, patience: Callable[[], float]
) -> AsyncGenerator[bytes, None]:
    splitter = LineSplitter()
    deadline = _time() + patience()
    while True:
        with _as_api_error(url, "silence"):
            async with asyncio.timeout_at(deadline):
                chunk = await _read(response)
            if not chunk and splitter.unfinished:
                raise _cut(url, splitter.begin)
            if not chunk:
                return
            lines = splitter.feed(chunk)
        for line in lines:
            yield line
        if lines:
            deadline = _time() + patience()


def _cut(url: str, begin: bytes) -> ApiError:
    if begin.lstrip().startswith(b"{"):
        return ApiError(f"GET {url}: ended in the middle of an event: {_begin(begin)}", "half_line")
    return ApiError(f"GET {url}: no watch events: {_begin(begin)}", "not_json")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The next bytes, empty at the end. That the server closed without a last chunk is an end like any other."""
    try:
        return await response.content.readany()
    except aiohttp.ClientPayloadError:
        return b""


async def _read_whole(url: str, response: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            raise ApiError(f"GET {url}: the answer is longer than {most} bytes", "too_long")
    return bytes(body)


async def _refusal(url: str, response: aiohttp.ClientResponse) -> ApiError:
    body = await _read_whole(url, response, MOST_SERVICE_BYTES)
    told = response.headers.get("Retry-After", "")
    retry_after = float(told) if told.isdecimal() and len(told) < 10 else None
    try:
        status = msgspec.json.decode(body, type=Status)
        status.code = response.status
        return status.as_error(f"GET {url}", retry_after=retry_after)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        location = response.headers.get("Location")
        found = f"redirect to {location[:200]}, which is not followed" if location else _begin(body)
        return ApiError(
            f"GET {url}: HTTP {response.status} {response.content_type}: {found}",
            "status",
            status=response.status,
            retry_after=retry_after,
        )


@contextlib.contextmanager
def _as_api_error(url: str, timed_out: str) -> Iterator[None]:
    """All that a peer or the network can cause, as ApiError; a time-out has `timed_out` as its reason."""
    try:
        yield
    except TimeoutError as error:
        said = "no connection" if isinstance(error, aiohttp.ConnectionTimeoutError) else "no answer"
        raise ApiError(f"GET {url}: {said} in time", timed_out) from error
    except LineTooLong as error:
        raise ApiError(f"GET {url}: {error}", "line_too_long") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ApiError(f"GET {url}: {str(error) or type(error).__name__}", "connection") from error


def _time() -> float:
    return asyncio.get_running_loop().time()


def _selector(services: Iterable[str]) -> dict[str, str]:
    return {"labelSelector": f"{SERVICE_LABEL} in ({','.join(sorted(services))})"}


def _begin(body: bytes) -> str:
    return f"it begins with {body[:80]!r}" if body else "it is empty"
