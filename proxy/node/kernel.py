"""Carries plans out in this network namespace: table first, then addresses, then conntrack. All of it blocks.

One run has one `Kernel`. What another run has taken over it leaves alone.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from proxy.node import addresses, conntrack, nft
from proxy.node import table as tables
from proxy.node.nft import NodeError
from proxy.node.plan import Found, Plan, Wanted, beginning, drift, plan, staying
from proxy.node.table import Mode, NodeListener, Present

_NUMBER_DIGITS = 12
_log = logging.getLogger("sidestep.node")


class Kernel:
    """Table and addresses of one run's listeners. Every method may raise NodeError."""

    def __init__(
        self, interface: str, wall: Callable[[], float] = time.time, *, asking_user: int | None = None
    ) -> None:
        """`interface` is where addresses are added, or `lo` if the kernel can't make it; `wall` gives Unix time.

        `asking_user` is the user id of our workers.
        """
        self._wanted_interface = interface
        self._wall = wall
        self.wanted = Wanted((), "serving", 0.5, "", "", asking_user)
        self._leaving: tuple[NodeListener, ...] = ()
        self._fingerprint = ""
        self.yielded = False
        """Whether another run had it when `repair` looked."""
        self.repairs = {"table": 0, "address": 0}

    @property
    def interface(self) -> str:
        """The interface that holds our addresses; empty before it is known."""
        return self.wanted.interface

    @property
    def listeners(self) -> tuple[NodeListener, ...]:
        """All that packets may still come to: the wanted ones and those on their way out."""
        return (*self.wanted.listeners, *self._leaving)

    def set_up(self, listeners: Sequence[NodeListener], lease: float, *, take_over: bool = False) -> None:
        """Have the kernel ready for these listeners; those of before stay as they are until `settle`.

        With `take_over` also where another run has the table.
        """
        names = {one.name for one in listeners}
        leaving = tuple(one for one in self.listeners if one.name not in names)
        interface = self.interface or addresses.usable_interface(self._wanted_interface)
        before = self.wanted, self._leaving
        run = self._next_run() if take_over or not self.wanted.run else self.wanted.run
        self.wanted = replace(self.wanted, listeners=tuple(listeners), lease=lease, interface=interface, run=run)
        self._leaving = leaving
        if not take_over and self.taken_over():
            return
        try:
            self._carry_out()
        except NodeError:
            self.wanted, self._leaving = before
            raise

    def take_back(self) -> None:
        """Have it again after the run that took it over has failed; what only that one needed goes."""
        self.set_up(self.wanted.listeners, self.wanted.lease, take_over=True)
        for address in plan(replace(self.wanted, listeners=self.listeners), found()).remove:
            addresses.remove(address)

    def settle(self) -> None:
        """Take away what only listeners of before needed, also those of an earlier run."""
        self._leaving, left = (), self._leaving
        if self.taken_over():
            return
        for address in plan(self.wanted, found()).remove:
            addresses.remove(address)
        self._carry_out()
        _forget(left)

    def switch(self, mode: Mode) -> None:
        """Let answers take leases, or take them all away and let none be taken."""
        if mode == self.wanted.mode:
            return
        before, self.wanted = self.wanted, replace(self.wanted, mode=mode)
        try:
            if not self.taken_over():
                self._carry_out()
        except NodeError:
            self.wanted = before
            raise

    def arrived(self) -> dict[str, int]:
        """Packets of clients that came to each listener since the leases were taken away."""
        listing = nft.listing()
        return {} if listing is None else tables.arrived(listing)

    def repair(self) -> list[str]:
        """What someone else had undone, each as a phrase; it is as wanted again."""
        now = found()
        self.yielded = self._is_of_another(now.table)
        if self.yielded:
            return []
        wanted = replace(self.wanted, listeners=self.listeners)
        by_kind = drift(wanted, now, self._fingerprint)
        troubles = [trouble for these in by_kind.values() for trouble in these]
        if troubles:
            self._carry_out()
        for kind, these in by_kind.items():
            self.repairs[kind] += len(these)
        return troubles

    def taken_over(self) -> bool:
        """Whether another run wrote the table last: then it is that one's."""
        listing = nft.listing()
        return self._is_of_another(None if listing is None else tables.read(listing))

    def take_down(self) -> None:
        """A clean stop, sockets being closed: our own addresses stay, with the rules that send their packets on."""
        if not self._fingerprint or self.taken_over():
            return
        left = self.listeners
        self._leaving = ()
        self.wanted = replace(self.wanted, listeners=staying(self.wanted.listeners), mode="stopped")
        for address in plan(self.wanted, found()).remove:
            addresses.remove(address)
        self._carry_out()
        _forget(left)
        if not any(address.ours for address in addresses.present()):
            addresses.remove_link(self.interface)

    def _is_of_another(self, present: Present | None) -> bool:
        """An older run's table is none: it came back with a saved ruleset."""
        return present is not None and bool(self._fingerprint) and present.run > self.wanted.run

    def _next_run(self) -> str:
        """Later than any before in the order of text, also where the clock was set back; the same if we have it."""
        present = found().table
        if present is not None and present.run == self.wanted.run and self.wanted.run:
            return present.run
        before = int(present.run[:_NUMBER_DIGITS] or "0", 16) if present is not None else 0
        return f"{max(int(self._wall()), before + 1):0{_NUMBER_DIGITS}x}{secrets.token_hex(4)}"

    def _carry_out(self) -> None:
        listeners = self.listeners
        wanted = replace(self.wanted, listeners=listeners)
        first = beginning(wanted, found().table)
        if first:
            nft.carry_out(first)
        planned = plan(wanted, found(), self._fingerprint)
        _apply(planned)
        if planned.transaction:
            listing = nft.listing()
            self._fingerprint = "" if listing is None else tables.read(listing).fingerprint
        if planned.transaction or planned.add:
            _forget(listeners)


