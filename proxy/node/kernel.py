"""Carries plans out in this network namespace: table first, then addresses, then conntrack. All of it blocks.

One run has one `Kernel`. What another run has taken over it leaves alone.
"""

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from proxy.core.flows import Protocol
from proxy.node import addresses, conntrack, nft
from proxy.node import table as tables
from proxy.node.generation import generation
from proxy.node.nft import NodeError
from proxy.node.plan import Found, Wanted, beginning, drift, plan, staying
from proxy.node.table import TABLE, Entry, Mode, NodeListener, Present

_NUMBER_DIGITS = 12
_TRIES = 3
"""Others may write rules all the time; then what is read back is taken for what was written."""
T = TypeVar("T")
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
        self._fingerprint = ""
        self._seen: Present | None = None
        self._seen_at = -1
        """In which generation of this namespace's rules `repair` listed the table."""
        self._settled = False
        """Whether what was there before this run is gone."""
        self.yielded = False
        """Whether another run had it when `repair` looked."""
        self.repairs = {"table": 0, "address": 0}

    @property
    def interface(self) -> str:
        """The interface that holds our addresses; empty before it is known."""
        return self.wanted.interface

    def set_up(self, listeners: Sequence[NodeListener], lease: float, *, take_over: bool = False) -> None:
        """Have the kernel ready for these listeners; those of before only lose their leases until `settle`.

        With `take_over` also where another run has the table; then a failure leaves it to `take_down` to clear up.
        Else a failure leaves all as it was.
        """
        interface = self.interface or addresses.usable_interface(self._wanted_interface)
        now, before = found(), self.wanted
        theirs = now.table.listeners if take_over and now.table is not None else ()
        self.wanted = replace(
            before,
            listeners=tuple(listeners),
            leaving=_others((*before.listeners, *before.leaving, *theirs), listeners),
            lease=lease,
            interface=interface,
            run=self._next_run(now.table) if take_over or not before.run else before.run,
        )
        if self._is_of_another(now.table) and not take_over:
            return
        try:
            self._carry_out(now)
        except NodeError:
            if not take_over:
                self.wanted, self._fingerprint = before, ""
                with contextlib.suppress(NodeError):  # then `repair` writes the table
                    now = found()
                    self._remove_addresses(now)
                    self._carry_out(now)
                    _forget(listeners)
            raise

    def take_back(self) -> None:
        """Have it again after the run that took it over has failed; what only that one needed goes."""
        self.set_up(self.wanted.listeners, self.wanted.lease, take_over=True)
        self.settle()

    def settle(self) -> None:
        """Take away what only listeners of before needed, also those of an earlier run."""
        now, before = found(), self.wanted
        self.wanted = replace(before, leaving=())
        if not self._is_of_another(now.table):
            try:
                self._remove_addresses(now)
                self._carry_out(now)
            except NodeError:
                self.wanted = before
                raise
            _forget(before.leaving)
        self._settled = True

    def switch(self, mode: Mode) -> None:
        """Let answers take leases, or take them all away and let none be taken."""
        if mode == self.wanted.mode:
            return
        before, self.wanted = self.wanted, replace(self.wanted, mode=mode)
        try:
            now = found()
            if not self._is_of_another(now.table):
                self._carry_out(now)
        except NodeError:
            self.wanted = before
            raise

    def arrived(self) -> dict[str, int]:
        """Packets of clients that came to each listener since the leases were taken away."""
        counts: dict[str, int] = {}
        for version in (4, 6):
            counts |= _read(tables.arrived, f"set {TABLE} arrived{version}") or {}
        return counts

    def repair(self) -> list[str]:
        """What someone else had undone, each as a phrase; it is as wanted again."""
        now_at = generation()
        if now_at != self._seen_at:
            self._seen, self._seen_at = _table(), now_at
        now = Found(self._seen, addresses.present())
        self.yielded = self._is_of_another(now.table)
        if self.yielded:
            return []
        by_kind = drift(self.wanted, now, self._fingerprint)
        troubles = [trouble for these in by_kind.values() for trouble in these]
        if troubles:
            self._carry_out(found())
        for kind, these in by_kind.items():
            self.repairs[kind] += len(these)
        return troubles

    def taken_over(self) -> bool:
        """Whether another run wrote the table last: then it is that one's."""
        return self._is_of_another(_table())

    def take_down(self) -> None:
        """A clean stop, sockets being closed: our own addresses stay, with the rules that send their packets on.

        So do those that an earlier run left, if this one ends before it had taken their place.
        """
        if not self.wanted.run:
            return
        now = found()
        if self._is_of_another(now.table):
            return
        known = (*self.wanted.listeners, *self.wanted.leaving)
        stay = staying(self.wanted.listeners if self._settled else known)
        self.wanted = replace(self.wanted, listeners=stay, leaving=(), mode="stopped")
        self._remove_addresses(now)
        self._write(now)
        _forget(known)

    def _remove_addresses(self, now: Found) -> None:
        """Those that nobody wants, and links that hold none any more."""
        for address in plan(self.wanted, now).remove:
            addresses.remove(address)
        addresses.remove_empty_links()

    def _is_of_another(self, present: Present | None) -> bool:
        """An older run's table is none: it came back with a saved ruleset."""
        return present is not None and bool(self.wanted.run) and present.run > self.wanted.run

    def _next_run(self, present: Present | None) -> str:
        """Later than any before in the order of text, also where the clock was set back; the same if we have it."""
        if present is not None and present.run == self.wanted.run and self.wanted.run:
            return present.run
        before = int(present.run[:_NUMBER_DIGITS] or "0", 16) if present is not None else 0
        return f"{max(int(self._wall()), before + 1):0{_NUMBER_DIGITS}x}{secrets.token_hex(4)}"

    def _carry_out(self, now: Found) -> None:
        first = beginning(self.wanted, now.table)
        if first:
            nft.carry_out(first)
            now = found()
        written = self._write(now)
        to_add = plan(self.wanted, now).add
        failed = []
        for address in to_add:
            try:
                addresses.add(address.ip, address.interface)
            except NodeError as error:
                failed.append(error)
        if failed:
            raise failed[0]
        if written or to_add:
            _forget((*self.wanted.listeners, *self.wanted.leaving))

    def _write(self, now: Found) -> bool:
        """Whether the table had to be written; again, if somebody's change came between writing and reading it."""
        written = False
        for _ in range(_TRIES):
            transaction = plan(self.wanted, now, self._fingerprint).transaction
            if not transaction:
                return written
            before = generation()
            nft.carry_out(transaction)
            written = True
            now = Found(_table(), now.addresses)
            if generation() == before + 1:
                break
        self._fingerprint = "" if now.table is None else now.table.fingerprint
        return written


