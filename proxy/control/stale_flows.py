"""`sidestep conntrack`: which UDP flows of this node go where their Service no longer is, and away with them.

What is found is judged once more by endpoints that were read after the table, so that none is stale for being new.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any, TypeVar

from proxy.cluster.answers import ApiError
from proxy.cluster.overview import Overview, overview
from proxy.control.configuration import access_of, read_settings, slices_of
from proxy.control.errors import CannotRun
from proxy.control.text import Table
from proxy.core.endpoint_choice import live
from proxy.core.endpoints import Service, ServicePort, Slice
from proxy.core.flow_watch import addresses_of
from proxy.core.flows import Flow, ServiceAddress, ServiceAddresses, StaleFlow, Untranslated
from proxy.node import conntrack
from proxy.node.udp_sockets import bound_addresses
from proxy.settings import Settings, own_listener, wanted_by
from proxy.settings.sections import ServiceUpstreams
from proxy.settings.units import UNIX

Network = IPv4Network | IPv6Network
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """Stale flows, and what makes this less than all of them."""

    flows: tuple[StaleFlow, ...]
    notes: tuple[str, ...]


async def find(path: Path | None, ranges: Sequence[Network] = ()) -> Found:
    """The stale flows by this configuration; `ranges` are where ClusterIPs lie, if no API server tells it.

    Raises CannotRun.
    """
    settings, _ = read_settings(path)
    known, notes = await _known(settings, ranges)
    dumped = _readable(lambda: conntrack.dump(known.addresses, known.concerns, known.judge))
    stale = dumped.found
    if stale:
        known, notes = await _known(settings, ranges)
        stale = tuple(filter(None, (known.judge(one.flow) for one in stale)))
    if dumped.interrupted:
        notes.append(interruption(dumped))
    return Found(tuple(sorted(stale, key=lambda one: (one.service, one.reason, one.flow.source))), tuple(notes))


def delete(stale: Iterable[StaleFlow]) -> list[bool]:
    """Delete exactly these; False for one that was gone already. Raises CannotRun."""
    return _readable(lambda: list(conntrack.delete(one.flow for one in stale)))


def interruption(dumped: conntrack.Dump[StaleFlow]) -> str:
    """What it means that a dump was interrupted."""
    times = "once" if dumped.interrupted == 1 else f"{dumped.interrupted} times"
    outcome = "and then whole" if dumped.whole else "and not whole in the end: some flows may be missing; try again"
    return f"the conntrack table changed while it was read: read again {times}, {outcome}"


def as_json(stale: StaleFlow) -> dict[str, Any]:
    """One flow for `-o json`."""
    flow = stale.flow
    return {
        "source": flow.source,
        "service": stale.service,
        "target": flow.target,
        "reason": stale.reason,
        "address": flow.destination,
        "packets": flow.packets,
        "age_seconds": _age(flow),
        "expires_seconds": flow.expires,
        "answered": flow.answered,
    }


def table(stale: Sequence[StaleFlow]) -> Table:
    """The flows for people."""
    return Table(
        f"{len(stale)} stale UDP flow{'' if len(stale) == 1 else 's'}",
        ("client", "service", "sent to", "goes to", "reason", "packets", "age", "ends in"),
        [
            (
                one.flow.source,
                one.service,
                one.flow.destination,
                one.flow.target,
                one.reason,
                "-" if one.flow.packets is None else str(one.flow.packets),
                "-" if (age := _age(one.flow)) is None else f"{age:.0f} s",
                f"{one.flow.expires:.0f} s",
            )
            for one in stale
        ],
    )


def missing_columns(stale: Sequence[StaleFlow]) -> list[str]:
    """How to get the columns that are empty."""
    wanted = []
    if any(one.flow.packets is None for one in stale):
        wanted.append("packets: sysctl -w net.netfilter.nf_conntrack_acct=1")
    if any(one.flow.started is None for one in stale):
        wanted.append("age: sysctl -w net.netfilter.nf_conntrack_timestamp=1")
    return wanted


def listener_addresses(
    settings: Settings, targets: Callable[[ServicePort], frozenset[str]], missing: Iterable[str], fate: "Fate"
) -> Iterator[ServiceAddress]:
    """What flows to our own listeners may go to: what the kernel falls back to when this proxy is out of the path."""
    missing = frozenset(missing)
    for relay in settings.udp:
        wanted = wanted_by(relay)
        for address in relay.listen:
            if (plain := _plain(address)) is not None:
                yield ServiceAddress(
                    plain,
                    relay.service or "",
                    None if wanted is None else targets(wanted),
                    fate.of(plain, settings.node.manage),
                    gone=relay.service in missing,
                )
    if settings.dns is None:
        return
    services = []
    static: set[str] = set()
    for zone in settings.dns.zones:
        static |= set(zone.fallback)
        if isinstance(zone.upstreams, ServiceUpstreams):
            services.append(ServicePort(zone.upstreams.service, zone.upstreams.port))
        elif isinstance(zone.upstreams, tuple):
            static |= set(zone.upstreams)
    names = {wanted.service for wanted in services}
    for address in settings.dns.listen:
        if (plain := _plain(address)) is not None:
            yield ServiceAddress(
                plain,
                next(iter(names)) if len(names) == 1 else "",
                frozenset(static).union(*map(targets, services)) if services else None,
                fate.of(plain, settings.node.manage),
            )


class Fate:
    """What becomes of packets that nothing translates, by the sockets that there are now."""

    def __init__(self) -> None:
        self._sockets: defaultdict[str, list[str]] = defaultdict(list)
        for address in bound_addresses():
            self._sockets[address.rpartition(":")[2]].append(address)

    def of(self, address: str, managed: bool = False) -> Untranslated:
        """`managed`: the kernel is set up so that they are never tracked, so those that are never were meant."""
        host, _, port = address.rpartition(":")
        if ip_address(host.strip("[]")).is_loopback:
            return "is meant"
        everywhere = f"[::]:{port}" if host.startswith("[") else f"0.0.0.0:{port}"
        if not own_listener(address, [everywhere]):
            return "leaves"
        return "is meant" if not managed and own_listener(address, self._sockets[port]) else "stays here"


async def _known(settings: Settings, ranges: Sequence[Network]) -> tuple[ServiceAddresses, list[str]]:
    notes: list[str] = []
    services: dict[str, Service] = {}
    missing: frozenset[str] = frozenset()
    wanted = {port.service for port in settings.wanted_ports}
    slices: Sequence[Slice] | None = slices_of(settings)
    kubernetes = settings.kubernetes
    if slices is not None:
        ranges = ()
    elif wanted or kubernetes.kubeconfig is not None or kubernetes.server is not None:
        seen = await _seen(settings, wanted)
        notes += seen.notes
        services, slices, missing = dict(seen.services), seen.slices, seen.missing
        ranges = (seen.ranges or ranges) if seen.everything else ()
    else:
        raise CannotRun(
            "no Service is known: name one in udp[].service or in the upstreams of a zone of dns, or say in "
            "kubernetes.kubeconfig how to ask the API server for all of them"
        )
    by_service: defaultdict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        by_service[f"{one.namespace}/{one.service}"].append(one)
    fate = Fate()
    addresses = list(listener_addresses(settings, lambda port: live(by_service[port.service], port), missing, fate))
    for name, service in services.items():
        for found in addresses_of(name, service, by_service[name]):
            addresses.append(replace(found, untranslated=fate.of(found.address)))
    notes += [
        f"Service {name} has no EndpointSlice: every flow that was translated counts as stale; is its name right?"
        for name in sorted(wanted - missing)
        if name not in by_service or not by_service[name]
    ]
    notes += [f"Service {name} does not exist" for name in sorted(missing)]
    return ServiceAddresses(addresses, ranges), notes


async def _seen(settings: Settings, wanted: Iterable[str]) -> Overview:
    try:
        return await overview(access_of(settings), wanted)
    except ApiError as error:
        raise CannotRun(f"endpoints are not known, so nothing can be judged: {error}") from error


def _readable(act: Callable[[], T]) -> T:
    try:
        return act()
    except conntrack.ConntrackError as error:
        raise CannotRun(str(error)) from error


def _plain(address: str) -> str | None:
    """As conntrack has it; None for what isn't one address."""
    if address.startswith(UNIX):
        return None
    host, _, port = address.rpartition(":")
    ip = ip_address(host.strip("[]").partition("%")[0])
    if ip.is_unspecified:
        return None
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def _age(flow: Flow) -> float | None:
    return None if flow.started is None else round(max(0.0, time.time() - flow.started), 3)
