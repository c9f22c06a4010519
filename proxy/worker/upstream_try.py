"""What asking an upstream over UDP and TCP has in common: callbacks, failures, random IDs, addresses."""

import errno
import os
import socket
from array import array
from collections.abc import Callable
from functools import lru_cache

from proxy.core.pending import Try

OnAnswer = Callable[[Try, bytes], bool]
"""A reply that the kernel and the ID vouch for; True ends the try, False leaves it open for another reply."""

OnFailure = Callable[[Try, str], None]
"""The try is over without an answer: `refused`, `unreachable`, `no_socket` or `malformed`."""

MIN_MESSAGE = 12
"""A DNS header (RFC 1035 4.1.1): less is no message."""


_NO_SOCKET = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN})


def failure_reason(error: OSError) -> str:
    """What a socket error says about an upstream, in the words of `UPSTREAM_FAILED`."""
    if error.errno == errno.ECONNREFUSED:
        return "refused"
    return "no_socket" if error.errno in _NO_SOCKET else "unreachable"


class RandomNumbers:
    """Unpredictable 16-bit numbers from the kernel's generator, fetched many at a time."""

    def __init__(self) -> None:
        self._numbers = array("H")

    def next(self) -> int:
        """One number, 0 to 65,535."""
        if not self._numbers:
            self._numbers.frombytes(os.urandom(2048))
        return self._numbers.pop()


@lru_cache(maxsize=1024)
def _split(address: str) -> tuple[str, str, int]:
    host, _, port = address.rpartition(":")
    host, _, scope = host.removeprefix("[").removesuffix("]").partition("%")
    return host, scope, int(port)


def socket_address(address: str) -> tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]:
    """The family and the kernel's form of `ip:port` text. Raises OSError for an unknown scope."""
    host, scope, port = _split(address)
    if ":" not in host:
        return socket.AF_INET, (host, port)
    # Not cached: an interface that is made anew gets a new index.
    index = 0 if not scope else int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    return socket.AF_INET6, (host, port, 0, index)
