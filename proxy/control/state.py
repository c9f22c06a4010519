"""What a run knows of itself, put together for people and machines: `/status.json` and what metrics read."""

import os
import time
from typing import Any

from proxy import __version__
from proxy.control.configuration import Configuration
from proxy.control.heartbeats import HEARTBEAT_LIMIT
from proxy.control.history import History
from proxy.control.sockets import TRANSPORTS, ListenSockets
from proxy.control.workers import Workers
from proxy.core import counters
from proxy.worker.channel import UpstreamReport
from proxy.worker.mmsg import kernel_drops


class State:
    """A view of the parts of a run; holds nothing of its own but the last minutes' rates."""

    def __init__(self, configuration: Configuration, sockets: ListenSockets, workers: Workers) -> None:
        self.configuration = configuration
        self.sockets = sockets
        self.workers = workers
        self.started = time.monotonic()
        self.history = History()

    def totals(self) -> list[int]:
        """Every counter, summed over all workers that there ever were."""
        memories = [slot.counts for slot in self.workers.slots]
        return [sum(column) for column in zip(*memories, strict=True)] if memories else [0] * counters.SLOTS

    def remember(self) -> None:
        """Take one sample for the history."""
        family = counters.ANSWERED
        answered = sum(self.totals()[family.base : family.base + family.size])
        self.history.sample(time.monotonic(), answered)

    def level(self, slot: int) -> int:
        """A level (not a count), such as CACHE_BYTES, summed over the present workers."""
        return sum(worker.counts[slot] for worker in self.workers.active if worker.child is not None)

    def kernel_drops(self) -> dict[str, int]:
        """Datagrams that each UDP address lost to a full queue."""
        drops: dict[str, int] = {}
        for address, sock in self.sockets.udp_sockets():
            drops[address] = drops.get(address, 0) + kernel_drops(sock)
        return drops

    def upstreams(self) -> list[UpstreamReport]:
        """Every upstream that is configured, with what the workers say of it.

        It is up if one of them finds it so, or none has said anything yet; its RTT is the mean of theirs.
        """
        said: dict[tuple[str, str], list[UpstreamReport]] = {
            (zone.suffix, address): []
            for zone in self.configuration.now.policy.zones
            for address in (*zone.upstreams, *zone.fallback)
        }
        for slot in self.workers.active:
            for report in slot.upstreams:
                if (report.zone, report.address) in said:
                    said[report.zone, report.address].append(report)
        merged = []
        for (zone, address), reports in said.items():
            rtts = [report.rtt_ms for report in reports if report.rtt_ms is not None]
            up = not reports or any(report.state == "up" for report in reports)
            rtt = round(sum(rtts) / len(rtts), 3) if rtts else None
            merged.append(UpstreamReport(zone, address, "up" if up else "down", rtt))
        return merged

    def unhealthy(self) -> list[str]:
        """Why the loops do not all turn; that this is asked and answered shows that control's does."""
        return [
            f"worker {slot.name} is not running"
            if slot.child is None
            else f"worker {slot.name} stood still for {slot.heartbeat_age:.1f} s"
            for slot in self.workers.active
            if slot.child is None or slot.heartbeat_age > HEARTBEAT_LIMIT
        ]

    def status(self) -> dict[str, Any]:
        """`/status.json`: the contract of the design's section 10, and more beside it."""
        totals = self.totals()
        sources = by_label(counters.ANSWERED, totals, "source")
        rcodes = by_label(counters.ANSWERED, totals, "rcode")
        histogram = counters.REQUEST_SECONDS
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self.started, 1),
            "config": self.configuration.status(),
            "listeners": [{"address": address, "transports": list(TRANSPORTS)} for address in self.sockets.addresses],
            "workers": [
                {
                    "role": "dns",
                    "pid": slot.child.pid if slot.child else None,
                    "restarts": slot.restarts,
                    "ready": slot.ready,
                    "heartbeat_age_seconds": round(slot.heartbeat_age, 3),
                }
                for slot in self.workers.active
            ],
            "dns": {
                "cache": {
                    "entries": self.level(counters.CACHE_ENTRIES),
                    "bytes": self.level(counters.CACHE_BYTES),
                    "hit_ratio": hit_ratio(sources),
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
                    "kernel_drops": self.kernel_drops(),
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
            "udp": [],
            "watch": {"source": "none", "age_seconds": None, "resource_version": None},
            "node": {"lease": {}},
        }


def by_label(family: counters.Family, totals: list[int], label: str) -> dict[str, int]:
    """A family's counts summed over all its labels but one."""
    position = list(family.labels).index(label)
    sums = dict.fromkeys(family.labels[label], 0)
    for values, count in family.samples(totals):
        sums[values[position]] += count
    return sums


def hit_ratio(sources: dict[str, int]) -> float | None:
    """The share of answers from the cache, of those that an upstream would have had to give; None before any."""
    hits = sources["cache"] + sources["stale"]
    total = hits + sources["upstream"]
    return round(hits / total, 4) if total else None
