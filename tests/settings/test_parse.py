"""What a file means: sections that are off, defaults, spellings of values."""

import pytest
import yaml

from proxy.core.endpoints import ServicePort
from proxy.core.policy import DnsPolicy, RelayPolicy, Zone
from proxy.settings import Settings, default_settings, parse
from proxy.settings.kinds import Section
from proxy.settings.sections import Dns, DnsZone, Fold, Node, ResolvConf, Serialize, ServiceUpstreams, Sessions
from tests.settings.texts import EXAMPLE

KUBE_DNS = ServicePort("kube-system/kube-dns", "dns")


def policy(settings, resolved=None, endpoints=None, addresses=None):
    """The DNS policy, given what is known of each resolv.conf and Service."""
    known, own = endpoints or {}, addresses or {}
    return settings.dns_policy(resolved or {}, lambda wanted: known.get(wanted, ()), own.get)


def dns(text: str) -> Dns:
    settings = parse(f"dns: {text}")
    assert settings.dns is not None
    return settings.dns


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "null"])
def test_it_turns_nothing_on_in_an_empty_file(text):
    settings = parse(text)
    assert settings == Settings()
    assert settings.nothing_on
    assert settings.dns is None
    assert settings.udp == ()
    assert not settings.node.manage


def test_it_reads_every_section():
    settings = parse(EXAMPLE)
    assert settings.dns is not None
    assert settings.dns.listen == ("169.254.20.10:53", "10.96.0.10:53")
    assert settings.dns.zones[0] == DnsZone(
        suffix="cluster.local",
        upstreams=ServiceUpstreams(service="kube-system/kube-dns", port="dns"),
        fallback=("10.96.0.10:53",),
    )
    assert settings.dns.serialize == Serialize(enabled=True, hold=0.25)
    assert settings.udp[0].fold == Fold(size=8 * 1024 * 1024, age=600)
    assert settings.udp[0].sessions == Sessions(idle=60, max=4096)
    assert settings.udp[0].eject == 5
    assert settings.node == Node(manage=True, interface="sidestep0", lease=0.5, probe=0.1)
    assert settings.admin.socket == "/run/sidestep/admin.sock"
    assert not settings.nothing_on


def test_its_defaults_are_the_values_that_are_written_there():
    written = parse(EXAMPLE)
    assert written.dns is not None
    assert (written.dns.cache, written.dns.timeout, written.dns.serialize) == (Dns().cache, 2, Serialize())
    assert written.workers == Settings().workers
    assert written.admin.listen == Settings().admin.listen
    assert written.node == Node()


def test_it_knows_which_services_are_named():
    settings = parse(EXAMPLE)
    assert settings.wanted_ports == (KUBE_DNS, ServicePort("monitoring/statsd", "statsd"))


def test_it_applies_defaults_inside_a_section_that_is_present():
    assert dns("{}") == Dns()
    assert dns("{}").zones == (DnsZone(suffix=".", upstreams=ResolvConf(resolv_conf="/etc/resolv.conf")),)
    assert parse("node: {}").node.manage
    assert dns("{cache: {size: 64MiB}}").cache.stale == 86400


def test_it_runs_without_a_file_on_unprivileged_ports_of_loopback():
    settings = default_settings()
    assert settings.dns is not None
    assert settings.dns.listen == ("127.0.0.1:5300", "[::1]:5300")
    assert settings.resolv_conf_paths == ("/etc/resolv.conf",)
    assert settings.udp[0].listen == ("127.0.0.1:8125",)
    assert settings.admin.listen == "127.0.0.1:9253"
    assert not settings.node.manage


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("192.0.2.1", "192.0.2.1:53"),
        ("192.0.2.1:5353", "192.0.2.1:5353"),
        ("2001:DB8::0:1", "[2001:db8::1]:53"),
        ("[2001:db8::1]", "[2001:db8::1]:53"),
        ("[2001:db8::1]:54", "[2001:db8::1]:54"),
        ("[fe80::1%eth0]:53", "[fe80::1%eth0]:53"),
        ("fe80::1%eth0.7", "[fe80::1%eth0.7]:53"),
    ],
)
def test_it_brings_upstream_addresses_to_one_spelling(written, meant):
    assert dns(f'{{zones: [{{suffix: ., upstreams: ["{written}"]}}]}}').zones[0].upstreams == (meant,)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (".", "."),
        ("Cluster.LOCAL", "cluster.local"),
        ("a.b.", "a.b"),
        ("0/25.2.0.192.in-addr.arpa", "0/25.2.0.192.in-addr.arpa"),
    ],
)
def test_it_brings_suffixes_to_one_spelling(written, meant):
    assert dns(f"{{zones: [{{suffix: {written}, upstreams: [192.0.2.1]}}]}}").zones[0].suffix == meant


