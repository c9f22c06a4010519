"""EndpointSlices as values, and which of their addresses a Service's datagrams may go to now."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ready", "serving", "terminating"]
"""`ready`; `serving`: terminating but still used, because none is ready; `terminating`: known and not used."""


@dataclass(frozen=True, slots=True)
class SlicePort:
    """One port of a slice; a port without a number is left out where slices are read."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """One endpoint of a slice: its first address and its conditions, absent ones resolved (KEP-1672)."""

    address: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    target: str = ""
    """What it belongs to, the same for a pod's IPv4 and IPv6 endpoints; empty where the slice doesn't say."""
    node: str = ""
    zone: str = ""
    for_zones: tuple[str, ...] = ()
    for_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """One EndpointSlice, reduced to what routing needs."""

    namespace: str
    name: str
    service: str
    """The Service's name, without its namespace."""
    family: Literal["IPv4", "IPv6"]
    ports: tuple[SlicePort, ...]
    endpoints: tuple[SliceEndpoint, ...]
    version: int = 0
    """Its resourceVersion, larger for newer; 0 where it isn't known or no number."""
    changed_at: float | None = None
    """Unix time of the change that caused this state (endpoints.kubernetes.io/last-change-trigger-time)."""


@dataclass(frozen=True, slots=True)
class ServicePort:
    """Whose endpoints are wanted: `namespace/name`, and their port by name or number."""

    service: str
    port: str | int


@dataclass(frozen=True, slots=True)
class Place:
    """Where this node is, for hints and `internalTrafficPolicy`; empty where it isn't known."""

    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """What only the Service object tells: slices have neither its address nor its policy."""

    cluster_ips: tuple[str, ...] = ()
    local_only: bool = False
    """`internalTrafficPolicy: Local`."""
    ports: tuple["PortOfService", ...] = ()


@dataclass(frozen=True, slots=True)
class PortOfService:
    """One entry of a Service's `spec.ports`."""

    name: str
    protocol: str
    number: int
    target: str | int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a Service's port; `address` is `ip:port`, an IPv6 one in brackets."""

    address: str
    state: State
    target: str = ""
