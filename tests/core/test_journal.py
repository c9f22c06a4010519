"""The journal against a plain dictionary, with kills at every byte, and with hostile memory."""

import random
from collections.abc import Iterator
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.journal import SMALLEST, Journal

SIZE = 8192


class Recorder:
    """Memory that remembers each write in its order, and can show how a kill in the middle would leave it."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.before = bytes(size)
        self.writes: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, where: slice) -> bytes:
        return bytes(self.data[where])

    def __setitem__(self, where: slice, data: bytes) -> None:
        start, stop, _ = where.indices(len(self.data))
        assert stop - start == len(data)
        self.data[where] = data
        self.writes.append((start, bytes(data)))

    def kills(self) -> Iterator[bytearray]:
        """The memory after each further byte written since the last call."""
        memory = bytearray(self.before)
        for start, data in self.writes:
            for offset, byte in enumerate(data):
                yield bytearray(memory)
                memory[start + offset] = byte
        assert memory == self.data
        yield bytearray(memory)
        self.before = bytes(self.data)
        self.writes.clear()


def fresh(size: int = SIZE) -> Journal:
    return Journal(memoryview(bytearray(size)))


def replayed(memory: bytes | bytearray) -> list[bytes]:
    return [record for _, record in Journal(memoryview(bytearray(memory))).replay()]


def test_it_replays_in_the_order_of_appends():
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    records = [b"%d" % number * 3 for number in range(20)]
    for record in records:
        assert journal.append(record) is not None
    assert replayed(memory) == records


def test_it_starts_empty_in_new_memory():
    assert list(fresh().replay()) == []


def test_it_does_not_replay_what_was_forgotten():
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    tokens = [journal.append(b"%d" % number) for number in range(4)]
    journal.forget(tokens[1])
    journal.forget(tokens[3])
    assert replayed(memory) == [b"0", b"2"]
    assert len(journal) == 2


def test_it_refuses_what_cannot_fit():
    journal = fresh()
    assert journal.append(bytes(SIZE // 64)) is None
    assert journal.append(b"") is None
    assert journal.append(bytes(SIZE // 64 - 32)) is not None


def test_it_refuses_appends_while_full_and_takes_them_again_after_forgetting():
    journal = fresh()
    tokens = []
    while (token := journal.append(b"x" * 48)) is not None:
        tokens.append(token)
    assert len(tokens) * 64 > SIZE * 2 // 3
    for token in random.Random(1).sample(tokens, len(tokens) // 2):
        journal.forget(token)
    outcomes = [journal.append(b"y" * 48) for _ in range(20)]
    assert None not in outcomes[-10:]


def test_it_refuses_memory_that_is_too_small():
    with pytest.raises(ValueError, match="at least"):
        Journal(memoryview(bytearray(SMALLEST - 1)))


def test_it_goes_on_in_the_same_memory_over_many_lives():
    memory = bytearray(SIZE)
    alive: set[bytes] = set()
    number = 0
    for _ in range(40):
        journal = Journal(memoryview(memory))
        tokens = {record: token for token, record in journal.replay()}
        assert set(tokens) == alive
        for _ in range(60):
            number += 1
            record = b"record %d" % number
            token = journal.append(record)
            assert token is not None
            tokens[record] = token
            if len(tokens) > 60:
                journal.forget(tokens.pop(next(iter(tokens))))
        alive = set(tokens)


def test_it_starts_empty_when_the_memory_has_another_size():
    memory = bytearray(SIZE)
    Journal(memoryview(memory)).append(b"x")
    assert replayed(memory + bytes(1024)) == []
    assert replayed(memory[:4096]) == []


def test_it_starts_empty_after_another_version():
    memory = bytearray(SIZE)
    Journal(memoryview(memory)).append(b"x")
    memory[8] += 1
    assert replayed(memory) == []


def test_it_skips_a_record_whose_bytes_changed_and_keeps_those_around_it():
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    for record in (b"first", b"second", b"third"):
        journal.append(record)
    memory[memory.index(b"second")] ^= 1
    assert replayed(memory) == [b"first", b"third"]


def test_it_may_be_appended_to_and_forgotten_in_while_it_replays():
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    old = [b"old %02d" % number for number in range(40)]
    for record in old:
        journal.append(record)
    journal = Journal(memoryview(memory))
    seen = []
    for token, record in journal.replay():
        seen.append(record)
        journal.forget(token)
        for _ in range(8):
            new = journal.append(b"new" * 20)
            assert new is not None
            journal.forget(new)
    assert seen == old
    assert replayed(memory) == []


def test_it_writes_bounded_bytes_for_each_append():
    memory = Recorder(64 * 1024)
    journal = Journal(memory)
    chance = random.Random(7)
    tokens = []
    for _ in range(5000):
        memory.writes.clear()
        token = journal.append(bytes(chance.randrange(1, 200)))
        assert token is not None
        assert sum(len(data) for _, data in memory.writes) < 9 * 256 + 1024 + 256
        tokens.append(token)
        if len(tokens) > 300:
            journal.forget(tokens.pop(chance.randrange(len(tokens))))


@settings(max_examples=150, deadline=None)
@given(st.integers(), st.integers(3, 11), st.sampled_from([4096, 8192, 8200, 20000]))
def test_it_keeps_every_wanted_record_through_any_order_of_appends_forgets_and_deaths(seed, kept, size):
    chance = random.Random(seed)
    memory = bytearray(size)
    journal = Journal(memoryview(memory))
    model: dict[int, bytes] = {}
    largest = (size - 64) // 1024 * 16 - 16
    used = 0

    def cost(record: bytes) -> int:
        return len(record) + 31

    for _ in range(600):
        what = chance.random()
        if what < 0.6:
            record = chance.randbytes(chance.randrange(1, largest + 1))
            token = journal.append(record)
            if token is None:
                assert used + cost(record) > size * 2 // 3 - 64
            else:
                assert token not in model
                model[token] = record
                used += cost(record)
        elif what < 0.99 and model and used > size * kept / 16:
            token = chance.choice([next(iter(model)), chance.choice(list(model))])
            journal.forget(token)
            used -= cost(model.pop(token))
        elif what > 0.99:
            journal = Journal(memoryview(memory))
            found = dict(journal.replay())
            assert sorted(found.values()) == sorted(model.values())
            model = found
        assert len(journal) == len(model)
    assert sorted(replayed(memory)) == sorted(model.values())


@pytest.mark.parametrize("seed", range(4))
def test_it_loses_nothing_and_invents_nothing_when_killed_at_any_byte(seed):
    chance = random.Random(seed)
    memory = Recorder(2112 + 512 * seed)
    journal = Journal(memory)
    for killed in memory.kills():
        assert replayed(killed) == []
    model: dict[int, bytes] = {}
    for _ in range(120):
        before = sorted(model.values())
        if len(model) < 8 + 3 * seed and chance.random() < 0.7:
            record = chance.randbytes(chance.randrange(1, 17))
            token = journal.append(record)
            assert token is not None
            model[token] = record
        elif model:
            token = chance.choice(list(model))
            journal.forget(token)
            del model[token]
        after = sorted(model.values())
        states = [sorted(replayed(killed)) for killed in memory.kills()]
        assert states[0] == before
        assert states[-1] == after
        assert all(state in (before, after) for state in states)
        assert sum(one != other for one, other in pairwise(states)) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_it_survives_a_kill_while_it_takes_over_from_a_kill(seed):
    chance = random.Random(seed)
    memory = Recorder(2112)
    journal = Journal(memory)
    model: dict[int, bytes] = {}
    for _ in range(40):
        token = journal.append(chance.randbytes(16))
        assert token is not None
        model[token] = b""
        if len(model) > 20:
            journal.forget(model.popitem()[0] if chance.random() < 0.5 else model.pop(next(iter(model))) or 0)
    for killed in list(memory.kills())[::7]:
        wanted = sorted(replayed(killed))
        second = Recorder(len(killed))
        second.data[:] = killed
        second.before = bytes(killed)
        Journal(second)
        assert all(sorted(replayed(again)) == wanted for again in second.kills())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600), st.integers())
def test_it_never_raises_on_garbage(garbage, seed):
    chance = random.Random(seed)
    memory = bytearray(4096)
    journal = Journal(memoryview(memory))
    for number in range(300):
        token = journal.append(b"record %d" % number)
        if token is not None and number % 3:
            journal.forget(token)
    at = chance.randrange(len(memory) - len(garbage))
    memory[at : at + len(garbage)] = garbage
    for _ in range(4):
        memory[chance.randrange(len(memory))] = chance.randrange(256)
    journal = Journal(memoryview(memory))
    tokens = [token for token, record in journal.replay() if record]
    assert len(journal) == len(tokens)
    for token in tokens:
        journal.forget(token)
    for _ in range(200):
        token = journal.append(b"afterwards")
        assert token is not None
        journal.forget(token)


def test_it_never_takes_a_records_own_bytes_for_the_log():
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    inner = bytearray(SIZE)
    forged = Journal(memoryview(inner))
    forged.append(b"forged")
    lure = bytes(inner[64:112])
    for _ in range(3 * SIZE // 64):
        token = journal.append(lure)
        assert token is not None
        journal.forget(token)
        assert replayed(memory) == []


def test_it_starts_empty_on_a_checkpoint_that_no_log_could_reach():
    memory = bytearray(SIZE)
    Journal(memoryview(memory)).append(b"x")
    tail = ((1 << 64) - 16).to_bytes(8, "little")
    for place in (16, 32):
        memory[place : place + 16] = tail + bytes(4) + crc32(tail).to_bytes(4, "little")
    assert replayed(memory) == []
    assert Journal(memoryview(memory)).append(b"y") is not None
