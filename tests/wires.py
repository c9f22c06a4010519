"""DNS messages as bytes for tests: a few of every shape, made by dnspython, and mutations of them."""

from collections.abc import Sequence
from functools import cache
from random import Random

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode

from tests.fakes import question, reply, soa

QUERIES = (
    question("a.example"),
    question("A.ExAmPlE.", "AAAA", use_edns=0, payload=1232),
    question("www.xn--bcher-kva.example", "HTTPS", use_edns=0, payload=4096, want_dnssec=True),
    question("_dns._udp.default.svc.cluster.local", "SRV", use_edns=0, payload=512),
    question("4.3.2.1.in-addr.arpa", "PTR"),
    question(".", "NS", use_edns=0, options=[dns.edns.GenericOption(3, b"")]),
    question("cookie.example", use_edns=0, options=[dns.edns.CookieOption(b"12345678", b"")], pad=128),
    question(".".join(["x" * 63] * 3 + ["y" * 61]), "TXT"),
)


@cache
def corpus() -> tuple[bytes, ...]:
    """Well-formed queries and answers of many types."""
    wires = [query.to_wire() for query in QUERIES]
    for query in QUERIES:
        wires += [response.to_wire(max_size=65535) for response in _replies(query)]
    notify = question("a.example", "SOA")
    notify.set_opcode(dns.opcode.NOTIFY)
    wires.append(notify.to_wire())
    return tuple(wires)


def _replies(query: dns.message.Message) -> list[dns.message.Message]:
    name = query.question[0].name.to_text()
    return [
        reply(query, f"{name} 60 A 192.0.2.1", f"{name} 60 AAAA 2001:db8::1"),
        reply(
            query, f"{name} 30 CNAME www.example.", "www.example. 20 CNAME end.example.", "end.example. 9 A 192.0.2.9"
        ),
        reply(query, rcode="NXDOMAIN", authority=[soa()]),
        reply(query, authority=[soa()], flags=dns.flags.AD),
        reply(query, rcode="SERVFAIL"),
        reply(query, flags=dns.flags.TC),
        reply(
            query,
            f'{name} 2147483649 TXT "one" "two"',
            f"{name} 5 MX 10 mail.www.example.",
            f"{name} 5 SRV 1 2 53 target.example.",
            f"{name} 5 HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1",
            f"{name} 5 TYPE65280 \\# 4 00010203",
            f"{name} 5 TYPE65281 \\# 0",
            f'{name} 5 NAPTR 1 1 "u" "x" "!^.*$!x!" .',
            authority=["example. 600 NS ns.example.", "example. 600 NS ns2.example."],
            additional=["ns.example. 600 A 192.0.2.53", "ns2.example. 600 AAAA 2001:db8::53"],
        ),
        reply(query, *(f"{name} 5 A 192.0.2.{number}" for number in range(120))),
    ]


_TELLING = (0, 1, 0x0C, 0x3F, 0x40, 0x80, 0xC0, 0xFF)


def mutate(random: Random, wires: Sequence[bytes]) -> bytes:
    """One of the messages with one to four things wrong."""
    pick = random.random
    wire = bytearray(wires[int(pick() * len(wires))])
    for _ in range(1 + int(pick() * 4)):
        size = len(wire)
        if not size:
            break
        at = int(pick() * size)
        what = int(pick() * 9)
        if what < 2:
            wire[at] ^= 1 << int(pick() * 8)
        elif what == 2:
            wire[at] = int(pick() * 256)
        elif what == 3:
            wire[at] = _TELLING[int(pick() * 8)]
        elif what == 4:  # a pointer to anywhere
            target = int(pick() * (size + 4))
            wire[at : at + 2] = bytes((0xC0 | target >> 8 & 0x3F, target & 255))
        elif what == 5:  # a count, a length
            at = 4 + int(pick() * 4) * 2 + 1 if pick() < 0.5 else at
            wire[at : at + 1] = bytes((_TELLING[int(pick() * 8)],))
        elif what == 6:
            del wire[at:]
        elif what == 7:
            del wire[at : at + 1 + int(pick() * 12)]
        else:
            source = wires[int(pick() * len(wires))]
            start = int(pick() * len(source))
            wire[at:at] = source[start : start + 1 + int(pick() * 40)]
    return bytes(wire)
