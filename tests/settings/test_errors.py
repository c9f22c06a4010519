"""Everything that is refused: where the error points, what it says, and that all of them come at once."""

import string
from functools import reduce

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.settings import Settings, SettingsError, parse
from proxy.settings.reader import MOST_BYTES, MOST_PROBLEMS
from tests.settings.texts import EXAMPLE, problem, problems, reason


def test_it_reports_everything_at_once_in_the_order_of_lines():
    text = """\
dns:
  listn: ["127.0.0.1:53"]
  timeout: 2
  zones:
    - suffix: .
      upstreams: ["192.0.2.1:99999"]
  cache: {size: 32MB}
workers: {dns: 0}
"""
    assert problems(text) == [
        "2:3: dns.listn: unknown key; did you mean 'listen'?",
        "3:12: dns.timeout: found the number 2; a duration needs its unit: write 2s",
        "6:19: dns.zones[0].upstreams[0]: found port 99999 in '192.0.2.1:99999'; allowed is 1 to 65535",
        "7:17: dns.cache.size: found '32MB'; a size is one number and its unit without a space: write 32MiB",
        "8:16: workers.dns: found 0; allowed is 1 to 64 (to turn DNS off leave the dns section out)",
    ]


def test_it_prints_file_line_column_key_and_reason():
    with pytest.raises(SettingsError) as caught:
        parse("workers: {dns: 0}", "dir/x.yaml")
    assert str(caught.value).startswith("dir/x.yaml:1:16: workers.dns: found 0; ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dnss: {}", "1:1: dnss: unknown key; did you mean 'dns'?"),
        ("dns: {Listen: []}", "1:7: dns.Listen: unknown key; did you mean 'listen'?"),
        ("dns: {cache: {max-ttl: 1h}}", "1:15: dns.cache.max-ttl: unknown key; did you mean 'max_ttl'?"),
        ("dns: {max_ttl: 1h}", "1:7: dns.max_ttl: unknown key here; it belongs to dns.cache"),
        ("timeout: 1s", "1:1: timeout: unknown key here; it belongs to dns"),
        ("workers: {zebra: 1}", "1:11: workers.zebra: unknown key; allowed are dns, relay"),
        ("workers: {1: 1}", "1:11: workers.1: unknown key; allowed are dns, relay"),
        ('workers: {"a b\\n": 1}', r"1:11: workers.'a b\n': unknown key; allowed are dns, relay"),
        ("workers: {[a]: 1}", "1:11: workers: found a list or mapping as a key; allowed are words"),
    ],
)
def test_it_refuses_unknown_keys_and_suggests_the_known_one(text, expected):
    assert problem(text) == expected


def test_it_refuses_repeated_keys_at_the_second_one():
    text = "dns:\n  timeout: 1s\n  timeout: 2s\n"
    assert problem(text) == "3:3: dns.timeout: repeated key: it stands in line 2 already"
    assert problem("dns: {}\nudp: []\ndns: {}") == "3:1: dns: repeated key: it stands in line 1 already"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", "a list"),
        ("hello", "'hello'"),
        ("7", "the number 7"),
        ("dns: []", "a list"),
        ("dns: 5", "the number 5"),
        ("dns: on", "the switch on"),
        ("dns: {listen: 127.0.0.1:53}", "'127.0.0.1:53'"),
        ("dns: {listen: {}}", "a mapping"),
        ("dns: {timeout: [2s]}", "a list"),
        ("dns: {timeout: true}", "the switch true"),
        ("dns: {timeout: null}", "nothing"),
        ("dns: {timeout: 2026-01-01}", "'2026-01-01'"),
        ("dns: {cache: {prefetch: 1}}", "the number 1"),
        ("dns: {cache: {prefetch: 'true'}}", "'true'"),
        ("dns: {zones: [x]}", "'x'"),
        ("workers: {dns: two}", "'two'"),
        ("workers: {dns: 1.5}", "the number 1.5"),
        ("workers: {dns: '2'}", "the text '2'"),
        ("workers: {dns: 010}", "the number 010 (YAML reads it in base 8, 16 or 60)"),
        ("workers: {dns: 0x10}", "the number 0x10 (YAML reads it in base 8, 16 or 60)"),
        ("dns: {listen: [53]}", "the number 53"),
        ("dns: {listen: [1:53]}", "1:53, which YAML reads as a number in base 60"),
        ("dns: {zones: [{suffix: off, upstreams: [192.0.2.1]}]}", "the switch off"),
        ("dns: !!python/name:os.system {}", "the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("dns: {timeout: !unit 2s}", "the tag '!unit'"),
        ("kubernetes: {token_file: 5}", "the number 5"),
    ],
)
def test_it_says_what_it_found_instead_of_the_right_type(text, found):
    assert reason(text).startswith(f"found {found}; ")


