"""What a run knows of itself under Prometheus names, the workers' shared counters first. It asks no worker."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.control.kernel_drops import kernel_drops_of
from proxy.control.state import State, by_label
from proxy.core import counters, ledger
from proxy.core.counters import Family, Histogram

ALWAYS_SHOWN = 32
"""A family of more series than this shows only those that have counted something."""
COREDNS_BUCKETS = slice(3, None)
"""CoreDNS's histograms begin at 250 us; our finer buckets below join its first one."""


def render(state: State, *, coredns: bool) -> bytes:
    """The whole exposition as text; with `coredns` also the series that dashboards made for CoreDNS read."""
    registry = CollectorRegistry()
    registry.register(OwnNames(state))
    if coredns:
        registry.register(CorednsNames(state))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class OwnNames(Collector):
    """Everything there is, as `sidestep_*`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state
        totals = state.totals()
        for family in counters.FAMILIES:
            metric = CounterMetricFamily(f"sidestep_{family.name}", family.help, labels=list(family.labels))
            for values, count in family.samples(totals):
                if count or family.size <= ALWAYS_SHOWN:
                    metric.add_metric(values, count)
            yield metric
        for histogram in counters.HISTOGRAMS:
            durations = HistogramMetricFamily(f"sidestep_{histogram.name}", histogram.help)
            durations.add_metric((), *_cumulative(histogram, totals))
            yield durations
        for slot, name, help_text in (
            (counters.CACHE_ENTRIES, "dns_cache_entries", "Entries in the cache."),
            (counters.CACHE_BYTES, "dns_cache_bytes", "Bytes that the cache's entries take."),
            (counters.IN_FLIGHT, "dns_questions_in_flight", "Questions being asked upstream."),
            (counters.TCP_CLIENTS, "dns_tcp_clients", "Open TCP connections of clients."),
        ):
            yield GaugeMetricFamily(f"sidestep_{name}", help_text, value=state.level(slot))
        yield from self._of_workers()
        yield from self._of_upstreams()
        yield from self._of_relays()
        yield from self._of_watch()
        yield from self._of_node()
        yield from self._of_configuration()

    def _of_workers(self) -> Iterator[Metric]:
        restarts = CounterMetricFamily("sidestep_worker_restarts", "Workers replaced.", labels=["worker"])
        ready = GaugeMetricFamily("sidestep_worker_ready", "1 while the worker reads.", labels=["worker"])
        age = GaugeMetricFamily(
            "sidestep_worker_heartbeat_age_seconds", "Since the worker's loop last turned.", labels=["worker"]
        )
        for _, slot in self._state.workers:
            restarts.add_metric([slot.name], slot.restarts)
            ready.add_metric([slot.name], float(slot.ready))
            age.add_metric([slot.name], slot.heartbeat_age)
        drops = CounterMetricFamily(
            "sidestep_udp_kernel_drops",
            "Datagrams that the kernel dropped because the listener's queue was full.",
            labels=["listen"],
        )
        for workers in (self._state.dns, self._state.relay):
            for address, count in kernel_drops_of(workers.sockets).items():
                drops.add_metric([address], count)
        return iter((restarts, ready, age, drops))

    def _of_upstreams(self) -> Iterator[Metric]:
        labels = ["zone", "upstream"]
        up = GaugeMetricFamily("sidestep_upstream_up", "1 while the upstream answers.", labels=labels)
        rtt = GaugeMetricFamily("sidestep_upstream_rtt_seconds", "Smoothed time to an answer.", labels=labels)
        for upstream in self._state.upstreams():
            values = [upstream.zone, upstream.address]
            up.add_metric(values, float(upstream.state == "up"))
            if upstream.rtt_ms is not None:
                rtt.add_metric(values, upstream.rtt_ms / 1000)
        return iter((up, rtt))

    def _of_relays(self) -> Iterator[Metric]:
        relays = self._state.relay
        blocks = {relay.name: relays.ledger(relay.name) for relay in relays.relays}
        # As it is counted, not as the status makes it up from the others: that sum falls for a moment while a line
        # moves from folded to dropped, and a counter must not.
        received = CounterMetricFamily(
            "sidestep_relay_received",
            "Lines (in datagram mode: datagrams) that arrived; received = forwarded + folded + dropped + those that "
            "a worker has in hand.",
            labels=["relay"],
        )
        forwarded = CounterMetricFamily(
            "sidestep_relay_forwarded", "Lines or datagrams sent to an endpoint.", labels=["relay"]
        )
        folded = GaugeMetricFamily(
            "sidestep_relay_folded",
            "Lines that were folded and not dropped since; a gauge, because one that is dropped moves there.",
            labels=["relay"],
        )
        dropped = CounterMetricFamily(
            "sidestep_relay_dropped", "Lines or datagrams that went nowhere, by reason.", labels=["relay", "reason"]
        )
        for name, counts in blocks.items():
            received.add_metric([name], counts[ledger.RECEIVED])
            forwarded.add_metric([name], counts[ledger.FORWARDED])
            folded.add_metric([name], counts[ledger.FOLDED])
            for reason, offset in ledger.DROPPED.items():
                dropped.add_metric([name, reason], counts[offset])
        yield from (received, forwarded, folded, dropped)
        for counted, offset in ledger.COUNTED.items():
            metric = CounterMetricFamily(f"sidestep_relay_{counted}", ledger.OTHERS[counted], labels=["relay"])
            for name, counts in blocks.items():
                metric.add_metric([name], counts[offset])
            yield metric
        for level, offset in ledger.LEVEL.items():
            gauge = GaugeMetricFamily(f"sidestep_relay_{level}", ledger.LEVELS[level], labels=["relay"])
            for name, counts in blocks.items():
                gauge.add_metric([name], counts[offset])
            yield gauge
        yield self._endpoint_states()

    def _endpoint_states(self) -> Metric:
        metric = GaugeMetricFamily("sidestep_relay_endpoints", "Endpoints by state.", labels=["relay", "state"])
        for relay in self._state.relay_status():
            states = [endpoint["state"] for endpoint in relay["endpoints"]]
            for state in ("ready", "serving", "ejected", "terminating"):
                metric.add_metric([relay["name"], state], states.count(state))
        return metric

    def _of_watch(self) -> Iterator[Metric]:
        watch = self._state.endpoints.status()
        if watch["age_seconds"] is not None:
            yield GaugeMetricFamily(
                "sidestep_watch_age_seconds",
                "Since the last event, bookmark or list of the API server (real bookmarks come every 60 s), or since "
                "the endpoints_file was read.",
                value=watch["age_seconds"],
            )
        if watch["source"] == "api":
            yield GaugeMetricFamily(
                "sidestep_watch_synced",
                "1 once this process has listed every namespace; 0 while it serves what was known before.",
                value=float(watch["synced"]),
            )
            problems = CounterMetricFamily(
                "sidestep_watch_problems",
                "What went wrong while following the API server, by reason.",
                labels=["reason"],
            )
            for reason, count in watch["problems"].items():
                problems.add_metric([reason], count)
            yield problems

    def _of_node(self) -> Iterator[Metric]:
        if self._state.node is None:
            return
        node = self._state.node.status()
        held = GaugeMetricFamily(
            "sidestep_lease_held", "1 while the kernel sends the listener's packets here.", labels=["listener"]
        )
        lost = CounterMetricFamily(
            "sidestep_lease_lost", "Times that a listener lost its lease.", labels=["listener"]
        )
        for listener, state in node["lease"].items():
            if state != "none":
                held.add_metric([listener], float(state == "held"))
                lost.add_metric([listener], node["lost"].get(listener, 0))
        repairs = CounterMetricFamily(
            "sidestep_node_repairs", "Times that somebody else's change was put right.", labels=["what"]
        )
        for what, count in node["repairs"].items():
            repairs.add_metric([what], count)
        yield from (held, lost, repairs)
        yield GaugeMetricFamily(
            "sidestep_node_draining", "1 while `sidestep drain` holds the leases down.", value=float(node["draining"])
        )

    def _of_configuration(self) -> Iterator[Metric]:
        configuration = self._state.configuration
        yield GaugeMetricFamily(
            "sidestep_config_last_reload_successful",
            "0 while the file is wrong and an older configuration serves.",
            value=float(configuration.error is None),
        )
        yield GaugeMetricFamily(
            "sidestep_config_last_reload_success_timestamp_seconds",
            "When the configuration that serves was read.",
            value=configuration.loaded_at,
        )
        yield InfoMetricFamily(
            "sidestep_config", "The configuration that serves.", value={"sha256": configuration.now.digest}
        )
        yield InfoMetricFamily("sidestep_build", "What runs.", value={"version": __version__})


class CorednsNames(Collector):
    """The same counters under the dozen names that CoreDNS dashboards use, as far as they mean the same.

    What we do not tell apart is empty (`family`, `to`) or in one series (all cache entries are `success`).
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        totals = self._state.totals()
        addresses = self._state.dns.sockets.addresses
        server = f"dns://{addresses[0]}" if addresses else ""
        requests = CounterMetricFamily(
            "coredns_dns_requests", "Answers sent.", labels=["server", "zone", "proto", "family", "type"]
        )
        for (proto, qtype), count in _by_proto_and_type(totals).items():
            requests.add_metric([server, ".", proto, "", qtype], count)
        responses = CounterMetricFamily(
            "coredns_dns_responses", "Answers sent, by rcode.", labels=["server", "zone", "rcode"]
        )
        for rcode, count in by_label(counters.ANSWERED, totals, "rcode").items():
            responses.add_metric([server, ".", rcode], count)
        yield from (requests, responses)
        yield _coredns_histogram(
            "coredns_dns_request_duration_seconds",
            {"server": server, "zone": "."},
            counters.REQUEST_SECONDS,
            totals,
        )
        yield _coredns_histogram(
            "coredns_proxy_request_duration_seconds",
            {"proxy_name": "forward", "to": "", "rcode": ""},
            counters.UPSTREAM_SECONDS,
            totals,
        )
        yield from self._of_cache(server, totals)
        for name, help_text, labels, count in (
            ("forward_max_concurrent_rejects", "Too many in flight.", {}, _total(counters.OVERLOADED, totals)),
            (
                "proxy_healthcheck_failures",
                "Tries that brought no usable answer.",
                {"proxy_name": "forward", "to": ""},
                _total(counters.UPSTREAM_FAILED, totals),
            ),
            ("panics", "Workers replaced.", {}, self._state.restarts),
        ):
            metric = CounterMetricFamily(f"coredns_{name}", help_text, labels=list(labels))
            metric.add_metric(list(labels.values()), count)
            yield metric
        build = GaugeMetricFamily("coredns_build_info", "What runs.", labels=["version", "revision", "goversion"])
        build.add_metric([f"sidestep-{__version__}", "", ""], 1)
        yield build

    def _of_cache(self, server: str, totals: list[int]) -> Iterable[Metric]:
        sources = by_label(counters.ANSWERED, totals, "source")
        denials = sum(
            count
            for (_, source, _, rcode), count in counters.ANSWERED.samples(totals)
            if source == "cache" and rcode != "NOERROR"
        )
        entries = GaugeMetricFamily("coredns_cache_entries", "Entries.", labels=["server", "type", "zones"])
        entries.add_metric([server, "success", "."], self._state.level(counters.CACHE_ENTRIES))
        hits = CounterMetricFamily("coredns_cache_hits", "Hits.", labels=["server", "type", "zones"])
        hits.add_metric([server, "success", "."], sources["cache"] - denials)
        hits.add_metric([server, "denial", "."], denials)
        requests = CounterMetricFamily("coredns_cache_requests", "Lookups.", labels=["server", "zones"])
        requests.add_metric([server, "."], sources["cache"] + sources["stale"] + sources["upstream"])
        stale = CounterMetricFamily("coredns_cache_served_stale", "Stale answers.", labels=["server", "zones"])
        stale.add_metric([server, "."], sources["stale"])
        return entries, hits, requests, stale


def _coredns_histogram(
    name: str, labels: dict[str, str], histogram: Histogram, totals: list[int]
) -> HistogramMetricFamily:
    metric = HistogramMetricFamily(name, histogram.help, labels=list(labels))
    buckets, total = _cumulative(histogram, totals)
    metric.add_metric(list(labels.values()), buckets[COREDNS_BUCKETS], total)
    return metric


def _cumulative(histogram: Histogram, totals: list[int]) -> tuple[list[tuple[str, float]], float]:
    """Prometheus's buckets (each counts all below it) and the sum in seconds."""
    counts = totals[histogram.base : histogram.base + histogram.size]
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip([*map(str, histogram.BOUNDS), "+Inf"], counts, strict=False):
        running += count
        buckets.append((bound, running))
    return buckets, counts[-1] / 1_000_000


def _by_proto_and_type(totals: list[int]) -> dict[tuple[str, str], int]:
    sums: dict[tuple[str, str], int] = {}
    for (proto, _, qtype, _), count in counters.ANSWERED.samples(totals):
        sums[proto, qtype] = sums.get((proto, qtype), 0) + count
    return sums


def _total(family: Family, totals: list[int]) -> int:
    return sum(totals[family.base : family.base + family.size])
