"""Opens the two sockets of the admin HTTP, or says what is in their way; serves nothing."""

import socket
from pathlib import Path

from proxy.control.errors import CannotRun
from proxy.control.sockets import open_tcp, why_not
from proxy.control.unix_sockets import OWNER_ONLY, open_unix, unix_advice


def open_admin_tcp(address: str, *, beside: bool = False) -> socket.socket:
    """The listening socket for the admin HTTP. `beside`: another run shares its port. Raises CannotRun."""
    try:
        return open_tcp(address, beside=beside)
    except OSError as error:
        raise CannotRun(why_not(error, address, "tcp", "admin.listen")) from error


def open_admin_unix(path: Path, *, beside: bool = False) -> tuple[socket.socket, int]:
    """The listening Unix socket for verbs, for its owner only, and its file's inode.

    `beside`: another run has the path (see `open_unix`). Raises CannotRun.
    """
    try:
        sock, inode = open_unix(path, socket.SOCK_STREAM, OWNER_ONLY, beside=beside)
    except OSError as error:
        raise CannotRun(f"cannot make the admin socket {path}: {unix_advice(error, 'admin.socket')}") from error
    sock.listen()
    return sock, inode
