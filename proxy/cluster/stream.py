"""One namespace's slices, listed and then followed for ever; what was last known serves until a list replaces it."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.cluster.answers import ApiError, Status
from proxy.cluster.api import Api, Connection
from proxy.cluster.objects import ObjectError
from proxy.cluster.reflector import ANY, Backoff, Ended, Reflector, Request
from proxy.cluster.services import decode_service
from proxy.cluster.slices import KIND, decode_slice
from proxy.cluster.timing import Timing
from proxy.core.endpoints import Service, Slice

INITIAL_EVENTS_END = "k8s.io/initial-events-end"

_log = logging.getLogger("sidestep.cluster")


@dataclass(slots=True)
class Known:
    """What is known of one namespace, whoever follows it now."""

    slices: dict[str, Slice] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    version: str = ANY
    true_at: float | None = None
    """Unix time at which it was true."""


@dataclass(slots=True)
class Troubles:
    """What went wrong, counted by a short reason."""

    counts: Counter[str] = field(default_factory=Counter)
    last: str = ""
    """The last one, with the object's name or the URL."""

    def add(self, reason: str, text: str) -> None:
        self.counts[reason] += 1
        self.last = text

    def add_object(self, reason: str, text: str) -> None:
        """An object that can't be used whole; the log hears of the first of a kind."""
        if not self.counts[reason]:
            _log.warning("%s (from now on only counted, as %s)", text, reason)
        self.add(reason, text)


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""
    annotations: dict[str, Any] | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata
    kind: str = KIND
    """Items of a list don't say it."""