def test_it_tells_how_to_write_a_section_with_nothing_in_it():
    assert reason("dns:") == "found nothing; write dns: {} for the defaults, or leave the key out"


def test_it_tells_how_to_write_a_switch_that_is_meant_as_text():
    assert 'write "off"' in reason("dns: {zones: [{suffix: off, upstreams: [192.0.2.1]}]}")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("2", "write 2s"),
        ("0.5", "write 0.5s"),
        ("2 s", "write 2s"),
        ("2sec", "write 2s"),
        ("100 millis", "write 100ms"),
        ("2S", "allowed units are ms, s, m, h, d"),
        ("1m30s", "allowed is a duration such as"),
        ("-1s", "allowed is a duration such as"),
        ("soon", "allowed is a duration such as"),
        ("0s", "allowed is 50ms to 5s"),
        ("0ms", "allowed is 50ms to 5s"),
        ("1h", "allowed is 50ms to 5s"),
        ("'" + "9" * 400 + "s'", "a duration"),
    ],
)
def test_it_refuses_durations_and_says_what_to_write(value, hint):
    assert hint in reason(f"dns: {{timeout: {value}}}")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("33554432", "write 32MiB"),
        ("32", "write 32MiB"),
        ("32MB", "write 32MiB"),
        ("32Mi", "write 32MiB"),
        ("32 MiB", "write 32MiB"),
        ("0MiB", "allowed is 64KiB to 16GiB"),
        ("1TiB", "allowed units are B, KiB, MiB, GiB"),
        ("17GiB", "allowed is 64KiB to 16GiB"),
        ("big", "allowed is a size such as"),
    ],
)
def test_it_refuses_sizes_and_says_what_to_write(value, hint):
    assert hint in reason(f"dns: {{cache: {{size: {value}}}}}")


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("localhost:53", "no name"),
        ("127.0.0.1", "the port is missing"),
        ("127.0.0.1:", "must be a number"),
        ("127.0.0.1:dns", "must be a number"),
        ("127.0.0.1:0", "allowed is 1 to 65535"),
        ("127.0.0.1:65536", "allowed is 1 to 65535"),
        ("127.0.0.256:53", "'127.0.0.256' is no IP address"),
        ("10.0.0:53", "'10.0.0' is no IP address"),
        (":53", "the IP address is missing"),
        ("::1:53", "needs brackets before its port: '[::1]:53'"),
        ("[::1]", "the port is missing"),
        ("[127.0.0.1]:53", "brackets are for IPv6"),
        ("[::g]:53", "allowed is an IP address"),
        ("[::ffff:192.0.2.1]:53", "write the IPv4 address itself: 192.0.2.1:53"),
        ("224.0.0.251:5353", "this is a group's"),
        ("[ff02::fb]:5353", "this is a group's"),
        ("255.255.255.255:53", "this is a group's"),
        ("[fe80::1]:53", "write [fe80::1%eth0]:53"),
        ("[fe80::1%]:53", "the name of a network interface"),
        ("", "the port is missing"),
    ],
)
def test_it_refuses_what_cannot_be_listened_on(address, hint):
    assert hint in reason(f'dns: {{listen: ["{address}"]}}')


@pytest.mark.parametrize(
    ("suffix", "hint"),
    [
        ("'*.example'", "write 'example'"),
        (".example", "write it without the dot in front: 'example'"),
        ("a..b", "a part between two dots is empty"),
        ("''", "a part between two dots is empty"),
        ("'..'", "without the dot in front"),
        ("a b", "allowed in a name are"),
        ("bücher.example", "xn--"),
        ("a" * 64, "has 64 bytes, allowed are 63"),
        (".".join(["a" * 60] * 5), "allowed are 253"),
        ("53", 'write "53"'),
    ],
)
def test_it_refuses_suffixes_that_are_no_names(suffix, hint):
    assert hint in reason(f"dns: {{zones: [{{suffix: {suffix}, upstreams: [192.0.2.1]}}]}}")


