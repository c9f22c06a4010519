import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.statsd import Line, key, kind_of, pack, read, split


@pytest.mark.parametrize(
    ("datagram", "lines"),
    [
        (b"a:1|c", [b"a:1|c"]),
        (b"a:1|c\n", [b"a:1|c"]),
        (b"a:1|c\nb:2|g", [b"a:1|c", b"b:2|g"]),
        (b"a:1|c\r\nb:2|g\r\n", [b"a:1|c", b"b:2|g"]),
        (b"a:1|c\n\n\nb:2|g\n", [b"a:1|c", b"b:2|g"]),
        (b"\n", []),
        (b"\r\n", []),
        (b"", []),
        (b"\na:1|c", [b"a:1|c"]),
    ],
)
def test_it_splits_whatever_line_ends_there_are(datagram: bytes, lines: list[bytes]) -> None:
    assert split(datagram) == lines


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"gorets:1|c", "counter"),
        (b"gorets:1|c|@0.1", "counter"),
        (b"gaugor:333|g", "gauge"),
        (b"gaugor:-10|g", "gauge"),
        (b"glork:320|ms|@0.1", "timer"),
        (b"glork:320|h", "timer"),
        (b"glork:3.2e-1|d|#env:prod", "timer"),
        (b"uniques:765|s", "set"),
        (b"uniques:http://a.example/?b|s", "set"),
        # DogStatsD 1.1 to 1.6
        (b"latency:1:2:32|d|#shell", "timer"),
        (b"page.views:1|c|#env:dev|c:83c0a99c0a54c0c187f461c7980e9b57f3f6a8b0c918c8d93df19a9de6f3fe1d", "counter"),
        (b"page.views:1|g|#env:dev|c:ci-1|e:it-false,cn-app|card:low", "gauge"),
        (b"page.views:15|c|#env:dev|T1656581400", "other"),
        # telegraf: several types, or the same several times
        (b"users.online:1|c:2|c", "other"),
        (b"deploys:1|c:200|ms|@0.1", "other"),
        # tags in the name
        (b"requests,env=prod,host=a:1|c", "counter"),
        (b"requests#env=prod,host=a:1|c", "counter"),
        (b"requests[env=prod,host=a]:1|c", "counter"),
        (b"requests.__env=prod.__host=a:1|c", "counter"),
        (b"unknown:1|kv", "other"),
        (b"with a space:1|c", "counter"),
        ("größe:1|c".encode(), "counter"),
        (b"latin\xe9:1|c", "counter"),
        (b"_e{21,36}:An exception occurred|Cannot parse CSV file from 10.0.0.17|t:warning|#err_type:bad", "event"),
        (b"_e{5,7}:a|b|c|x|y\\nz|p:low", "event"),
        (b"_sc|Redis connection|2|#env:dev|m:Redis connection timed out after 10s", "event"),
        (b"_sc|name|0", "event"),
        (b"_under:1|c", "counter"),
    ],
)
def test_it_knows_the_kind_of_what_servers_read(line: bytes, kind: str) -> None:
    parsed = read(line)
    assert parsed is not None
    assert parsed.kind == kind
    if kind != "event":
        assert parsed.name + b":" + parsed.value + b"|" + parsed.suffix == line


@pytest.mark.parametrize(
    "line",
    [
        b"a",
        b"a:",
        b"a:1",
        b":1|c",
        b"a:|c",
        b"a:1|",
        b"a:1||@0.1",
        b"a|c",
        b"a|c:1|c",
        b"a:1|@0.1",
        b"a:1|not a type",
        b"a:1|" + b"x" * 17,
        b"a\0b:1|c",
        b"a:1|c|#\x01",
        b"\x80\x04\x95\xff",
        b"{}",
        b"GET / HTTP/1.1",
        b"_e{}:",
        b"_e{5,4}:title|tex",
        b"_e{0,4}:|text",
        b"_e{a,b}:title|text",
        b"_sc|",
        b"_sc||0",
        b"_sc|name",
        b"_sc|name|",
    ],
)
def test_it_refuses_what_no_server_could_read(line: bytes) -> None:
    assert read(line) is None


