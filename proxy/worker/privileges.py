"""Gives up for good what a process does not need: of control most capabilities, of a worker all of them, root, and a
life without control.

Linux keeps capabilities per thread, so all of this runs in the main thread before any other one starts.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Container, Iterable
from enum import IntEnum

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITY_BITS = 64

_libc = ctypes.CDLL(None, use_errno=True)


class Capability(IntEnum):
    """Those that control needs (linux/capability.h)."""

    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12


def keep_only(kept: Iterable[Capability]) -> None:
    """Keep these of the capabilities that there are, also for what is executed later; as a plain user none is there.

    Raises OSError.
    """
    numbers = {int(capability) for capability in kept}
    _clear_bounding_set(numbers)
    _set_capabilities(_permitted() & sum(1 << number for number in numbers))


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
    _set_capabilities(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold what clients asked and sent
    # Not even a stopped worker outlives control. A change of user resets this, so it comes last.
    _call(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return refused


def _clear_bounding_set(kept: Container[int] = ()) -> None:
    for capability in range(_CAPABILITY_BITS):
        if capability in kept:
            continue
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


def _permitted() -> int:
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    _call(_libc.capget, ctypes.byref(header), ctypes.byref(sets))
    return int(sets[0].permitted) | int(sets[1].permitted) << 32


def _set_capabilities(mask: int) -> None:
    """Effective and permitted; inheritable ones never are any."""
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    for half in range(2):
        sets[half].effective = sets[half].permitted = mask >> 32 * half & 0xFFFFFFFF
    _call(_libc.capset, ctypes.byref(header), ctypes.byref(sets))


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
