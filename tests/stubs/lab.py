"""A network namespace with a scripted upstream, a server under test and a recorder, for real stub resolvers.

Needs root and Linux.
"""

import ipaddress
import itertools
import json
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.lab import libc_clients
from proxy.lab.namespaces import Namespace, Run
from proxy.lab.tools import Unavailable
from tests import peers

SERVER = "169.254.20.10:53"
UPSTREAM = "10.96.0.2:53"
MIDDLE = "10.96.0.3:53"
"""A place for one more server between the two."""
CLIENTS = Path(__file__).parent / "clients"

POD, POD6 = "10.244.1.9", "fd00:10:244::9"
"""The pod's own addresses. Loopback ones would not do: glibc's AI_ADDRCONFIG and others don't count those."""


@dataclass(frozen=True, slots=True)
class Message:
    """One DNS message seen on the wire."""

    source: str
    target: str
    proto: str
    id: int
    response: bool
    name: str
    type: str
    rcode: str
    truncated: bool

    @property
    def key(self) -> tuple[str, str, str, int, str, str]:
        """What makes a repetition the same question, or a reply its answer."""
        client, server = (self.target, self.source) if self.response else (self.source, self.target)
        return client, server, self.proto, self.id, self.name.lower(), self.type

    @property
    def question(self) -> tuple[str, str]:
        """Name and type, as a retry from another port or under another ID still has them."""
        return self.name.lower(), self.type


@dataclass(slots=True)
class Conversation:
    """What a stub printed and every DNS message that passed meanwhile."""

    printed: str
    messages: list[Message] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """The addresses that the stub found, sorted; none when it failed."""
        verdict, *words = self.printed.split()
        return sorted(str(ipaddress.ip_address(word)) for word in words) if verdict == "ok" else []

    @property
    def error(self) -> str:
        """`not-found`, `temporary` or an empty string."""
        verdict, *words = self.printed.split()
        return words[0] if verdict == "error" else ""

    def _questions(self, target: str) -> Counter[tuple[str, str]]:
        return Counter((m.name.lower(), m.type) for m in self.messages if m.target == target and not m.response)

    @property
    def asked(self) -> Counter[tuple[str, str]]:
        """How often the stub sent each question."""
        return self._questions(SERVER)

    @property
    def upstream(self) -> Counter[tuple[str, str]]:
        """How often each of the stub's questions came to the upstream; a server's own probes are not among them."""
        questions = self._questions(UPSTREAM)
        return Counter({key: count for key, count in questions.items() if key[0] in {name for name, _ in self.asked}})

    @property
    def waited(self) -> list[Message]:
        """Questions that the stub repeated, or went on without, because no answer had come yet.

        Asking again *after* an answer (glibc and musl do so after SERVFAIL) is the stub's own choice and not counted.
        """
        unanswered: dict[tuple[str, str, str, int, str, str], Message] = {}
        repeated = []
        for message in self.messages:
            if message.response and message.source == SERVER:
                unanswered.pop(message.key, None)
            elif not message.response and message.target == SERVER:
                if any(earlier.question == message.question for earlier in unanswered.values()):
                    repeated.append(message)
                unanswered[message.key] = message
        return repeated + list(unanswered.values())


