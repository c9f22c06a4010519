"""Log lines as an operator or a collector gets them."""

import io
import json
import logging

from proxy.logs import REPEAT_WINDOW, JsonFormatter, SummingHandler, TextFormatter


class Log:
    """A logger whose time stands still until it is moved."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.now = 0.0
        self.written = io.StringIO()
        self.handler = SummingHandler(lambda: self.now)
        self.handler.setStream(self.written)
        self.handler.setFormatter(formatter)
        self.logger = logging.Logger("test")
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.written.getvalue().splitlines()


def test_text_has_time_level_process_and_message() -> None:
    log = Log(TextFormatter("dns-0"))
    log.logger.warning("upstream %s is down", "192.0.2.1:53")
    assert log.lines[0][8:] == " warning dns-0: upstream 192.0.2.1:53 is down"


def test_json_has_extras_and_exceptions() -> None:
    log = Log(JsonFormatter("control"))
    try:
        raise ValueError("broken")
    except ValueError:
        log.logger.exception("it failed", extra={"listener": "127.0.0.1:53"})
    line = json.loads(log.lines[0])
    assert (line["level"], line["process"], line["message"]) == ("error", "control", "it failed")
    assert line["listener"] == "127.0.0.1:53"
    assert "ValueError: broken" in line["exception"]
    assert line["time"].endswith("Z")


def test_repeated_warnings_are_summed_once_a_minute() -> None:
    log = Log(TextFormatter("dns-0"))
    for _ in range(413):
        log.logger.warning("no socket")
    assert len(log.lines) == 1
    log.now = REPEAT_WINDOW
    log.handler.flush_repeats()
    assert log.lines[1].endswith("no socket … and 412 more in the last 60 s")
    log.now = 2 * REPEAT_WINDOW
    log.handler.flush_repeats()
    log.logger.warning("no socket")
    assert len(log.lines) == 3


def test_warnings_with_one_key_are_summed_although_their_texts_differ() -> None:
    log = Log(TextFormatter("dns-0"))
    for number in range(10):
        log.logger.warning("client %d was refused", number, extra={"key": "refused"})
    log.now = REPEAT_WINDOW
    log.logger.warning("something else")
    assert len(log.lines) == 3
    assert "client 9 was refused … and 9 more" in log.lines[1]


def test_news_are_never_summed() -> None:
    log = Log(TextFormatter("control"))
    for _ in range(3):
        log.logger.info("configuration reloaded")
    assert len(log.lines) == 3


def test_many_different_warnings_take_bounded_memory() -> None:
    log = Log(TextFormatter("control"))
    for number in range(5000):
        log.logger.warning("warning %d", number)
    assert len(log.lines) == 5000
    assert len(log.handler._seen) <= 1000
