"""Which upstreams a name belongs to: zones by longest suffix, and in which order to ask a zone's upstreams."""

from collections.abc import Callable

from proxy.core.local_names import suffixes, wire_name
from proxy.core.pending import Route
from proxy.core.policy import DnsPolicy
from proxy.core.upstreams import Upstream, order


class Zones:
    """All zones of one policy. What was learnt of an upstream stays when the next policy names it again."""

    def __init__(self, policy: DnsPolicy, previous: "Zones | None") -> None:
        known = {} if previous is None else {(u.zone, u.address): u for u in previous.upstreams}
        self._by_suffix: dict[bytes, Route] = {}
        self.upstreams: list[Upstream] = []
        for zone in policy.zones:
            servers = [
                [known.setdefault((zone.suffix, a), Upstream(a, zone.suffix)) for a in dict.fromkeys(addresses)]
                for addresses in (zone.upstreams, zone.fallback)
            ]
            suffix = wire_name(zone.suffix)
            self._by_suffix[suffix] = Route(suffix, servers[0], servers[1], zone.service)
            self.upstreams += dict.fromkeys(servers[0] + servers[1])

    def find(self, name: bytes) -> Route | None:
        """The zone with the longest suffix of `name` (lower-case wire format)."""
        for suffix in suffixes(name):
            zone = self._by_suffix.get(suffix)
            if zone is not None:
                return zone
        return None

    def plan(self, zone: Route, random: Callable[[], float]) -> list[Upstream]:
        """Whom to ask for one question, in order: endpoints, the only one twice; fallback; all of them again."""
        endpoints = order(zone.upstreams, random)
        fallback = order(zone.fallback, random)
        patience = endpoints if len(endpoints) == 1 else []
        return endpoints + patience + fallback + endpoints + fallback

    def knows(self, upstream: Upstream) -> bool:
        """It is still configured."""
        return upstream in self.upstreams

    def probe_name(self, upstream: Upstream, marker: bytes) -> bytes:
        """A name under the upstream's zone that nobody else would ask for, in wire format."""
        label = marker + b"-%d" % self.upstreams.index(upstream)
        return bytes((len(label),)) + label + wire_name(upstream.zone)

    def probed(self, name: bytes) -> Upstream | None:
        """The upstream that a name from `probe_name` was meant for."""
        number = name[1 : 1 + name[0]].rpartition(b"-")[2]
        at = int(number) if number.isdigit() else len(self.upstreams)
        return self.upstreams[at] if at < len(self.upstreams) else None