@pytest.mark.parametrize(
    ("upstreams", "hint"),
    [
        ("192.0.2.1", 'allowed is ["192.0.2.1:53"], {resolv_conf: PATH} or {service'),
        ("null", "found nothing; allowed is"),
        ("{}", "found a mapping; allowed is"),
        ("{resolv_conf: /a, service: a/b, port: x}", "found a mapping; allowed is"),
        ("{resolv_conf: ''}", "allowed is the path of a file"),
        ("[]", "found an empty list"),
        ("[192.0.2.1, '192.0.2.1:53']", "which dns.zones[0].upstreams[0] has already"),
        ("[0.0.0.0]", "this stands for any"),
        ("['[::]:53']", "this stands for any"),
        ("[" + ",".join(f"192.0.2.{n}" for n in range(17)) + "]", "found a list of 17; allowed is a list of 1 to 16"),
    ],
)
def test_it_refuses_upstreams(upstreams, hint):
    assert hint in reason(f"dns: {{zones: [{{suffix: ., upstreams: {upstreams}}}]}}")


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        ("127.0.0.1:5300", "127.0.0.1:5300"),
        ("0.0.0.0:53", "127.0.0.9"),
        ("[::]:53", "::1"),
        ("[::1]:5300", "[0:0::1]:5300"),
    ],
)
def test_it_refuses_an_upstream_or_fallback_that_is_an_own_listener(listen, upstream):
    text = f'dns: {{listen: ["{listen}"], zones: [{{suffix: ., upstreams: ["{upstream}"]}}]}}'
    assert "where this proxy listens itself" in reason(text)
    text = f'dns: {{listen: ["{listen}"], zones: [{{suffix: ., upstreams: [192.0.2.1], fallback: ["{upstream}"]}}]}}'
    assert ".fallback[0]: " in problem(text)


def test_it_refuses_an_upstream_that_is_a_listener_by_default():
    assert "dns.zones[0].upstreams[0]" in problem('dns: {zones: [{suffix: ., upstreams: ["127.0.0.1:5300"]}]}')


def test_it_takes_an_upstream_on_another_port_or_address_of_this_machine():
    text = 'dns: {listen: ["0.0.0.0:5300", "127.0.0.1:53"], zones: [{suffix: ., upstreams: ["%s"]}]}'
    for upstream in ("127.0.0.1:54", "127.0.0.53:53", "192.0.2.77:5300"):
        assert problems(text % upstream) == []


def test_it_takes_a_service_ip_that_it_listens_on_as_fallback_only_where_the_node_is_managed():
    assert problems(EXAMPLE) == []
    assert "fallback[0]" in problem(EXAMPLE.replace("manage: true", "manage: false"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'dns: {listen: ["127.0.0.1:53", "127.0.0.1:53"]}',
            "1:32: dns.listen[1]: found 127.0.0.1:53, which dns.listen[0] has already",
        ),
        (
            'dns: {listen: ["[::1]:53", "[0::1]:53"]}',
            "1:28: dns.listen[1]: found [::1]:53, which dns.listen[0] has already",
        ),
        (
            'dns: {listen: ["127.0.0.1:9253"]}',
            "1:16: dns.listen[0]: found 127.0.0.1:9253, which admin.listen, by default has already",
        ),
        (
            'dns: {listen: ["127.0.0.1:53"]}\nadmin: {listen: "127.0.0.1:53"}',
            "1:16: dns.listen[0]: found 127.0.0.1:53, which admin.listen has already",
        ),
        (
            'udp: [{name: a, listen: ["127.0.0.1:1"]}, {name: b, listen: ["127.0.0.1:1"]}]',
            "1:62: udp[1].listen[0]: found 127.0.0.1:1, which udp[0].listen[0] has already",
        ),
        (
            "dns: {zones: [{suffix: A, upstreams: [192.0.2.1]}, {suffix: a., upstreams: [192.0.2.1]}]}",
            "1:61: dns.zones[1].suffix: found 'a', which dns.zones[0].suffix has already",
        ),
        (
            'udp: [{name: a, listen: ["[::1]:1"]}, {name: a, listen: ["[::1]:2"]}]',
            "1:46: udp[1].name: found 'a', which udp[0].name has already",
        ),
    ],
)
def test_it_refuses_the_same_thing_twice(text, expected):
    assert problem(text) == expected


