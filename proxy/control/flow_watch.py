"""`sidestep conntrack --watch`: stale flows looked for again and again, and deleted if that was asked for.

For nodes where a Service's datagrams don't go through this proxy. It follows the configured Services, never lists a
cluster, and stands still while the API server isn't heard: then a new endpoint would look like a stale one.
"""

import asyncio
import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from prometheus_client import Counter as Counted

from proxy.cluster.informer import Informer
from proxy.control.configuration import access_of, read_settings, slices_of
from proxy.control.errors import CannotRun
from proxy.control.stale_flows import Fate, as_json, interruption, listener_addresses
from proxy.core.endpoint_choice import live
from proxy.core.endpoints import Slice
from proxy.core.flow_watch import FormerServices, Round, Sweep, addresses_of
from proxy.core.flows import ServiceAddresses, StaleFlow
from proxy.node import conntrack
from proxy.settings import Settings

MOST_A_ROUND = 1000
"""Deletions: each makes its client's next datagram a new flow, and those go through all of kube-proxy's rules."""
HEARD_WITHIN = 90.0
"""Seconds since the API server was heard last; its bookmarks come every 60 s."""

Say = Callable[[dict[str, Any]], None]
"""Takes an event: `stale`, `deleted`, `gone`, `paused` or `round`, with what belongs to it."""


async def watch(path: Path | None, *, every: float, deleting: bool, textfile: Path | None, say: Say) -> None:
    """Look every so many seconds until cancelled; `textfile` gets metrics after each look. Raises CannotRun."""
    settings, _ = read_settings(path)
    if not settings.wanted_ports:
        raise CannotRun(
            "--watch follows the Services of the configuration: name one in udp[].service or in dns.zones"
        )
    async with _slices(settings) as source:
        counts = Counts(textfile)
        watcher = _Watcher(settings, source, deleting, counts, say)
        while True:
            await watcher.look()
            counts.write()
            await asyncio.sleep(every)


class _Source:
    """Who tells endpoints: an informer, or the endpoints_file, which is read for every look."""

    def __init__(self, settings: Settings, informer: Informer | None) -> None:
        self._settings = settings
        self.informer = informer

    def why_not(self) -> str | None:
        """Why nothing may be judged now."""
        if self.informer is None:
            return None
        status = self.informer.status()
        if not self.informer.synced or status.age_seconds is None:
            return f"the API server has told no endpoints yet: {status.error or 'it is being asked'}"
        if status.age_seconds > HEARD_WITHIN:
            return f"the API server was not heard for {status.age_seconds:.0f} s: {status.error or 'it is silent'}"
        return None

    def slices(self) -> Sequence[Slice]:
        """Raises CannotRun."""
        return self.informer.slices() if self.informer is not None else slices_of(self._settings) or ()


@contextlib.asynccontextmanager
async def _slices(settings: Settings) -> AsyncIterator[_Source]:
    if settings.endpoints_file is not None:
        yield _Source(settings, None)
        return
    informer = Informer(access_of(settings), {port.service for port in settings.wanted_ports}, lambda: None)
    task = asyncio.ensure_future(informer.run())
    try:
        yield _Source(settings, informer)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Watcher:
    """One look after the other."""

    def __init__(self, settings: Settings, source: _Source, deleting: bool, counts: "Counts", say: Say) -> None:
        self._settings = settings
        self._source = source
        self._deleting = deleting
        self._counts = counts
        self._say = say
        self._former = FormerServices()
        self._sweep = Sweep(MOST_A_ROUND)
        self._paused = ""

    async def look(self) -> None:
        """One look at the table, and what follows from it. Raises CannotRun if there is no table."""
        began = time.monotonic()
        try:
            why = self._source.why_not()
            known = None if why else self._known()
        except CannotRun as error:  # of an endpoints_file that is being written; the next look reads it again
            why, known = str(error), None
        if known is None:
            self._pause(str(why))
            return
        self._paused = ""
        try:
            dumped = await asyncio.to_thread(conntrack.dump, known.addresses, known.concerns, known.judge)
            known = self._known()
            stale = tuple(filter(None, (known.judge(one.flow) for one in dumped.found)))
            found = self._sweep.next_round(stale)
            deleted = await self._act(found)
        except conntrack.ConntrackError as error:
            raise CannotRun(str(error)) from error
        except CannotRun as error:
            self._pause(str(error))
            return
        took = time.monotonic() - began
        self._counts.looked(stale, dumped, found.deferred if self._deleting else 0)
        event = {"event": "round", "stale": len(stale), "deleted": deleted, "deferred": found.deferred}
        event |= {"entries": dumped.read, "interrupted": dumped.interrupted, "seconds": round(took, 3)}
        self._say(event | ({"note": interruption(dumped)} if dumped.interrupted else {}))

    async def _act(self, found: Round) -> int:
        for one in found.new:
            self._say({"event": "stale", **as_json(one)})
        if not self._deleting or not found.due:
            return 0
        outcomes = await asyncio.to_thread(lambda: list(conntrack.delete(one.flow for one in found.due)))
        for one, deleted in zip(found.due, outcomes, strict=True):
            self._counts.deleted(one, deleted)
            self._say({"event": "deleted" if deleted else "gone", **as_json(one)})
        return sum(outcomes)

    def _pause(self, why: str) -> None:
        self._sweep.forget()
        self._counts.paused()
        if not self._paused:
            self._say({"event": "paused", "why": why})
        self._paused = why

    def _known(self) -> ServiceAddresses:
        by_service: defaultdict[str, list[Slice]] = defaultdict(list)
        for one in self._source.slices():
            by_service[f"{one.namespace}/{one.service}"].append(one)
        fate = Fate()
        addresses = list(
            listener_addresses(self._settings, lambda port: live(by_service[port.service], port), (), fate)
        )
        services = {port.service for port in self._settings.wanted_ports}
        informer = self._source.informer
        for name in sorted(services) if informer else ():
            service = informer.service(name) if informer else None
            for found in addresses_of(name, service, by_service[name]) if service else ():
                addresses.append(replace(found, untranslated=fate.of(found.address)))
        without = [name for name in services if not by_service[name]]
        return ServiceAddresses(self._former.with_former(addresses, without))


