"""Gives up for good what a worker does not need: root, groups, capabilities, the way back, a life without control.

Linux keeps capabilities per thread, so all of this runs in the main thread before any other one starts.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITY_BITS = 64

_libc = ctypes.CDLL(None, use_errno=True)


def drop(uid: int | None, gid: int | None) -> str | None:
    """Become `uid` and `gid` (None: stay who we are) with no capability in any set and no way to gain one.

    From then on the kernel kills this process when its parent dies.
    Returns what was not allowed, for one log line, or None. A container may lack CAP_SETUID: then the user
    stays, without capabilities. Raises OSError when capabilities stay: then no packet may be read.
    """
    # No exec after this gains anything, not even uid 0's: the kernel intersects with what is permitted now.
    _call(_libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _clear_bounding_set()
    refused = None
    if uid is not None and gid is not None:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            refused = f"stays user {os.geteuid()}, without capabilities: cannot become {uid}: {error.strerror}"
    try:
        _call(_libc.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    except OSError:
        pass  # before Linux 4.3 there was no such set
    _clear_capabilities()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold what clients asked and sent
    # Not even a stopped worker outlives control. A change of user resets this, so it comes last.
    _call(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return refused


def _clear_bounding_set() -> None:
    for capability in range(_CAPABILITY_BITS):
        try:
            _call(_libc.prctl, _PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError:
            return  # EINVAL: past the last one; EPERM: we hold nothing that it could limit


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _clear_capabilities() -> None:
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    nothing = (_Sets * 2)()
    _call(_libc.capset, ctypes.byref(header), ctypes.byref(nothing))


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