@pytest.mark.parametrize(
    ("written", "seconds"), [("50ms", 0.05), ("1.5s", 1.5), ("0.5s", 0.5), ("2s", 2), ("5000ms", 5), ('"2s"', 2)]
)
def test_it_reads_durations_in_every_unit(written, seconds):
    assert dns(f"{{timeout: {written}}}").timeout == pytest.approx(seconds)


@pytest.mark.parametrize(("written", "seconds"), [("10m", 600), ("1h", 3600), ("1.5h", 5400), ("7d", 604800)])
def test_it_reads_long_durations(written, seconds):
    assert dns(f"{{cache: {{max_ttl: {written}}}}}").cache.max_ttl == seconds


@pytest.mark.parametrize(
    ("written", "size"), [("65536B", 65536), ("64KiB", 65536), ("1.5MiB", 1572864), ("16GiB", 1 << 34)]
)
def test_it_reads_sizes_in_every_unit(written, size):
    assert dns(f"{{cache: {{size: {written}}}}}").cache.size == size


def test_it_takes_zero_stale_as_off():
    assert dns("{cache: {stale: 0s}}").cache.stale == 0


@pytest.mark.parametrize("word", ["true", "True", "yes", "on"])
def test_it_takes_every_switch_of_yaml(word):
    assert dns(f"{{cache: {{prefetch: {word}}}}}").cache.prefetch is True


def test_it_resolves_anchors_and_merge_keys_with_the_mappings_own_keys_first():
    settings = parse(
        """
dns:
  zones:
    - &one {suffix: one.example, upstreams: [192.0.2.1], fallback: [192.0.2.9]}
    - {<<: *one, suffix: two.example}
    - {suffix: three.example, <<: [{upstreams: [192.0.2.3]}, *one]}
"""
    )
    assert settings.dns is not None
    assert [(zone.suffix, zone.upstreams) for zone in settings.dns.zones] == [
        ("one.example", ("192.0.2.1:53",)),
        ("two.example", ("192.0.2.1:53",)),
        ("three.example", ("192.0.2.3:53",)),
    ]
    assert settings.dns.zones[2].fallback == ("192.0.2.9:53",)


def test_it_takes_every_spread_and_unix_listeners():
    for spread in ("name", "name+tags", "source", "packet", "all"):
        text = f'udp: [{{name: x, listen: ["unix:/run/x.sock"], spread: {spread}}}]'
        assert parse(text).udp[0].spread_by == spread
    assert parse('udp: [{name: x, listen: ["unix:/run/x.sock"]}]').udp[0].listen == ("unix:/run/x.sock",)


def test_it_spreads_datagrams_by_source_where_nothing_is_said():
    assert parse('udp: [{name: x, listen: ["[::1]:99"], mode: datagram}]').udp[0].spread_by == "source"
    assert parse('udp: [{name: x, listen: ["[::1]:99"]}]').udp[0].spread_by == "name"


def test_it_takes_a_port_by_name_or_number():
    text = 'udp: [{name: x, listen: ["[::1]:99"], service: a/b, port: %s}]'
    assert parse(text % "statsd").udp[0].port == "statsd"
    assert parse(text % "8125").udp[0].port == 8125


def test_it_reads_what_it_writes():
    settings = parse(EXAMPLE)
    written = Section(Settings).plain(settings)
    for relay in written["udp"]:
        del relay["sessions"]
    assert parse(yaml.safe_dump(written)) == settings


def test_it_makes_the_policy_of_the_workers():
    settings = parse(
        """
dns:
  listen: ["127.0.0.1:5300"]
  zones:
    - {suffix: ., upstreams: {resolv_conf: /tmp/r}, fallback: [192.0.2.9]}
    - {suffix: a.example, upstreams: ["192.0.2.1:54"]}
  cache: {size: 1MiB, max_ttl: 1m, negative_max_ttl: 2s, stale: 0s, prefetch: false}
  timeout: 1s
  serialize: {enabled: false, hold: 10ms}
"""
    )
    assert settings.resolv_conf_paths == ("/tmp/r",)
    assert policy(settings, {"/tmp/r": ("192.0.2.7:53",)}) == DnsPolicy(
        zones=(Zone(".", ("192.0.2.7:53",), ("192.0.2.9:53",)), Zone("a.example", ("192.0.2.1:54",))),
        cache_bytes=1 << 20,
        max_ttl=60,
        negative_max_ttl=2,
        stale=0,
        prefetch=False,
        timeout=1.0,
        serialize=False,
        hold=0.01,
    )