def test_it_takes_a_udp_listener_on_the_admin_port():
    assert problems('udp: [{name: a, listen: ["127.0.0.1:9253"]}]') == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dns: {serialize: {hold: 3s}}", "dns.serialize.hold: found 3s; allowed is at most dns.timeout, 2s"),
        ("dns: {timeout: 100ms, serialize: {hold: 200ms}}", "dns.serialize.hold: found 0.2s; allowed is at most"),
        ("node: {lease: 150ms}", "node.lease: found a lease of 0.15s and a probe each 0.1s"),
        ("node: {probe: 400ms}", "node.probe: found a lease of 0.5s and a probe each 0.4s"),
        ("node: {interface: a/b}", "node.interface: found 'a/b'; allowed is an interface's name"),
        ("node: {interface: sidestep01234567}", "node.interface: "),
        ("kubernetes: {server: 192.0.2.1}", "kubernetes.server: found '192.0.2.1'; allowed is a URL"),
        ("kubernetes: {kubeconfig: /a, server: https://a}", "kubernetes.server: found it beside kubeconfig"),
        ("admin: {socket: run.sock}", "admin.socket: found 'run.sock'; allowed is the absolute path"),
        ("admin: {socket: /" + "a" * 107 + "}", "admin.socket: found a path of 108 bytes; a socket's may have 107"),
        ('udp: [{name: X, listen: ["[::1]:1"]}]', "udp[0].name: found 'X'; allowed is lower-case"),
        ('udp: [{name: x, listen: ["unix:x"]}]', "udp[0].listen[0]: found 'x'; allowed is the absolute path"),
        ("udp: [{name: x}]", "udp[0].listen: missing; it has no default"),
        ('udp: [{name: x, listen: ["[::1]:1"], service: a/b}]', "udp[0].port: missing; a service needs its port"),
        ('udp: [{name: x, listen: ["[::1]:1"], port: 1}]', "udp[0].port: found a port without a service"),
        (
            'udp: [{name: x, listen: ["[::1]:1"], service: ab, port: 1}]',
            "udp[0].service: found 'ab'; allowed is namesp",
        ),
        (
            'udp: [{name: x, listen: ["[::1]:1"], service: A/b, port: 1}]',
            "udp[0].service: found 'A/b'; 'A' is no name",
        ),
        (
            'udp: [{name: x, listen: ["[::1]:1"], service: a/b, port: 0}]',
            "udp[0].port: found 0; allowed is 1 to 65535",
        ),
        (
            'udp: [{name: x, listen: ["[::1]:1"], service: a/b, port: "53"}]',
            "udp[0].port: found the text '53'; write",
        ),
        (
            'udp: [{name: x, listen: ["[::1]:1"], service: a/b, port: A_b}]',
            "udp[0].port: found 'A_b'; allowed is a port",
        ),
        ('udp: [{name: x, listen: ["[::1]:1"], mode: tcp}]', "udp[0].mode: found 'tcp'; allowed is statsd, datagram"),
        (
            'udp: [{name: x, listen: ["[::1]:1"], spread: tags}]',
            "udp[0].spread: found 'tags'; allowed is name, name+t",
        ),
        ('udp: [{name: x, listen: ["[::1]:1"], sessions: {}}]', "udp[0].sessions: found it with mode: statsd"),
        (
            'udp: [{name: x, listen: ["[::1]:1"], mode: datagram, fold: {}}]',
            "udp[0].fold: found it with mode: datagram",
        ),
        (
            'udp: [{name: x, listen: ["[::1]:1"], mode: datagram, spread: all}]',
            "udp[0].spread: found all with mode: da",
        ),
        ('udp: [{name: x, listen: ["[::1]:1"], eject: 0s}]', "udp[0].eject: found 0s; allowed is 100ms to 10m"),
    ],
)
def test_it_refuses_impossible_values(text, expected):
    assert problem(text).split(" ", 1)[1].startswith(expected)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("dns:\n\ttimeout: 2s\n", "2:1: (file): YAML: "),
        ("dns: {", "1:7: (file): YAML: "),
        ("dns: {}\n  timeout: 2s", "2:3: (file): YAML: "),
        ("a: *b", "1:4: (file): YAML: "),
        ("dns: {}\n---\nudp: []", "2:1: (file): YAML: "),
        ('x: "\\q"', "1:6: (file): YAML: "),
        ('\n"\\UFFFFFFFF"', "2:4: (file): YAML: a number here is out of range"),
        ("%YAML 1." + "9" * 5000 + "\n---\n", "1:9: (file): YAML: a number here is out of range"),
        ("a: b\nc: \0", "2:4: (file): found the character U+0000, which YAML doesn't allow"),
        ("[" * 10000, "1:21: (file): YAML: nested more than 20 deep"),
        (" " * (MOST_BYTES + 1), "1:1: (file): it has over 256 KiB"),
    ],
)
def test_it_says_where_the_yaml_is_broken(text, place):
    assert problem(text).startswith(place)


