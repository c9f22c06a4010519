"""The system calls that a worker is denied: programs, files, other processes, namespaces, the kernel itself.

A worker has sockets and memory; whoever takes one over from outside shall find nothing else. Denied calls fail with
EPERM, so that a mistake in the table is an error in a log and no dead worker.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Mapping

DENIED: Mapping[str, tuple[int | None, int | None]] = {
    # numbers on x86_64 and on aarch64, which never had the older calls
    # programs
    "execve": (59, 221),
    "execveat": (322, 281),
    # files: workers import everything and open what they need before this
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, None),
    "truncate": (76, 45),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchownat": (260, 54),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # other processes
    "kill": (62, 129),
    "tkill": (200, 130),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    # namespaces and mounts
    "setns": (308, 268),
    "unshare": (272, 97),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    # large pieces of the kernel that no socket needs
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
}

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of `DENIED`, and AUDIT_ARCH."""
_X32 = 0x40000000
"""Numbers from here on are the same calls under the x32 ABI."""

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_NR_AT, _ARCH_AT = 0, 4
"""Offsets in struct seccomp_data."""
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K."""
_ALLOW = 0x7FFF0000
_DENY = 0x00050000 | errno.EPERM


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def deny() -> str | None:
    """Deny these calls to this thread and all that it starts, for good. No privilege is needed after no_new_privs.

    Returns why that can't be, for one log line, or None.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return f"no system call is denied: none are known for {machine}"
    instructions = program(machine)
    prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    filter_ = _Program(len(instructions) // 8, instructions)
    if prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0):
        return f"no system call is denied: seccomp: {os.strerror(ctypes.get_errno())}"
    return None


def program(machine: str) -> bytes:
    """The filter as BPF instructions. A call of another architecture than ours is denied whole."""
    column, architecture = _ARCHITECTURES[machine]
    numbers = [pair[column] for pair in DENIED.values()]
    denied = [number for number in numbers if number is not None]
    checks = [(_JUMP_EQUAL, number) for number in denied]
    if machine == "x86_64":
        checks.append((_JUMP_AT_LEAST, _X32))
    count = len(checks)
    lines = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _DENY),
        (_LOAD, 0, 0, _NR_AT),
        # Behind the checks stand "allow" and then "deny".
        *((code, count - position, 0, value) for position, (code, value) in enumerate(checks)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
