"""Who has the listening sockets, their files and the kernel's part: a predecessor before us, a successor after us."""

import logging
import socket
from collections.abc import Sequence
from pathlib import Path

from proxy.control.admin_sockets import open_admin_tcp, open_admin_unix
from proxy.control.claim import Claim, holder
from proxy.control.errors import CannotRun
from proxy.control.handover import Estate, Handed, Predecessor, find_predecessor
from proxy.control.sockets import ListenSockets
from proxy.control.unix_sockets import remove_unix, take_place
from proxy.settings.sections import Admin

_log = logging.getLogger(__name__)


class Succession:
    """The sockets of a run with what they have been and become; `admin_sockets` by `tcp` and `unix`."""

    def __init__(self, admin: Admin, dns: ListenSockets, relay: ListenSockets) -> None:
        """`admin` is that of the start: what a reload says of it counts at the next one."""
        self._admin = admin
        self._path = Path(admin.socket)
        self._dns = dns
        self._relay = relay
        self._claim = Claim()
        self._inode = 0
        self.admin_sockets: dict[str, socket.socket] = {}
        self.predecessor: Predecessor | None = None
        """Who serves while we start, and until it has ended."""
        self.is_ours = True
        """The node and the files: not before a predecessor has left them to us, nor once a successor has them."""
        self._shares_ports = False

    @property
    def beside(self) -> bool:
        """Whether the predecessor could not give its sockets: ours share its ports."""
        return self.predecessor is not None and self.predecessor.refusal is not None

    @property
    def nobody_else_reads(self) -> bool:
        """Whether what waits in our sockets is lost unless we read it."""
        return self.is_ours or self._shares_ports

    def find_predecessor(self) -> None:
        """Raises CannotRun when one answers that hands nothing over."""
        self.predecessor = find_predecessor(self._path)
        self.is_ours = self.predecessor is None

    def claim_node(self) -> None:
        """Be the one that has the kernel's part, without a predecessor. Raises CannotRun if another run has it."""
        if not self._claim.take() and (other := holder()) is not None:
            raise CannotRun(
                f"{other} has the kernel's part of this node; stop it, or give this one its admin.socket, "
                "and it takes over from that one"
            )

    def take_over(self) -> None:
        """Its listening sockets are ours, too, from now on; what this configuration doesn't name is left to it."""
        if self.predecessor is None:
            return
        if self.predecessor.refusal is not None:
            _log.warning("%s; sharing its ports instead, the cache begins empty", self.predecessor.refusal)
            return
        _log.info("taking over from sidestep %s", self.predecessor.version)
        for what, sock in self.predecessor.sockets:
            match what:
                case Handed(of="dns", transport="udp" | "tcp" as transport):
                    self._dns.adopt(what.address, transport, sock)
                case Handed(of="relay", transport="udp" | "unixgram" as transport):
                    self._relay.adopt(what.address, transport, sock)
                case Handed(of="admin", transport="unix"):
                    self.admin_sockets["unix"] = sock
                case Handed(of="admin", transport="tcp") if what.address == self._admin.listen:
                    self.admin_sockets["tcp"] = sock
                case _:
                    sock.close()
        self.predecessor.sockets = []

    def open_admin(self) -> None:
        """What was not taken over. Raises CannotRun."""
        if "tcp" not in self.admin_sockets:
            self.admin_sockets["tcp"] = open_admin_tcp(self._admin.listen, beside=self.beside)
        if "unix" not in self.admin_sockets:
            self.admin_sockets["unix"], self._inode = open_admin_unix(self._path, beside=self.beside)
        else:
            self._inode = self._path.stat().st_ino

    def take_place(self) -> None:
        """We serve: the predecessor may go, and the paths of its Unix sockets are ours."""
        if self.predecessor is None:
            return
        self.predecessor.taken()
        self.is_ours = True
        if self.beside:
            self._relay.take_place()
            take_place(self._path)

    async def outlive(self) -> None:
        """Until the predecessor is gone, if there is one; then everything is ours alone. Raises OSError."""
        if self.predecessor is not None:
            await self.predecessor.gone()
            self.predecessor.close()
            self.predecessor = None
            for sockets in (self._dns, self._relay):
                sockets.spread()

    def keep_claim(self) -> None:
        """Once a predecessor is gone, the node is ours for others to see. Raises OSError."""
        self._claim.take()

    def estate(self, journals: Sequence[int]) -> Estate:
        """What a successor gets, with the caches' journals."""
        sockets = [
            *((Handed("dns", address, how), sock) for address, how, sock in self._dns.opened()),
            *((Handed("relay", address, how), sock) for address, how, sock in self._relay.opened()),
            (Handed("admin", self._admin.listen, "tcp"), self.admin_sockets["tcp"]),
            (Handed("admin", self._admin.socket, "unix"), self.admin_sockets["unix"]),
        ]
        return Estate(sockets, journals)

    def share_ports(self) -> None:
        """A successor can't take the sockets: let it bind beside them."""
        self._shares_ports = True
        for sockets in (self._dns, self._relay):
            sockets.share()
        self.admin_sockets["tcp"].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def leave(self, successor: str) -> None:
        """A successor of this version serves: what comes from now on is its."""
        _log.info("sidestep %s has taken over: draining", successor)
        self.is_ours = False
        if self._shares_ports:
            for sockets in (self._dns, self._relay):
                sockets.send_elsewhere()

    def let_go(self) -> None:
        """After the drain: nothing of ours is in a successor's way, though this process may stay."""
        if self._shares_ports:
            self._close_sockets()
        if not self.is_ours:
            self._claim.close()

    def close(self) -> None:
        """Files that are ours go."""
        if not (self.is_ours or self.beside):
            self._relay.abandon()
        elif "unix" in self.admin_sockets:
            remove_unix(self._path, self._inode)
        if self.predecessor is not None:
            self.predecessor.close()
        self._close_sockets()

    def close_claim(self) -> None:
        """Last of all: another run may have the kernel's part."""
        self._claim.close()

    def _close_sockets(self) -> None:
        for sock in self.admin_sockets.values():
            sock.close()
        self._dns.close()
        self._relay.close()
