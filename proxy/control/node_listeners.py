"""What the kernel is told of each listener: whether its address is a Service's, and who else takes its packets."""

from collections.abc import Iterable, Sequence

from proxy.control.configuration import Loaded
from proxy.control.endpoints import Endpoints
from proxy.node.table import NodeListener
from proxy.settings import own_listener, wanted_by
from proxy.settings.sections import DnsZone, ServiceUpstreams


def node_listeners(loaded: Loaded, endpoints: Endpoints) -> list[NodeListener]:
    """One for each address and transport, with the endpoints of now."""
    settings = loaded.settings
    zones = settings.dns.zones if settings.dns else ()
    services = _service_addresses(loaded, endpoints, zones)
    resolvers = _resolvers(loaded, endpoints, zones)
    listeners = [
        NodeListener(address, transport, address in services, resolvers)
        for address in loaded.listen
        for transport in ("udp", "tcp")
    ]
    for relay in settings.udp:
        wanted = wanted_by(relay)
        targets = () if wanted is None else endpoints.usable(wanted)
        listeners += [
            NodeListener(address, "udp", address in services, targets, relay=True)
            for address in relay.listen
            if not address.startswith("unix:")
        ]
    return listeners


def _service_addresses(loaded: Loaded, endpoints: Endpoints, zones: Sequence[DnsZone]) -> set[str]:
    """Addresses that are Services': the API server said so, or a zone falls back to a listener of ours."""
    told = [endpoints.service_address(wanted) for wanted in loaded.settings.wanted_ports]
    return {address for address in told if address} | {address for zone in zones for address in zone.fallback}


def _resolvers(loaded: Loaded, endpoints: Endpoints, zones: Sequence[DnsZone]) -> tuple[str, ...]:
    """Who answers DNS in our place: the pods of a zone's Service, else what is configured, long suffixes first."""
    by_length = sorted(zones, key=lambda zone: -len(zone.suffix))
    for zone in by_length:
        if isinstance(zone.upstreams, ServiceUpstreams):
            usable = endpoints.usable(zone.upstreams.wanted)
            if usable:
                return usable
    for addresses in (*(zone.fallback for zone in by_length), *(_listed(loaded, zone) for zone in by_length)):
        others = _others(loaded, addresses)
        if others:
            return others
    return ()


def _listed(loaded: Loaded, zone: DnsZone) -> tuple[str, ...]:
    if isinstance(zone.upstreams, tuple):
        return zone.upstreams
    if isinstance(zone.upstreams, ServiceUpstreams):
        return ()
    return loaded.nameservers[zone.upstreams.resolv_conf]


def _others(loaded: Loaded, addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(address for address in addresses if own_listener(address, loaded.listen) is None)
