"""A short run of `make fuzz`, and that it would find something."""

import pytest

from proxy.core.message import Malformed
from tests import fuzz_scanner, fuzz_worker

SEED = 20_261_121


def test_no_mutated_packet_breaks_the_scanner() -> None:
    assert fuzz_scanner.run_chunk(f"{SEED}", 20_000) == 20_000


async def test_no_mutated_packet_breaks_a_running_worker() -> None:
    seen = [done async for done, _ in fuzz_worker.run(5_000, SEED)]
    assert seen[-1] == 5_000


def test_a_packet_that_shows_a_bug_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan_answer(wire: bytes) -> Malformed:
        assert len(wire) != 40
        return Malformed.BROKEN

    monkeypatch.setattr(fuzz_scanner, "scan_answer", scan_answer)
    with pytest.raises(fuzz_scanner.Offence) as found:
        fuzz_scanner.run_chunk(f"{SEED}", 20_000)
    assert [len(packet) for packet in found.value.packets] == [40]
