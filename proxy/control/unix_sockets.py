"""Unix sockets as files: made, told from what a dead run left behind, and removed when they are still ours."""

import errno
import os
import socket
import struct
from pathlib import Path

ANY_USER = 0o666
OWNER_ONLY = 0o600
_CREDENTIALS = struct.Struct("3i")
"""struct ucred."""


def open_unix(path: Path, kind: socket.SocketKind, mode: int, *, beside: bool = False) -> tuple[socket.socket, int]:
    """A bound, non-blocking socket, and its file's inode; one that a dead run left behind is replaced.

    Who may write to its file may use it: `mode` decides. With `beside` another run has the path: the file waits next
    to it for `take_place`. Raises OSError (see `unix_advice`).
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if beside:
        path = _next_to(path)
    _remove_stale(path, kind)
    sock = socket.socket(socket.AF_UNIX, kind)
    old_mask = os.umask(0o777 & ~mode)
    try:
        sock.bind(str(path))
        sock.setblocking(False)
        inode = path.stat().st_ino
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(old_mask)
    return sock, inode


def take_place(path: Path) -> None:
    """What was opened `beside` another run's socket has the path from now on. Raises OSError."""
    os.rename(_next_to(path), path)


def remove_unix(path: Path, inode: int) -> None:
    """Remove the file, unless another process has put its own there."""
    for file in (path, _next_to(path)):
        try:
            if file.stat().st_ino == inode:
                file.unlink()
        except OSError:
            pass  # gone already, or its directory is; the next start removes a stale one


def _next_to(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def peer(connection: socket.socket) -> tuple[int, int]:
    """The process at the other end (0 if it is in another container) and its user id."""
    pid, user, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, user


def may_command(connection: socket.socket) -> bool:
    """Whether the other end may tell us what to do: only who could as well signal us, the same user or root."""
    return peer(connection)[1] in (0, os.geteuid())


def unix_advice(error: OSError, setting: str) -> str:
    """What is in the way of a socket's file, and what to do about it."""
    match error.errno:
        case errno.EADDRINUSE:
            return f"another process answers there; stop it or choose another path in {setting}"
        case errno.EEXIST | errno.ENOTDIR:
            return f"a file that is no socket is in the way; move it or choose another path in {setting}"
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk is full; make room or choose another path in {setting}"
        case errno.EROFS:
            return f"the file system is read-only; mount a writable one there or choose another path in {setting}"
        case errno.EACCES | errno.EPERM:
            return f"not allowed to write there; create the directory for this user or change {setting}"
        case _:
            return f"{error.strerror or error}; choose another path in {setting}"


def _remove_stale(path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        try:
            sock.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError as error:  # connect() says this of any file that is no socket, too
            if not path.is_socket():
                raise FileExistsError(errno.EEXIST, "no socket") from error
            path.unlink()
            return
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:  # a socket of another kind: somebody listens
                raise OSError(errno.EADDRINUSE, "a socket of another kind") from error
            raise
    raise OSError(errno.EADDRINUSE, "another process answers there")
