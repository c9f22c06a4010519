"""A fake API server on a real socket, with the resourceVersion semantics of the real one and faults to switch on.

One version counter for all objects, a log of events that can be compacted, watches that replay it. An answer can be
replaced by anything (`answer_next`), and anything can be said on the open watches (`say`, `end_watches`).
"""

import asyncio
import copy
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

from proxy.cluster.access import Access
from tests.cluster.api_server import Kind, Manifest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = dict[str, Any]

SLICES = "/apis/discovery.k8s.io/v1/namespaces/"
SERVICES = "/api/v1/namespaces/"
LABEL = "kubernetes.io/service-name"
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class Seen:
    """One request."""

    verb: str
    resource: str
    namespace: str
    query: Mapping[str, str]
    token: str


@dataclass(frozen=True)
class Change:
    version: int
    before: Body | None
    after: Body | None


@dataclass(eq=False)
class Watch:
    """One open watch: lines to write, and None for its end."""

    namespace: str
    services: frozenset[str]
    lines: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)


class FakeApiServer:
    """Implements `ApiServer`. `directory` is where its token lies."""

    def __init__(self, directory: Path, *, tls: ssl.SSLContext | None = None, ca_file: Path | None = None) -> None:
        self.token_file = directory / "token"
        self.token = "token-1"
        self.token_file.write_text(self.token)
        self.expired_form: Literal["status", "event"] = "status"
        """How 410 comes: as the HTTP status or as an ERROR event in a 200 stream."""
        self.watch_list: Literal["served", "refused", "ignored"] = "served"
        self.page_size: int | None = None
        """At most so many items a page, whatever the client asks."""
        self.seen: list[Seen] = []
        self.watches: set[Watch] = set()
        self._ca_file = ca_file
        self._tls = tls
        self._version = 100
        self._objects: dict[tuple[str, str, str], Body] = {}
        self._log: list[Change] = []
        self._compacted = 0
        self._pages: dict[str, tuple[int, list[Body]]] = {}
        self._copy: tuple[int, dict[tuple[str, str, str], Body]] = (100, {})
        self._forbidden: set[tuple[str, str]] = set()
        self._answers: list[tuple[str, Handler]] = []
        self._running = asyncio.Event()
        self._running.set()
        self._noticed = asyncio.Condition()
        self._transports: set[Any] = set()
        self._handling: set[asyncio.Task[web.StreamResponse]] = set()
        self._port = 0
        self._socket: asyncio.Server | None = None

    # What contract tests use.

    @property
    def access(self) -> Access:
        scheme = "https" if self._tls else "http"
        return Access(f"{scheme}://127.0.0.1:{self._port}", token_file=self.token_file, ca_file=self._ca_file)

    @property
    def version(self) -> str:
        """The newest resourceVersion."""
        return str(self._version)

    async def put(self, manifest: Manifest) -> str:
        body: Body = copy.deepcopy(dict(manifest))
        metadata = body["metadata"]
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        key = (body["kind"], metadata["namespace"], metadata["name"])
        self._record(key, body)
        return str(self._version)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        assert (kind, namespace, name) in self._objects
        self._version += 1
        self._record((kind, namespace, name), None)

    async def compact(self) -> None:
        self._compacted = self._version
        self._log.clear()
        self.end_watches()

    async def freeze(self) -> None:
        self._running.clear()

    async def thaw(self) -> None:
        self._running.set()

    async def stop(self) -> None:
        assert self._socket
        self._socket.close()
        for transport in self._transports:
            transport.abort()
        self._transports.clear()
        for handling in list(self._handling):
            handling.cancel()
        await asyncio.gather(*self._handling, return_exceptions=True)
        await self._socket.wait_closed()

    async def start(self) -> None:
        protocols = web.Server(self._protected, access_log=None)
        loop = asyncio.get_running_loop()
        self._socket = await loop.create_server(protocols, "127.0.0.1", self._port, ssl=self._tls, reuse_address=True)
        self._port = self._socket.sockets[0].getsockname()[1]

    async def remember(self) -> None:
        self._copy = (self._version, dict(self._objects))

    async def restore(self) -> None:
        await self.stop()
        self._version, self._objects = self._copy[0], dict(self._copy[1])
        self._log.clear()
        self._compacted = self._version
        await self.start()

    async def rotate_token(self) -> None:
        self.token = f"token-{int(self.token.partition('-')[2]) + 1}"
        self.token_file.write_text(self.token)

    async def forbid(self, verb: str, resource: str) -> None:
        self._forbidden.add((verb, resource))

    async def allow(self, verb: str, resource: str) -> None:
        self._forbidden.discard((verb, resource))

    async def requested(self) -> set[tuple[str, str]]:
        return {(one.verb, one.resource) for one in self.seen}

    # What only tests of faults use.

    def answer_next(self, handler: Handler, verb: str = "", times: int = 1) -> None:
        """Give the next `times` requests (with this verb) to `handler` instead."""
        self._answers += [(verb, handler)] * times

    def say(self, line: bytes | Body) -> None:
        """Write bytes, or an event as a line, on every open watch."""
        for watch in self.watches:
            watch.lines.put_nowait(line if isinstance(line, bytes) else _line(line))

    def bookmark(self) -> None:
        """As the real one says it about every minute."""
        self.say(self._bookmark())

    def end_watches(self) -> None:
        """Close every open watch in order, as after `timeoutSeconds`."""
        for watch in self.watches:
            watch.lines.put_nowait(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that a request brings about."""
        async with self._noticed:
            await self._noticed.wait_for(condition)

    def asked(self, verb: str, resource: str = "endpointslices") -> list[Seen]:
        return [one for one in self.seen if (one.verb, one.resource) == (verb, resource)]

    def slices(self, namespace: str, services: frozenset[str]) -> list[Body]:
        """As a list with that selector gives them, by name."""
        return [
            body
            for (kind, where, _), body in sorted(self._objects.items())
            if kind == "EndpointSlice" and where == namespace and _service(body) in services
        ]

    def _record(self, key: tuple[str, str, str], after: Body | None) -> None:
        before = self._objects.pop(key, None)
        if after is not None:
            self._objects[key] = after
        if key[0] == "EndpointSlice":
            change = Change(self._version, before, after)
            self._log.append(change)
            for watch in self.watches:
                _deliver(change, watch)

    def _bookmark(self, annotations: Mapping[str, str] | None = None) -> Body:
        metadata = {"resourceVersion": str(self._version), "annotations": dict(annotations or {})}
        head = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata}
        return {"type": "BOOKMARK", "object": {**head, "endpoints": None, "ports": None, "addressType": ""}}

    async def _protected(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle it in a task of our own, because aiohttp's own don't end well when they are cancelled."""
        self._transports.add(request.transport)
        handling = asyncio.ensure_future(self._handle(request))
        self._handling.add(handling)
        try:
            await asyncio.wait([handling])
        finally:
            handling.cancel()
            self._handling.discard(handling)
        if handling.cancelled():
            raise ConnectionResetError
        return handling.result()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = _seen(request)
        self.seen.append(seen)
        async with self._noticed:
            self._noticed.notify_all()
        await self._running.wait()
        for index, (verb, handler) in enumerate(self._answers):
            if verb in ("", seen.verb):
                del self._answers[index]
                return await handler(request)  # type: ignore[arg-type]
        if seen.token != self.token:
            return failure(401, "Unauthorized", "Unauthorized")
        if (seen.verb, seen.resource) in self._forbidden:
            return failure(403, "Forbidden", f"{seen.resource} is forbidden: cannot {seen.verb} resource")
        if seen.resource == "services":
            body = self._objects.get(("Service", seen.namespace, request.path.rpartition("/")[2]))
            return _json(body) if body else failure(404, "NotFound", "services not found")
        if seen.resource != "endpointslices":
            return failure(404, "NotFound", "the server could not find the requested resource")
        return self._list(seen) if seen.verb == "list" else await self._watch(request, seen)

    def _list(self, seen: Seen) -> web.Response:
        query = seen.query
        version = query.get("resourceVersion", "")
        limit = self.page_size or int(query.get("limit", "0"))
        if token := query.get("continue"):
            at, items = self._pages[token]
            if at < self._compacted:
                return failure(410, "Expired", "The provided continue parameter is too old")
        else:
            exact = "limit" in query and version not in ("", "0") and "resourceVersionMatch" not in query
            if version not in ("", "0") and int(version) > self._version:
                return self._too_large(int(version))
            if exact and int(version) < self._compacted:
                return failure(410, "Expired", "The provided resource version is too old")
            at, items = self._version, self.slices(seen.namespace, _services(query))
            if version != "" and not exact:
                limit = self.page_size or 0  # the watch cache gives all
        metadata = {"resourceVersion": str(at)}
        if limit and len(items) > limit:
            metadata["continue"] = f"page-{len(self._pages)}"
            self._pages[metadata["continue"]] = (at, items[limit:])
            items = items[:limit]
        without_kind = [
            {key: value for key, value in one.items() if key not in ("kind", "apiVersion")} for one in items
        ]
        head = {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1"}
        return _json({**head, "metadata": metadata, "items": without_kind})

    async def _watch(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        query = seen.query
        version = query.get("resourceVersion", "")
        initial = query.get("sendInitialEvents") == "true" and self.watch_list != "ignored"
        if initial and (self.watch_list == "refused" or query.get("resourceVersionMatch") != "NotOlderThan"):
            return failure(422, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch")
        if initial and version not in ("", "0") and int(version) > self._version:
            return self._too_large(int(version))
        if not initial and version not in ("", "0") and int(version) < self._compacted:
            message = f"too old resource version: {version} ({self._compacted})"
            if self.expired_form == "status":
                return failure(410, "Expired", message)
            return await stream(_line({"type": "ERROR", "object": status(410, "Expired", message)}))(request)
        watch = Watch(seen.namespace, _services(query))
        if initial or version in ("", "0"):
            for body in self.slices(watch.namespace, watch.services):
                watch.lines.put_nowait(_line({"type": "ADDED", "object": body}))
            if initial:
                watch.lines.put_nowait(_line(self._bookmark({INITIAL_EVENTS_END: "true"})))
        else:
            for change in self._log:
                if change.version > int(version):
                    _deliver(change, watch)
        self.watches.add(watch)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            async with self._noticed:
                self._noticed.notify_all()
            while (line := await watch.lines.get()) is not None:
                await self._running.wait()
                await response.write(line)
        finally:
            self.watches.discard(watch)
        return response

    def _too_large(self, version: int) -> web.Response:
        """As kube-apiserver says it: a time-out with a cause."""
        return failure(
            504,
            "Timeout",
            f"Timeout: Too large resource version: {version}, current: {self._version}",
            {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]},
        )


def status(code: int, reason: str, message: str, details: Body | None = None) -> Body:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "code": code, "reason": reason, "message": message, "details": details or {}}


def failure(
    code: int, reason: str, message: str, details: Body | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A `Status` as an answer."""
    return _json(status(code, reason, message, details), code, headers)


def answer(body: bytes, code: int = 200, content_type: str = "application/json", **headers: str) -> Handler:
    """Always this."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=code, content_type=content_type, headers=headers)

    return handle


def refuse(code: int, reason: str, retry_after: str | None = None) -> Handler:
    """Always this `Status`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return failure(code, reason, reason, headers={"Retry-After": retry_after} if retry_after else None)

    return handle


def stream(*lines: bytes, hang: bool = False, cut: bool = False) -> Callable[[Any], Awaitable[web.StreamResponse]]:
    """A watch that says this and ends; or then hangs, or breaks off."""

    async def handle(request: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for line in lines:
            await response.write(line)
        if hang:
            await asyncio.Event().wait()
        if cut:
            request.transport.abort()
        return response

    return handle


async def hang(request: web.Request) -> web.StreamResponse:
    """Never an answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def drip(request: web.Request) -> web.StreamResponse:
    """A watch that gives a byte at a time and never a line."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


def _seen(request: web.BaseRequest) -> Seen:
    query = dict(request.query)
    path = request.path
    resource, namespace, verb = path, "", request.method.lower()
    if path.startswith(SLICES) and path.endswith("/endpointslices"):
        namespace = path.removeprefix(SLICES).partition("/")[0]
        resource = "endpointslices"
        verb = "watch" if query.get("watch") in ("1", "true") else "list"
    elif path.startswith(SERVICES) and path.count("/") == 6:
        namespace, resource, _ = path.removeprefix(SERVICES).split("/")
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return Seen(verb, resource, namespace, query, token)


def _services(query: Mapping[str, str]) -> frozenset[str]:
    label, _, names = query["labelSelector"].partition(" in ")
    assert label == LABEL
    assert names.startswith("(")
    assert names.endswith(")")
    return frozenset(names[1:-1].split(","))


def _service(body: Body) -> str:
    return str(body["metadata"].get("labels", {}).get(LABEL, ""))


def _deliver(change: Change, watch: Watch) -> None:
    """As a watch with its selector sees a change: what leaves the selection is deleted for it."""

    def selected(body: Body | None) -> bool:
        return (
            body is not None and body["metadata"]["namespace"] == watch.namespace and _service(body) in watch.services
        )

    was, is_now = selected(change.before), selected(change.after)
    if is_now:
        watch.lines.put_nowait(_line({"type": "MODIFIED" if was else "ADDED", "object": change.after}))
    elif was:
        body = copy.deepcopy(change.before)
        assert body
        body["metadata"]["resourceVersion"] = str(change.version)
        watch.lines.put_nowait(_line({"type": "DELETED", "object": body}))


def _line(event: Body) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _json(body: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), status=code, content_type="application/json", headers=headers)