def test_it_leaves_own_listeners_out_of_the_policy():
    made = policy(parse("dns: {}"), {"/etc/resolv.conf": ("127.0.0.1:5300", "192.0.2.7:53")})
    assert made.zones[0].upstreams == ("192.0.2.7:53",)


def test_it_holds_no_longer_than_the_timeout_in_the_policy():
    settings = parse("dns: {timeout: 100ms}")
    assert policy(settings, {"/etc/resolv.conf": ()}).hold == pytest.approx(0.1)


def test_it_has_no_policy_while_dns_is_off():
    with pytest.raises(ValueError, match="no dns section"):
        policy(Settings())


def test_it_asks_the_endpoints_of_a_service_and_then_its_own_address():
    made = policy(parse(EXAMPLE), endpoints={KUBE_DNS: ("10.244.1.2:53",)}, addresses={KUBE_DNS: "10.96.0.11:53"})
    fallback = ("10.96.0.11:53", "10.96.0.10:53")
    assert made.zones[0] == Zone("cluster.local", ("10.244.1.2:53",), fallback, service=True)
    assert not made.zones[1].service


@pytest.mark.parametrize(("manage", "fallback"), [("true", ("10.96.0.10:53",)), ("false", ())])
def test_it_asks_a_service_address_that_it_listens_on_only_if_the_kernel_sends_that_on(manage, fallback):
    text = EXAMPLE.replace("manage: true", f"manage: {manage}").replace('fallback: ["10.96.0.10:53"]', "fallback: []")
    made = policy(parse(text), endpoints={KUBE_DNS: ("10.244.1.2:53",)}, addresses={KUBE_DNS: "10.96.0.10:53"})
    assert made.zones[0].fallback == fallback


def test_it_never_asks_what_a_listener_on_every_address_would_take():
    text = EXAMPLE.replace('"10.96.0.10:53"]', '"0.0.0.0:53"]', 1).replace("192.0.2.", "198.51.100.")
    text = text.replace('fallback: ["10.96.0.10:53"]', "fallback: []")
    made = policy(parse(text), addresses={KUBE_DNS: "127.0.0.1:53"})
    assert made.zones[0].fallback == ()


def test_workers_share_out_the_cache() -> None:
    settings = parse("dns: {zones: [{suffix: ., upstreams: [192.0.2.1]}], cache: {size: 3MiB}}\nworkers: {dns: 3}")
    assert policy(settings).cache_bytes == 1 << 20


def test_relay_workers_get_the_endpoints_and_share_out_folds_and_sessions() -> None:
    settings = parse(EXAMPLE.replace("relay: 1", "relay: 2").replace("age: 10m}", "age: 10m}\n    eject: 2s"))
    (made,) = settings.relay_policies(
        lambda wanted: (f"192.0.2.1:{len(str(wanted.port))}",), lambda name: 7, "secret"
    )
    assert made == RelayPolicy(
        name="statsd",
        block=7,
        mode="statsd",
        spread="name",
        endpoints=("192.0.2.1:6",),
        fold_bytes=4 << 20,
        fold_age=600.0,
        sessions_max=2048,
        eject=2.0,
        probe="secret",
    )


def test_a_relay_without_a_service_has_no_endpoints() -> None:
    (made,) = default_settings().relay_policies(lambda wanted: ("192.0.2.1:1",), lambda name: 0, "")
    assert made.endpoints == ()


def test_budgets_of_a_source_are_off_unless_they_are_set() -> None:
    text = 'udp: [{name: x, listen: ["[::1]:99"], per_source: {datagrams: 10, lines: 20}}]'
    (limited,) = parse(text).relay_policies(lambda wanted: (), lambda name: 0, "")
    (free,) = default_settings().relay_policies(lambda wanted: (), lambda name: 0, "")
    assert (limited.datagrams_per_second, limited.lines_per_second) == (10, 20)
    assert (free.datagrams_per_second, free.lines_per_second) == (0, 0)
