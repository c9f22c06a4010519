"""UDP flows as conntrack has them, what they were sent to, and which of them go where their Service no longer is.

A flow is judged by address, port and Service. It is never stale while its target is an endpoint that is ready, or
that terminates and still serves, wherever in the cluster and of whichever IP family: such a flow is left alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

Protocol = Literal["UDP", "TCP"]
Reason = Literal[
    "target is no endpoint",
    "other port",
    "Service is gone",
    "pinned to local delivery without DNAT",
    "pinned without DNAT",
]
"""`other port`: the endpoint is one, and its port isn't. `pinned without DNAT`: it leaves this node, towards an
address that nobody has."""

Untranslated = Literal["leaves", "stays here", "is meant"]
"""What becomes of a packet that is not translated: its destination is elsewhere, here, or here and served there."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry of conntrack's default zone. Addresses are `ip:port`, an IPv6 one in brackets."""

    source: str
    destination: str
    """What the client sends to."""
    target: str
    """Where it goes: the same as `destination` if nothing was translated."""
    id: int
    """Tells an entry from another one with the same addresses, later on."""
    answered: bool
    expires: float
    """Seconds until it ends if nothing more is sent."""
    packets: int | None
    """From the client; None unless the kernel counts them (net.netfilter.nf_conntrack_acct)."""
    started: float | None
    """Unix time; None unless the kernel keeps it (net.netfilter.nf_conntrack_timestamp)."""
    protocol: Protocol = "UDP"


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """One `ip:port` of a Service or of a listener, and where its flows may go."""

    address: str
    service: str
    """`namespace/name`; empty where only the address is known."""
    targets: frozenset[str] | None
    """All `ip:port` of live endpoints; None where they aren't known, so that only what is pinned can be told."""
    untranslated: Untranslated = "leaves"
    gone: bool = False
    """The Service exists no more, so that no target is right."""
    former: frozenset[str] | None = None
    """Of a Service that is gone: the endpoints that it had, where its address may be another Service's by now."""


@dataclass(frozen=True, slots=True)
class StaleFlow:
    """A flow that should not be, and why."""

    flow: Flow
    service: str
    """`namespace/name`, or the address where the name isn't known."""
    reason: Reason


class ServiceAddresses:
    """Everything that is known of Services at one moment.

    `ranges`: networks of which *every* Service address is known; what was translated in one and is none of them was
    of a Service that is gone.
    """

    def __init__(self, addresses: Iterable[ServiceAddress], ranges: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._by_address: dict[str, ServiceAddress] = {}
        for one in addresses:
            other = self._by_address.get(one.address)
            self._by_address[one.address] = one if other is None else _merged(other, one)
        self._ranges = tuple(ranges)

    @property
    def addresses(self) -> tuple[str, ...] | None:
        """All that a flow can be judged by; None if that is whole networks."""
        return None if self._ranges else tuple(self._by_address)

    def concerns(self, destination: str) -> bool:
        """Whether a flow to this `ip:port` can be judged at all."""
        return destination in self._by_address or self._in_range(destination)

    def judge(self, flow: Flow) -> StaleFlow | None:
        """What is wrong with the flow; None if nothing is, or if it can't be told."""
        known = self._by_address.get(flow.destination)
        if known is None:
            gone = flow.target != flow.destination and self._in_range(flow.destination)
            return StaleFlow(flow, flow.destination, "Service is gone") if gone else None
        reason = self._reason(known, flow)
        return None if reason is None else StaleFlow(flow, known.service or known.address, reason)

    def _reason(self, known: ServiceAddress, flow: Flow) -> Reason | None:
        if known.gone and known.former is not None:
            return "Service is gone" if flow.target in known.former else None
        if flow.target == flow.destination:
            pinned: dict[Untranslated, Reason | None] = {
                "leaves": "pinned without DNAT",
                "stays here": "pinned to local delivery without DNAT",
                "is meant": None,
            }
            return pinned[known.untranslated]
        if known.gone:
            return "Service is gone"
        if known.targets is None or flow.target in known.targets:
            return None
        ip = _ip(flow.target)
        return "other port" if any(_ip(target) == ip for target in known.targets) else "target is no endpoint"

    def _in_range(self, destination: str) -> bool:
        if not self._ranges:
            return False
        ip = ip_address(_ip(destination))
        return any(ip in network for network in self._ranges)


def _merged(one: ServiceAddress, other: ServiceAddress) -> ServiceAddress:
    """Of an address that is told twice, such as a ClusterIP that is a listener as well: what either allows."""
    if one.gone != other.gone:
        return other if one.gone else one
    known = [given.targets for given in (one, other) if given.targets is not None]
    return ServiceAddress(
        one.address,
        one.service or other.service,
        frozenset().union(*known) if known else None,
        max(one.untranslated, other.untranslated, key=("leaves", "stays here", "is meant").index),
        one.gone,
    )


def _ip(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
