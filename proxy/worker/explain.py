"""One question through the running resolver, each step told (`sidestep explain`)."""

import asyncio
import time
from collections.abc import Callable

from proxy.core.explanation import explain as explain_now
from proxy.core.explanation import question
from proxy.core.message import RD, Rcode
from proxy.worker.dns import DnsWorker

ANSWER_LIMIT = 5.0


class _Asker:
    """A client that waits here; told everything, like one over TCP."""

    proto = "tcp"
    address = ("explain", 0)

    def __init__(self, answer: Callable[[bytes], None]) -> None:
        self.reply = answer


async def explain(worker: DnsWorker, name: str, qtype: str) -> tuple[list[str], bytes]:
    """Ask `name` and `qtype` (a name or `TYPE65`); a line per step, and the answer or nothing."""
    try:
        wire, number = question(name, qtype)
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
