"""YAML as plain values: what JSON has, and nothing that YAML adds."""

import pytest

from proxy.documents import values
from proxy.documents.reader import Reading, SettingsError
from proxy.documents.values import PlainValues


def value(text: str) -> object:
    reading = Reading("f")
    (node,) = reading.stream(text)
    found = PlainValues(reading).of(node, "")
    assert reading.problems == []
    return found


def problem(text: str) -> str:
    reading = Reading("f")
    (node,) = reading.stream(text)
    PlainValues(reading).of(node, "top")
    return "\n".join(map(str, reading.problems))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ("'5'", "5"),
        ("5", 5),
        ("-5", -5),
        ("0", 0),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("1" * 30, "1" * 30),
        ("1.5", 1.5),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("true", True),
        ("No", False),
        ("~", None),
        ("", None),
        ("2026-01-02", "2026-01-02"),
        ("=", "="),
        ("[a, [b]]", ["a", ["b"]]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("{a: &x {p: 1}, b: {<<: *x, q: 2}}", {"a": {"p": 1}, "b": {"p": 1, "q": 2}}),
    ],
)
def test_it_reads(text, expected):
    if text:
        assert value(text) == expected
        assert type(value(text)) is type(expected)
    else:
        assert value("---\n") is expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{a: !!python/name:os.system x}", "f:1:5: top.a: found the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("[!x [1]]", "f:1:2: top[0]: found the tag '!x'"),
        ("!!set {a}", "f:1:1: top: found the tag 'tag:yaml.org,2002:set'"),
        ("{a: &x {b: *x}}", "f:1:5: top.a.b: found an alias of what it stands in"),
        ("{a: 1, a: 2}", "f:1:8: top.a: repeated key"),
        ("{[a]: 1}", "f:1:2: top: found a list or mapping as a key"),
    ],
)
def test_it_refuses_what_has_no_plain_value(text, said):
    assert problem(text).startswith(said)


def test_it_refuses_aliases_within_aliases_past_a_depth():
    text = "- &l0 [a]\n" + "".join(f"- &l{n} [*l{n - 1}]\n" for n in range(1, 40))
    assert problem(text) == ""
    reading = Reading("f")
    (node,) = reading.stream(text)
    PlainValues(reading).of(node.value[-1], "")
    assert "more than 20 deep" in str(reading.problems[0])


def test_it_counts_an_alias_as_what_it_stands_for(monkeypatch):
    monkeypatch.setattr(values, "MOST_VALUES", 13)
    assert value("[&x [1, 2], *x, *x, *x]") == [[1, 2]] * 4
    with pytest.raises(SettingsError, match="this file stands for more than 13 values"):
        value("[&x [1, 2], *x, *x, *x, 1]")
