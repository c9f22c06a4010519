"""An EndpointSlice of discovery.k8s.io/v1 as a value: what routing needs of it, and what in it can't be used."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast

import msgspec

from proxy.cluster.objects import Decoded, Flaw, Flaws, converted, described, ip_of, listed, named, opened, port_flaw
from proxy.core.endpoints import Slice, SliceEndpoint, SlicePort

KIND, API_VERSION = "EndpointSlice", "discovery.k8s.io/v1"
SERVICE_LABEL = "kubernetes.io/service-name"
CHANGED_AT = "endpoints.kubernetes.io/last-change-trigger-time"
_NO_PORT, _NO_ENDPOINT = "that port is left out", "that endpoint is left out"


class _Conditions(msgspec.Struct):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Target(msgspec.Struct):
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None


class _Hint(msgspec.Struct):
    name: str


class _Hints(msgspec.Struct, rename="camel"):
    for_zones: list[_Hint] | None = None
    for_nodes: list[_Hint] | None = None


class _Endpoint(msgspec.Struct, rename="camel"):
    addresses: list[Any] | None = None
    conditions: _Conditions | None = None
    target_ref: _Target | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: _Hints | None = None


class _Port(msgspec.Struct):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None


def decode_slice(given: bytes | msgspec.Raw | Mapping[str, Any]) -> Decoded[Slice]:
    """The slice in this JSON or in what was decoded already. Raises ObjectError if it is none at all.

    Its value is None if it belongs to no Service or has no IP addresses. Endpoints and ports that are wrong are left
    out, with a flaw each.
    """
    content, metadata = opened(given, KIND, API_VERSION)
    namespace, name = metadata.namespace or "default", metadata.name or ""
    service = metadata.label(SERVICE_LABEL)
    family = content.get("addressType")
    whose = named(KIND, namespace, name)
    flaws = Flaws()
    value = None
    if not service:
        pass
    elif family in ("IPv4", "IPv6"):
        value = Slice(
            namespace,
            name,
            service,
            cast(Literal["IPv4", "IPv6"], family),
            _ports(listed(content, ("ports",), whose), flaws),
            _endpoints(listed(content, ("endpoints",), whose), str(family), namespace, flaws),
            metadata.version,
            _unix_time(metadata.annotation(CHANGED_AT)),
        )
    elif family != "FQDN":
        flaws.add(("addressType",), f"found {described(family)}; allowed are IPv4 and IPv6", "the slice is left out")
    return Decoded(KIND, namespace, name, metadata.version, value, flaws.all())


def _ports(items: Sequence[Any], flaws: Flaws) -> tuple[SlicePort, ...]:
    ports = []
    for index, item in enumerate(items):
        way = ("ports", index)
        port = converted(item, _Port, way)
        if isinstance(port, Flaw):
            flaws.add(port.way, port.reason, _NO_PORT)
        elif port.port is not None:
            if wrong := port_flaw(port.port):
                flaws.add((*way, "port"), wrong, _NO_PORT)
            else:
                ports.append(SlicePort(port.name or "", port.protocol or "TCP", port.port))
    return tuple(ports)


def _endpoints(items: Sequence[Any], family: str, namespace: str, flaws: Flaws) -> tuple[SliceEndpoint, ...]:
    endpoints = []
    for index, item in enumerate(items):
        way = ("endpoints", index)
        endpoint = converted(item, _Endpoint, way)
        if isinstance(endpoint, Flaw):
            flaws.add(endpoint.way, endpoint.reason, _NO_ENDPOINT)
        elif not endpoint.addresses:
            flaws.add((*way, "addresses"), "found none; allowed is one address or more", _NO_ENDPOINT)
        else:
            try:
                address = ip_of(endpoint.addresses[0], family)
            except ValueError as error:
                flaws.add((*way, "addresses", 0), str(error), _NO_ENDPOINT)
            else:
                endpoints.append(_endpoint(address, endpoint, namespace))
    return tuple(endpoints)


def _endpoint(address: str, endpoint: _Endpoint, namespace: str) -> SliceEndpoint:
    conditions = endpoint.conditions or _Conditions()
    hints = endpoint.hints or _Hints()
    return SliceEndpoint(
        address,
        # Absent ones mean ready, serving and not terminating (discovery/v1 types.go).
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
        target=_target(endpoint.target_ref, namespace),
        node=endpoint.node_name or "",
        zone=endpoint.zone or "",
        for_zones=tuple(hint.name for hint in hints.for_zones or ()),
        for_nodes=tuple(hint.name for hint in hints.for_nodes or ()),
    )


def _target(target: _Target | None, namespace: str) -> str:
    """The UID, because a StatefulSet gives the name of a pod to its successor."""
    if target is None or not (target.uid or target.name):
        return ""
    return target.uid or f"{target.kind or 'Pod'}/{target.namespace or namespace}/{target.name}"


def _unix_time(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else time.timestamp()
