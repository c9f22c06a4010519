"""Names that are answered here and never asked of anybody (RFC 6761, RFC 6303), and types that nobody should ask.

`localhost` is an address, `invalid` is nothing, and the reverse zones of loopback and link-local addresses mean
something only on this machine. Those of private networks belong to whoever runs the cluster's DNS.
"""

from proxy.core.message import AAAA, ANY, HINFO, OPT, PTR, SOA, A, Rcode, Sections

TTL = 3600
"""These answers never change; RFC 6303 3 leaves the number to us."""

_AXFR, _IXFR, _TKEY, _TSIG, _MAILB, _MAILA = 252, 251, 249, 250, 253, 254


def wire_name(text: str) -> bytes:
    """`cluster.local.` as lower-case labels. Raises ValueError for what is no name (RFC 1035 2.3.4)."""
    name = bytearray()
    for label in text.rstrip(".").lower().encode("ascii").split(b"."):
        if text.strip(".") and not 0 < len(label) < 64:
            raise ValueError(f"{text!r} is not a domain name")
        name += bytes((len(label),)) + label if label else b""
    if len(name) > 254:
        raise ValueError(f"{text!r} is longer than a domain name may be")
    return bytes(name) + b"\0"


def suffixes(name: bytes) -> list[bytes]:
    """The name, its parent, and so on up to the root, in wire format."""
    found = [name]
    at = 0
    while length := name[at]:
        at += length + 1
        found.append(name[at:])
    return found


_LOCALHOST = wire_name("localhost")
_SOA_NAMES = b"\xc0\x0c\xc0\x0c"
_NO_SUCH_NAME = frozenset(
    wire_name(zone)
    for zone in (
        "invalid",
        "127.in-addr.arpa",
        "254.169.in-addr.arpa",
        "8.e.f.ip6.arpa",
        "9.e.f.ip6.arpa",
        "a.e.f.ip6.arpa",
        "b.e.f.ip6.arpa",
    )
)
_LOOPBACK_REVERSE = frozenset((wire_name("1.0.0.127.in-addr.arpa"), wire_name("1." + "0." * 31 + "ip6.arpa")))
_PRIVATE_REVERSE = frozenset(
    wire_name(zone)
    for zone in (
        "10.in-addr.arpa",
        *(f"{second}.172.in-addr.arpa" for second in range(16, 32)),
        "168.192.in-addr.arpa",
    )
)
_REFUSED_TYPES = {
    OPT: Rcode.FORMERR,
    0: Rcode.FORMERR,
    _TKEY: Rcode.NOTIMP,
    _TSIG: Rcode.NOTIMP,
    _MAILB: Rcode.NOTIMP,
    _MAILA: Rcode.NOTIMP,
    _AXFR: Rcode.REFUSED,
    _IXFR: Rcode.REFUSED,
}


def refused_type(qtype: int) -> Rcode | None:
    """The error for types that are no data or would move whole zones (RFC 1035 3.2.3, RFC 6895 3.1)."""
    return _REFUSED_TYPES.get(qtype)


def answer(name: bytes, qtype: int) -> Sections | None:
    """The answer to a question that is ours alone, or None when somebody has to be asked."""
    if qtype == ANY:
        return _one_record(HINFO, b"\x07RFC8482\x00")  # RFC 8482 4.2
    parents = suffixes(name)
    if _LOCALHOST in parents:
        if qtype == A:
            return _one_record(A, b"\x7f\0\0\x01")
        if qtype == AAAA:
            return _one_record(AAAA, bytes(15) + b"\x01")
        return _denial(Rcode.NOERROR)
    if name in _LOOPBACK_REVERSE:
        return _one_record(PTR, _LOCALHOST) if qtype == PTR else _denial(Rcode.NOERROR)
    if not _NO_SUCH_NAME.isdisjoint(parents):
        return _denial(Rcode.NXDOMAIN)
    return None


def is_private_reverse(name: bytes) -> bool:
    """A name of the reverse zones of RFC 1918, which must not reach servers that know nothing of them."""
    return not _PRIVATE_REVERSE.isdisjoint(suffixes(name))


def no_such_private_name() -> Sections:
    """NXDOMAIN for a private reverse name that no configured zone claims (RFC 6303 4)."""
    return _denial(Rcode.NXDOMAIN)


def _one_record(rtype: int, rdata: bytes) -> Sections:
    return Sections(_record(rtype, rdata), (1, 0, 0), Rcode.NOERROR, False)


def _denial(rcode: Rcode) -> Sections:
    timers = b"".join(seconds.to_bytes(4, "big") for seconds in (1, 3600, 1200, 604800, TTL))
    return Sections(_record(SOA, _SOA_NAMES + timers), (0, 1, 0), rcode, False)


def _record(rtype: int, rdata: bytes) -> bytes:
    """A record owned by the question's name (a pointer to it)."""
    return (
        b"\xc0\x0c"
        + bytes((rtype >> 8, rtype & 255, 0, 1))
        + TTL.to_bytes(4, "big")
        + len(rdata).to_bytes(2, "big")
        + rdata
    )
