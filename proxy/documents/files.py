"""Reading a file that a person wrote, with an error that says what to do."""

import errno
from pathlib import Path

from proxy.documents.reader import WHOLE_FILE, Problem, SettingsError

_ADVICE = {
    errno.EISDIR: "it is a directory; name the file in it",
    errno.EACCES: "permission denied; let the user that runs sidestep read it, and enter its directories",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; raise fs.file-max",
}


class SettingsUnreadable(OSError):
    """A file that can't be read; `strerror` is the reason and what to do about it."""

    def __init__(self, path: str | Path, reason: str, number: int = errno.EIO) -> None:
        super().__init__(number, reason, str(path))

    def __str__(self) -> str:
        return f"cannot read {self.filename}: {self.strerror}"


def read_bytes(path: str | Path, if_missing: str, most_bytes: int) -> bytes:
    """The whole file. Raises SettingsUnreadable; `if_missing` is what to do where there is none."""
    try:
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        advice = {**_ADVICE, errno.ENOENT: f"there is no such file; {if_missing}"}
        reason = advice.get(error.errno or 0) or (error.strerror or str(error)).lower()
        raise SettingsUnreadable(path, reason, error.errno or errno.EIO) from error
    except ValueError as error:
        raise SettingsUnreadable(repr(str(path)), str(error), errno.EINVAL) from error
    if len(content) > most_bytes:
        raise SettingsUnreadable(path, f"it has over {most_bytes // 1024} KiB; name another file", errno.EFBIG)
    return content


def read_text(path: str | Path, if_missing: str, most_bytes: int) -> str:
    """The file without a byte order mark. Raises SettingsUnreadable, or SettingsError when it isn't UTF-8."""
    content = read_bytes(path, if_missing, most_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n"), error.start - (before.rfind(b"\n") + 1)
        reason = f"found the byte 0x{content[error.start]:02x}, which isn't UTF-8; save the file as UTF-8"
        raise SettingsError([Problem(str(path), line + 1, column + 1, WHOLE_FILE, reason)]) from None
