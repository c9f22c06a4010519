"""What the kernel is told of each listener: whether its address is a Service's, and who else takes its packets."""

from collections.abc import Iterable, Sequence

from proxy.control.configuration import Loaded
from proxy.control.endpoints import Endpoints
from proxy.node.table import NodeListener
from proxy.settings import own_listener, wanted_by
from proxy.settings.sections import DnsZone, ServiceUpstreams
from proxy.settings.units import UNIX, split_address


def node_listeners(loaded: Loaded, endpoints: Endpoints) -> list[NodeListener]:
    """One for each address and transport, with the endpoints of now."""
    settings = loaded.settings
    zones = settings.dns.zones if settings.dns else ()
    resolvers = _resolvers(loaded, endpoints, zones)
    listeners = [
        NodeListener(address, transport, _is_service(address, loaded, endpoints), resolvers)
        for address in loaded.listen
        for transport in ("udp", "tcp")
    ]
    for relay in settings.udp:
        wanted = wanted_by(relay)
        targets = () if wanted is None else endpoints.for_kernel(wanted).usable
        listeners += [
            NodeListener(address, "udp", _is_service(address, loaded, endpoints), targets, relay=True)
            for address in relay.listen
            if not address.startswith(UNIX)
        ]
    return listeners


def _is_service(address: str, loaded: Loaded, endpoints: Endpoints) -> bool:
    """Whether a Service has this IP: the API server said so, or a zone falls back to it though we listen there."""
    zones = loaded.settings.dns.zones if loaded.settings.dns else ()
    return _is_told(address, loaded, endpoints) or any(address in zone.fallback for zone in zones)


def _is_told(address: str, loaded: Loaded, endpoints: Endpoints) -> bool:
    ip = str(split_address(address)[0])
    return any(ip in endpoints.for_kernel(wanted).ips for wanted in loaded.settings.wanted_ports)


def _resolvers(loaded: Loaded, endpoints: Endpoints, zones: Sequence[DnsZone]) -> tuple[str, ...]:
    """Who answers DNS in our place: the pods of a zone's Service, else what is configured, long suffixes first."""
    by_length = sorted(zones, key=lambda zone: -len(zone.suffix))
    for zone in by_length:
        if isinstance(zone.upstreams, ServiceUpstreams):
            usable = endpoints.for_kernel(zone.upstreams.wanted).usable
            if usable:
                return usable
    for addresses in (*(zone.fallback for zone in by_length), *(_listed(loaded, zone) for zone in by_length)):
        others = _others(loaded, endpoints, addresses)
        if others:
            return others
    return ()


def _listed(loaded: Loaded, zone: DnsZone) -> tuple[str, ...]:
    if isinstance(zone.upstreams, tuple):
        return zone.upstreams
    if isinstance(zone.upstreams, ServiceUpstreams):
        return ()
    return loaded.nameservers[zone.upstreams.resolv_conf]


def _others(loaded: Loaded, endpoints: Endpoints, addresses: Iterable[str]) -> tuple[str, ...]:
    """Those that a packet gets to: of two DNATs the kernel does one, so a Service's IP is none."""
    return tuple(
        address
        for address in addresses
        if own_listener(address, loaded.listen) is None and not _is_told(address, loaded, endpoints)
    )
