"""The sections of the configuration: every key with its default, its limits and their reasons.

Seconds are floats, sizes are bytes, addresses are `ip:port` in one spelling.
"""

import os
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Struct, field

from proxy.core.endpoints import ServicePort
from proxy.settings import units
from proxy.settings.kinds import WRONG, ListOf, Nullable, Schema, Section
from proxy.settings.leaves import (
    Address,
    Choice,
    Duration,
    FilePath,
    Flag,
    Integer,
    Port,
    Service,
    Size,
    Suffix,
    Text,
)
from proxy.settings.reader import Reading, described

DEFAULT_ADMIN_SOCKET = "/run/sidestep/admin.sock"
DNS_PORT = 53


def default_admin_socket() -> str:
    """Where the admin socket is unless the file says it: /run for root and for whom a directory was made there."""
    directory = os.path.dirname(DEFAULT_ADMIN_SOCKET)
    if os.geteuid() == 0 or os.access(directory, os.W_OK):
        return DEFAULT_ADMIN_SOCKET
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return f"{runtime}/sidestep/admin.sock" if runtime.startswith("/") else f"/tmp/sidestep-{os.geteuid()}/admin.sock"


class ResolvConf(Struct, frozen=True, kw_only=True):
    """Upstreams are the nameservers of a resolv.conf."""

    resolv_conf: Annotated[str, FilePath(), "A resolv.conf, whose nameservers are asked; it is read again on change."]


class ServiceUpstreams(Struct, frozen=True, kw_only=True):
    """Upstreams are the endpoints of a Service."""

    service: Annotated[str, Service(), "namespace/name of the Service."]
    port: Annotated[str | int, Port(), "The endpoints' port, by name or number."]

    @property
    def wanted(self) -> ServicePort:
        """Whose endpoints these are."""
        return ServicePort(self.service, self.port)


class Upstreams:
    """A list of addresses, or a mapping that says where they come from."""

    _addresses = ListOf(Address(default_port=DNS_PORT), most=16, like='["192.0.2.1:53"]')
    _forms: ClassVar = {"resolv_conf": Section(ResolvConf), "service": Section(ServiceUpstreams)}

    def read(self, node: Any, key: str, reading: Reading) -> Any:
        if node.id == "sequence":
            return self._addresses.read(node, key, reading)
        if node.id == "mapping":
            names = reading.entries(node, key)
            forms = [form for name, form in self._forms.items() if name in names]
            if len(forms) == 1:
                return forms[0].read(node, key, reading)
        allowed = '["192.0.2.1:53"], {resolv_conf: PATH} or {service: NAMESPACE/NAME, port: PORT}'
        reading.problem(node, key, f"found {described(node)}; allowed is {allowed}")
        return WRONG

    def plain(self, value: Any) -> Any:
        form = next((form for form in self._forms.values() if isinstance(value, form.struct)), self._addresses)
        return form.plain(value)

    def schema(self) -> Schema:
        return {"oneOf": [self._addresses.schema(), *(form.schema() for form in self._forms.values())]}


class DnsZone(Struct, frozen=True, kw_only=True):
    """Questions under one suffix."""

    suffix: Annotated[str, Suffix(), "Names that end in this; the longest suffix wins, . is everything."]
    upstreams: Annotated[
        tuple[str, ...] | ResolvConf | ServiceUpstreams,
        Upstreams(),
        "Whom to ask: a list of IP:port (port 53 where there is none), {resolv_conf: PATH}, or the endpoints of a "
        "Service: {service: NAMESPACE/NAME, port: PORT}.",
    ]
    fallback: Annotated[
        tuple[str, ...],
        ListOf(Address(default_port=DNS_PORT), most=16, least=0, like='["192.0.2.9:53"]'),
        "Asked when every upstream failed.",
    ] = ()


