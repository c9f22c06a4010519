"""How every process of a run logs: one line per event on stderr, as JSON or text, repeated ones summed.

Never one line per packet: what happens per packet is a counter.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Literal

Format = Literal["json", "text"]

REPEAT_WINDOW = 60.0
_REMEMBERED = 1000
_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


def set_up(log_format: Format, process: str, clock: Callable[[], float] = time.monotonic) -> "SummingHandler":
    """Send the root logger to stderr; `process` names this one (`control`, `dns-0`) in every line."""
    handler = SummingHandler(clock)
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else TextFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # What aiohttp says of each request is none of the operator's business; what it fails at is.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    return handler


def format_for(stream_is_terminal: bool) -> Format:
    """People read text, collectors read JSON."""
    return "text" if stream_is_terminal else "json"


class SummingHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes the first of equal warnings or errors and then, once a minute, how many more there were.

    They are equal when their text and level are, or the `key` that came in `extra`. What is due is written
    along with the next record of any kind, or by `flush_repeats`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(sys.stderr)
        self._clock = clock
        self._seen: dict[tuple[int, str], _Repeats] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.flush_repeats()
        if record.levelno < logging.WARNING:
            super().emit(record)
            return
        key = (record.levelno, getattr(record, "key", None) or record.getMessage())
        repeats = self._seen.get(key)
        if repeats is not None:
            repeats.count += 1
            repeats.last = record
            return
        if len(self._seen) >= _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = _Repeats(self._clock())
        super().emit(record)

    def flush_repeats(self) -> None:
        """Write the sums of the windows that are over."""
        now = self._clock()
        while self._seen:
            key = next(iter(self._seen))  # windows are equally long, so the oldest ends first
            repeats = self._seen[key]
            if now - repeats.since < REPEAT_WINDOW:
                return
            del self._seen[key]
            if repeats.last is not None:
                repeats.last.msg = f"{repeats.last.getMessage()} … and {repeats.count} more in the last 60 s"
                repeats.last.args = None
                self._seen[key] = _Repeats(now)
                super().emit(repeats.last)


class _Repeats:
    __slots__ = ("count", "last", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        self.last: logging.LogRecord | None = None


class JsonFormatter(logging.Formatter):
    """One object per line: time (UTC), level, process, message, then whatever came in `extra`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
        }
        line.update(_extra(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:30:01 warning control: message`, in local time."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        time_of_day = self.formatTime(record, "%H:%M:%S")
        line = f"{time_of_day} {record.levelname.lower():<7} {self._process}: {record.getMessage()}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD and name != "key"}