def found() -> Found:
    """The present state. Raises NodeError."""
    listing = nft.listing()
    return Found(None if listing is None else tables.read(listing), addresses.present())


def clean_up(listeners: Sequence[NodeListener], interface: str) -> list[str]:
    """Take away everything that any run left in the kernel; what it was, each as a phrase. Raises NodeError.

    Conntrack's entries go as well, of the listeners given and of those that the table names: flows that live on in
    conntrack alone would hide that nothing answers their address any more.
    """
    listing = nft.listing()
    own = {one.address for one in staying(listeners) if one.transport == "udp"}
    if listing is not None:
        services = {one.name for one in listeners if one.service}
        udp = {name for name in tables.listened(listing) - services if name.endswith("/udp")}
        own |= {name.removesuffix("/udp") for name in udp}
    removed = []
    if nft.delete_table():
        removed.append(f"table {tables.TABLE}")
    for address in addresses.present():
        if address.ours:
            addresses.remove(address)
            removed.append(f"address {address.ip} on {address.interface}")
    if addresses.remove_link(interface):
        removed.append(f"link {interface}")
    deleted = _delete_flows(sorted(own), untranslated_only=False)
    if deleted:
        removed.append(f"{deleted} conntrack entries")
    return removed


def _apply(planned: Plan) -> None:
    if planned.transaction:
        nft.carry_out(planned.transaction)
    for address in planned.add:
        addresses.add(address.ip, address.interface)


def _forget(listeners: Sequence[NodeListener]) -> None:
    """Conntrack would keep on delivering such a flow here for two minutes, whatever the rules say.

    The kernel takes one hook of a table after the other into use, so a reply that leaves in between can be tracked:
    its entry is the wrong way round, and what the client sends belongs to it as its answer.
    """
    to = {one.address: None for one in listeners if one.leasable and one.transport == "udp" and not one.interface}
    try:
        deleted = _delete_flows(list(to), untranslated_only=True)
    except NodeError as error:
        _log.warning("flows that conntrack delivers here may not fail over for 120 s: %s", error)
        return
    if deleted:
        _log.info("%d conntrack entries without DNAT deleted", deleted)


def _delete_flows(to: Sequence[str], *, untranslated_only: bool) -> int:
    if not to:
        return 0
    try:
        ours = frozenset(to)
        flows = conntrack.dump(
            to,
            ours.__contains__,
            lambda flow: flow if not untranslated_only or flow.target == flow.destination else None,
        ).found
        replies = conntrack.dump(
            to, lambda _: True, lambda flow: flow if flow.source in ours else None, sources=True
        ).found
        return sum(conntrack.delete((*flows, *replies)))
    except conntrack.ConntrackError as error:
        raise NodeError(str(error)) from error
