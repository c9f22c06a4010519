"""What the resolver would do, in words."""

import dns.message
import pytest

from proxy.core.explanation import explain, question
from proxy.core.local_names import wire_name
from proxy.core.policy import DnsPolicy, Zone
from tests.core.asking import Asking
from tests.fakes import reply


def address(query: dns.message.Message) -> dns.message.Message:
    return reply(query, f"{query.question[0].name} 10 A 192.0.2.1")


def explained(asking: Asking, name: str, qtype: int = 1) -> str:
    return "\n".join(explain(asking.resolver, wire_name(name), qtype, asking.now))


def test_it_tells_where_a_question_would_go() -> None:
    asking = Asking(DnsPolicy((Zone(".", ("192.0.2.1:53",), ("192.0.2.9:53",)), Zone("other.", ("192.0.2.5:53",)))))
    text = explained(asking, "a.example")
    assert "not in the cache" in text
    assert "upstream 192.0.2.1:53: up, not asked yet" in text
    assert "fallback 192.0.2.9:53" in text
    assert "192.0.2.5" not in text
    assert "zone other" in explained(asking, "a.other")


def test_it_tells_of_a_service_without_endpoints() -> None:
    asking = Asking(DnsPolicy((Zone(".", (), service=True),)))
    assert explained(asking, "a.example").endswith("nobody to ask there now: stale data, else SERVFAIL")


def test_it_tells_what_is_cached_and_for_how_long() -> None:
    asking = Asking()
    asking.ask("a.example")
    asking.answer(address)
    text = explained(asking, "a.example")
    assert text == "fresh in the cache: POSITIVE, for another 10.0 s, looked up 0 times since it was stored"
    asking.wait(15.0)
    assert "stale in the cache: POSITIVE, expired 5.0 s ago" in explained(asking, "a.example")


def test_it_tells_of_a_failure_that_is_remembered() -> None:
    asking = Asking()
    asking.ask("a.example")
    while asking.tries:
        asking.fail()
    asking.wait(1.95)
    asking.ask("a.example")
    while asking.tries:
        asking.fail()
    assert "nobody could answer it; asked again in" in explained(asking, "a.example")


def test_it_tells_what_is_never_asked() -> None:
    asking = Asking(DnsPolicy((Zone("corp.", ("192.0.2.1:53",)),)))
    assert "answered here" in explained(asking, "localhost")
    assert "refused" in explained(asking, "a.corp", 252)
    assert "no zone" in explained(asking, "a.example")


def test_it_changes_nothing() -> None:
    asking = Asking()
    explained(asking, "a.example")
    assert not asking.tries
    assert not any(asking.counts)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("A.Example.", "aaaa"), (b"\x01a\x07example\0", 28)),
        (("a", "TYPE65"), (b"\x01a\0", 65)),
        ((".", "2"), (b"\0", 2)),
    ],
)
def test_it_reads_what_a_person_typed(words: tuple[str, str], meant: tuple[bytes, int]) -> None:
    assert question(*words) == meant


@pytest.mark.parametrize("words", [("a", "TYPE65536"), ("a", ""), ("a", "²"), ("a..b", "A"), ("\udcff", "A")])
def test_it_refuses_what_is_no_question(words: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"domain name|record type|not ASCII"):
        question(*words)
