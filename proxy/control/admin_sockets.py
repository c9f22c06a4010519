"""Opens the two sockets of the admin HTTP, or says what is in their way; serves nothing."""

import socket
from pathlib import Path

from proxy.control.errors import CannotRun
from proxy.control.sockets import open_tcp, why_not
from proxy.control.unix_sockets import OWNER_ONLY, open_unix, unix_advice


def open_admin_tcp(address: str) -> socket.socket:
    """The listening socket for the admin HTTP. Raises CannotRun."""
    try:
        return open_tcp(address)
    except OSError as error:
        raise CannotRun(why_not(error, address, "tcp", "admin.listen")) from error


def open_admin_unix(path: Path) -> socket.socket:
    """The listening Unix socket for verbs, for its owner only. Raises CannotRun."""
    try:
        sock = open_unix(path, socket.SOCK_STREAM, OWNER_ONLY)
    except OSError as error:
        raise CannotRun(f"cannot make the admin socket {path}: {unix_advice(error, 'admin.socket')}") from error
    sock.listen()
    return sock