def found() -> Found:
    """The present state. Raises NodeError."""
    return Found(_table(), addresses.present())


def clean_up(listeners: Sequence[NodeListener]) -> list[str]:
    """Take away everything that any run left in the kernel; what it was, each as a phrase. Raises NodeError.

    Conntrack's entries go as well, of the listeners given and of those that the table names: flows that live on in
    conntrack alone would hide that nothing answers their address any more.
    """
    present = _table()
    own = (*staying(listeners), *staying(_others(() if present is None else present.listeners, listeners)))
    removed = []
    for address in addresses.present():
        if address.ours:
            addresses.remove(address)
            removed.append(f"address {address.ip} on {address.interface}")
    if present is not None:
        nft.carry_out(f"delete table {TABLE}\n")
        removed.append(f"table {TABLE}")
    removed += [f"link {link}" for link in addresses.remove_empty_links()]
    deleted = _delete_flows(_addresses(own, "udp"), "UDP") + _delete_flows(_addresses(own, "tcp"), "TCP")
    if deleted:
        removed.append(f"{deleted} conntrack entries")
    return removed


def _addresses(listeners: Iterable[NodeListener], transport: str) -> list[str]:
    """Each once; not one that is an interface's own: conntrack knows no interface."""
    return sorted({one.address for one in listeners if one.transport == transport and not one.of_one_link})


def _table() -> Present | None:
    return _read(tables.read, f"table {TABLE}")


def _read(read: Callable[[Iterable[Entry]], T], what: str) -> T | None:
    entries = nft.listing(what)
    try:
        return None if entries is None else read(entries)
    except (LookupError, TypeError, ValueError) as error:
        raise nft.senseless(error) from error


def _others(listeners: Iterable[NodeListener], wanted: Iterable[NodeListener]) -> tuple[NodeListener, ...]:
    """Those that the kernel does not take for one of the wanted; of two that are one to it the first."""
    known = {one.element for one in wanted}
    others: dict[str, NodeListener] = {}
    for one in listeners:
        if one.element not in known:
            others.setdefault(one.element, one)
    return tuple(others.values())


def _forget(listeners: Sequence[NodeListener]) -> None:
    """Conntrack would keep on delivering such a flow here for two minutes, whatever the rules say.

    The kernel takes one hook of a table after the other into use, so a reply that leaves in between can be tracked:
    its entry is the wrong way round, and what the client sends belongs to it as its answer.
    """
    to = _addresses((one for one in listeners if one.leasable), "udp")
    try:
        deleted = _delete_flows(to, "UDP", untranslated_only=True)
    except NodeError as error:
        _log.warning("flows that conntrack delivers here may not fail over for 120 s: %s", error)
        return
    if deleted:
        _log.info("%d conntrack entries without DNAT deleted", deleted)


def _delete_flows(to: Sequence[str], protocol: Protocol, *, untranslated_only: bool = False) -> int:
    if not to:
        return 0
    try:
        ours = frozenset(to)
        flows = conntrack.dump(
            to,
            ours.__contains__,
            lambda flow: flow if not untranslated_only or flow.target == flow.destination else None,
            protocol,
        ).found
        replies = conntrack.dump(
            to, lambda _: True, lambda flow: flow if flow.source in ours else None, protocol, sources=True
        ).found
        return sum(conntrack.delete((*flows, *replies)))
    except conntrack.ConntrackError as error:
        raise NodeError(str(error)) from error
