"""What the resolver would do with a question right now, in words; it changes nothing."""

from proxy.core import local_names
from proxy.core.cache import Entry
from proxy.core.lifetime import Kind
from proxy.core.resolver import Resolver
from proxy.core.upstreams import Upstream

TYPES = {
    name: number
    for number, name in {
        1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR",
        43: "DS", 46: "RRSIG", 48: "DNSKEY", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 255: "ANY", 257: "CAA",
    }.items()
}  # fmt: skip


def question(name: str, qtype: str) -> tuple[bytes, int]:
    """What a person typed, `qtype` as a name or `TYPE65`, on the wire. Raises ValueError that says what is wrong."""
    number = TYPES.get(qtype.upper()) or _numbered(qtype)
    if number is None:
        raise ValueError(f"{qtype!r} is no record type; known are {', '.join(TYPES)} and TYPE1 to TYPE65535")
    if not name.isascii():
        raise ValueError(f"{name!r} is not ASCII; write it the way it is asked, as xn--...")
    return local_names.wire_name(name), number


def explain(resolver: Resolver, name: bytes, qtype: int, now: float) -> list[str]:
    """The steps for a question without DO and CD; `name` is lower-case wire format."""
    if local_names.refused_type(qtype) is not None:
        return ["this type is refused: it is no data or would move a whole zone"]
    if local_names.answer(name, qtype) is not None:
        return ["this name is answered here and never asked of anybody (RFC 6761, RFC 6303)"]
    steps = []
    fresh = resolver.cache.fresh(name, qtype, 0, now)
    if fresh is not None:
        return [f"fresh in the cache: {_entry(fresh, now)}"]
    stale = resolver.cache.stale_entry(name, qtype, 0, now)
    steps.append("not in the cache" if stale is None else f"stale in the cache: {_entry(stale, now)}")
    failure = resolver.cache.failure(name, qtype, 0)
    if failure is not None and now < failure.expires_at:
        steps.append(f"nobody could answer it; asked again in {failure.expires_at - now:.1f} s")
        return steps
    zone = resolver.zones.find(name)
    if zone is None:
        return [*steps, "no zone of the configuration holds this name: REFUSED"]
    steps.append(f"zone {_text(zone.suffix)}")
    steps += [f"upstream {_upstream(u)}" for u in zone.upstreams]
    steps += [f"fallback {_upstream(u)}" for u in zone.fallback]
    if not (zone.upstreams or zone.fallback):
        steps.append("nobody to ask there now: stale data, else SERVFAIL")
    return steps


def _entry(entry: Entry, now: float) -> str:
    left = entry.expires_at - now
    age = f"for another {left:.1f} s" if left > 0 else f"expired {-left:.1f} s ago"
    what = "NXDOMAIN for the whole name" if entry.kind is Kind.NXDOMAIN else entry.kind.value.upper()
    return f"{what}, {age}, looked up {entry.renders} times since it was stored"


def _upstream(upstream: Upstream) -> str:
    rtt = "not asked yet" if upstream.srtt is None else f"about {upstream.srtt * 1000:.2f} ms"
    state = "leads back to this proxy" if upstream.looping else "down" if upstream.down else "up"
    return (
        f"{upstream.address}: {state}, {rtt}, another one is asked too after {upstream.hedge_after() * 1000:.1f} ms"
    )


def _text(name: bytes) -> str:
    labels = []
    at = 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length].decode("ascii", "backslashreplace"))
        at += length + 1
    return ".".join(labels) or "."


def _numbered(qtype: str) -> int | None:
    number = qtype.upper().removeprefix("TYPE")
    return int(number) if number.isdecimal() and 0 < int(number) < 65536 else None