class Lab:
    """The namespace; use as a context manager. Raises `tools.Unavailable` on entry where it can't be had."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._marks = itertools.count(1)
        self._servers = itertools.count(1)

    def __enter__(self) -> "Lab":
        with ExitStack() as stack:
            self._enter(stack)
            self._stack = stack.pop_all()
        return self

    def _enter(self, stack: ExitStack) -> None:
        run = stack.enter_context(Run.start())
        self._namespace = run.add(Namespace(run, "stubs"))
        self.prefix = self._namespace.prefix
        self._namespace.ip(*(f"addr add {_ip(address)}/32 dev lo" for address in (SERVER, UPSTREAM, MIDDLE, POD)))
        with suppress(RuntimeError):  # a kernel without IPv6
            self._namespace.ip(f"addr add {POD6}/128 dev lo nodad")
        self._namespace.etc("nsswitch.conf", "hosts: files dns\n")
        self._namespace.etc("hosts", "127.0.0.1 localhost\n")
        self.resolv_conf()
        inside = stack.enter_context(
            subprocess.Popen(
                [*self.prefix, sys.executable, str(Path(__file__).with_name("inside.py")), UPSTREAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert inside.stdin
        self._commands = inside.stdin
        reader = threading.Thread(target=self._read, args=(inside,), daemon=True)
        reader.start()
        stack.callback(reader.join)
        stack.callback(inside.kill)
        if "ready" not in self._next():
            raise Unavailable("the scripted upstream did not start")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _read(self, inside: subprocess.Popen[str]) -> None:
        assert inside.stdout
        for line in inside.stdout:
            self._events.put(json.loads(line))
        self._events.put({"ended": True})

    def _next(self) -> dict[str, Any]:
        event = self._events.get(timeout=20)
        if "ended" in event:
            raise RuntimeError("the process inside the namespace ended")
        return event

    def _command(self, *words: str) -> None:
        self._commands.write(" ".join(words) + "\n")
        self._commands.flush()

    def resolv_conf(self, search: Sequence[str] = (), ndots: int = 5) -> None:
        """What the stubs' /etc/resolv.conf says from now on."""
        lines = [f"nameserver {_ip(SERVER)}", f"options ndots:{ndots}"]
        if search:
            lines.insert(1, "search " + " ".join(search))
        self._namespace.etc("resolv.conf", "\n".join(lines) + "\n")

    @contextmanager
    def serving(self, name: str, listen: str = SERVER, upstream: str = UPSTREAM) -> Iterator[peers.Server]:
        """A server of this kind; by default on the address that resolv.conf names, before the scripted upstream."""
        number = next(self._servers)
        job = peers.Job(listen, upstream, self._directory / f"{name}-{number}", admin_port=9253 + number)
        with peers.running(name, job, prefix=self.prefix, answering=lambda: self._answering(listen)) as server:
            yield server

    def _answering(self, address: str) -> bool:
        self._command("ask", address)
        while "answered" not in (event := self._next()):
            pass
        return bool(event["answered"])

    def run(self, command: Sequence[str]) -> Conversation:
        """Run a stub inside and record what passed until it ended. Raises when it fails or takes 40 s."""
        self._drain()
        ran = subprocess.run([*self.prefix, *command], capture_output=True, text=True, timeout=40, check=False)
        if ran.returncode:
            raise RuntimeError(f"{command} ended with {ran.returncode}: {ran.stderr}")
        return Conversation(ran.stdout.strip(), self._drain())

    def _drain(self) -> list[Message]:
        """Everything recorded so far."""
        token = str(next(self._marks))
        self._command("mark", token)
        messages = []
        while (event := self._next()).get("mark") != token:
            if "id" in event:
                event["source"], event["target"] = event.pop("from"), event.pop("to")
                messages.append(Message(**event))
        return messages


def _ip(address: str) -> str:
    return address.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Stub:
    """A stub resolver: what it needs to be built and run, and the command that looks one name up."""

    name: str
    programs: tuple[str, ...]
    build: tuple[str, ...]
    """Command that builds it into the directory `{out}`; empty where there is nothing to build."""
    command: tuple[str, ...]
    searches: bool = True

    def built(self, out: Path) -> tuple[str, ...]:
        """Build it. Returns the command to which the name is appended."""
        words = {
            "out": str(out),
            "clients": str(CLIENTS),
            "getaddrinfo": str(libc_clients.SOURCE),
            "python": sys.executable,
        }
        if self.build:
            program = peers.find(self.build[0]) or self.build[0]
            environment = {"CGO_ENABLED": "0"} if self.build[0] == "go" else {}
            command = [program, *(word.format(**words) for word in self.build[1:])]
            built = subprocess.run(
                ["env", *(f"{key}={value}" for key, value in environment.items()), *command],
                capture_output=True,
                text=True,
                check=False,
            )
            if built.returncode:
                raise RuntimeError(f"{self.name}: {built.stderr}")
        return tuple(word.format(**words) for word in self.command)


STUBS = {
    stub.name: stub
    for stub in (
        Stub(
            "glibc",
            ("gcc",),
            ("gcc", "-O1", "-o", "{out}/glibc", "{getaddrinfo}"),
            ("{out}/glibc",),
        ),
        Stub(
            "musl",
            ("musl-gcc",),
            ("musl-gcc", "-static", "-O1", "-o", "{out}/musl", "{getaddrinfo}"),
            ("{out}/musl",),
        ),
        Stub("go", ("go",), ("go", "build", "-o", "{out}/golang", "{clients}/lookup.go"), ("{out}/golang",)),
        Stub("node-lookup", ("node",), (), ("node", "{clients}/lookup.js", "lookup")),
        Stub("node-resolve", ("node",), (), ("node", "{clients}/lookup.js", "resolve"), searches=False),
        Stub(
            "java",
            ("javac", "java"),
            ("javac", "-d", "{out}", "{clients}/Lookup.java"),
            ("java", "-XX:TieredStopAtLevel=1", "-cp", "{out}", "Lookup"),
        ),
        Stub("c-ares", (), (), ("{python}", "{clients}/cares.py")),
    )
}
