"""A new run takes the listening sockets and the cache of the one that serves, which then leaves: no datagram is lost.

The new one asks over the admin socket and gets the path of a socket for this once, over which descriptors can travel.
Until it says that it has taken over the old one serves, whatever happens to the new one; after that the old one
answers what it has read, and ends. The messages `Hello`, `Refusal` and `Taken` stay the same for all formats.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from proxy import __version__
from proxy.control.client import AdminClient, NotRunning
from proxy.control.unix_sockets import OWNER_ONLY, may_command, open_unix
from proxy.worker.channel import Channel, receive_message, send_message

FORMAT = 1
"""Of `Offer` and what comes with it; another one is refused."""
CONNECT_LIMIT = 10.0
"""How long the socket for this once is there."""
ANSWER_LIMIT = 5.0

_log = logging.getLogger(__name__)


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The new run, and the format that it speaks."""

    format: int
    version: str


class Handed(msgspec.Struct, frozen=True):
    """A listening socket; its descriptor rides along, in the same order."""

    of: Literal["dns", "relay", "admin"]
    address: str
    transport: Literal["udp", "tcp", "unixgram", "unix"]


class Offer(msgspec.Struct, frozen=True, tag=True):
    """Everything that listens, then so many cache journals."""

    version: str
    sockets: list[Handed]
    journals: int


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """Nothing is handed over. The listening sockets now share their ports with whoever sets SO_REUSEPORT, too."""

    version: str
    reason: str


class Taken(msgspec.Struct, frozen=True, tag=True):
    """The new run serves: the old one may go."""


@dataclass(frozen=True, slots=True)
class Estate:
    """What a run has to hand over."""

    sockets: Sequence[tuple[Handed, socket.socket]]
    journals: Sequence[int]


class Predecessor:
    """The run that serves while this one starts; it leaves when told `taken`, and stays if this one dies before.

    Where it refused its ports are shared, and so long packets go to it, not to us.
    """

    def __init__(self, sock: socket.socket, answer: Offer | Refusal, fds: list[int]) -> None:
        self._sock = sock
        self.version = answer.version
        self.refusal = answer.reason if isinstance(answer, Refusal) else None
        """Why nothing came; then its ports can be shared."""
        self.sockets: list[tuple[Handed, socket.socket]] = []
        self.journals: list[int] = []
        if isinstance(answer, Offer):
            named = len(answer.sockets)
            handed = zip(answer.sockets, fds[:named], strict=True)
            self.sockets = [(what, socket.socket(fileno=fd)) for what, fd in handed]
            self.journals = fds[named:]

    @property
    def serves_dns(self) -> bool:
        """Whether it listens for DNS itself, as far as it says."""
        return self.refusal is not None or any(what.of == "dns" for what, _ in self.sockets)

    def taken(self) -> None:
        """Let it go."""
        try:
            send_message(self._sock, Taken())
        except OSError:
            pass  # it is gone already

    async def gone(self) -> None:
        """Until it has left, or is dead."""
        self._sock.setblocking(False)
        with suppress(OSError):
            await asyncio.get_running_loop().sock_recv(self._sock, 1)

    def close(self) -> None:
        """Give back what nobody took, and the connection: a predecessor that was not told `taken` serves on."""
        for _, sock in self.sockets:
            sock.close()
        self.sockets = []
        self.forget_journals()
        self._sock.close()

    def forget_journals(self) -> None:
        """They have been copied: the memory is the predecessor's alone again."""
        for fd in self.journals:
            os.close(fd)
        self.journals = []


def find_predecessor(admin: Path) -> Predecessor | None:
    """The run that answers at this admin socket, asked for all it has; None if nobody does.

    Raises NotRunning when somebody answers who hands nothing over.
    """
    if not admin.is_socket():
        return None
    client = AdminClient(admin, ANSWER_LIMIT)
    try:
        path = client.hand_over()
    except NotRunning as error:
        if isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError):
            return None  # a dead run left its socket behind
        raise
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(ANSWER_LIMIT)
        sock.connect(path)
        send_message(sock, Hello(FORMAT, __version__))
        answer, fds = receive_message(sock, Offer | Refusal)
        sock.settimeout(None)
        return Predecessor(sock, answer, fds)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        sock.close()
        raise NotRunning(f"the sidestep at {admin} does not hand over: {error}") from error


class Giver:
    """The old run's side. `leave` is called once a successor serves."""

    def __init__(
        self,
        directory: Path,
        estate: Callable[[], Estate],
        share: Callable[[], None],
        leave: Callable[[str], None],
        stay: Callable[[], None],
    ) -> None:
        """`share` lets others bind to the listening sockets' ports; `leave` gets the version of who serves now.

        `stay` is called when a successor has failed, whatever it has done until then.
        """
        self._directory = directory
        self._estate = estate
        self._share = share
        self._leave = leave
        self._stay = stay
        self._channel: Channel | None = None
        self._left = False
        self._tasks: set[asyncio.Task[None]] = set()

    def invite(self) -> str:
        """The path of a socket that one successor may connect to, within CONNECT_LIMIT. Raises OSError."""
        path = self._directory / f"handover-{secrets.token_hex(8)}.sock"
        sock, _ = open_unix(path, socket.SOCK_SEQPACKET, OWNER_ONLY)
        sock.listen(1)
        task = asyncio.get_running_loop().create_task(self._meet(sock, path))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return str(path)

    def close(self) -> None:
        """Invite nobody any more; a successor sees that this run has left."""
        for task in self._tasks:
            task.cancel()
        if self._channel is not None:
            self._channel.close()

    async def _meet(self, sock: socket.socket, path: Path) -> None:
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                connection, _ = await asyncio.get_running_loop().sock_accept(sock)
        except TimeoutError:
            return
        finally:
            sock.close()
            os.unlink(path)
        if not may_command(connection):
            connection.close()
            return
        if self._channel is not None:
            self._channel.close()  # of two successors the last one counts
        self._channel = Channel(connection, Hello | Taken, self._receive, self._hung_up, takes_fds=False)

    def _receive(self, message: Hello | Taken, _: list[int]) -> None:
        assert self._channel is not None
        match message:
            case Hello() if message.format == FORMAT:
                _log.info("handing over to sidestep %s", message.version)
                self._successor = message.version
                estate = self._estate()
                fds = [*(sock.fileno() for _, sock in estate.sockets), *estate.journals]
                handed = [what for what, _ in estate.sockets]
                self._channel.send(Offer(__version__, handed, len(estate.journals)), fds)
            case Hello():
                reason = f"sidestep {__version__} hands over in format {FORMAT}, not {message.format}"
                _log.warning("%s, which %s asks for: ports are shared instead", reason, message.version)
                self._successor = message.version
                self._share()
                self._channel.send(Refusal(__version__, reason))
            case Taken():
                self._left = True
                self._leave(self._successor)

    def _hung_up(self) -> None:
        self._channel = None
        if self._left:
            return
        _log.warning("the successor went away before it had taken over; serving on")
        self._stay()