class Stream:
    """Follows the slices of some Services of one namespace. `changed` is called after each change of `known`."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        services: frozenset[str],
        known: Known,
        troubles: Troubles,
        changed: Callable[[], None],
        *,
        timing: Timing,
        now: Callable[[], float],
        wall: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self.namespace = namespace
        self.services = services
        self.known = known
        self.listed = False
        """Whether a list, by this stream, is what `known` builds on."""
        self.state = "not started"
        self.error: str | None = None
        """Why it doesn't follow now."""
        self.restarts = 0
        """Requests that ended out of order."""
        self.event_delay: float | None = None
        """Seconds from the last change's cause, as its annotation says, until it was here."""
        self.contact: float | None = None
        """When the last event, bookmark or list came, monotonic."""
        self._api = api
        self._troubles = troubles
        self._changed = changed
        self._timing = timing
        self._now = now
        self._wall = wall
        self._uniform = uniform
        self._reflector = Reflector(timing, uniform, known.version)
        self._initial: dict[str, Slice] | None = None
        self._ask_services = asyncio.Event()

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_services())
            while True:
                await self._make_request(self._reflector.next_request())

    async def _make_request(self, request: Request) -> None:
        if request.after:
            self.state = f"waiting {request.after:.1f} s to ask again"
            await asyncio.sleep(request.after)
        self.state = "connecting" if request.what == "watch" else "listing"
        self._reflector.started(self._now())
        how, retry_after = Ended.CLOSED, None
        try:
            if request.what == "list":
                await self._list(request)
            else:
                await self._watch(request)
        except ApiError as error:
            how, retry_after = _how(error), error.retry_after
            if how is Ended.REFUSED and request.what == "watch_list":
                _log.info("%s; slices are listed instead", error)
            elif how is Ended.SILENT and request.what == "watch":
                # Where nothing changes and etcd tells no progress there are no bookmarks: it may be well. Look anew.
                self._troubles.add(error.reason, str(error))
            else:
                self._fail(error.reason, str(error))
        except Exception as error:
            # A mistake of ours must not end the watch; nobody else would begin it again.
            how = Ended.BROKEN
            _log.exception("%s: this is a mistake in the watch, which begins anew", self._where())
            self._fail("mistake", f"{self._where()}: {error!r}")
        in_order = self._reflector.ended(how, self._now(), retry_after)
        if how is Ended.CLOSED and not in_order:
            self._fail("short_watch", f"{self._where()}: the server ended the watch too soon")

    def _fail(self, reason: str, text: str) -> None:
        self.restarts += 1
        self._troubles.add(reason, text)
        if self.error is None:
            _log.warning("%s; what is known of %s serves on", text, self.namespace)
        self.error = text

    def _work(self, state: str) -> None:
        self.state = state
        if self.error is not None:
            _log.info("the endpoints of %s are followed again", self.namespace)
        self.error = None

    async def _list(self, request: Request) -> None:
        async with self._api.connect() as connection:
            page = await connection.list(self.namespace, self.services, request.version)
        self._initial = {}
        for item in page.items or ():
            self._take(item, "ADDED")
        self._replace(self._initial, page.metadata.resource_version)

    async def _watch(self, request: Request) -> None:
        initial = request.what == "watch_list"
        self._initial = {} if initial else None
        async with (
            self._api.connect() as connection,
            connection.watch(
                self.namespace,
                self.services,
                request.version,
                seconds=request.seconds,
                initial=initial,
                patience=lambda: self._timing.silence if self._initial is None else self._timing.first_word,
            ) as lines,
        ):
            if not initial:
                self._work("watching")
                self._ask_services.set()
            async for line in lines:
                self._receive(line)

    def _receive(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=_Event)
            told = msgspec.json.decode(event.object, type=Status) if event.type == "ERROR" else None
        except (ValueError, RecursionError) as error:
            raise ApiError(f"{self._where()}: no watch event: {error}: {line[:80]!r}", "not_json") from error
        if told is not None:
            raise told.as_error(self._where(), reason="error_event")
        self.contact = self._now()
        metadata = self._take(event.object, event.type)
        if metadata is None:
            return
        self._reflector.saw(metadata.resource_version)
        ends_initial = event.type == "BOOKMARK" and (metadata.annotations or {}).get(INITIAL_EVENTS_END) == "true"
        if self._initial is None:
            self._note_true()
        elif ends_initial:
            self._replace(self._initial, metadata.resource_version)

    def _take(self, item: msgspec.Raw, event_type: str) -> _Metadata | None:
        """Apply one object, to `known` or to what is to replace it. None if it isn't one at all."""
        try:
            head = msgspec.json.decode(item, type=_Object)
        except (ValueError, RecursionError) as error:
            self._troubles.add_object("unreadable", f"{self._where()}: {event_type[:60]!r} of no object: {error}")
            return None
        metadata, name = head.metadata, head.metadata.name
        if head.kind != KIND:
            self._troubles.add_object("other_kind", f"{self._where()}: found {head.kind[:60]} {name[:300]}")
            return None
        slices = self.known.slices if self._initial is None else self._initial
        version = int(metadata.resource_version) if metadata.resource_version.isdecimal() else 0
        if event_type in ("ADDED", "MODIFIED"):
            self._set(slices, name, self._decode(item, name), version)
        elif event_type == "DELETED":
            self._set(slices, name, None, version)
        elif event_type != "BOOKMARK":
            text = f"EndpointSlice {self.namespace}/{name}: an event of unknown type {event_type[:60]!r}"
            self._troubles.add_object("unknown_event", text)
        return metadata

    def _decode(self, item: msgspec.Raw, name: str) -> Slice | None:
        """The slice, None if it isn't ours, and what was known of it before if it can't be read."""
        try:
            decoded = decode_slice(bytes(item))
        except ObjectError as error:
            self._troubles.add_object("unreadable", f"{self._where()}: {error}")
            return self.known.slices.get(name)
        for problem in decoded.problems:
            self._troubles.add_object("flawed", problem)
        found = decoded.value
        ours = found is not None and found.namespace == self.namespace and found.service in self.services
        return found if ours else None

    def _set(self, slices: dict[str, Slice], name: str, after: Slice | None, version: int) -> None:
        before = slices.get(name)
        live = slices is self.known.slices
        repeated = before is not None and 0 < version < before.version
        if after == before or repeated:
            return
        if after is None:
            del slices[name]
        else:
            slices[name] = after
            if live and after.changed_at is not None:
                self.event_delay = max(self._wall() - after.changed_at, 0.0)
        if live:
            self._changed()

    def _replace(self, slices: dict[str, Slice], version: str) -> None:
        """All that there is: what isn't in it is gone."""
        self.known.slices, self._initial = slices, None
        self.listed = True
        self.contact = self._now()
        self._reflector.listed(version)
        self._note_true()
        self._work("watching")
        self._ask_services.set()
        self._changed()

    def _note_true(self) -> None:
        self.known.version, self.known.true_at = self._reflector.version, self._wall()

    def _where(self) -> str:
        return f"{self._api.server}: EndpointSlices of {self.namespace}"

    async def _follow_services(self) -> None:
        backoff = Backoff(self._timing, self._uniform)
        while True:
            await self._ask_services.wait()
            self._ask_services.clear()
            try:
                async with self._api.connect() as connection:
                    for name in sorted(self.services):
                        self._learn(name, await self._ask_service(connection, name))
                backoff.reset()
                continue
            except ApiError as error:
                self._troubles.add(error.reason, str(error))
            except Exception as error:
                _log.exception("%s: this is a mistake in reading Services", self._where())
                self._troubles.add("mistake", f"{self._where()}: {error!r}")
            await asyncio.sleep(backoff.next_wait())
            self._ask_services.set()

    async def _ask_service(self, connection: Connection, name: str) -> Service | None:
        try:
            body = await connection.service(self.namespace, name)
            if body is None:
                return None
            decoded = decode_service(body)
        except ApiError as error:
            if error.status != 403:
                raise
            self._troubles.add_object("service_forbidden", f"{error}; traffic policies are taken to be Cluster")
            return None
        except ObjectError as error:
            self._troubles.add_object("unreadable", f"{self._where()}: {error}")
            return self.known.services.get(name)
        for problem in decoded.problems:
            self._troubles.add_object("flawed", problem)
        return decoded.value

    def _learn(self, name: str, after: Service | None) -> None:
        if after == self.known.services.get(name):
            return
        if after is None:
            del self.known.services[name]
        else:
            self.known.services[name] = after
        self._changed()


def _how(error: ApiError) -> Ended:
    match error.reason:
        case "expired":
            return Ended.EXPIRED
        case "too_large_version":
            return Ended.TOO_LARGE
        case "silence":
            return Ended.SILENT
        case "status" if 300 <= error.status < 500 and error.status not in (401, 403, 408, 429):
            return Ended.REFUSED
        case "status" | "connection" | "timeout" | "credentials" | "half_line":
            return Ended.FAILED
        case _:
            return Ended.BROKEN