class Cache(Struct, frozen=True, kw_only=True):
    """What is kept, and how long."""

    size: Annotated[
        int,
        Size("64KiB", "16GiB", "less holds no useful number of answers, more no node can spare"),
        "Memory for answers, all zones and workers together.",
    ] = 32 << 20
    max_ttl: Annotated[
        float,
        Duration("1s", "7d", "RFC 8767 section 4 caps a TTL at 7 days"),
        "The longest that an answer stays fresh.",
    ] = 3600.0
    negative_max_ttl: Annotated[
        float,
        Duration("1s", "1d", "RFC 2308 section 5 found more than a day to be a problem"),
        "The longest that the answer 'there is no such name or record' stays fresh.",
    ] = 30.0
    stale: Annotated[
        float,
        Duration("1s", "7d", "RFC 8767 section 5 suggests 1 to 3 days", zero_is="expired answers are never served"),
        "How long an expired answer may still be served when no upstream answers.",
    ] = 86400.0
    prefetch: Annotated[bool, Flag(), "Ask anew for popular answers before they expire."] = True


class Serialize(Struct, frozen=True, kw_only=True):
    """A before AAAA."""

    enabled: Annotated[
        bool, Flag(), "Send a name's AAAA question upstream only after its A question was answered."
    ] = True
    hold: Annotated[
        float,
        Duration("1ms", "5s", "an AAAA must be answered within the timeout; enabled: false turns it off"),
        "The longest that an AAAA question waits for its A; at most the timeout.",
    ] = 0.25


class Dns(Struct, frozen=True, kw_only=True):
    """The DNS node cache."""

    listen: Annotated[
        tuple[str, ...],
        ListOf(Address(listening=True), most=64, like='["169.254.20.10:53"]'),
        "Addresses to answer on, each over UDP and TCP.",
    ] = ("127.0.0.1:5300", "[::1]:5300")
    zones: Annotated[
        tuple[DnsZone, ...],
        ListOf(Section(DnsZone), most=1000, like='[{suffix: ., upstreams: ["192.0.2.1:53"]}]'),
        "Which upstreams are asked for which names.",
    ] = (DnsZone(suffix=".", upstreams=ResolvConf(resolv_conf="/etc/resolv.conf")),)
    cache: Annotated[Cache, Section(Cache), "What is kept, and how long."] = Cache()
    timeout: Annotated[
        float,
        Duration("50ms", "5s", "glibc and musl ask again after 5 s at the latest, resolv.conf(5)"),
        "Every question is answered within this time, with an error if need be.",
    ] = 2.0
    serialize: Annotated[Serialize, Section(Serialize), "A before AAAA, never both at once on a new flow."] = (
        Serialize()
    )


class Fold(Struct, frozen=True, kw_only=True):
    """What a statsd relay keeps while no endpoint is ready."""

    size: Annotated[
        int, Size("64KiB", "1GiB", "less holds no useful number of metrics, more no node can spare"), "Memory for it."
    ] = 8 << 20
    age: Annotated[
        float, Duration("1s", "1d", "a server gives an older value the time of its arrival"), "How long it is kept."
    ] = 600.0


class Sessions(Struct, frozen=True, kw_only=True):
    """Client sessions of a datagram relay."""

    idle: Annotated[
        float,
        Duration("1s", "1d", "RFC 4787 section 4.3 has minutes in mind"),
        "A session without traffic ends then.",
    ] = 60.0
    max: Annotated[
        int, Integer(1, 60000, "each takes a local port, of which there are 64,000"), "Sessions at one time."
    ] = 4096


class PerSource(Struct, frozen=True, kw_only=True):
    """What one client may send; null is any number."""

    datagrams: Annotated[
        int | None,
        Nullable(Integer(1, 10_000_000, "more no machine receives")),
        "Datagrams a second from one IP, whatever its ports, or from one user of a Unix socket.",
    ] = None
    lines: Annotated[
        int | None,
        Nullable(Integer(1, 100_000_000, "more no machine receives")),
        "statsd: lines a second from one source.",
    ] = None


