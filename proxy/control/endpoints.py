"""Which endpoints each Service has now, whoever tells it: the API server, a file, or nobody.

A change that takes an endpoint away counts at once; what only adds some may wait a moment for more.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.control.configuration import Loaded
from proxy.core.endpoint_choice import endpoints_of, must_apply, place_zone, service_address, usable
from proxy.core.endpoints import Endpoint, Place, Service, ServicePort, Slice
from proxy.settings import own_listener
from proxy.settings.units import UNIX

if TYPE_CHECKING:
    from proxy.cluster.informer import Informer

COALESCE = 0.1
"""The longest that an added endpoint waits for others: a rolling update changes several slices at once."""
SNAPSHOT_FILE = "endpoints.json"
"""Beside the admin socket: there it survives a restart, and not the reboot that makes it worthless."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ForKernel:
    """One Service's port as the kernel falls back to it: DNAT can't change the IP family, so it needs both."""

    usable: tuple[str, ...] = ()
    ips: frozenset[str] = frozenset()
    """The Service's own."""


class Endpoints:
    """The endpoints of every Service that the configuration names; `applied` is called when others are to be used."""

    def __init__(self, applied: Callable[[], None]) -> None:
        self._applied = applied
        self._loaded: Loaded
        self._informer: Informer | None = None
        self._switched = asyncio.Event()
        self._current: dict[ServicePort, tuple[Endpoint, ...]] = {}
        self._for_kernel: dict[ServicePort, ForKernel] = {}
        self._delayed: asyncio.TimerHandle | None = None
        self._looking = False
        """A look is due in this turn of the loop."""
        self._looping: set[str] = set()
        self._read_at = time.monotonic()

    def follow(self, loaded: Loaded) -> None:
        """From now on this configuration says whose endpoints are wanted and who tells them."""
        before, self._loaded = getattr(self, "_loaded", None), loaded
        services = {wanted.service for wanted in loaded.settings.wanted_ports}
        self._read_at = time.monotonic()
        if loaded.access is None:
            self._switch(None)
        elif self._informer is not None and before is not None and before.access == loaded.access:
            self._informer.follow(services)
        else:
            # Takes a while to import, and not every run has an API server.
            from proxy.cluster.informer import Informer
            from proxy.cluster.saved import SavedSnapshot

            saved = SavedSnapshot(Path(loaded.settings.admin.socket).parent / SNAPSHOT_FILE, loaded.access.server)
            self._switch(Informer(loaded.access, services, self._refresh, saved=saved))
        self._current = self._now()
        self._for_kernel = self._now_for_kernel()

    async def run(self) -> None:
        """Keep listening to the API server, wherever the configuration says it is, until cancelled."""
        while True:
            self._switched.clear()
            async with asyncio.TaskGroup() as group:
                informing = None if self._informer is None else group.create_task(self._informer.run())
                await self._switched.wait()
                if informing is not None:
                    informing.cancel()

    def of(self, wanted: ServicePort) -> tuple[Endpoint, ...]:
        """All that are known, with their states."""
        return self._current.get(wanted, ())

    def usable(self, wanted: ServicePort) -> tuple[str, ...]:
        """The addresses that may be sent to now."""
        return usable(self.of(wanted))

    def service_address(self, wanted: ServicePort) -> str | None:
        """The Service's own `ip:port`, where the API server told it."""
        service = self._service(wanted)
        return None if service is None else service_address(service, wanted.port)

    def for_kernel(self, wanted: ServicePort) -> ForKernel:
        """What the kernel needs with `node.manage`."""
        return self._for_kernel.get(wanted, ForKernel())

    def unknown(self) -> str | None:
        """Why endpoints are not known yet; those last heard of before a restart are known."""
        informer = self._informer
        if informer is None or informer.synced or informer.slices():
            return None
        return f"nothing heard yet from {self._server}: {informer.status().error or 'it is being asked'}"

    def notes(self) -> list[str]:
        """What keeps a Service from having endpoints; each is served without, so none of it is a failure."""
        if self.unknown():
            return []
        slices = list(self._slices())
        notes = []
        for wanted in self._loaded.settings.wanted_ports:
            if not self.usable(wanted):
                notes.append(_why_none(wanted, [found for found in slices if _of(found) == wanted.service]))
        notes = list(dict.fromkeys(notes))  # relays and zones may share a Service
        return notes + [f"endpoint {address} is a listener of this proxy and left out" for address in self._looping]

    def status(self) -> dict[str, Any]:
        """The `watch` of `/status.json`."""
        if self._informer is not None:
            watch = self._informer.status()
            age = watch.saved_age if watch.age_seconds is None else watch.age_seconds
            return {
                "source": "api",
                "age_seconds": None if age is None else round(age, 3),
                "resource_version": watch.resource_version,
                "server": self._server,
                "synced": watch.synced,
                "state": watch.state,
                "error": watch.error,
                "problems": dict(watch.problems),
                "last_problem": watch.last_problem,
                "restarts": watch.restarts,
                "event_delay_seconds": watch.event_delay,
                "notes": self.notes(),
            }
        source = "none" if self._loaded.slices is None else "file"
        age = None if source == "none" else round(time.monotonic() - self._read_at, 3)
        return {"source": source, "age_seconds": age, "resource_version": None, "notes": self.notes()}

    @property
    def _server(self) -> str:
        return "" if self._loaded.access is None else self._loaded.access.server

    def _switch(self, informer: "Informer | None") -> None:
        self._informer = informer
        self._switched.set()

    def _slices(self) -> Iterable[Slice]:
        if self._informer is not None:
            return self._informer.slices()
        return self._loaded.slices or ()

    def _refresh(self) -> None:
        """Something changed: look at it once all of what has come is heard, which may be many events."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Apply what changed now if anything that is used went away or nothing was usable, else soon."""
        self._looking = False
        new = self._now()
        if new == self._current and self._now_for_kernel() == self._for_kernel:
            return
        if any(must_apply(self.of(wanted), endpoints) for wanted, endpoints in new.items()):
            self._apply()
        elif self._delayed is None:
            self._delayed = asyncio.get_running_loop().call_later(COALESCE, self._apply)

    def _apply(self) -> None:
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None
        self._current = self._now()
        self._for_kernel = self._now_for_kernel()
        self._applied()

    def _now(self) -> dict[ServicePort, tuple[Endpoint, ...]]:
        slices = list(self._slices())
        routable = lru_cache(maxsize=None)(_routable)
        self._looping = set()
        return {wanted: self._of(slices, wanted, routable) for wanted in self._loaded.settings.wanted_ports}

    def _now_for_kernel(self) -> dict[ServicePort, ForKernel]:
        if not self._loaded.settings.node.manage:
            return {}
        slices = list(self._slices())
        families = [[found for found in slices if found.family == family] for family in ("IPv4", "IPv6")]
        found = {}
        for wanted in self._loaded.settings.wanted_ports:
            addresses = [usable(self._of(family, wanted, lambda ip: True)) for family in families]
            service = self._service(wanted)
            ips = () if service is None else service.cluster_ips
            found[wanted] = ForKernel((*addresses[0], *addresses[1]), frozenset(ips))
        return found

    def _of(self, slices: list[Slice], wanted: ServicePort, routable: Callable[[str], bool]) -> tuple[Endpoint, ...]:
        node = os.environ.get("NODE_NAME") or socket.gethostname()
        place = Place(node, os.environ.get("NODE_ZONE") or place_zone(slices, node))
        endpoints = endpoints_of(slices, wanted, place, routable, self._service(wanted))
        return tuple(endpoint for endpoint in endpoints if not self._is_loop(endpoint.address))

    def _service(self, wanted: ServicePort) -> Service | None:
        return None if self._informer is None else self._informer.service(wanted.service)

    def _is_loop(self, address: str) -> bool:
        """What we sent there would come back to us."""
        listeners = [*self._loaded.listen, *self._loaded.relay_listen]
        loop = own_listener(address, [listener for listener in listeners if not listener.startswith(UNIX)])
        if loop is not None:
            self._looping.add(address)
        return loop is not None


def _of(found: Slice) -> str:
    return f"{found.namespace}/{found.service}"


def _why_none(wanted: ServicePort, slices: list[Slice]) -> str:
    if not slices:
        return f"Service {wanted.service} has no EndpointSlice; does it exist?"
    ports = {port.name or port.number: None for found in slices for port in found.ports if port.protocol == "UDP"}
    numbers = {port.number for found in slices for port in found.ports if port.protocol == "UDP"}
    if ports and wanted.port not in ports and wanted.port not in numbers:
        return f"Service {wanted.service} has no UDP port {wanted.port!r}; it has {', '.join(map(repr, ports))}"
    return f"Service {wanted.service} has no endpoint that is ready"


def _routable(ip: str) -> bool:
    """Whether this machine has a route there; nothing is sent."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((ip, 9))
    except OSError:
        return False
    return True
