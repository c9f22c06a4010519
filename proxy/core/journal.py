"""A circular log of opaque records in shared memory, readable after a SIGKILL at any byte.

It owns the layout, and the moving of old records that are still wanted. It never allocates the memory, and never
knows what a record means. As long as the wanted records, each with 16 to 31 bytes on top, take at most two thirds of
the memory, every append succeeds.

    0   magic, version, size of the log
    16  two checkpoints, written by turns: where the oldest record starts
    64  the log, in steps of 16 bytes: header, record, header, record, ..., a header of zeros

A position counts bytes since the log began and never goes back; the place in memory is its remainder.
"""

from array import array
from collections.abc import Iterator
from struct import Struct
from zlib import crc32

_MAGIC = b"sidestep"
_VERSION = 1
_STEP = 16
_LOG = 64
_START = Struct("<8sII")
_CHECKPOINT = Struct("<QII")
_CHECKPOINTS = (16, 32)
_HEADER = Struct("<IIII")
"""CRC of the record, its length, its token, its position (in steps; tells it from what a former lap left)."""
_TOKEN = Struct("<I")
_TOKEN_AT = 8
_FORGOTTEN = 0xFFFFFFFF
_END = bytes(_STEP)

_FURTHEST = 1 << 62

SMALLEST = _LOG + 128 * _STEP

_LARGEST_SHARE = 64
_SWEEP_PACE = 8
"""Bytes that are swept for each byte appended, once seven eighths are in use. With w of the memory wanted, at most
w / 8 comes in before the sweep reaches what is not, so the log never fills while w is at most two thirds."""


