"""A run from start to end: opens sockets, keeps workers, reloads, and ends when it is told to.

Everything that can be wrong from outside is found before the first worker starts, as CannotRun.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from proxy import logs
from proxy.control.admin_sockets import close_admin_unix, open_admin_tcp, open_admin_unix
from proxy.control.child import WORKER_COMMAND
from proxy.control.configuration import Configuration, load
from proxy.control.errors import CannotRun
from proxy.control.files import LOOK_EVERY, WatchedFiles
from proxy.control.notify import notify
from proxy.control.probe import Readiness, loopback_for
from proxy.control.sockets import ListenSockets, raise_descriptor_limit, split_address
from proxy.control.state import State
from proxy.control.workers import Workers

_log = logging.getLogger(__name__)


def serve(path: Path | None, log_format: logs.Format, worker_command: Sequence[str] = WORKER_COMMAND) -> int:
    """Run until a signal; returns the exit status. Raises CannotRun when it cannot even start."""
    handler = logs.set_up(log_format, "control")
    configuration = Configuration(path)
    service = Service(configuration, log_format, handler, worker_command)
    try:
        service.open()
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
        self._sockets = ListenSockets()
        self._workers = Workers(self._sockets, log_format, worker_command)
        self._state = State(configuration, self._sockets, self._workers)
        self._admin_sockets: list[socket.socket] = []
        self._admin_closers = ExitStack()
        self._files = WatchedFiles()
        self._signals = 0
        self._stopping = asyncio.Event()
        self._reload = asyncio.Event()

    def open(self) -> None:
        """Open every socket. Raises CannotRun."""
        now = self._configuration.now
        self._files.watch(now.files)
        raise_descriptor_limit(now.workers * len(now.listen))
        self._workers.make_room(now.workers)
        self._sockets.open(now.listen, now.workers)
        admin = now.settings.admin
        tcp = open_admin_tcp(admin.listen)
        self._admin_closers.callback(tcp.close)
        path = Path(admin.socket)
        unix = open_admin_unix(path)
        self._admin_closers.callback(close_admin_unix, unix, path, path.stat().st_ino)
        self._admin_sockets = [tcp, unix]

    def close(self) -> None:
        self._sockets.close()
        self._workers.close()
        self._admin_closers.close()

    async def run(self) -> int:
        """Serve until told to stop; 0 after a drain, 128 and the signal's number when there was no time for it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        self._workers.configure(self._configuration.now.policy, self._configuration.now.workers)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._workers.run())
            others = [group.create_task(self._serve_admin()), group.create_task(self._announce())]
            others += [group.create_task(self._reload_when_asked()), group.create_task(self._tick())]
            await self._stopping.wait()
            notify("STOPPING=1")
            await self._workers.drain()
            await working
            for task in others:
                task.cancel()
            _log.info("stopped")
        return 0 if self._signals == 1 else 128 + self._last_signal

    def _on_stop_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        self._last_signal = number
        if self._signals == 1:
            _log.info("%s: draining", number.name)
            self._stopping.set()
        else:
            _log.warning("%s again: ending at once", number.name)
            self._workers.kill()

    async def _serve_admin(self) -> None:
        # Takes a while to import; meanwhile the workers start.
        from proxy.control.admin import Admin

        admin = Admin(self._state, Readiness(self._sockets))
        tcp, unix = self._admin_sockets
        await admin.start(tcp, unix)
        try:
            await asyncio.Event().wait()
        finally:
            await admin.close()

    async def _announce(self) -> None:
        self._say_what_serves()
        await self._workers.wait_ready()
        notify("READY=1")
        for address in self._sockets.addresses[:1]:
            host, port = split_address(address)
            _log.info("ready; try: dig @%s -p %d kubernetes.io", loopback_for(host), port)

    def _say_what_serves(self) -> None:
        now = self._configuration.now
        _log.info("listening on %s, UDP and TCP", ", ".join(self._sockets.addresses) or "nothing")
        for zone in now.policy.zones:
            fallback = f", then to {', '.join(zone.fallback)}" if zone.fallback else ""
            _log.info("forwarding %s to %s%s", zone.suffix, ", ".join(zone.upstreams), fallback)
        _log.info("admin on http://%s/ and %s", now.settings.admin.listen, now.settings.admin.socket)
        for message in now.settings.not_yet:
            _log.warning("%s", message)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._log_handler.flush_repeats()
            self._state.remember()
            if self._files.look():
                self._reload.set()

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            try:
                # Also of what turns out to be wrong: a file that is missing may come.
                new = load(self._configuration.path, self._files.watch)
                raise_descriptor_limit(new.workers * len(new.listen))
                self._workers.make_room(new.workers)
                self._sockets.open(new.listen, new.workers)
            except CannotRun as error:
                self._configuration.error = str(error)
                _log.error("not reloaded, the old configuration stays: %s", "; ".join(str(error).splitlines()))
                continue
            if new.settings.admin != self._configuration.now.settings.admin:
                _log.warning("the admin section takes effect at the next start")
            self._sockets.close_others(new.listen)
            self._configuration.take(new)
            self._workers.configure(new.policy, new.workers)
            _log.info("configuration reloaded (sha256 %s)", new.digest[:12])
            self._say_what_serves()
