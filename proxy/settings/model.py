"""A whole configuration as one value, and what follows from it: DNS policy, what isn't acted on yet, schema."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from msgspec import Struct, field

from proxy.core.policy import DnsPolicy, Zone
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
    ServicePort,
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
    def not_yet(self) -> list[str]:
        """What the file asks for and this version doesn't do, one message each."""
        messages = [
            f"udp[{number}] ({relay.name}): this version has no relay; {', '.join(relay.listen)} is not opened"
            for number, relay in enumerate(self.udp)
        ]
        if self.kubernetes != Kubernetes():
            messages.append("kubernetes: this version doesn't watch endpoints; the API server is not asked")
        if self.endpoints_file is not None:
            messages.append(f"endpoints_file: this version doesn't use endpoints; {self.endpoints_file} is not read")
        if self.node.manage:
            messages.append(
                "node.manage: this version sets up nothing in the kernel; "
                "the listen addresses must exist, and nothing fails over"
            )
        for number, zone in enumerate(self._zones):
            messages += [
                f"dns.zones[{number}].fallback: {address} is our own listener; not asked until node.manage works"
                for address in zone.fallback
                if address not in self._others(zone.fallback)
            ]
        return messages

    @property
    def resolv_conf_paths(self) -> tuple[str, ...]:
        """The resolv.conf files that `dns_policy` needs to have been read."""
        forms = [zone.upstreams for zone in self._zones]
        return tuple(dict.fromkeys(form.resolv_conf for form in forms if isinstance(form, ResolvConf)))

    def dns_policy(self, resolved: Mapping[str, tuple[str, ...]]) -> DnsPolicy:
        """What each worker does, given the addresses in each of `resolv_conf_paths`; they share out the cache.

        Addresses that are our own listeners are left out. Raises KeyError for a path that isn't resolved, ValueError
        when DNS is off.
        """
        if self.dns is None:
            raise ValueError("there is no dns section")
        cache, serialize = self.dns.cache, self.dns.serialize
        return DnsPolicy(
            zones=tuple(
                Zone(zone.suffix, self._others(_addresses(zone, resolved)), self._others(zone.fallback))
                for zone in self._zones
            ),
            cache_bytes=cache.size // self.workers.dns,
            max_ttl=int(cache.max_ttl),
            negative_max_ttl=int(cache.negative_max_ttl),
            stale=int(cache.stale),
            prefetch=cache.prefetch,
            timeout=self.dns.timeout,
            serialize=serialize.enabled,
            hold=min(serialize.hold, self.dns.timeout),
        )

    @property
    def _zones(self) -> tuple[DnsZone, ...]:
        return () if self.dns is None else self.dns.zones

    def _others(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        listen = () if self.dns is None else self.dns.listen
        return tuple(address for address in addresses if own_listener(address, listen) is None)


def _addresses(zone: DnsZone, resolved: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if isinstance(zone.upstreams, ResolvConf):
        return resolved[zone.upstreams.resolv_conf]
    # `parse` refuses the service form until there are endpoints to take.
    return () if isinstance(zone.upstreams, ServicePort) else zone.upstreams


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
