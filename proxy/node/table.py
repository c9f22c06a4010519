"""The nft table `inet sidestep`: which rules these listeners need, and the transaction that makes it so.

It only writes and reads text; `proxy.node.nft` carries it out. The words are nft's own, because its JSON knows no
time below a second.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal

Entry = tuple[str, Mapping[str, Any]]
"""What nft's JSON says of one thing: its kind, such as `set`, and its properties."""
Mode = Literal["serving", "draining", "stopped"]
"""`draining`: no answer takes a lease, and what still comes here is counted. `stopped`: no lease, nothing counted."""

TABLE = "inet sidestep"
SCHEMA = 1
"""Changes with the type of a set or the hook of a chain: a table of another schema is made anew, leases and all."""
PROBE_MARK = 0x51DE
"""SO_MARK of control's probes, which reach the listener with or without a lease."""
MOST_ENDPOINTS = 32
"""Of one listener: more only make the way to the last one longer."""
_COMMENT = re.compile(r"sidestep schema (?P<schema>\d+) run (?P<run>[0-9a-f]+) table (?P<digest>\S+)")
"""Of the set `run`, which is there for it: nft's JSON leaves a table's own comment out."""
_LEASES = 8192
"""Twice the listeners that a configuration can have."""

_KEY = {4: "ipv4_addr . inet_proto . inet_service", 6: "ipv6_addr . inet_proto . inet_service"}
_TO = {4: "ip daddr . meta l4proto . th dport", 6: "ip6 daddr . meta l4proto . th dport"}
_FROM = {4: "ip saddr . meta l4proto . th sport", 6: "ip6 saddr . meta l4proto . th sport"}
_FLOW = {4: "ip saddr . tcp sport . ip daddr . tcp dport", 6: "ip6 saddr . tcp sport . ip6 daddr . tcp dport"}
_FLOWS = 65535
"""TCP connections of clients at one time; one more is tracked, and so gets to the fallback."""
_FLOW_TIMEOUT = "30s"
"""After the client's last segment; an idle connection is closed after 10 s."""
_SYN = "tcp flags & (syn|ack) == syn"
_SOURCE = {4: "ip saddr", 6: "ip6 saddr"}
_DNAT = {4: "dnat ip to", 6: "dnat ip6 to"}

# Ours before any other rule for local addresses, such as one for a hostPort; a Service's after kube-proxy's own.
_FALLBACK_CHAINS = {
    "own": (("own_prerouting", "nat", "prerouting", -110), ("own_output", "nat", "output", -110)),
    "service": (("service_prerouting", "nat", "prerouting", -90), ("service_output", "nat", "output", -90)),
}


@dataclass(frozen=True, slots=True)
class NodeListener:
    """One address with one transport that packets of this node and its pods are sent to."""

    address: str
    """`ip:port`, an IPv6 one in brackets; a link-local IPv6 one with its interface after %."""
    transport: Literal["udp", "tcp"]
    service: bool = False
    """It is a Service's own IP: without the lease its packets are kube-proxy's, and after a stop they all are."""
    fallback: tuple[str, ...] = ()
    """Endpoints as `ip:port` that take its packets while there is no lease."""
    relay: bool = False
    """It speaks no DNS, and answers nothing but the secret of a run."""

    @property
    def name(self) -> str:
        return f"{self.address}/{self.transport}"

    @property
    def ip(self) -> str:
        """Without an interface."""
        return self.address.rpartition(":")[0].strip("[]").partition("%")[0]

    @property
    def interface(self) -> str:
        """The one after %, or empty."""
        return self.address.rpartition(":")[0].strip("[]").partition("%")[2]

    @property
    def of_one_link(self) -> bool:
        """Whether other interfaces may have the same address (RFC 4291 section 2.5.6)."""
        return self.version == 6 and ip_address(self.ip).is_link_local

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def version(self) -> int:
        return 6 if ":" in self.ip else 4

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Those of `fallback` that DNAT can reach: of the same IP family, routed, and not too many."""
        reached = [one for one in self.fallback if _reached_by_dnat(one, self.version)]
        return tuple(sorted(reached)[:MOST_ENDPOINTS])

    @property
    def element(self) -> str:
        """In nft's sets."""
        return f"{self.ip} . {self.transport} . {self.port}"

    @property
    def leasable(self) -> bool:
        """Whether the kernel can send its packets elsewhere: not those of a wildcard or of loopback."""
        ip = ip_address(self.ip)
        return not (ip.is_unspecified or ip.is_loopback)


def _reached_by_dnat(endpoint: str, version: int) -> bool:
    """nft names no interface, and what a pod sends is not let through to loopback (martian)."""
    ip = endpoint.rpartition(":")[0].strip("[]")
    return "%" not in ip and (":" in ip) == (version == 6) and not ip_address(ip).is_loopback


