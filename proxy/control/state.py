"""What a run knows of itself, put together for people and machines: `/status.json` and what metrics read."""

import os
import time
from typing import Any

from proxy import __version__
from proxy.control import relay_state
from proxy.control.configuration import Configuration
from proxy.control.dns_workers import DnsWorkers
from proxy.control.endpoints import Endpoints
from proxy.control.heartbeats import too_old
from proxy.control.history import History
from proxy.control.kernel_drops import kernel_drops_of
from proxy.control.node import NodeKeeper
from proxy.control.relay_workers import RelayWorkers
from proxy.control.slot import Slot
from proxy.control.sockets import ListenSockets
from proxy.core import counters
from proxy.worker.channel import UpstreamReport


class State:
    """A view of the parts of a run; holds nothing of its own but when it began and the last minutes' rates."""

    def __init__(
        self,
        configuration: Configuration,
        dns: DnsWorkers,
        relay: RelayWorkers,
        endpoints: Endpoints,
        node: NodeKeeper | None = None,
    ) -> None:
        self.configuration = configuration
        self.dns = dns
        self.relay = relay
        self.endpoints = endpoints
        self.node = node
        self.started = time.monotonic()
        self.history = History()

    def totals(self) -> list[int]:
        """Every counter of DNS, summed over all workers that there ever were."""
        memories = [slot.counts for slot in self.dns.slots]
        return [sum(column) for column in zip(*memories, strict=True)] if memories else [0] * counters.SLOTS

    def remember(self) -> None:
        """Take one sample for the history."""
        family = counters.ANSWERED
        answered = sum(self.totals()[family.base : family.base + family.size])
        self.history.sample(time.monotonic(), answered)

    def level(self, slot: int) -> int:
        """A level (not a count), such as CACHE_BYTES, summed over the present workers."""
        return sum(worker.counts[slot] for worker in self.dns.active if worker.child is not None)

    @property
    def workers(self) -> list[tuple[str, Slot]]:
        """Every worker's place that is to be filled, with the role."""
        return [(workers.role, slot) for workers in (self.dns, self.relay) for slot in workers.active]

    @property
    def restarts(self) -> int:
        """Workers replaced so far, also in places that a reload has done away with."""
        return sum(slot.restarts for workers in (self.dns, self.relay) for slot in workers.slots)

    def upstreams(self) -> list[UpstreamReport]:
        """Every upstream that is configured, with what the workers say of it.

        It is up if one of them finds it so, or none has said anything yet; its RTT is the mean of theirs.
        """
        said: dict[tuple[str, str], list[UpstreamReport]] = {
            (zone.suffix, address): []
            for zone in self.dns.policy.zones
            for address in (*zone.upstreams, *zone.fallback)
        }
        for reports in self.dns.upstreams():
            for report in reports:
                if (report.zone, report.address) in said:
                    said[report.zone, report.address].append(report)
        merged = []
        for (zone, address), seen in said.items():
            rtts = [report.rtt_ms for report in seen if report.rtt_ms is not None]
            up = not seen or any(report.state == "up" for report in seen)
            rtt = round(sum(rtts) / len(rtts), 3) if rtts else None
            merged.append(UpstreamReport(zone, address, "up" if up else "down", rtt))
        return merged

    def unhealthy(self) -> list[str]:
        """Why the loops do not all turn; that this is asked and answered shows that control's does."""
        return [
            f"worker {slot.name} is not running"
            if slot.child is None
            else f"worker {slot.name} stood still for {slot.heartbeat_age:.1f} s"
            for _, slot in self.workers
            if slot.child is None or too_old(slot.heartbeat_age, reading=slot.ready)
        ]

    def relay_status(self) -> list[dict[str, Any]]:
        """The `udp` of `/status.json`."""
        return relay_state.status(self.configuration.now.settings, self.relay, self.endpoints)

    def status(self) -> dict[str, Any]:
        """`/status.json`: programs rely on what it has, so it may only grow."""
        totals = self.totals()
        sources = by_label(counters.ANSWERED, totals, "source")
        rcodes = by_label(counters.ANSWERED, totals, "rcode")
        histogram = counters.REQUEST_SECONDS
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self.started, 1),
            "config": self.configuration.status(),
            "listeners": _listeners(self.dns.sockets) + _listeners(self.relay.sockets),
            "workers": [
                {
                    "role": role,
                    "pid": slot.child.pid if slot.child else None,
                    "restarts": slot.restarts,
                    "ready": slot.ready,
                    "heartbeat_age_seconds": round(slot.heartbeat_age, 3),
                }
                for role, slot in self.workers
            ],
            "dns": {
                "cache": {
                    "entries": self.level(counters.CACHE_ENTRIES),
                    "bytes": self.level(counters.CACHE_BYTES),
                    "hit_ratio": counters.hit_ratio(sources),
                },
                "upstreams": [
                    {
                        "zone": upstream.zone,
                        "address": upstream.address,
                        "state": upstream.state,
                        "rtt_ms": upstream.rtt_ms,
                    }
                    for upstream in self.upstreams()
                ],
                "questions": {
                    "received": by_label(counters.RECEIVED, totals, "proto"),
                    "answered": by_label(counters.ANSWERED, totals, "proto"),
                    "sources": sources,
                    "rcodes": {rcode: count for rcode, count in rcodes.items() if count},
                    "in_flight": self.level(counters.IN_FLIGHT),
                    "dropped": by_label(counters.DROPPED, totals, "reason"),
                    "kernel_drops": kernel_drops_of(self.dns.sockets),
                },
                "upstream": {
                    "asked": sum(by_label(counters.ASKED, totals, "proto").values()),
                    "failed": by_label(counters.UPSTREAM_FAILED, totals, "reason"),
                },
                "latency": {
                    "bounds_seconds": list(counters.Histogram.BOUNDS),
                    "counts": totals[histogram.base : histogram.base + len(histogram.BOUNDS) + 1],
                },
            },
            "udp": self.relay_status(),
            "watch": self.endpoints.status(),
            "node": {"lease": {}} if self.node is None else self.node.status(),
        }


def _listeners(sockets: ListenSockets) -> list[dict[str, Any]]:
    transports: dict[str, list[str]] = {}
    for address, transport in sockets.listeners:
        transports.setdefault(address, []).append(transport)
    return [{"address": address, "transports": found} for address, found in transports.items()]


def by_label(family: counters.Family, totals: list[int], label: str) -> dict[str, int]:
    """A family's counts summed over all its labels but one."""
    position = list(family.labels).index(label)
    sums = dict.fromkeys(family.labels[label], 0)
    for values, count in family.samples(totals):
        sums[values[position]] += count
    return sums
