"""Cuts a byte stream into lines of any length up to a bound; what no newline has ended is no line yet."""

MOST_BYTES = 64 * 1024 * 1024
"""One slice of 1,000 endpoints is about 360 KB; this bounds memory, not slices."""


class LineTooLong(ValueError):
    """A line went past the bound; the stream is of no more use."""


class LineSplitter:
    """Takes chunks as they come from the wire and gives the lines that they complete."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._parts: list[bytes] = []
        self.unfinished = 0
        """Bytes that wait for the end of their line."""

    @property
    def begin(self) -> bytes:
        """The first bytes of the unfinished line, for an error."""
        return self._parts[0][:80] if self._parts else b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their newlines, empty ones left out. Raises LineTooLong."""
        *complete, rest = chunk.split(b"\n")
        lines = []
        for piece in complete:
            self._keep(piece)
            line = b"".join(self._parts)
            self._parts.clear()
            self.unfinished = 0
            if line.strip():
                lines.append(line)
        self._keep(rest)
        return lines

    def _keep(self, piece: bytes) -> None:
        self.unfinished += len(piece)
        if self.unfinished > self._most:
            raise LineTooLong(f"a line is longer than {self._most} bytes")
        if piece:
            self._parts.append(piece)
