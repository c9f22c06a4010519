"""Opens the two sockets of the admin HTTP, or says what is in their way; serves nothing."""

import errno
import os
import socket
from pathlib import Path

from proxy.control.errors import CannotRun
from proxy.control.sockets import open_tcp, why_not


def open_admin_tcp(address: str) -> socket.socket:
    """The listening socket for the admin HTTP. Raises CannotRun."""
    try:
        return open_tcp(address)
    except OSError as error:
        raise CannotRun(why_not(error, address, "tcp", "admin.listen")) from error


def open_admin_unix(path: Path) -> socket.socket:
    """The Unix socket for verbs, mode 0600; one that a dead run left behind is replaced. Raises CannotRun."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old_mask = os.umask(0o177)
        try:
            sock.bind(str(path))
            sock.listen()
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(old_mask)
    except OSError as error:
        raise CannotRun(f"cannot make the admin socket {path}: {_unix_advice(error)}") from error
    return sock


def close_admin_unix(sock: socket.socket, path: Path, inode: int) -> None:
    """Stop listening and remove the file, unless another sidestep has put its own there."""
    sock.close()
    try:
        if path.stat().st_ino == inode:
            path.unlink()
    except OSError:
        pass  # gone already, or its directory is; the next start removes a stale one


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError as error:  # connect() says this of any file that is no socket, too
            if not path.is_socket():
                raise FileExistsError(errno.EEXIST, "no socket") from error
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another sidestep answers there")


def _unix_advice(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another sidestep answers there; stop it or choose another path in admin.socket"
        case errno.EEXIST | errno.ENOTDIR:
            return "a file that is no socket is in the way; move it or choose another path in admin.socket"
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full; make room or choose another path in admin.socket"
        case errno.EROFS:
            return "the file system is read-only; mount a writable one there or choose another path in admin.socket"
        case errno.EACCES | errno.EPERM:
            return "not allowed to write there; create the directory for this user or change admin.socket"
        case _:
            return f"{error.strerror or error}; choose another path in admin.socket"
