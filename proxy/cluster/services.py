"""A Service as a value: its addresses, ports and traffic policy, which no EndpointSlice tells."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.cluster.objects import (
    Decoded,
    Flaw,
    Flaws,
    ObjectError,
    Way,
    converted,
    described,
    ip_of,
    listed,
    named,
    opened,
    port_flaw,
)
from proxy.core.endpoints import PortOfService, Service

KIND, API_VERSION = "Service", "v1"


class _Port(msgspec.Struct, rename="camel"):
    port: int
    name: str | None = None
    protocol: str | None = None
    target_port: int | str | None = None


def decode_service(given: bytes | msgspec.Raw | Mapping[str, Any]) -> Decoded[Service]:
    """The Service in this JSON or in what was decoded already. Raises ObjectError if it is none at all.

    Addresses and ports that are wrong are left out, with a flaw each; a headless Service has no address.
    """
    content, metadata = opened(given, KIND, API_VERSION)
    namespace, name = metadata.namespace or "default", metadata.name or ""
    whose = named(KIND, namespace, name)
    spec = content.get("spec") or {}
    if not isinstance(spec, Mapping):
        raise ObjectError(Flaw(("spec",), f"found {described(spec)}; allowed is a mapping"), whose)
    flaws = Flaws()
    ips = listed(spec, ("spec", "clusterIPs"), whose)
    given_ips: list[tuple[Way, Any]] = [(("spec", "clusterIPs", index), ip) for index, ip in enumerate(ips)]
    value = Service(
        _cluster_ips(given_ips or [(("spec", "clusterIP"), spec.get("clusterIP"))], flaws),
        spec.get("internalTrafficPolicy") == "Local",
        _ports(listed(spec, ("spec", "ports"), whose), flaws),
    )
    return Decoded(KIND, namespace, name, metadata.version, value, flaws.all())


def _cluster_ips(given: Sequence[tuple[Way, Any]], flaws: Flaws) -> tuple[str, ...]:
    ips = []
    for way, ip in given:
        if ip in (None, "", "None"):
            continue
        try:
            ips.append(ip_of(ip))
        except ValueError as error:
            flaws.add(way, str(error), "it is left out")
    return tuple(ips)


def _ports(items: Sequence[Any], flaws: Flaws) -> tuple[PortOfService, ...]:
    ports = []
    for index, item in enumerate(items):
        way = ("spec", "ports", index)
        port = converted(item, _Port, way)
        if isinstance(port, Flaw):
            flaws.add(port.way, port.reason, "that port is left out")
        elif wrong := port_flaw(port.port):
            flaws.add((*way, "port"), wrong, "that port is left out")
        else:
            # Without a target the endpoints have the Service's own port.
            ports.append(
                PortOfService(port.name or "", port.protocol or "TCP", port.port, port.target_port or port.port)
            )
    return tuple(ports)
