"""A whole configuration as one value, and what follows from it: policies, schema."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from msgspec import Struct, field

from proxy.core.endpoints import ServicePort
from proxy.core.policy import DnsPolicy, RelayPolicy, Zone
from proxy.settings.kinds import ListOf, Nullable, Schema, Section, fields
from proxy.settings.leaves import FilePath
from proxy.settings.loops import own_listener
from proxy.settings.sections import (
    Admin,
    Dns,
    DnsZone,
    Kubernetes,
    Node,
    Relay,
    ResolvConf,
    ServiceUpstreams,
    Workers,
)


class Settings(Struct, frozen=True, kw_only=True):
    """One configuration; DNS is off where `dns` is None, UDP where `udp` is empty."""

    dns: Annotated[Dns | None, Section(Dns), "The DNS node cache; off without this section."] = None
    udp: Annotated[
        tuple[Relay, ...],
        ListOf(Section(Relay), most=64, least=0),
        "UDP services to relay; none without this section.",
    ] = ()
    kubernetes: Annotated[
        Kubernetes, Section(Kubernetes), "How the API server is reached; by default as a pod does."
    ] = Kubernetes()
    endpoints_file: Annotated[
        str | None, Nullable(FilePath()), "EndpointSlices as YAML instead of a watch; read again when it changes."
    ] = None
    node: Annotated[Node, Section(Node), "What is set up in the kernel; nothing without this section."] = Node(
        manage=False
    )
    workers: Annotated[Workers, Section(Workers), "How many processes do the work."] = Workers()
    admin: Annotated[Admin, Section(Admin), "Where people and probes look in."] = field(default_factory=Admin)

    @property
    def nothing_on(self) -> bool:
        """No section turns anything on: legal, but there is nothing to run."""
        return self.dns is None and not self.udp

    @property
    def resolv_conf_paths(self) -> tuple[str, ...]:
        """The resolv.conf files that `dns_policy` needs to have been read."""
        forms = [zone.upstreams for zone in self._zones]
        return tuple(dict.fromkeys(form.resolv_conf for form in forms if isinstance(form, ResolvConf)))

    @property
    def wanted_ports(self) -> tuple[ServicePort, ...]:
        """The Services whose endpoints `dns_policy` and `relay_policies` need, each once."""
        zones = [zone.upstreams for zone in self._zones if isinstance(zone.upstreams, ServiceUpstreams)]
        wanted = [upstreams.wanted for upstreams in zones]
        wanted += filter(None, map(wanted_by, self.udp))
        return tuple(dict.fromkeys(wanted))

    def dns_policy(
        self,
        resolved: Mapping[str, tuple[str, ...]],
        endpoints: Callable[[ServicePort], tuple[str, ...]],
        service_address: Callable[[ServicePort], str | None],
    ) -> DnsPolicy:
        """What each worker does; they share out the cache.

        It takes the addresses in each of `resolv_conf_paths`, and for each Service its usable endpoints and its own
        address (if known), which is asked when they all failed. Addresses of our own listeners are left out, but
        for a Service's with node.manage.
        Raises KeyError for a path that isn't resolved, ValueError when DNS is off.
        """
        if self.dns is None:
            raise ValueError("there is no dns section")
        cache, serialize = self.dns.cache, self.dns.serialize
        zones = []
        for zone in self._zones:
            form, fallback = zone.upstreams, zone.fallback
            if isinstance(form, ServiceUpstreams):
                address = service_address(form.wanted)
                fallback = tuple(dict.fromkeys([*([address] if address else []), *fallback]))
                addresses = endpoints(form.wanted)
            else:
                addresses = resolved[form.resolv_conf] if isinstance(form, ResolvConf) else form
            is_service = isinstance(form, ServiceUpstreams)
            zones.append(Zone(zone.suffix, self._others(addresses), self._reachable(fallback), is_service))
        return DnsPolicy(
            zones=tuple(zones),
            cache_bytes=cache.size // self.workers.dns,
            max_ttl=int(cache.max_ttl),
            negative_max_ttl=int(cache.negative_max_ttl),
            stale=int(cache.stale),
            prefetch=cache.prefetch,
            timeout=self.dns.timeout,
            serialize=serialize.enabled,
            hold=min(serialize.hold, self.dns.timeout),
        )

    def relay_policies(
        self, endpoints: Callable[[ServicePort], tuple[str, ...]], block: Callable[[str], int], probe: str
    ) -> tuple[RelayPolicy, ...]:
        """What each relay worker does, given the usable endpoints, each relay's ledger block and the run's secret.

        Workers share out folds and sessions, as the kernel shares out clients.
        """
        share = self.workers.relay
        policies = []
        for relay in self.udp:
            wanted = wanted_by(relay)
            policies.append(
                RelayPolicy(
                    name=relay.name,
                    block=block(relay.name),
                    mode=relay.mode,
                    spread=relay.spread_by,
                    endpoints=() if wanted is None else endpoints(wanted),
                    fold_bytes=relay.fold.size // share,
                    fold_age=relay.fold.age,
                    sessions_idle=relay.sessions.idle,
                    sessions_max=max(1, relay.sessions.max // share),
                    eject=relay.eject,
                    datagrams_per_second=relay.per_source.datagrams or 0,
                    lines_per_second=relay.per_source.lines or 0,
                    probe=probe,
                )
            )
        return tuple(policies)

    @property
    def _zones(self) -> tuple[DnsZone, ...]:
        return () if self.dns is None else self.dns.zones

    def _reachable(self, fallback: tuple[str, ...]) -> tuple[str, ...]:
        """With node.manage what workers send to a Service's IP is sent on by the kernel, though we listen there."""
        listen = self.dns.listen if self.dns is not None and self.node.manage else ()
        others = self._others(fallback)
        return tuple(address for address in fallback if address in listen or address in others)

    def _others(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        listen = () if self.dns is None else self.dns.listen
        return tuple(address for address in addresses if own_listener(address, listen) is None)


def wanted_by(relay: Relay) -> ServicePort | None:
    """Whose endpoints receive what this relay takes; None where it has no Service."""
    if relay.service is None or relay.port is None:
        return None
    return ServicePort(relay.service, relay.port)


def default_settings() -> Settings:
    """What `run` does without a file."""
    return Settings(dns=Dns(), udp=(Relay(name="statsd", listen=("127.0.0.1:8125",)),))


def json_schema() -> Schema:
    """The JSON Schema of the file, for editors. Rules between several keys are left to `parse`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sidestep configuration",
        **Section(Settings).schema(),
    }


def places() -> dict[str, str]:
    """For each key below the top: the sections it belongs to."""
    found: dict[str, list[str]] = {}
    for name, section in _walk(Section(Settings), ""):
        if section:
            found.setdefault(name, []).append(section)
    return {name: " or ".join(sections) for name, sections in found.items()}


def _walk(section: Section, path: str) -> Iterator[tuple[str, str]]:
    for name, kind, _ in fields(section.struct):
        yield name, path
        below = f"{path}.{name}".lstrip(".")
        if isinstance(kind, ListOf):
            kind, below = kind.kind, f"{below}[]"
        if isinstance(kind, Section):
            yield from _walk(kind, below)
