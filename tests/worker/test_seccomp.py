"""What a worker can't do any more, tried in a process of its own; the table against this machine's headers."""

import platform
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from proxy.worker.seccomp import DENIED, program

HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)", 0),
    "aarch64": ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)", 1),
}


def run(code: str) -> str:
    """What Python code prints after it was denied the calls."""
    program = "import mmap, os, socket, sys, threading\nfrom proxy.worker import privileges, seccomp\n"
    program += "privileges.drop(None, None)\nrefused = seccomp.deny()\nassert refused is None, refused\n"
    command = [sys.executable, "-c", program + textwrap.dedent(code)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    path, pattern, column = HEADERS[machine]
    if not Path(path).exists():
        pytest.skip(f"no {path}")
    known = {name: int(number) for name, number in re.findall(pattern, Path(path).read_text())}
    for name, numbers in DENIED.items():
        if numbers[column] is not None:
            assert known.get(name, numbers[column]) == numbers[column], name


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/hostname')",
        "os.unlink('/nowhere')",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "os.pidfd_open(os.getppid())",
        "os.rename('/nowhere', '/elsewhere')",
    ],
)
@pytest.mark.skipif(platform.machine() not in HEADERS, reason="no numbers are known for this machine")
def test_it_is_denied_with_an_error(attempt: str) -> None:
    code = f"""
    try:
        {attempt}
    except PermissionError as error:
        print(error.errno)
    """
    assert run(code) == "1\n"


@pytest.mark.skipif(platform.machine() not in HEADERS, reason="no numbers are known for this machine")
def test_sockets_threads_and_memory_stay() -> None:
    code = """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.sendto(b"hello", sock.getsockname())
    print(sock.recv(10).decode(), len(os.urandom(4)), len(mmap.mmap(-1, 4096)))
    thread = threading.Thread(target=lambda: print("thread"))
    thread.start()
    thread.join()
    """
    assert run(code) == "hello 4 4096\nthread\n"


def test_no_jump_goes_further_than_a_byte_can_say() -> None:
    for machine in HEADERS:
        assert len(program(machine)) // 8 < 255
