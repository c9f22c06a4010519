"""All slices of the Services that the configuration names, kept as the API server has them: one stream a namespace.

What was last known serves on, whatever happens to the streams; `status` tells how old it is and why.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy.cluster.access import Access
from proxy.cluster.api import Api
from proxy.cluster.saved import SavedNamespace, SavedSnapshot
from proxy.cluster.stream import Known, Stream, Troubles
from proxy.cluster.timing import Timing
from proxy.core.endpoints import Service, Slice


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """How the watch does; of several streams, the one that lags most."""

    age_seconds: float | None
    """Since the last event, bookmark or list; None before the first."""
    resource_version: str | None
    synced: bool
    state: str
    error: str | None
    """Why it doesn't follow now, with the URL; None while it does."""
    problems: Mapping[str, int]
    """What went wrong so far, by reason."""
    last_problem: str | None
    """The last of them, with the object's name or the URL."""
    restarts: int
    """How often a request ended out of order."""
    saved_age: float | None
    """Seconds since what serves from disk was true; None if nothing does."""
    event_delay: float | None
    """From the cause of the last change until it was here."""


class Informer:
    """`services` are `namespace/name`; `changed` is called on the loop after each change of what is known.

    `saved`: where the last known state is kept; loaded at once.
    """

    def __init__(
        self,
        access: Access,
        services: Iterable[str],
        changed: Callable[[], None],
        *,
        saved: SavedSnapshot | None = None,
        timing: Timing | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._timing = timing or Timing()
        self._api = Api(access, self._timing)
        self._tell = changed
        self._saved = saved
        self._now = now
        self._wall = wall
        self._uniform = uniform
        self._troubles = Troubles()
        self._streams: dict[str, Stream] = {}
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        self._ended_restarts = 0
        self._slices: tuple[Slice, ...] | None = None
        self._wanted = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._restored = {
            namespace: Known({one.name: one for one in kept.slices}, dict(kept.services), kept.version, kept.at)
            for namespace, kept in (saved.load() if saved else {}).items()
        }
        self.follow(services)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._saved is not None:
                group.create_task(self._keep_saved(self._saved))
            while True:
                self._wanted.clear()
                streams = set(self._streams.values())
                for gone in self._tasks.keys() - streams:
                    self._tasks.pop(gone).cancel()
                for new in streams - self._tasks.keys():
                    self._tasks[new] = group.create_task(new.run())
                await self._wanted.wait()

    def follow(self, services: Iterable[str]) -> None:
        """These and no others from now on; streams of namespaces whose Services stay the same go on."""
        wanted: dict[str, set[str]] = {}
        for service in services:
            namespace, _, name = service.partition("/")
            wanted.setdefault(namespace, set()).add(name)
        for namespace in self._streams.keys() - wanted.keys():
            self._ended_restarts += self._streams.pop(namespace).restarts
        for namespace, names in wanted.items():
            old = self._streams.get(namespace)
            if old is None or old.services != names:
                self._ended_restarts += old.restarts if old else 0
                known = old.known if old else self._restored.pop(namespace, Known())
                self._streams[namespace] = self._stream(namespace, frozenset(names), known)
        self._slices = None
        self._wanted.set()

    @property
    def synced(self) -> bool:
        """Whether every namespace was listed by this process, for the Services wanted now."""
        return all(stream.listed for stream in self._streams.values())

    def slices(self) -> Sequence[Slice]:
        """All that are known, of all namespaces; the same object until something changes."""
        if self._slices is None:
            self._slices = tuple(one for stream in self._streams.values() for one in stream.known.slices.values())
        return self._slices

    def service(self, name: str) -> Service | None:
        """What is known of the Service `namespace/name`; None if that is nothing, or there is none."""
        namespace, _, bare = name.partition("/")
        stream = self._streams.get(namespace)
        return stream.known.services.get(bare) if stream else None

    def status(self) -> WatchStatus:
        """As of now."""
        streams = list(self._streams.values())
        worst = min(streams, key=lambda one: -1.0 if one.contact is None else one.contact, default=None)
        failing = next((one for one in streams if one.error is not None), worst)
        heard = worst.contact if worst else None
        restored = [one.known.true_at for one in streams if not one.listed and one.known.true_at is not None]
        return WatchStatus(
            age_seconds=None if heard is None else max(self._now() - heard, 0.0),
            resource_version=worst.known.version if worst and worst.listed else None,
            synced=self.synced,
            state=failing.state if failing else "nothing to follow",
            error=failing.error if failing else None,
            problems=dict(self._troubles.counts),
            last_problem=self._troubles.last or None,
            restarts=self._ended_restarts + sum(one.restarts for one in streams),
            saved_age=max(self._wall() - min(restored), 0.0) if restored else None,
            event_delay=max((one.event_delay for one in streams if one.event_delay is not None), default=None),
        )

    def _stream(self, namespace: str, services: frozenset[str], known: Known) -> Stream:
        mine = Known(
            {name: one for name, one in known.slices.items() if one.service in services},
            {name: one for name, one in known.services.items() if name in services},
            known.version,
            known.true_at,
        )
        return Stream(
            self._api,
            namespace,
            services,
            mine,
            self._troubles,
            self._changed,
            timing=self._timing,
            now=self._now,
            wall=self._wall,
            uniform=self._uniform,
        )

    def _changed(self) -> None:
        self._slices = None
        self._unsaved.set()
        self._tell()

    async def _keep_saved(self, saved: SavedSnapshot) -> None:
        while True:
            try:
                async with asyncio.timeout(self._timing.refresh_saved):
                    await self._unsaved.wait()
            except TimeoutError:
                pass
            self._unsaved.clear()
            await asyncio.to_thread(saved.write, self._to_save())
            await asyncio.sleep(self._timing.save_every)

    def _to_save(self) -> dict[str, SavedNamespace]:
        return {
            namespace: SavedNamespace(
                known.true_at, known.version, tuple(known.slices.values()), dict(known.services)
            )
            for namespace, known in ((namespace, stream.known) for namespace, stream in self._streams.items())
            if known.true_at is not None
        }
