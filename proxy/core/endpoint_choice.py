"""Which endpoints of a Service's port count now: all slices united, what they contradict each other in decided.

The rules are kube-proxy's (ready before serving and terminating, hints, internalTrafficPolicy), one pod being one
endpoint. Equal slices in any order give equal endpoints.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from proxy.core.endpoints import Endpoint, Place, Service, ServicePort, Slice, SliceEndpoint, State


@dataclass(frozen=True, slots=True)
class _Found:
    """One endpoint at one port, and how new the slice is that says so."""

    address: str
    ipv6: bool
    version: int
    of: SliceEndpoint

    @property
    def whose(self) -> str:
        return self.of.target or self.address

    @property
    def liveness(self) -> int:
        """0 for the most alive."""
        if self.of.ready:
            return 0
        if self.of.terminating:
            return 1 if self.of.serving else 2
        return 3


def endpoints_of(
    slices: Iterable[Slice],
    wanted: ServicePort,
    place: Place,
    routable: Callable[[str], bool],
    service: Service | None = None,
) -> tuple[Endpoint, ...]:
    """The endpoints of the wanted port with their states, in the order of their addresses.

    `routable` tells whether this node can send to an IP; it is asked only for pods with two families. `service` is
    what is known of the Service object; without it every endpoint of the cluster may be used.
    """
    found = _one_family(_one_per_address(_newest(_united(slices, wanted))), routable)
    if service is not None and service.local_only:
        found = [one for one in found if place.node and one.of.node == place.node]
        ready = [one for one in found if one.of.ready]
    else:
        ready = _nearest([one for one in found if one.of.ready], place)
    fallback: State = "terminating" if ready else "serving"
    chosen = [Endpoint(one.address, "ready", one.of.target) for one in ready]
    chosen += [
        Endpoint(one.address, fallback if one.of.serving else "terminating", one.of.target)
        for one in found
        if one.of.terminating and not one.of.ready
    ]
    return tuple(sorted(chosen, key=lambda endpoint: endpoint.address))


def usable(endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
    """The addresses that may be sent to, in the same order."""
    return tuple(endpoint.address for endpoint in endpoints if endpoint.state != "terminating")


def live(slices: Iterable[Slice], wanted: ServicePort) -> frozenset[str]:
    """Every address that a flow may rightly go to: ready, or terminating and serving; anywhere, of both families."""
    found = _one_per_address(_newest(_united(slices, wanted)))
    return frozenset(one.address for one in found if one.liveness <= 1)


def must_apply(old: Iterable[Endpoint], new: Iterable[Endpoint]) -> bool:
    """Whether the new ones can't wait for further changes: a used address went away, or the first one came."""
    before, after = set(usable(old)), set(usable(new))
    return not before <= after or (not before and bool(after))


def place_zone(slices: Iterable[Slice], node: str) -> str:
    """The zone of a node as its own endpoints tell it; empty when none does."""
    if not node:
        return ""
    return min(
        (
            endpoint.zone
            for found in slices
            for endpoint in found.endpoints
            if endpoint.node == node and endpoint.zone
        ),
        default="",
    )


def service_address(service: Service, port: str | int) -> str | None:
    """The Service's own `ip:port` for a wanted port, IPv4 first; None if it is headless or has no such UDP port."""
    ips = sorted((ip for ip in service.cluster_ips if ip not in ("", "None")), key=lambda ip: ":" in ip)
    numbers = [
        entry.number
        for entry in service.ports
        if entry.protocol == "UDP" and port == (entry.name if isinstance(port, str) else entry.target)
    ]
    return _joined(ips[0], numbers[0]) if ips and numbers else None


def _united(slices: Iterable[Slice], wanted: ServicePort) -> Iterable[_Found]:
    """Slices of one Service may have different numbers for one port name: each pod has its own."""
    for found in slices:
        if f"{found.namespace}/{found.service}" != wanted.service:
            continue
        numbers = {
            port.number
            for port in found.ports
            if port.protocol == "UDP" and wanted.port == (port.name if isinstance(wanted.port, str) else port.number)
        }
        ipv6 = found.family == "IPv6"
        for number in numbers:
            for endpoint in found.endpoints:
                yield _Found(_joined(endpoint.address, number), ipv6, found.version, endpoint)


def _newest(found: Iterable[_Found]) -> list[_Found]:
    """While an endpoint moves it stands in two slices; the newer one knows it better."""
    found = list(found)
    versions: dict[tuple[str, bool], int] = {}
    for one in found:
        key = one.whose, one.ipv6
        versions[key] = max(versions.get(key, 0), one.version)
    return [one for one in found if one.version == versions[one.whose, one.ipv6]]


def _one_per_address(found: Iterable[_Found]) -> list[_Found]:
    """An address of two pods was used again before the first one's entry went: who is alive has it."""
    kept: dict[str, _Found] = {}
    for one in found:
        other = kept.get(one.address)
        if other is None or _claim(one) < _claim(other):
            kept[one.address] = one
    return list(kept.values())


def _claim(one: _Found) -> tuple[object, ...]:
    """Smaller is stronger; what follows the version only makes the choice independent of the order of slices."""
    of = one.of
    return one.liveness, -one.version, not of.serving, of.target, of.node, of.zone, of.for_zones, of.for_nodes


def _one_family(found: Sequence[_Found], routable: Callable[[str], bool]) -> list[_Found]:
    """Of a pod with an IPv4 and an IPv6 address the one that can be reached, IPv4 first and if neither can."""
    ips: dict[str, tuple[list[str], list[str]]] = {}
    for one in found:
        ips.setdefault(one.whose, ([], []))[one.ipv6].append(one.of.address)
    takes_ipv6 = {
        whose
        for whose, (ipv4, ipv6) in ips.items()
        if not ipv4 or (ipv6 and not any(map(routable, ipv4)) and any(map(routable, ipv6)))
    }
    return [one for one in found if one.ipv6 == (one.whose in takes_ipv6)]


def _nearest(ready: list[_Found], place: Place) -> list[_Found]:
    """Hints count only if every ready endpoint has them and one of them means this node, or else this zone."""
    for hints_of, here in ((_for_nodes, place.node), (_for_zones, place.zone)):
        if all(map(hints_of, ready)):
            near = [one for one in ready if here in hints_of(one)]
            if near:
                return near
    return ready


def _for_nodes(one: _Found) -> tuple[str, ...]:
    return one.of.for_nodes


def _for_zones(one: _Found) -> tuple[str, ...]:
    return one.of.for_zones


def _joined(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
