"""One question through the running resolver, each step told (`sidestep explain`)."""

import asyncio
import time
from collections.abc import Callable

from proxy.core.explanation import explain as explain_now
from proxy.core.local_names import wire_name
from proxy.core.message import RD, Rcode
from proxy.worker.dns import DnsWorker

TYPES = {
    name: number
    for number, name in {
        1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR",
        43: "DS", 46: "RRSIG", 48: "DNSKEY", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 255: "ANY", 257: "CAA",
    }.items()
}  # fmt: skip
ANSWER_LIMIT = 5.0


class _Asker:
    """A client that waits here; told everything, like one over TCP."""

    proto = "tcp"
    address = ("explain", 0)

    def __init__(self, answer: Callable[[bytes], None]) -> None:
        self.reply = answer


async def explain(worker: DnsWorker, name: str, qtype: str) -> tuple[list[str], bytes]:
    """Ask `name` and `qtype` (a name or `TYPE65`); a line per step, and the answer or nothing."""
    number = TYPES.get(qtype.upper()) or _numbered(qtype)
    if number is None:
        return [f"{qtype!r} is no record type; known are {', '.join(TYPES)} and TYPE1 to TYPE65535"], b""
    try:
        wire = wire_name(name)
    except ValueError as error:
        return [str(error)], b""
    steps = explain_now(worker.resolver, wire, number, time.monotonic())
    query = bytes(2) + RD.to_bytes(2, "big") + b"\0\1\0\0\0\0\0\0" + wire + number.to_bytes(2, "big") + b"\0\1"
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    started = time.monotonic()
    answer = worker.receive_explained(query, _Asker(answered.set_result))
    if answer is None:
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                answer = await answered
        except TimeoutError:
            return [*steps, f"no answer in {ANSWER_LIMIT:.0f} s: this is a defect"], b""
    took_ms = (time.monotonic() - started) * 1000
    rcode = answer[3] & 15
    rcode_name = Rcode(rcode).name if rcode in Rcode.__members__.values() else f"rcode {rcode}"
    return [*steps, f"answered {rcode_name}, {len(answer)} bytes, in {took_ms:.2f} ms"], answer


def _numbered(qtype: str) -> int | None:
    number = qtype.upper().removeprefix("TYPE")
    return int(number) if number.isdigit() and 0 < int(number) < 65536 else None
