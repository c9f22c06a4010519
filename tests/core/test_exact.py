from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.exact import Number, add, parse, render, total


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"0", 0),
        (b"12", 12),
        (b"+12", 12),
        (b"-12", -12),
        (b"1.50", Decimal("1.50")),
        (b".5", Decimal("0.5")),
        (b"5.", Decimal(5)),
        (b"1e3", Decimal(1000)),
        (b"-2.5E-3", Decimal("-0.0025")),
    ],
)
def test_it_reads_numbers(text: bytes, number: Number) -> None:
    assert parse(text) == number


@pytest.mark.parametrize(
    "text", [b"", b"x", b"1_000", b" 1", b"1 ", b"nan", b"inf", b"0x10", b"1e999", b"1" * 31, b"--1", b"1.2.3", b"."]
)
def test_it_leaves_alone_what_only_python_would_read_or_nobody_means(text: bytes) -> None:
    assert parse(text) is None


def test_it_sums_packed_values_and_refuses_them_together() -> None:
    assert total(b"1:2:3") == 6
    assert total(b"1:2.5") == Decimal("3.5")
    assert total(b"1:x:3") is None


def test_a_tenth_three_times_is_three_tenths() -> None:
    assert render(add(add(Decimal("0.1"), Decimal("0.1")), Decimal("0.1"))) == b"0.3"


@pytest.mark.parametrize(
    ("number", "sign", "text"),
    [(7, "-", b"7"), (-7, "-", b"-7"), (7, "+", b"+7"), (0, "+", b"+0"), (Decimal("1E+3"), "-", b"1000")],
)
def test_it_writes_what_servers_read(number: Number, sign: str, text: bytes) -> None:
    assert render(number, sign) == text


NUMBERS = st.from_regex(rb"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(st.lists(NUMBERS, min_size=1))
def test_what_is_written_is_the_sum_without_rounding(texts: list[bytes]) -> None:
    result: Number = 0
    for text in texts:
        number = parse(text)
        assert number is not None
        result = add(result, number)
    scaled = sum(scale(text) for text in texts)
    assert scale(render(result)) == scaled


def scale(text: bytes) -> int:
    """A number in units of 10^-200."""
    mantissa, _, exponent = text.decode().lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    return int(whole + fraction) * 10 ** (200 - len(fraction) + int(exponent or 0))
