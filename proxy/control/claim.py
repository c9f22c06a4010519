"""Which run has the kernel's part of this network namespace: a name that is free again once its process is dead."""

import errno
import socket

from proxy.control.unix_sockets import may_command, peer

_NAME = "\0sidestep-node"
"""An abstract Unix address: each network namespace has its own."""


class Claim:
    """The name, once it is taken, until `close`."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None

    def take(self) -> bool:
        """Whether it is ours now; not while another process has it. Raises OSError."""
        if self._sock is not None:
            return True
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(_NAME)
            sock.listen(1)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        self._sock = sock
        return True

    def close(self) -> None:
        """Let others have it."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def holder() -> str | None:
    """The run that has the name, in words. None if nobody has, or somebody who can't be one of ours: any may bind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(_NAME)
        except BlockingIOError:
            return "a sidestep"
        except OSError:
            return None
        if not may_command(sock):
            return None
        pid = peer(sock)[0]
    return f"a sidestep (pid {pid})" if pid else "a sidestep in another container"