@dataclass(frozen=True, slots=True)
class Table:
    """The whole table as text, by name: the elements of each set or map, and the rules of each chain."""

    sets: Mapping[str, tuple[str, tuple[str, ...]]]
    """Specification and elements."""
    chains: Mapping[str, tuple[str, tuple[str, ...]]]
    """Specification (empty for one that no hook calls) and rules."""
    holds_lease: bool

    @property
    def digest(self) -> str:
        """Equal for equal tables."""
        return hashlib.sha256(repr((self.sets, self.chains)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Present:
    """The table as the kernel has it; `other` where it isn't one of this schema."""

    sets: frozenset[str]
    maps: frozenset[str]
    chains: frozenset[str]
    run: str
    """Which run wrote it last; later ones are greater."""
    digest: str
    """Of the `Table` that was written."""
    listeners: tuple[NodeListener, ...]
    """What it was made for, without interfaces."""
    other: bool
    fingerprint: str
    """Equal as long as nobody changed the table; leases, connections and counters come and go in it."""


def table(
    listeners: Sequence[NodeListener],
    mode: Mode,
    lease: float,
    asking_user: int | None = None,
    leaving: Collection[NodeListener] = (),
) -> Table:
    """What the kernel should have for these listeners; `lease` in seconds.

    What `asking_user`, the user id of our workers, sends to a Service's IP is a question of ours: it goes to kube-
    proxy or the Service's endpoints, never back to our own listener. While draining and afterwards no answer takes
    a lease. A listener of our own that has no endpoint to fall back to is never tracked: conntrack would pin its
    flows to local delivery, and no later rule would reach them. Those of the listeners that are `leaving` lose the
    lease before their sockets close; what these still answer stays untracked, and connections stay where they began.
    It is overruled and not deleted: an answer that leaves while a transaction is made would bring it back.
    """
    sets: dict[str, tuple[str, tuple[str, ...]]] = {}
    maps: dict[str, tuple[str, tuple[str, ...]]] = {}
    listeners = sorted({one.name: one for one in listeners if one.leasable}.values(), key=lambda one: one.name)
    targets: dict[str, tuple[str, ...]] = {}
    for version in (4, 6):
        of_family = [one for one in listeners if one.version == version]
        bare = [one for one in of_family if not one.service and not one.endpoints]
        sets[f"listeners{version}"] = _set(version, [one.element for one in of_family])
        sets[f"bare{version}"] = _set(version, [one.element for one in bare])
        sets[f"services{version}"] = _set(version, [one.element for one in of_family if one.service])
        sets[f"leaving{version}"] = _set(version, [one.element for one in of_family if one in leaving])
        sets[f"lease{version}"] = (f"type {_KEY[version]}; size {_LEASES}; flags dynamic,timeout;", ())
        ends = f"ipv{version}_addr . inet_service"
        sets[f"flows{version}"] = (f"type {ends} . {ends}; size {_FLOWS}; flags dynamic,timeout;", ())
        sets[f"arrived{version}"] = (
            f"type {_KEY[version]}; counter;",
            tuple(one.element for one in of_family) if mode == "draining" else (),
        )
        sets[f"addresses{version}"] = (
            f"type ipv{version}_addr;",
            tuple(dict.fromkeys(one.ip for one in of_family)),
        )
        for kind in _FALLBACK_CHAINS:
            elements = []
            for one in of_family:
                if one.endpoints and one.service == (kind == "service"):
                    rules = tuple(_dnat(one))
                    chain = f"to_{hashlib.sha256(repr(rules).encode()).hexdigest()[:12]}"
                    targets[chain] = rules
                    elements.append(f"{one.element} : goto {chain}")
            maps[f"{kind}{version}"] = (f"type {_KEY[version]} : verdict;", tuple(elements))
    chains = {name: ("", rules) for name, rules in sorted(targets.items())}
    chains |= {name: (spec, rules) for name, spec, rules in _hooked(sets, maps, mode, lease, asking_user) if rules}
    return Table({**sets, **maps}, chains, mode == "serving")


def _set(version: int, elements: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    return f"type {_KEY[version]};", tuple(elements)


def _dnat(listener: NodeListener) -> Iterator[str]:
    """To one of the endpoints, each as likely: one in n, else one in n - 1, and so on."""
    endpoints = listener.endpoints
    for number, endpoint in enumerate(endpoints):
        left = len(endpoints) - number
        chance = f"numgen random mod {left} 0 " if left > 1 else ""
        yield f"meta l4proto {listener.transport} {chance}{_DNAT[listener.version]} {endpoint}"


def _hooked(
    sets: Mapping[str, tuple[str, tuple[str, ...]]],
    maps: Mapping[str, tuple[str, tuple[str, ...]]],
    mode: Mode,
    lease: float,
    asking_user: int | None,
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Chains with their hooks. One without rules is left out: what needs conntrack costs every packet something."""
    families = [version for version in (4, 6) if sets[f"listeners{version}"][1]]
    bare = [version for version in families if sets[f"bare{version}"][1]]
    serving = families if mode == "serving" else []
    live = families if mode != "stopped" else []
    services = [version for version in live if sets[f"services{version}"][1] and asking_user is not None]
    asked = {version: f"meta skuid {asking_user} {_TO[version]} @services{version}" for version in services}
    untracked = [f"{_TO[version]} @bare{version} notrack" for version in bare]
    leaving = [version for version in serving if sets[f"leaving{version}"][1]]
    untracked += [f"{_FLOW[version]} @flows{version} {_TO[version]} @leaving{version} notrack" for version in leaving]
    untracked += [f"{_TO[version]} @leaving{version} accept" for version in leaving]
    untracked += [f"meta l4proto udp {_TO[version]} @lease{version} notrack" for version in serving]
    # A connection stays where it began: here, or with whom conntrack gave it to.
    known = {one: f"update @flows{one} {{ {_FLOW[one]} timeout {_FLOW_TIMEOUT} }}" for one in families}
    for version in serving:
        untracked.append(f"{_SYN} {_TO[version]} @lease{version} {known[version]} notrack")
        untracked.append(f"{_FLOW[version]} @flows{version} {_TO[version]} @lease{version} {known[version]} notrack")
    if mode == "draining":
        untracked += [f"{_FLOW[version]} @flows{version} notrack" for version in families]
    yield "prerouting", _hook("filter", "prerouting", -300), tuple(untracked)
    # Probes first: they must reach a listener that has no lease. Of TCP only data is an answer: a stopped process's
    # kernel goes on accepting connections and acknowledging.
    rules = [f"meta mark {PROBE_MARK:#010x} {_TO[version]} @listeners{version} notrack" for version in live]
    rules += [f"{ours} accept" for ours in asked.values()]
    rules += untracked
    rules += [f"{_FROM[version]} @leaving{version} notrack accept" for version in leaving]  # `notrack` alone goes on
    for answer in ("meta l4proto udp", "tcp flags & psh == psh"):
        for version in serving:
            refresh = f"update @lease{version} {{ {_FROM[version]} timeout {round(lease * 1000)}ms }}"
            rules.append(f"{answer} {_FROM[version]} @listeners{version} {refresh} notrack")
    rules += [f"{_FROM[version]} @listeners{version} notrack" for version in live]
    yield "output", _hook("filter", "output", -300), tuple(rules)
    counted = families if mode == "draining" else []
    # So do those that begin with NodeLocal DNSCache while we wait for it: after its rules, which it takes away first.
    rules = [f"ct state untracked {_SYN} {_TO[version]} @listeners{version} {known[version]}" for version in counted]
    yield "begun_prerouting", _hook("filter", "prerouting", -250), tuple(rules)
    yield "begun_output", _hook("filter", "output", -250), tuple(rules)
    rules = [f"meta mark != {PROBE_MARK:#010x} {_TO[version]} @arrived{version}" for version in counted]
    yield "arriving", _hook("filter", "input", -300), tuple(rules)
    translated = False
    for kind, chains in _FALLBACK_CHAINS.items():
        rules = [f"{_TO[version]} vmap @{kind}{version}" for version in families if maps[f"{kind}{version}"][1]]
        translated = translated or bool(rules)
        for name, type_, hook, priority in chains:
            # kube-proxy has no rule either: what gets here was translated by nobody.
            refused = [f"{ours} drop" for ours in asked.values()] if name == "service_output" else []
            yield name, _hook(type_, hook, priority), (*rules, *refused)
    # What this node sends to its own address has that address for its source, to which no other node could reply.
    masked = families if translated else []
    rules = [f'oifname != "lo" {_SOURCE[version]} @addresses{version} masquerade' for version in masked]
    yield "postrouting", _hook("nat", "postrouting", 110), tuple(rules)


def _hook(type_: str, hook: str, priority: int) -> str:
    return f"type {type_} hook {hook} priority {priority}; policy accept;"


def transaction(wanted: Table, present: Present | None, run: str) -> str:
    """What makes the kernel's table the wanted one, all at once; leases that are held stay held, if any may be."""
    lines = [f"add table {TABLE}"]
    if present is not None and present.other:
        lines += [f"delete table {TABLE}", f"add table {TABLE}"]
        present = None
    if present is not None:
        lines += _emptied(wanted, present)
    for name, (spec, _) in wanted.sets.items():
        lines.append(f"add {_kind(name, wanted)} {TABLE} {name} {{ {spec} }}")
    for name, (spec, _) in wanted.chains.items():
        lines.append(f"add chain {TABLE} {name}" + (f" {{ {spec} }}" if spec else ""))
    for name, (_, elements) in wanted.sets.items():
        if elements:
            lines.append(f"add element {TABLE} {name} {{ {', '.join(elements)} }}")
    for listener in present.listeners if present is not None else ():
        if listener.element not in wanted.sets[f"listeners{listener.version}"][1]:
            lease = f"element {TABLE} lease{listener.version} {{ {listener.element} }}"
            lines += [f"add {lease}", f"delete {lease}"]  # one that is not held could not be deleted
    for name, (_, rules) in wanted.chains.items():
        lines += [f"add rule {TABLE} {name} {rule}" for rule in rules]
    about = f"sidestep schema {SCHEMA} run {run} table {wanted.digest}"
    lines.append(f'add set {TABLE} run {{ type mark; comment "{about}"; }}')
    return "\n".join(lines) + "\n"


def _emptied(wanted: Table, present: Present) -> Iterator[str]:
    """Take everything away but the leases and the connections that began here."""
    for name in sorted(present.chains):
        yield f"flush chain {TABLE} {name}"
    for name in sorted(present.maps):
        yield f"flush map {TABLE} {name}"
    for name in sorted(present.sets - {"run"}):
        if not (name.startswith("flows") or (name.startswith("lease") and wanted.holds_lease)):
            yield f"flush set {TABLE} {name}"
    for name in sorted(present.chains - set(wanted.chains)):
        yield f"delete chain {TABLE} {name}"
    for name in sorted(present.maps - set(wanted.sets)):
        yield f"delete map {TABLE} {name}"
    for name in sorted(present.sets - set(wanted.sets)):  # `run` is one of them
        yield f"delete set {TABLE} {name}"


def _kind(name: str, wanted: Table) -> str:
    return "map" if wanted.sets[name][0].endswith(": verdict;") else "set"


def read(entries: Iterable[Entry]) -> Present:
    """The table out of what nft listed of it. Raises LookupError, TypeError or ValueError for what makes no sense."""
    names: dict[str, set[str]] = {"set": set(), "map": set(), "chain": set()}
    elements: dict[str, list[Any]] = {}
    endpoints: dict[str, list[str]] = {}
    lasting: list[Any] = []
    written = None
    for kind, value in entries:
        if kind in names:
            names[kind].add(value["name"])
        if kind == "set" and value["name"] == "run":
            written = _COMMENT.fullmatch(value.get("comment", ""))
        if kind in ("set", "map"):
            elements[value["name"]] = value.get("elem", [])
        if kind == "rule":
            endpoints.setdefault(value["chain"], []).extend(_dnat_targets(value["expr"]))
        lasting.append((kind, _lasting(kind, value)))
    other = written is None or int(written["schema"]) != SCHEMA
    return Present(
        sets=frozenset(names["set"]),
        maps=frozenset(names["map"]),
        chains=frozenset(names["chain"]),
        run=written["run"] if written else "",
        digest=written["digest"] if written else "",
        listeners=() if other else tuple(_listeners(elements, endpoints)),
        other=other,
        fingerprint=hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest(),
    )


def _listeners(elements: Mapping[str, list[Any]], endpoints: Mapping[str, list[str]]) -> Iterator[NodeListener]:
    for version in (4, 6):
        services = elements.get(f"services{version}", [])
        chains = {
            tuple(key["concat"]): verdict["goto"]["target"]
            for kind in _FALLBACK_CHAINS
            for key, verdict in elements.get(f"{kind}{version}", [])
        }
        for element in elements.get(f"listeners{version}", []):
            address, transport = _name(element["concat"]).split("/")
            fallback = endpoints.get(chains.get(tuple(element["concat"]), ""), ())
            yield NodeListener(address, "udp" if transport == "udp" else "tcp", element in services, tuple(fallback))


def _dnat_targets(expressions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for expression in expressions:
        if "dnat" in expression:
            yield _address(expression["dnat"]["addr"], expression["dnat"]["port"])


def arrived(entries: Iterable[Entry]) -> dict[str, int]:
    """The packets that reached each listener while draining, by its name, out of the sets that nft listed.

    Raises as `read`.
    """
    counts = {}
    for kind, value in entries:
        for element in value.get("elem", []) if kind == "set" else ():
            counts[_name(element["elem"]["val"]["concat"])] = int(element["elem"]["counter"]["packets"])
    return counts


def _lasting(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Without what changes by itself: handles, leases, connections, counters, the order in a hash."""
    kept = {key: part for key, part in value.items() if key != "handle"}
    if kind == "set" and value["name"].startswith(("lease", "flows", "arrived")):
        kept.pop("elem", None)
    if "elem" in kept:
        kept["elem"] = sorted(kept["elem"], key=json.dumps)
    return kept


def _name(concat: Sequence[Any]) -> str:
    ip, transport, port = concat
    return f"{_address(ip, port)}/{transport}"


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
