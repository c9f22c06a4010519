"""The admin HTTP: questions about a run over TCP, and verbs as well on a Unix socket that only its owner may open.

No answer waits for a worker, but those of `/readyz`, of the page, which ask the listeners, and of `explain`.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from proxy import __version__
from proxy.control import metrics
from proxy.control.errors import CannotRun
from proxy.control.explain_statsd import explain_line
from proxy.control.handover import Giver
from proxy.control.page import page
from proxy.control.readiness import Readiness
from proxy.control.records import records
from proxy.control.state import State
from proxy.control.unix_sockets import may_command
from proxy.core.explanation import question

EXPLAIN_LIMIT = 5.0
INSTANCE = "SIDESTEP_INSTANCE"
"""In the environment of a pod's processes: what tells this pod from its successor on the same node."""
NOT_MANAGED = "node.manage is off: nothing sends packets here that could go elsewhere"
_log = logging.getLogger(__name__)
_METRICS_TYPE = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


class Admin:
    """Serves on the sockets it is given until `close`."""

    def __init__(self, state: State, readiness: Readiness, giver: Giver) -> None:
        self._state = state
        self._giver = giver
        self._readiness = readiness
        self._runners: list[web.AppRunner] = []

    async def start(self, tcp: socket.socket | None, unix: socket.socket | None) -> None:
        for sock, verbs in ((tcp, False), (unix, True)):
            if sock is None:
                continue
            runner = web.AppRunner(self._application(verbs), logger=_log, access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            self._runners.append(runner)
            await web.SockSite(runner, sock).start()

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    def _application(self, verbs: bool) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/", self._page),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/status.json", self._status),
                web.get("/version", self._version),
            ]
        )
        if verbs:
            application.middlewares.append(_refuse_strangers)
            application.add_routes([web.post("/explain", self._explain)])
            application.add_routes([web.post("/explain-statsd", self._explain_statsd)])
            application.add_routes([web.post("/handover", self._hand_over)])
            application.add_routes([web.post("/drain", self._drain), web.post("/undrain", self._undrain)])
        return application

    async def _page(self, _: web.Request) -> web.Response:
        text = page(self._state.status(), await self._not_ready(), self._state.history.rates)
        return web.Response(text=text, content_type="text/html", headers=_PAGE_HEADERS)

    async def _healthz(self, _: web.Request) -> web.Response:
        return _verdict(self._state.unhealthy())

    async def _readyz(self, _: web.Request) -> web.Response:
        failures = await self._not_ready()
        reasons = [f"{what}: {reason}" for what, reason in failures.items()]
        return _verdict(reasons, self._state.endpoints.notes())

    async def _not_ready(self) -> dict[str, str]:
        """Reasons by listener, and under `endpoints` why none are known yet."""
        unknown = self._state.endpoints.unknown()
        return await self._readiness.failures() | ({"endpoints": unknown} if unknown else {})

    async def _metrics(self, request: web.Request) -> web.Response:
        coredns = "coredns" in request.query.getall("names", [])
        return web.Response(body=metrics.render(self._state, coredns=coredns), headers=_METRICS_TYPE)

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(self._state.status())

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": __version__})

    async def _explain(self, request: web.Request) -> web.Response:
        try:
            asked = await request.json()
            name, qtype = str(asked["name"]), str(asked["type"])
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": 'send {"name": NAME, "type": TYPE}'}, status=400)
        try:
            question(name, qtype)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        try:
            async with asyncio.timeout(EXPLAIN_LIMIT):
                explained = await self._state.dns.explain(name, qtype)
        except LookupError as error:
            return web.json_response({"error": str(error)}, status=503)
        except TimeoutError:
            return web.json_response({"error": f"no answer within {EXPLAIN_LIMIT:g} s"}, status=504)
        shown = records(explained.answer) if explained.answer else []
        return web.json_response({"name": name, "type": qtype, "steps": explained.steps, "records": shown})

    async def _hand_over(self, _: web.Request) -> web.Response:
        try:
            return web.json_response({"socket": self._giver.invite()})
        except OSError as error:
            return web.json_response({"error": f"cannot make a socket for it: {error}"}, status=503)

    async def _drain(self, request: web.Request) -> web.Response:
        node = self._state.node
        if node is None:
            return web.json_response({"error": NOT_MANAGED}, status=409)
        if (refused := await _of_another(request)) is not None:
            return refused
        try:
            return web.json_response({"still_arriving": dict(await node.drain())})
        except CannotRun as error:
            return web.json_response({"error": str(error)}, status=503)

    async def _undrain(self, _: web.Request) -> web.Response:
        node = self._state.node
        if node is None:
            return web.json_response({"error": NOT_MANAGED}, status=409)
        try:
            await node.undrain()
        except CannotRun as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.json_response({})

    async def _explain_statsd(self, request: web.Request) -> web.Response:
        try:
            line = str((await request.json())["line"])
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": 'send {"line": LINE}'}, status=400)
        return web.json_response({"line": line, "relays": explain_line(line, self._state.relay_status())})


_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def _ours_to_mend(record: logging.LogRecord) -> bool:
    """What a client sent that is no HTTP got its 400; that is no news of ours."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log.addFilter(_ours_to_mend)


@web.middleware
async def _refuse_strangers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Also where somebody has made the socket's file writable for others."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or not may_command(sock):
        return web.json_response({"error": "only root and the user that runs sidestep may ask here"}, status=403)
    return await handler(request)


async def _of_another(request: web.Request) -> web.Response | None:
    """The refusal, when what is to be stopped is not this run: its successor has the admin socket already."""
    asked = await request.json() if request.can_read_body else {}
    instance = asked.get("instance") if isinstance(asked, dict) else None
    if not instance or instance == os.environ.get(INSTANCE):
        return None
    return web.json_response({"error": "another instance serves now", "successor": True}, status=409)


def _verdict(reasons: list[str], notes: Sequence[str] = ()) -> web.Response:
    """`notes` are worth knowing, and no reason to be unready."""
    verdict = {"status": "unavailable", "reasons": reasons} if reasons else {"status": "ok"}
    return web.json_response(verdict | ({"notes": list(notes)} if notes else {}), status=503 if reasons else 200)