@given(st.binary())
def test_it_reads_any_bytes_without_error(datagram: bytes) -> None:
    for line in split(datagram):
        assert line
        parsed = read(line)
        if parsed is not None:
            assert key(parsed, tags=False)
            assert key(parsed, tags=True).startswith(key(parsed, tags=False))


def test_an_event_keeps_what_stands_between_its_lengths() -> None:
    assert read(b"_e{3,5}:a|b|x|\\ny|t:info|#b,a") == Line("event", b"_e:a|b", b"x|\\ny", b"t:info|#b,a")


def test_lengths_of_an_event_count_bytes() -> None:
    title, text = "Größe".encode(), "ünter".encode()
    parsed = read(b"_e{%d,%d}:%s|%s" % (len(title), len(text), title, text))
    assert parsed == Line("event", b"_e:" + title, text, b"")


@pytest.mark.parametrize(
    "line",
    [
        b"app.requests:1|c",
        b"app.requests:7|c|@0.1|#env:prod",
        b"app.requests:7|ms",
        b"app.requests,env=prod:1|c",
        b"app.requests#env=prod:1|c",
        b"app.requests[env=prod,host=a]:1|c",
        b"app[env=prod].requests:1|c",
        b"app.requests.__env=prod:1|c",
    ],
)
def test_the_name_is_the_same_in_every_dialect(line: bytes) -> None:
    parsed = read(line)
    assert parsed is not None
    assert key(parsed, tags=False) == b"app.requests"


@pytest.mark.parametrize("name", [b",a", b"#a", b"[a=b]", b".__a=b", b"a.__b"])
def test_what_would_leave_no_name_is_the_name(name: bytes) -> None:
    assert key(Line("counter", name, b"1", b"c"), tags=False) == name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"a:1|c|#x:1,b:2", b"a:2|g|@0.5|#b:2,x:1"),
        (b"a,x=1,b=2:1|c", b"a[b=2,x=1]:1|c"),
        (b"_e{1,1}:t|x|#b,a", b"_e{1,2}:t|yz|p:low|#a,b"),
        (b"_sc|n|0|#b,a", b"_sc|n|2|h:x|#a,b|m:gone"),
    ],
)
def test_tags_count_in_any_order_and_only_if_wanted(one: bytes, other: bytes) -> None:
    first, second = read(one), read(other)
    assert first is not None
    assert second is not None
    assert key(first, tags=True) == key(second, tags=True)
    assert key(first, tags=True) != key(first, tags=False)


def test_events_and_checks_go_by_title_and_name() -> None:
    keys = {
        key(parsed, tags=False)
        for line in (b"_e{2,1}:t1|x", b"_e{2,1}:t2|x", b"_sc|t1|0", b"_sc|t2|0", b"t1:1|c")
        if (parsed := read(line)) is not None
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("suffix", "kind"), [(b"c|T1700000000", "other"), (b"c|#T1", "counter"), (b"c|#a|T1|c:x", "other"), (b"", None)]
)
def test_a_time_of_its_own_is_a_field(suffix: bytes, kind: str | None) -> None:
    assert kind_of(suffix) == kind


LINES = st.lists(st.binary(min_size=1, max_size=60).filter(lambda line: b"\n" not in line), min_size=1)


@given(LINES, st.integers(1, 100))
def test_it_packs_every_line_whole_and_in_order(lines: list[bytes], limit_bytes: int) -> None:
    payloads, too_long = pack(lines, limit_bytes)
    assert too_long == [line for line in lines if len(line) > limit_bytes]
    assert [line for payload, _ in payloads for line in payload.split(b"\n")] == [
        line for line in lines if len(line) <= limit_bytes
    ]
    for payload, count in payloads:
        assert len(payload) <= limit_bytes
        assert payload.count(b"\n") + 1 == count


def test_it_fills_datagrams_to_the_last_byte() -> None:
    payloads, _ = pack([b"12345", b"6789", b"abcdefghij"], 10)
    assert payloads == [(b"12345\n6789", 2), (b"abcdefghij", 1)]
