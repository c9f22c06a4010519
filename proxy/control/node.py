"""The kernel's part of a run: table, addresses and leases are set up, probed, kept and taken down.

Nothing that may block happens on the event loop's thread. Which packet goes where is decided in `proxy.node.table`.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, TypeVar

from proxy.control.child import worker_user
from proxy.control.errors import CannotRun
from proxy.control.lease_probes import LeaseProbes
from proxy.control.text import untracked_advice
from proxy.node import nodelocal
from proxy.node.kernel import Kernel
from proxy.node.nft import NodeError
from proxy.node.table import Mode, NodeListener
from proxy.settings.sections import Node

CHECK_EVERY = 2.0
"""How often table and addresses are looked at; 5 s is the most that a flushed ruleset may go unnoticed."""
COUNT_EVERY = 0.2
TAKEN_OVER = "another run has the kernel's part now"
LOOK_FOR_RULES_EVERY = 15
"""Every so many looks, also for other people's rules."""

Lease = Literal["held", "lost", "draining", "none"]
"""`none`: a wildcard or loopback, which never has one."""

T = TypeVar("T")
_log = logging.getLogger("sidestep.node")


class NodeKeeper:
    """Table, addresses and leases of the listeners, from before the sockets open until after they are closed."""

    def __init__(self, node: Node, secret: str, *, check: float = CHECK_EVERY) -> None:
        """`secret` is what relays send back in this run; `check` is in seconds."""
        self._node = node
        self._check = check
        self._kernel = Kernel(node.interface, asking_user=worker_user())
        self._probes = LeaseProbes(secret)
        self._thread = _one_thread()
        self._listeners: tuple[NodeListener, ...] = ()
        self._draining = False
        self._waiting_for: str | None = None
        self._untracked: list[str] = []
        self._leases: dict[str, Lease] = {}
        self._lost: dict[str, int] = {}
        self._yielded = False
        self._taking_back = False
        self._failure: str | None = None

    def prepare(self, listeners: Sequence[NodeListener], waiting_for: str | None = None) -> None:
        """Before the sockets, blocking: the table, then the addresses, then conntrack's entries without DNAT deleted.

        What an earlier run left is taken over, also after a hand-over that failed. `waiting_for` is who still listens
        there: nobody takes a lease before `proceed`, and once that one leaves, packets go to the fallback. Raises
        CannotRun.
        """
        self._waiting_for = waiting_for
        if waiting_for is not None:
            self._kernel.wanted = replace(self._kernel.wanted, mode="draining")
        try:
            self._thread.submit(self._kernel.set_up, listeners, self._node.lease, take_over=True).result()
        except NodeError as error:
            raise CannotRun(str(error)) from error
        # Linux keeps capabilities per thread: a new one has what control has kept by then.
        self._thread.shutdown()
        self._thread = _one_thread()
        self._listeners = tuple(listeners)
        self._yielded = False

    async def update(self, listeners: Sequence[NodeListener], node: Node) -> None:
        """Other listeners or endpoints: before new sockets are opened. What is no longer listed stays until `settle`.

        Raises CannotRun, and then what was set up before still is. `node.interface` counts at the next start.
        """
        if (tuple(listeners), node) == (self._listeners, self._node):
            return
        try:
            await self._off_loop(self._kernel.set_up, listeners, node.lease)
        except NodeError as error:
            self._failure = str(error)
            raise CannotRun(str(error)) from error
        self._listeners, self._node = tuple(listeners), node

    async def proceed(self) -> None:
        """The sockets are ours now: answers may take leases. Raises CannotRun."""
        await self.undrain()
        self._waiting_for = None

    async def settle(self) -> bool:
        """After the sockets of listeners that are no longer listed are closed, an earlier run's as well: their
        addresses and rules go. Whether they did."""
        await self._try(self._kernel.settle)
        return self._failure is None

    async def run(self) -> None:
        """Probe every listener each `node.probe`, look after table and addresses, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_leases())
                group.create_task(self._look_after())
        finally:
            await self._probes.close()

    async def drop(self) -> None:
        """Let the kernel send no more packets here: the first step of a stop, before workers drain."""
        self._draining = True
        await self._try(self._kernel.switch, "draining")

    async def drain(self, quiet: float = 1.0, within: float = 10.0) -> Mapping[str, int]:
        """As `drop`, and wait until no packet of a client came for `quiet` seconds, at most `within`.

        Returns the packets that still came lately by listener; empty when the drain is proved. Raises CannotRun.
        """
        loop = asyncio.get_running_loop()
        try:
            if await self._off_loop(self._kernel.taken_over):
                raise CannotRun(f"{TAKEN_OVER}: drain that one")
            await self._switch("draining")
            begun = since = loop.time()
            before = last = await self._off_loop(self._kernel.arrived)
            while loop.time() - since < quiet and loop.time() - begun < within:
                await asyncio.sleep(min(COUNT_EVERY, quiet))
                now = await self._off_loop(self._kernel.arrived)
                if now != last:
                    since, before, last = loop.time(), last, now
            if loop.time() - since >= quiet:
                return {}
            return {name: count - before.get(name, 0) for name, count in last.items() if count > before.get(name, 0)}
        except NodeError as error:
            raise CannotRun(str(error)) from error

    async def undrain(self) -> None:
        """Let answers take the leases again. Raises CannotRun."""
        await self._switch("serving")

    async def _switch(self, mode: Mode) -> None:
        """Raises CannotRun, and then all is as before."""
        before, self._draining = self._draining, mode == "draining"
        try:
            await self._off_loop(self._kernel.switch, mode)
        except NodeError as error:
            self._draining = before
            raise CannotRun(str(error)) from error

    def take_back(self) -> None:
        """The run that took the kernel's part over has failed: at the next look it is ours again."""
        self._taking_back = True

    def stop(self) -> None:
        """After the sockets are closed, blocking: what is left is what `sidestep plan` says stays.

        Nothing is touched if another run has taken over.
        """
        try:
            self._thread.submit(self._kernel.take_down).result()
        except NodeError as error:
            _log.error("the kernel's set-up stays as it is; `sidestep cleanup` removes it: %s", error)
        self._thread.shutdown()

    def leased(self) -> set[str]:
        """The listeners that have a lease, held or not, by name."""
        return {one.name for one in self._listeners if one.leasable}

    def not_held(self) -> dict[str, str]:
        """Why a listener's lease is not held, by listener: for `/readyz`.

        Questions without the mark would be answered by the fallback of a listener that has no lease.
        """
        if self._draining or self._waiting_for:
            why = "draining" if self._draining else f"waiting for {self._waiting_for} to leave"
            return {name: why for name, lease in self._states().items() if lease != "none"}
        if self._failure is not None:
            return dict.fromkeys(self.leased(), f"the kernel's set-up: {self._failure}")
        return {
            name: f"no lease: {failure}"
            for name, (age, failure) in self._probes.answers().items()
            if age > self._node.lease
        } | {one.name: "no lease: not asked yet" for one in self._listeners if self._unknown(one)}

    def status(self) -> dict[str, Any]:
        """The `node` of `/status.json`. Leases are as the probes see them: one answered within the lease holds it."""
        return {
            "lease": self._states(),
            "lost": dict(self._lost),
            "interface": self._kernel.interface,
            "draining": self._draining,
            "waiting_for": self._waiting_for,
            "untracked": list(self._untracked),
            "taken_over": self._yielded,
            "repairs": dict(self._kernel.repairs),
            "error": self._failure,
        }

    def _unknown(self, listener: NodeListener) -> bool:
        return listener.leasable and listener.name not in self._probes.answers()

    def _states(self) -> dict[str, Lease]:
        answers = self._probes.answers()
        states: dict[str, Lease] = {}
        for one in self._listeners:
            age, _ = answers.get(one.name, (float("inf"), ""))
            held: Lease = "held" if age <= self._node.lease else "lost"
            states[one.name] = (
                "none" if not one.leasable else "draining" if self._draining or self._waiting_for else held
            )
        return states

    async def _watch_leases(self) -> None:
        """Follow the listeners and say what changes."""
        while True:
            self._probes.follow(self._listeners, self._node.probe)
            for name, state in self._states().items():
                before = self._leases.get(name)
                if state == "held" and before != "held":
                    _log.info("%s holds its lease", name)
                elif state == "lost" and before == "held":
                    self._lost[name] = self._lost.get(name, 0) + 1
                    _log.warning("%s lost its lease: %s", name, self._probes.answers()[name][1])
                self._leases[name] = state
            await asyncio.sleep(self._node.probe)

    async def _look_after(self) -> None:
        for turn in itertools.count():
            if turn % LOOK_FOR_RULES_EVERY == 0 and self._waiting_for is None:
                self._say_untracked(await self._try(nodelocal.untracked, self._listeners) or [])
            await asyncio.sleep(self._check)
            if self._taking_back:
                await self._try(self._kernel.take_back)
                self._taking_back = self._failure is not None
            for trouble in await self._try(self._kernel.repair) or ():
                _log.warning("%s: repaired", trouble)
            if self._kernel.yielded and not self._yielded:
                _log.warning("%s: leases and rules are left to it", TAKEN_OVER)
            self._yielded = self._kernel.yielded

    def _say_untracked(self, names: list[str]) -> None:
        if names and names != self._untracked:
            _log.warning("%s", untracked_advice(names))
        self._untracked = names

    async def _off_loop(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _try(self, function: Callable[..., T], *arguments: object) -> T | None:
        """A failure is told once, and the next look may mend it."""
        try:
            result = await self._off_loop(function, *arguments)
        except NodeError as error:
            if str(error) != self._failure:
                _log.error("%s", error)
            self._failure = str(error)
            return None
        self._failure = None
        return result


def _one_thread() -> ThreadPoolExecutor:
    """What is done to the kernel is done in order."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="node")