class Relay(Struct, frozen=True, kw_only=True):
    """One UDP service."""

    name: Annotated[
        str,
        Text(units.OBJECT_NAME_PATTERN, "lower-case letters, digits and '-', at most 63"),
        "Its name in metrics and status.",
    ]
    listen: Annotated[
        tuple[str, ...],
        ListOf(Address(listening=True, unix=True), most=64, like='["169.254.20.10:8125"]'),
        "Addresses to receive on: IP:port, or unix:PATH for a datagram socket.",
    ]
    service: Annotated[
        str | None, Nullable(Service()), "namespace/name of the Service whose endpoints receive; null has none."
    ] = None
    port: Annotated[
        str | int | None, Nullable(Port()), "The endpoints' port, by name or number; needed with a service."
    ] = None
    mode: Annotated[
        Literal["statsd", "datagram"],
        Choice(("statsd", "datagram")),
        "statsd: one-way, split and packed by lines. datagram: opaque, replies return.",
    ] = "statsd"
    spread: Annotated[
        str | None,
        Nullable(Choice(("name", "name+tags", "source", "packet", "all"))),
        "What decides the endpoint; null is name for statsd and source for datagram, which has no names.",
    ] = None
    fold: Annotated[Fold, Section(Fold), "statsd: what is kept while no endpoint is ready."] = Fold()
    sessions: Annotated[Sessions, Section(Sessions), "datagram: client sessions."] = Sessions()
    eject: Annotated[
        float,
        Duration("100ms", "10m", "a dead endpoint is gone from the slices by then"),
        "How long an endpoint that refused a datagram is left out.",
    ] = 5.0
    per_source: Annotated[PerSource, Section(PerSource), "What one client may send."] = PerSource()

    @property
    def spread_by(self) -> str:
        """`spread` with its default for this mode."""
        return self.spread or ("name" if self.mode == "statsd" else "source")


class Kubernetes(Struct, frozen=True, kw_only=True):
    """How the API server is reached; all null means as a pod does."""

    server: Annotated[
        str | None,
        Nullable(Text(r"^https?://[^\s/]+(/.*)?$", "a URL such as https://192.0.2.10:6443")),
        "URL of the API server.",
    ] = None
    token_file: Annotated[
        str | None, Nullable(FilePath()), "File with a bearer token; read again when it changes."
    ] = None
    ca_file: Annotated[str | None, Nullable(FilePath()), "File with the CA certificates of the API server."] = None
    kubeconfig: Annotated[str | None, Nullable(FilePath()), "A kubeconfig file in place of the other three."] = None


class Node(Struct, frozen=True, kw_only=True):
    """What is set up in the kernel."""

    manage: Annotated[bool, Flag(), "Set up addresses and nft rules, which needs NET_ADMIN."] = True
    interface: Annotated[
        str,
        Text(r"^(?!\.{1,2}$)[!-$&-.0-9;-~]{1,15}$", "an interface's name of at most 15 ASCII characters"),
        "The interface that holds the addresses.",
    ] = "sidestep0"
    lease: Annotated[
        float,
        Duration("50ms", "10s", "what is lost when all of this dies; at least two probes"),
        "How long the kernel sends packets here after the last answer.",
    ] = 0.5
    probe: Annotated[
        float,
        Duration("10ms", "5s", "each is a real question to each listener"),
        "How often every listener is asked.",
    ] = 0.1


class Workers(Struct, frozen=True, kw_only=True):
    """How many processes do the work."""

    dns: Annotated[int, Integer(1, 64, "to turn DNS off leave the dns section out"), "Processes that answer DNS."] = 1
    relay: Annotated[
        int, Integer(1, 64, "to turn UDP off leave the udp section out"), "Processes that relay UDP."
    ] = 1


class Admin(Struct, frozen=True, kw_only=True):
    """Where people and probes look in."""

    listen: Annotated[
        str, Address(listening=True), "HTTP: health, metrics, status and the page; nothing to change."
    ] = "127.0.0.1:9253"
    socket: Annotated[
        str,
        FilePath(socket=True),
        "Unix socket of the sidestep commands; without root the default is in $XDG_RUNTIME_DIR or /tmp.",
    ] = field(default_factory=default_admin_socket)
