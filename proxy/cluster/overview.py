"""One look at Services and their slices, as far as the API server lets us see them: of the whole cluster, or of some.

It follows nothing; what it returns was true a moment ago.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar

import msgspec

from proxy.cluster.access import Access
from proxy.cluster.answers import ApiError
from proxy.cluster.api import Api, Connection
from proxy.cluster.objects import Decoded, ObjectError
from proxy.cluster.services import decode_service
from proxy.cluster.slices import decode_slice
from proxy.cluster.timing import Timing
from proxy.core.endpoints import Service, Slice

Network = IPv4Network | IPv6Network
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is; keys are `namespace/name`."""

    services: Mapping[str, Service]
    slices: tuple[Slice, ...]
    """Those with a UDP port."""
    missing: frozenset[str]
    """Of the Services asked for, those that don't exist."""
    everything: bool
    """Whether these are all Services of the cluster."""
    ranges: tuple[Network, ...]
    """Where the cluster's ClusterIPs lie; empty if it isn't told."""
    notes: tuple[str, ...]
    """What could not be seen, and what to do about it."""


async def overview(access: Access, wanted: Iterable[str], timing: Timing | None = None) -> Overview:
    """Everything if we may list it, else the wanted Services (`namespace/name`). Raises ApiError."""
    wanted = sorted(set(wanted))
    async with Api(access, timing or Timing()).connect() as connection:
        try:
            return await _everything(connection, wanted)
        except ApiError as error:
            if error.status != 403 or not wanted:
                raise
            return await _some(connection, wanted, str(error))


async def _everything(connection: Connection, wanted: Iterable[str]) -> Overview:
    notes: list[str] = []
    raw = await connection.everything("api/v1", "services", "Service")
    services = {f"{one.namespace}/{one.name}": one.value for one in _decoded(raw, decode_service, notes) if one.value}
    raw = await connection.everything("apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
    slices = tuple(one.value for one in _decoded(raw, decode_slice, notes) if one.value and _has_udp(one.value))
    ranges: list[Network] = []
    try:
        for item in await connection.everything("apis/networking.k8s.io/v1", "servicecidrs", "ServiceCIDR"):
            ranges += _ranges(msgspec.json.decode(item))
    except (ApiError, ValueError) as error:
        if isinstance(error, ApiError) and error.status not in (403, 404):
            raise
        notes.append(f"{error}; flows of deleted Services are found only with --service-cidr")
    missing = frozenset(wanted) - services.keys()
    return Overview(services, slices, missing, True, tuple(ranges), tuple(notes))


async def _some(connection: Connection, wanted: Iterable[str], why: str) -> Overview:
    notes = [f"{why}; only the Services of the configuration are looked at, and none that was deleted"]
    services: dict[str, Service] = {}
    missing = set()
    by_namespace: dict[str, list[str]] = {}
    for name in wanted:
        namespace, _, bare = name.partition("/")
        by_namespace.setdefault(namespace, []).append(bare)
        try:
            body = await connection.service(namespace, bare)
        except ApiError as error:
            if error.status != 403:
                raise
            notes.append(f"{error}; its ClusterIP is not known")
            continue
        if body is None:
            missing.add(name)
            continue
        for one in _decoded([body], decode_service, notes):
            if one.value is not None:
                services[name] = one.value
    raw = [
        item
        for namespace, names in by_namespace.items()
        for item in (await connection.list(namespace, names, "")).items or ()
    ]
    slices = tuple(one.value for one in _decoded(raw, decode_slice, notes) if one.value and _has_udp(one.value))
    return Overview(services, slices, frozenset(missing), False, (), tuple(notes))


def _has_udp(one: Slice) -> bool:
    return any(port.protocol == "UDP" for port in one.ports)


def _decoded(
    items: Iterable[bytes | msgspec.Raw], decode: Callable[[Any], Decoded[T]], notes: list[str]
) -> Iterable[Decoded[T]]:
    for item in items:
        try:
            one = decode(item)
        except ObjectError as error:
            notes.append(str(error))
        else:
            notes += one.problems
            yield one


def _ranges(content: Any) -> list[Network]:
    """The networks of a ServiceCIDR. Raises ValueError for what is none."""
    try:
        return [ip_network(text) for text in content["spec"]["cidrs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a ServiceCIDR without spec.cidrs") from error