def test_it_explains_the_usual_yaml_mistakes():
    assert problem("dns:\n\ttimeout: 2s\n").endswith("indent with spaces, not with tabs")
    assert problem("dns:\n  listen: [[::1]:53]\n").endswith('needs quotes, such as "[::1]:53"')


@pytest.mark.parametrize(
    "text",
    [
        "&a [*a]",
        "dns: &a {<<: *a}",
        "dns: &a {<<: [*a, *a]}",
        "\n".join(
            ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: *a{n - 1}}}" for n in range(1, 4000)), "dns: {<<: *a3999}"]
        ),
        "\n".join(
            ["a0: &a0 {x: 1}"]
            + [f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 19)]
            + ["dns: {<<: *a18}"]
        ),
        "\n".join(
            ["a0: &a0 [x, x, x]"]
            + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
            + ["dns: {listen: *a39}"]
        ),
        "dns: {zones: [&z {suffix: 1, upstreams: [x, x]}" + ", *z" * 900 + "]}",
    ],
)
def test_it_ends_soon_on_aliases_that_contain_each_other(text):
    assert problems(text)


def test_it_stops_after_more_problems_than_anyone_reads():
    found = problems("\n".join(f"k{n}: 1" for n in range(1000)))
    assert len(found) == MOST_PROBLEMS + 1
    assert found[-1].endswith(f"more than {MOST_PROBLEMS} problems, stopped here")


WORDS = st.sampled_from(
    [
        *"0123.:[]{}*&!%@`'\"#|>-?,~ \n\t\\\ud800\x85",
        *("\n  ", "\n    - ", ": ", "&a ", "*a", "<<: ", "!!", "--- ", "2s", "32MiB", "127.0.0.1:53", "[::1]:53"),
        *("dns", "listen", "zones", "suffix", "upstreams", "cache", "udp", "node"),
    ]
)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200), st.text(string.printable, max_size=200), st.lists(WORDS, max_size=40).map("".join)
    )
)
def test_it_raises_only_its_own_error_on_any_text(text):
    assert all(one.isprintable() or "\ud800" in text for one in problems(text))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(
        ["2s", "1MiB", "127.0.0.1:53", "[::1]:53", ".", "a.b", "statsd", "a/b", "unix:/x", "0s", "::1"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["suffix", "upstreams", "service", "port", "size", "x", "listen", "name"]), inner
        )
    ),
    max_leaves=8,
)
PATHS = st.sampled_from(
    [
        path.split(".")
        for path in ("dns", "dns.listen", "dns.zones", "dns.cache", "dns.cache.size", "dns.timeout", "udp")
    ]
    + [
        path.split(".")
        for path in ("dns.serialize.hold", "kubernetes", "endpoints_file", "node", "workers.dns", "admin")
    ]
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(PATHS, VALUES), min_size=1, max_size=3))
def test_it_raises_only_its_own_error_on_any_yaml_with_the_known_keys(changes):
    content = yaml.safe_load(EXAMPLE)
    for path, value in changes:
        section = reduce(lambda at, name: at.get(name, {}) if isinstance(at, dict) else {}, path[:-1], content)
        if isinstance(section, dict):
            section[path[-1]] = value
    text = yaml.safe_dump(content)
    assert problems(text) or isinstance(parse(text), Settings)