class Counts:
    """Metrics for node_exporter's textfile collector, of this run."""

    def __init__(self, textfile: Path | None) -> None:
        self._textfile = textfile
        self._registry = CollectorRegistry()
        names = ["service", "reason"]
        self._stale = Gauge("sidestep_conntrack_stale_flows", "At the last look.", names, registry=self._registry)
        self._deleted = Counted("sidestep_conntrack_deleted", "Flows deleted.", names, registry=self._registry)
        self._gone = Counted("sidestep_conntrack_gone", "Flows that ended before.", registry=self._registry)
        self._deferred = Gauge(
            "sidestep_conntrack_deferred_flows", "Left for the next look by the limit.", registry=self._registry
        )
        self._interrupted = Counted(
            "sidestep_conntrack_interrupted_dumps", "Dumps begun again.", registry=self._registry
        )
        self._looks = Counted("sidestep_conntrack_looks", "Looks at the table.", ["outcome"], registry=self._registry)
        self._last = Gauge(
            "sidestep_conntrack_last_look_timestamp_seconds", "Unix time of the last one.", registry=self._registry
        )

    def looked(self, stale: Sequence[StaleFlow], dumped: conntrack.Dump[StaleFlow], deferred: int) -> None:
        self._stale.clear()
        for (service, reason), count in Counter((one.service, one.reason) for one in stale).items():
            self._stale.labels(service, reason).set(count)
        self._interrupted.inc(dumped.interrupted)
        self._deferred.set(deferred)
        self._looks.labels("whole" if dumped.whole else "interrupted").inc()
        self._last.set(time.time())

    def deleted(self, stale: StaleFlow, deleted: bool) -> None:
        if deleted:
            self._deleted.labels(stale.service, stale.reason).inc()
        else:
            self._gone.inc()

    def paused(self) -> None:
        self._looks.labels("paused").inc()

    def write(self) -> None:
        """Replace the file in one step. Raises CannotRun."""
        if self._textfile is None:
            return
        try:
            write_to_textfile(str(self._textfile), self._registry)
        except OSError as error:
            raise CannotRun(f"cannot write {self._textfile}: {os.strerror(error.errno or 0)}") from error


def text_of(event: dict[str, Any], deleting: bool) -> str:
    """An event as a line for people; empty for one that says nothing new."""
    kind = event["event"]
    if kind == "paused":
        return f"nothing is judged: {event['why']}"
    if kind == "round":
        rest = f", {event['deferred']} left for the next look" if event["deferred"] and deleting else ""
        told = f"{event['stale']} stale, {event['deleted']} deleted{rest}" if event["deleted"] or rest else ""
        return "; ".join(filter(None, (told, event.get("note", ""))))
    does = {"stale": "stale" if deleting else "would delete", "deleted": "deleted", "gone": "was gone"}[kind]
    packets = "" if event["packets"] is None else f", {event['packets']} packets"
    flow = f"{event['source']} to {event['service']} at {event['address']}, goes to {event['target']}"
    return f"{does}: {flow}: {event['reason']}{packets}"
