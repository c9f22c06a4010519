"""Single DNS questions from Python: built, sent from sockets of their own, and the times of their answers."""

import selectors
import socket
import struct
import time
from dataclasses import dataclass


def question(name: str, qtype: int = 1, message_id: int = 0) -> bytes:
    """A question in wire form: RD set, no EDNS."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.rstrip(".").split("."))
    return struct.pack("!6H", message_id, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", qtype, 1)


@dataclass(frozen=True, slots=True)
class Reply:
    """When an answer came, counted from sending, and its RCODE."""

    seconds: float
    rcode: int


def ask_at_once(address: str, name: str, times: int, patience: float) -> list[Reply]:
    """One question from `times` sockets at once. Returns the replies of `patience` seconds; nothing is sent again."""
    host, _, port = address.rpartition(":")
    replies: list[Reply] = []
    with selectors.DefaultSelector() as waiting:
        try:
            for number in range(times):
                asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                waiting.register(asking, selectors.EVENT_READ, number)
                asking.connect((host, int(port)))
            started = time.monotonic()
            for key in waiting.get_map().values():
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.send(question(name, message_id=key.data))
            while len(replies) < times and (left := started + patience - time.monotonic()) > 0:
                for key, _ in waiting.select(left):
                    assert isinstance(key.fileobj, socket.socket)
                    reply = key.fileobj.recv(4096)
                    if int.from_bytes(reply[:2], "big") == key.data:
                        replies.append(Reply(time.monotonic() - started, reply[3] & 15))
        finally:
            for key in list(waiting.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
    return replies


def ask(address: str, name: str, patience: float) -> Reply | None:
    """One question, one answer or None."""
    replies = ask_at_once(address, name, 1, patience)
    return replies[0] if replies else None
