"""A run from start to end: opens sockets, keeps workers, reloads, and ends when it is told to.

Everything that can be wrong from outside is found before the first worker starts, as CannotRun.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from proxy import logs
from proxy.control.child import WORKER_COMMAND
from proxy.control.configuration import Configuration, Loaded, load
from proxy.control.dns_workers import DnsWorkers
from proxy.control.endpoints import Endpoints
from proxy.control.errors import CannotRun
from proxy.control.files import LOOK_EVERY, WatchedFiles
from proxy.control.handover import Estate, Giver
from proxy.control.node import NodeKeeper
from proxy.control.node_listeners import node_listeners
from proxy.control.nodelocal import in_the_way
from proxy.control.notify import notify
from proxy.control.probe import loopback_for, new_secret
from proxy.control.readiness import Readiness
from proxy.control.relay_workers import RelayWorkers
from proxy.control.sockets import (
    RELAY_RECEIVE_BUFFER,
    ListenSockets,
    host_and_port,
    raise_descriptor_limit,
    relay_transports,
)
from proxy.control.state import State
from proxy.control.succession import Succession
from proxy.control.workers import Workers
from proxy.worker.privileges import Capability, keep_only

LEAVING_FOR = 2.0
"""How long what came to an address before it left the list may still be answered; the kernel sends nothing more."""
_log = logging.getLogger(__name__)


def serve(path: Path | None, log_format: logs.Format, worker_command: Sequence[str] = WORKER_COMMAND) -> int:
    """Run until a signal; returns the exit status. Raises CannotRun when it cannot even start."""
    handler = logs.set_up(log_format, "control")
    configuration = Configuration(path)
    service = Service(configuration, log_format, handler, worker_command)
    try:
        service.open()
        # What opening sockets and starting workers as another user takes, and the kernel's part of a run.
        keep_only(Capability)
        return _run(service)
    finally:
        service.close()


def _run(service: "Service") -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(service.run())
    # Never uvloop.install(): pyroute2 cannot live with its policy.
    return uvloop.run(service.run())


class Service:
    """The parts of a run and the signals that reach it."""

    def __init__(
        self,
        configuration: Configuration,
        log_format: logs.Format,
        log_handler: logs.SummingHandler,
        worker_command: Sequence[str],
    ) -> None:
        self._configuration = configuration
        self._log_handler = log_handler
        self._dns_sockets = ListenSockets()
        self._relay_sockets = ListenSockets("udp[].listen", relay_transports, RELAY_RECEIVE_BUFFER)
        self._dns = DnsWorkers(self._dns_sockets, log_format, worker_command)
        self._relay = RelayWorkers(self._relay_sockets, log_format, worker_command)
        self._endpoints = Endpoints(self._give_out)
        self._secret = new_secret()
        node = configuration.now.settings.node
        self._node = NodeKeeper(node, self._secret) if node.manage else None
        self._readiness = Readiness(self._dns_sockets, self._relay_sockets, self._secret, self._node)
        self._node_changed = asyncio.Event()
        self._node_lock = asyncio.Lock()
        self._leaving = asyncio.Event()
        """The kernel may have what the configuration no longer names."""
        self._state = State(configuration, self._dns, self._relay, self._endpoints, self._node)
        self._succession = Succession(configuration.now.settings.admin, self._dns_sockets, self._relay_sockets)
        self._waiting_for: str | None = None
        self._listening = asyncio.Event()
        """The sockets are open: not while NodeLocal DNSCache has their addresses."""
        self._files = WatchedFiles()
        self._signals = 0
        self._stopping = asyncio.Event()
        self._signalled = asyncio.Event()
        self._alone = asyncio.Event()
        """No predecessor serves any more, or it is about to stop."""
        self._reload = asyncio.Event()

    def open(self) -> None:
        """Open every socket, or take those of the run that serves here already. Raises CannotRun."""
        now = self._configuration.now
        self._files.watch(now.files)
        self._endpoints.follow(now)
        self._succession.find_predecessor()
        predecessor = self._succession.predecessor
        if self._node is not None:
            if predecessor is None:
                self._succession.claim_node()
            if predecessor is None or not predecessor.serves_dns:
                self._waiting_for = in_the_way(now.listen)
            self._node.prepare(node_listeners(now, self._endpoints), self._waiting_for)
        self._succession.take_over()
        if self._waiting_for is None:
            self._open(now, beside=self._succession.beside)
            self._dns_sockets.close_others(now.listen)
            self._relay_sockets.close_others(tuple(now.relay_listen))
            self._listening.set()
        if predecessor is not None:
            self._dns.inherit(predecessor.journals)
            predecessor.forget_journals()
        self._succession.open_admin()

    def _estate(self) -> Estate:
        return self._succession.estate(self._dns.journals)

    def _leave(self, successor: str) -> None:
        self._succession.leave(successor)
        self._stopping.set()

    def _stay(self) -> None:
        if self._node is not None:
            self._node.take_back()

    @property
    def _workers(self) -> tuple[Workers, ...]:
        return self._dns, self._relay

    def _open(self, loaded: Loaded, *, beside: bool = False) -> None:
        """Have the sockets and the memory for this configuration. Raises CannotRun and then opens nothing."""
        dns, relay = loaded.dns_workers, loaded.relay_workers
        raise_descriptor_limit(dns * len(loaded.listen) + relay * len(loaded.relay_listen))
        self._dns.make_room(dns)
        self._relay.make_room(relay)
        had = self._dns_sockets.addresses
        self._dns_sockets.open(loaded.listen, dns, beside=beside)
        try:
            self._relay_sockets.open(tuple(loaded.relay_listen), relay, beside=beside)
        except CannotRun:
            self._dns_sockets.close_others(had)
            raise

    def _give_out(self) -> None:
        """Tell every worker what the configuration and the endpoints say now; what did not change is not told."""
        now, endpoints = self._configuration.now, self._endpoints
        if now.settings.dns is not None:
            policy = now.settings.dns_policy(now.nameservers, endpoints.usable, endpoints.service_address)
            self._dns.configure(policy, now.dns_workers)
        else:
            self._dns.serve(0)
        blocks = self._relay.blocks(relay.name for relay in now.settings.udp)
        relays = now.settings.relay_policies(endpoints.usable, blocks.__getitem__, self._secret)
        self._relay.configure(relays, now.relay_listen, now.relay_workers)
        self._node_changed.set()

    async def _keep_node(self, node: NodeKeeper) -> None:
        """Probe and repair, and have the kernel fall back to the endpoints of now."""
        async with asyncio.TaskGroup() as group:
            group.create_task(node.run())
            group.create_task(self._let_leave(node))
            while True:
                await self._node_changed.wait()
                self._node_changed.clear()
                await self._update_node(node)

    async def _update_node(self, node: NodeKeeper) -> None:
        async with self._node_lock:
            loaded = self._configuration.now
            try:
                await node.update(node_listeners(loaded, self._endpoints), loaded.settings.node)
            except CannotRun as error:
                _log.error("the kernel's rules are not up to date: %s", error)
                asyncio.get_running_loop().call_later(LOOK_EVERY, self._node_changed.set)

    async def _let_leave(self, node: NodeKeeper) -> None:
        """Close what is no longer listed once its last answers are out; then the kernel has no need of it."""
        while True:
            await self._leaving.wait()
            self._leaving.clear()
            await asyncio.sleep(LEAVING_FOR)
            async with self._node_lock:
                if self._leaving.is_set():
                    continue  # more has left meanwhile
                self._dns_sockets.close_others(self._configuration.now.listen)
                self._give_out()
                if self._succession.predecessor is None:  # else what it still serves would go
                    await self._settle(node)

    async def _settle(self, node: NodeKeeper) -> None:
        """With the lock; what fails is tried again."""
        if not await node.settle():
            self._leaving.set()

    def close(self) -> None:
        self._succession.close()
        for workers in self._workers:
            workers.close()
        if self._node is not None and self._succession.is_ours:
            self._node.stop()
        self._succession.close_claim()

    async def run(self) -> int:
        """Serve until told to stop; 0 after a drain, 128 and the signal's number when there was no time for it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        self._give_out()
        directory = Path(self._configuration.now.settings.admin.socket).parent
        self._giver = Giver(directory, self._estate, self._succession.share_ports, self._leave, self._stay)
        if self._succession.predecessor is None:
            self._alone.set()
        async with asyncio.TaskGroup() as group:
            working = [group.create_task(workers.run()) for workers in self._workers]
            serving = group.create_task(self._serve_admin())
            others = [serving, group.create_task(self._announce())]
            others += [group.create_task(self._reload_when_asked()), group.create_task(self._tick())]
            others += [group.create_task(self._look_at_files()), group.create_task(self._endpoints.run())]
            if self._node is not None:
                others.append(group.create_task(self._keep_node(self._node)))
                if not self._listening.is_set():
                    others.append(group.create_task(self._come_in(self._node)))
            await self._stopping.wait()
            notify("STOPPING=1")
            serving.cancel()
            if self._node is not None and self._succession.is_ours:
                await self._node.drop()
            last = self._succession.nobody_else_reads
            await asyncio.gather(*(workers.drain(last=last) for workers in self._workers))
            await asyncio.gather(*working)
            for task in others:
                task.cancel()
            self._succession.let_go()
            self._giver.close()
            if not self._succession.is_ours and os.environ.get("KUBERNETES_SERVICE_HOST"):
                # A container that ends is started anew, and would take everything back from its successor.
                _log.info("nothing left to do; waiting to be stopped")
                await self._signalled.wait()
            _log.info("stopped")
        return 0 if self._signals <= 1 else 128 + self._last_signal

    def _on_stop_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        self._last_signal = number
        self._signalled.set()
        if self._signals == 1:
            _log.info("%s: draining", number.name)
            self._stopping.set()
        else:
            _log.warning("%s again: ending at once", number.name)
            for workers in self._workers:
                workers.kill()

    async def _serve_admin(self) -> None:
        # Takes a while to import; meanwhile the workers start.
        from proxy.control.admin import Admin

        admin = Admin(self._state, self._readiness, self._giver)
        await self._alone.wait()
        await admin.start(self._succession.admin_sockets["tcp"], self._succession.admin_sockets["unix"])
        try:
            await asyncio.Event().wait()
        finally:
            await admin.close()

    async def _announce(self) -> None:
        if self._waiting_for is None:
            self._say_what_serves()
        for workers in self._workers:
            await workers.wait_ready()
        self._succession.take_place()
        self._alone.set()
        await self._listening.wait()
        notify("READY=1")
        _log.info("ready%s", "".join(f"; try: {hint}" for hint in self._hints()))
        await self._succession.outlive()
        if self._node is not None:
            self._succession.keep_claim()
            async with self._node_lock:
                await self._settle(self._node)

    async def _come_in(self, node: NodeKeeper) -> None:
        """NodeLocal DNSCache serves where we shall: the kernel has the fallback already; we listen once it leaves."""
        advice = "waiting for it to leave; docs/migration.md has the way without a gap"
        _log.warning("%s still serves: %s", self._waiting_for, advice)
        told = None
        while not self._listening.is_set():
            await asyncio.sleep(LOOK_EVERY)
            now = self._configuration.now
            try:
                if await asyncio.to_thread(in_the_way, now.listen) is not None or self._stopping.is_set():
                    continue
                self._open(now)
            except CannotRun as error:
                if str(error) != told:
                    _log.error("%s", error)
                told = str(error)
                continue
            self._listening.set()
        _log.info("%s has left: taking its place", self._waiting_for)
        self._waiting_for = None
        self._say_what_serves()
        self._give_out()
        while True:
            try:
                await node.proceed()
                break
            except CannotRun as error:
                _log.error("answers take no lease yet: %s", error)
                await asyncio.sleep(LOOK_EVERY)
        if self._configuration.error:
            self._reload.set()  # what could not be opened meanwhile

    def _hints(self) -> Iterator[str]:
        for address in self._dns_sockets.addresses[:1]:
            host, port = host_and_port(address)
            yield f"dig @{loopback_for(host)} -p {port} kubernetes.io"
        for address, transport in self._relay_sockets.listeners[:1]:
            if transport == "udp":
                host, port = host_and_port(address)
                yield f"printf 'tries:1|c' > /dev/udp/{loopback_for(host)}/{port}; sidestep status"

    def _say_what_serves(self) -> None:
        now = self._configuration.now
        if now.listen:
            _log.info("listening on %s, UDP and TCP", ", ".join(now.listen))
        for zone in self._dns.policy.zones:
            fallback = f", then to {', '.join(zone.fallback)}" if zone.fallback else ""
            _log.info("forwarding %s to %s%s", zone.suffix, ", ".join(zone.upstreams) or "no endpoint yet", fallback)
        for relay in now.settings.udp:
            folds = relay.mode == "statsd"
            becomes = "lines are folded, `sidestep status` shows them" if folds else "what comes is dropped"
            to = relay.service or f"nobody: {becomes}"
            _log.info("relaying %s (%s) from %s to %s", relay.name, relay.mode, ", ".join(relay.listen), to)
        if now.access is not None:
            _log.info("watching endpoints on %s", now.access.describe())
        _log.info("admin on http://%s/ and %s", now.settings.admin.listen, now.settings.admin.socket)
        if not now.settings.node.manage:
            _log.info("node.manage is off: nothing is set up in the kernel, and nothing fails over")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._log_handler.flush_repeats()
            self._state.remember()

    async def _look_at_files(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._files.look():
                self._reload.set()

    async def _change_over(self, new: Loaded) -> None:
        """Serve by this configuration from now on. Raises CannotRun, and then the old one is in force."""
        old = self._configuration.now
        if new.settings.admin != old.settings.admin:
            _log.warning("the admin section takes effect at the next start")
        if new.settings.node.manage != old.settings.node.manage:
            _log.warning("node.manage takes effect at the next start")
        async with self._node_lock:
            if self._node is not None:
                await self._node.update(node_listeners(new, self._endpoints), new.settings.node)
            try:
                self._open(new)
            except CannotRun:
                self._node_changed.set()
                self._leaving.set()
                raise
            self._configuration.take(new)
            self._endpoints.follow(new)
            self._relay_sockets.close_others(tuple(new.relay_listen))
            if self._node is None:  # nobody else gets what comes there
                self._dns_sockets.close_others(new.listen)
            self._give_out()
            self._leaving.set()

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            old = self._configuration.now
            try:
                # Also of what turns out to be wrong: a file that is missing may come. Thousands of endpoints take
                # seconds to read, and a mount that hangs takes for ever; nothing else waits for it.
                new = await asyncio.to_thread(load, self._configuration.path, self._files.watch)
                await self._change_over(new)
            except CannotRun as error:
                self._configuration.error = str(error)
                _log.error("not reloaded, the old configuration stays: %s", "; ".join(str(error).splitlines()))
                continue
            if new.says_the_same(old) and new.slices != old.slices:
                _log.info("endpoints read again from %s", new.settings.endpoints_file)
                continue
            _log.info("configuration reloaded (sha256 %s)", new.digest[:12])
            if not new.says_the_same(old):
                self._say_what_serves()