class Journal:
    """The log in `memory`, which must stay this size. What is there is taken over; anything unknown is emptied.

    After taking over, call `replay` once and `forget` what isn't wanted. Raises ValueError for too little memory.
    """

    def __init__(self, memory: memoryview) -> None:
        if len(memory) < SMALLEST:
            raise ValueError(f"a journal needs at least {SMALLEST} bytes, not {len(memory)}")
        self._memory = memory
        self._size = (len(memory) - _LOG) // _STEP * _STEP
        self._largest = self._size // _LARGEST_SHARE // _STEP * _STEP
        self._sweep_above = self._size - self._size // 8
        # A sweep needs room for one record's move at any time.
        self._room = self._size - self._largest - _STEP
        self._positions = array("Q")
        """Where each token's record is; 0 for a token that is free."""
        self._free = array("I")
        self._adopted = 0
        known = self._read_checkpoint()
        self._committed = self._tail = self._head = self._size if known is None else known
        if known is None:
            self._format()
        self._take_over()

    def __len__(self) -> int:
        """How many records are wanted."""
        return len(self._positions) - len(self._free)

    def append(self, record: bytes) -> int | None:
        """Write one record and return its token, or None when it is empty, too large, or there is no room.

        A record over a 64th of the memory is too large. Work is bounded by nine times the record and one other.
        """
        length = len(record)
        size = _size(length)
        if size > self._largest or not length:
            return None
        if self._head + size - self._tail > self._sweep_above:
            self._sweep(size * _SWEEP_PACE)
            if self._head + size - self._tail > self._room:
                return None
        token = self._free.pop() if self._free else self._new_token()
        self._positions[token] = self._head
        self._put(record, length, size, crc32(record), token)
        return token

    def forget(self, token: int) -> None:
        """The record isn't wanted any more and won't be replayed. Once for each token: it is then used anew."""
        self._set_token(self._positions[token], _FORGOTTEN)
        self._positions[token] = 0
        self._free.append(token)

    def replay(self) -> Iterator[tuple[int, bytes]]:
        """What was there when the memory was taken over and is still wanted, oldest first, with its token.

        It may be forgotten, and others appended, between two of them; those appended aren't replayed.
        """
        for token in range(self._adopted):
            position = self._positions[token]
            crc, length, _, _ = self._header(position)
            record = self._read(position + _STEP, length)
            if crc32(record) == crc:
                yield token, record
            else:
                self.forget(token)

    def _read_checkpoint(self) -> int | None:
        """The position of the oldest record; None when the memory doesn't hold a log of this version and size."""
        memory = self._memory
        if bytes(memory[: _START.size]) != _START.pack(_MAGIC, _VERSION, self._size // _STEP):
            return None
        tails = []
        for place in _CHECKPOINTS:
            tail, _, crc = _CHECKPOINT.unpack(memory[place : place + _CHECKPOINT.size])
            if crc == crc32(memory[place : place + 8]) and self._size <= tail < _FURTHEST and tail % _STEP == 0:
                tails.append(tail)
        return max(tails, default=None)

    def _format(self) -> None:
        """Start empty; the magic comes last, so that half of this is still unknown memory."""
        memory = self._memory
        memory[: _START.size] = bytes(_START.size)
        memory[_LOG : _LOG + _STEP] = _END
        for place in _CHECKPOINTS:
            memory[place : place + _CHECKPOINT.size] = _checkpoint(self._tail)
        memory[: _START.size] = _START.pack(_MAGIC, _VERSION, self._size // _STEP)

    def _take_over(self) -> None:
        """Find the end of the log, and give every record in it that wasn't forgotten a token of this process."""
        wanted = self._positions
        while True:
            _, length, token, mark = self._header(self._head)
            size = _size(length)
            end = self._head + size
            whole = length > 0 and size <= self._largest and mark == _mark(self._head)
            if not whole or end + _STEP - self._committed > self._size:
                break
            if token != _FORGOTTEN:
                wanted.append(self._head)
                if end - wanted[0] > self._room:
                    wanted.pop()
                    break
            self._head = end
        # A header that was cut short may lie here.
        self._write(self._head, _END)
        if len(wanted) > 1 and self._header(wanted[0])[:3] == self._header(wanted[-1])[:3]:
            # Killed in the middle of a move: this is the original of the newest.
            self._set_token(wanted.pop(0), _FORGOTTEN)
        for token, position in enumerate(wanted):
            self._set_token(position, token)
        self._adopted = len(wanted)
        self._tail = wanted[0] if wanted else self._head

    def _new_token(self) -> int:
        self._positions.append(0)
        return len(self._positions) - 1

    def _put(self, record: bytes, length: int, size: int, crc: int, token: int) -> None:
        """Write at the head: first where the log ends now, then the record, and its header last, which commits it."""
        memory = self._memory
        head = self._head
        end = head + size
        if end + _STEP > self._committed + self._size:
            self._commit()
        place = _LOG + head % self._size
        stop = place + size
        if stop < _LOG + self._size:
            memory[stop : stop + _STEP] = _END
            memory[place + _STEP : place + _STEP + length] = record
        else:
            self._write(end, _END)
            self._write(head + _STEP, record)
        memory[place : place + _STEP] = _HEADER.pack(crc, length, token, _mark(head))
        self._head = end

    def _sweep(self, budget: int) -> None:
        """Free the oldest records up to so many bytes: what is still wanted is written again at the head."""
        while budget > 0 and self._tail < self._head:
            tail = self._tail
            crc, length, token, _ = self._header(tail)
            size = _size(length)
            if token != _FORGOTTEN:
                self._positions[token] = self._head
                self._put(self._read(tail + _STEP, length), length, size, crc, token)
                self._set_token(tail, _FORGOTTEN)
            self._tail = tail + size
            budget -= size

    def _commit(self) -> None:
        """Give up what was swept. Over the older checkpoint, so that one is whole at any time."""
        place = _CHECKPOINTS[0]
        newer = _CHECKPOINT.unpack(self._memory[place : place + _CHECKPOINT.size])[0] == self._committed
        place = _CHECKPOINTS[newer]
        self._memory[place : place + _CHECKPOINT.size] = _checkpoint(self._tail)
        self._committed = self._tail

    def _set_token(self, position: int, token: int) -> None:
        place = _LOG + position % self._size + _TOKEN_AT
        self._memory[place : place + _TOKEN.size] = _TOKEN.pack(token)

    def _header(self, position: int) -> tuple[int, int, int, int]:
        place = _LOG + position % self._size
        return _HEADER.unpack(self._memory[place : place + _STEP])

    def _read(self, position: int, length: int) -> bytes:
        offset = position % self._size
        place = _LOG + offset
        first = bytes(self._memory[place : place + min(length, self._size - offset)])
        return first if len(first) == length else first + bytes(self._memory[_LOG : _LOG + length - len(first)])

    def _write(self, position: int, data: bytes) -> None:
        offset = position % self._size
        fits = min(len(data), self._size - offset)
        place = _LOG + offset
        self._memory[place : place + fits] = data[:fits]
        self._memory[_LOG : _LOG + len(data) - fits] = data[fits:]


def _checkpoint(tail: int) -> bytes:
    return _CHECKPOINT.pack(tail, 0, crc32(tail.to_bytes(8, "little")))


def _size(length: int) -> int:
    """What a record of this length takes in the log."""
    return (length + _STEP + _STEP - 1) & -_STEP


def _mark(position: int) -> int:
    return position // _STEP & 0xFFFFFFFF
