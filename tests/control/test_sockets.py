"""Opening listening sockets, and what is said when one cannot be had."""

import errno
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.control.errors import CannotRun
from proxy.control.sockets import ListenSockets, open_udp, relay_transports, why_not
from tests.control.test_workers import free_address


@pytest.fixture
def sockets() -> Iterator[ListenSockets]:
    sockets = ListenSockets()
    yield sockets
    sockets.close()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


HOLDER = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET, kind)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
sock.bind((sys.argv[2], int(sys.argv[3])))
if sys.argv[1] == "tcp":
    sock.listen()
print("bound", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_names_the_process_that_has_it(
    sockets: ListenSockets, transport: str, host: str, workers: int
) -> None:
    address = free_address()
    command = [sys.executable, "-c", HOLDER, transport, host, str(port_of(address))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "bound\n"
        with pytest.raises(CannotRun, match=f"{address}/{transport}: .* in use by python.* \\(pid {holder.pid}\\)"):
            sockets.open([address], workers)
        assert sockets.addresses == []
        holder.communicate("")


def test_an_address_that_does_not_exist_is_named(sockets: ListenSockets) -> None:
    with pytest.raises(CannotRun, match=r"192\.0\.2\.7:5300/udp: no interface .* dns\.listen"):
        sockets.open(["192.0.2.7:5300"], 1)


def test_a_link_local_address_is_looked_for_on_its_interface(sockets: ListenSockets) -> None:
    with pytest.raises(CannotRun, match=r"ip address add fe80::7 dev lo\)"):
        sockets.open(["[fe80::7%lo]:5300"], 1)
    with pytest.raises(CannotRun, match=r"no interface nowhere0; change dns\.listen"):
        sockets.open(["[fe80::7%nowhere0]:5300"], 1)


def test_a_port_that_needs_root_says_which_capability() -> None:
    assert "CAP_NET_BIND_SERVICE" in why_not(PermissionError(errno.EACCES, ""), "127.0.0.1:53", "udp", "dns.listen")


def test_running_out_of_descriptors_says_so(sockets: ListenSockets) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(CannotRun, match="out of file descriptors"):
            sockets.open([free_address_without_opening()], 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def free_address_without_opening() -> str:
    return "127.0.0.1:5399"


def test_one_address_that_fails_leaves_the_others_as_they_were(sockets: ListenSockets) -> None:
    first, second = free_address(), free_address()
    sockets.open([first], 1)
    with pytest.raises(CannotRun):
        sockets.open([first, second, "192.0.2.7:53"], 2)
    assert sockets.addresses == [first]
    assert len(list(sockets.udp_sockets())) == 1
    sockets.open([second], 1)


def test_ipv4_and_ipv6_wildcards_share_a_port(sockets: ListenSockets) -> None:
    port = port_of(free_address())
    sockets.open([f"0.0.0.0:{port}", f"[::]:{port}"], 1)
    assert len(sockets.addresses) == 2


def test_a_second_run_cannot_join_a_single_workers_port(sockets: ListenSockets) -> None:
    address = free_address()
    sockets.open([address], 1)
    with pytest.raises(OSError, match="in use"):
        open_udp(address, first=False, alone=False)


def test_every_udp_socket_has_one_worker_and_every_tcp_socket_has_all(sockets: ListenSockets) -> None:
    sockets.open([free_address(), free_address()], 3)
    for workers in (3, 2, 1):
        shares = [sockets.of_worker(index, workers) for index in range(workers)]
        udp = [listener.id for share in shares for listener, _ in share if listener.transport == "udp"]
        assert len(udp) == len(set(udp)) == 6
        for share in shares:
            assert len([listener for listener, _ in share if listener.transport == "tcp"]) == 2


def test_ids_are_never_used_twice(sockets: ListenSockets) -> None:
    address = free_address()
    sockets.open([address], 1)
    before = {listener.id for listener, _ in sockets.of_worker(0, 1)}
    sockets.close_others([])
    sockets.open([address], 1)
    assert not before & {listener.id for listener, _ in sockets.of_worker(0, 1)}


def unixgram() -> ListenSockets:
    return ListenSockets("udp[].listen", relay_transports)


def test_a_unix_socket_takes_datagrams_of_any_user_and_tells_whose(tmp_path: Path) -> None:
    path = tmp_path / "run" / "statsd.sock"
    sockets = unixgram()
    sockets.open([f"unix:{path}"], 2)
    (listener, sock), *others = sockets.of_worker(0, 2)
    assert (listener.transport, others, stat.S_IMODE(path.stat().st_mode)) == ("unixgram", [], 0o666)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"a:1|c", str(path))
    data, ancillary, _, _ = sock.recvmsg(100, socket.CMSG_SPACE(12))
    assert data == b"a:1|c"
    assert struct.unpack("3i", ancillary[0][2]) == (os.getpid(), os.getuid(), os.getgid())
    sockets.close()
    assert not path.exists()


def test_a_unix_socket_that_a_dead_run_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "statsd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    sockets = unixgram()
    sockets.open([f"unix:{path}"], 1)
    sockets.close()


def test_a_unix_socket_of_another_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "statsd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(CannotRun, match=f"cannot listen on unix:{path}: another process answers there"):
            unixgram().open([f"unix:{path}"], 1)
    assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    with pytest.raises(CannotRun, match=r"a file that is no socket is in the way.*udp\[\]\.listen"):
        unixgram().open([f"unix:{path}"], 1)
    assert path.read_text() == "precious"


def test_a_unix_socket_that_another_run_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "statsd.sock"
    sockets = unixgram()
    sockets.open([f"unix:{path}"], 1)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        sockets.close()
        assert path.exists()


def test_of_a_relay_only_udp_is_opened() -> None:
    address = free_address()
    sockets = unixgram()
    sockets.open([address], 1)
    assert sockets.listeners == [(address, "udp")]
    sockets.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_shared_port_is_the_first_runs_until_it_sends_all_to_the_one_beside_it(
    sockets: ListenSockets, workers: int
) -> None:
    address = free_address()
    beside = ListenSockets()
    sockets.open([address], workers)
    sockets.share()
    beside.open([address], 3, beside=True)
    assert sum(_where_datagrams_of_other_sources_go(address, sockets)) == SOURCES
    sockets.send_elsewhere()
    assert _where_datagrams_of_other_sources_go(address, sockets) == [0] * workers
    assert sum(_where_datagrams_of_other_sources_go(address, beside)) == SOURCES
    sockets.close()
    beside.spread()
    assert all(_where_datagrams_of_other_sources_go(address, beside))
    beside.close()


SOURCES = 200


def _where_datagrams_of_other_sources_go(address: str, sockets: ListenSockets) -> list[int]:
    """How many of them each of the UDP sockets got; the queues are empty afterwards."""
    _emptied(sockets)
    for _ in range(SOURCES):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"", ("127.0.0.1", port_of(address)))
    return _emptied(sockets)


def _emptied(sockets: ListenSockets) -> list[int]:
    found = []
    for _, sock in sockets.udp_sockets():
        found.append(0)
        with suppress(BlockingIOError):
            while True:
                sock.recv(1, socket.MSG_DONTWAIT)
                found[-1] += 1
    return found
