"""Numbers of StatsD lines, summed without rounding: int where it is one, else Decimal."""

import re
from decimal import Context, Decimal

Number = int | Decimal

_NUMBER = re.compile(rb"[+-]?(?:\d{1,30}(\.\d{0,30})?|(\.\d{1,30}))([eE][+-]?\d{1,2})?").fullmatch
_EXACT = Context(prec=400)
"""From 10^130 down to 10^-129, the most that `_NUMBER` lets through, with 100 digits to grow."""


def parse(text: bytes) -> Number | None:
    """The number that a text is; None if it is none, or longer than any that is meant."""
    if text.isdigit() and len(text) <= 30:
        return int(text)
    match = _NUMBER(text)
    if match is None:
        return None
    return int(text) if match.lastindex is None else Decimal(text.decode())


def total(text: bytes) -> Number | None:
    """The sum of `1:2:3`; None if any of it is no number."""
    if b":" not in text:
        return parse(text)
    result: Number = 0
    for part in text.split(b":"):
        number = parse(part)
        if number is None:
            return None
        result = add(result, number)
    return result


def add(one: Number, other: Number) -> Number:
    """The exact sum."""
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return _EXACT.add(Decimal(one), Decimal(other))


def render(number: Number, sign: str = "-") -> bytes:
    """As StatsD servers read it, without exponent; with `sign="+"` always with a sign."""
    return format(number, f"{sign}f" if isinstance(number, Decimal) else f"{sign}d").encode()
