"""Mutated packets through scanner, classification and response, on every core."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from random import Random

from proxy.core.lifetime import judge
from proxy.core.message import (
    LARGEST_MESSAGE,
    OWN_PAYLOAD_SIZE,
    SMALLEST_PAYLOAD_SIZE,
    Answer,
    Query,
    Rcode,
    Refusal,
    question_to_upstream,
    respond,
    respond_error,
    respond_refusal,
    scan_answer,
    scan_query,
)
from tests.wires import corpus, mutate

CHUNK = 100_000
MAX_TTL = 3600


class Offence(Exception):
    """Packets that showed a bug: one for the scanner, a burst and the replies to it for a worker."""

    def __init__(self, cause: str, packets: list[bytes], replies: Sequence[bytes] = ()) -> None:
        super().__init__(cause, packets, replies)
        self.cause = cause
        self.packets = packets
        self.replies = replies


def check(wire: bytes) -> None:
    """Everything that must hold of any bytes, as a client's question and as an upstream's answer."""
    if len(wire) >= 12:
        scanned = scan_query(wire)
        refused = isinstance(scanned, Refusal)
        response = respond_refusal(wire, scanned) if refused else respond_error(scanned, Rcode.SERVFAIL)
        query = scanned.query if refused else scanned
        assert response[:2] == wire[:2]
        assert response[2] & 0x80
        if query is not None:
            check_query(query)
            assert response[12 : query.question_end] == wire[12 : query.question_end]
        else:
            assert response[4:] == bytes(8)
    answer = scan_answer(wire)
    if isinstance(answer, Answer):
        check_answer(answer)


def check_query(query: Query) -> None:
    """What a scanned question says about itself."""
    wire = query.wire
    assert 17 <= query.question_end <= len(wire)
    assert query.name == wire[12 : query.question_end - 4].lower()
    assert SMALLEST_PAYLOAD_SIZE <= query.payload_size <= OWN_PAYLOAD_SIZE


def check_answer(answer: Answer) -> None:
    """A scanned answer lies within its bytes, and what clients would get of it is an answer again."""
    at = answer.question_end
    for record in answer.records:
        assert record.start == at < record.ttl_at < record.rdata_at <= record.end <= len(answer.wire)
        at = record.end
    assert at == len(answer.wire)
    verdict = judge(answer, MAX_TTL, 30)
    assert 0 <= verdict.lifetime <= MAX_TTL
    if not answer.name:
        return
    asked = question_to_upstream(answer.wire[12 : answer.question_end], edns=True, do=False, cd=False)
    query = scan_query(asked)
    assert isinstance(query, Query)
    for limit, age in ((LARGEST_MESSAGE, 0), (OWN_PAYLOAD_SIZE, verdict.lifetime // 2), (512, verdict.lifetime)):
        response = respond(query, verdict.sections, limit, age=age)
        assert len(response) <= limit
        again = scan_answer(response)
        assert isinstance(again, Answer)
        assert (again.name, again.qtype, again.edns) == (answer.name, answer.qtype, True)


def run_chunk(seed: str, packets: int) -> int:
    """Check that many packets. Raises `Offence` with the first that shows a bug."""
    random = Random(seed)
    wires = corpus()
    for _ in range(packets):
        wire = mutate(random, wires)
        try:
            check(wire)
        except Exception as error:
            raise Offence(repr(error), [wire]) from error
    return packets


def run(packets: int, seed: int) -> Iterator[int]:
    """Check that many packets on every core, telling after each chunk how many are done."""
    sizes = [min(CHUNK, packets - start) for start in range(0, packets, CHUNK)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        chunks = [pool.submit(run_chunk, f"{seed}/{number}", size) for number, size in enumerate(sizes)]
        try:
            done = 0
            for chunk in as_completed(chunks):
                done += chunk.result()
                yield done
        finally:
            pool.shutdown(cancel_futures=True)
