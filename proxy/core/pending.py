"""Who waits for which question, and what has been tried for it: the values that the resolver works on."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.core.lifetime import Kind, Verdict
from proxy.core.message import Query
from proxy.core.upstreams import Upstream

MOST_LOOKUPS = 8192
"""Different questions in flight at once, in one worker; past it the answer is SERVFAIL with the reason."""
MOST_LOOKUPS_OF_ZONE = 6144
"""Of these in one zone: a flood of names whose upstreams are silent leaves room for the other zones."""
MOST_WAITERS = 4096
"""Clients waiting for one question."""
MOST_TRIES = 3
"""Per upstream and transport for one question (RFC 9520 3.1)."""
RETRY_AFTER = 0.25
"""The same upstream is asked again no sooner, and twice as late each further time."""
TRY_LIFETIME = 1.5
"""A try without an answer for so long speaks against its upstream."""


class Client(Protocol):
    """Where an answer goes; the shell knows how."""

    @property
    def address(self) -> tuple[str, int]:
        """The client's IP and port."""

    @property
    def proto(self) -> str:
        """`udp` or `tcp`."""

    @property
    def reply(self) -> Callable[[bytes], object]:
        """Send an answer; only the shell calls it."""


@dataclass(slots=True, frozen=True)
class Question:
    """What is asked, apart from who asks: equal questions share one lookup and one cache entry."""

    name: bytes
    qtype: int
    do_cd: int
    """Bit 0 is DO, bit 1 is CD: they get data of their own (RFC 6840 5.9)."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One client's question that has not been answered yet."""

    client: Client
    query: Query
    arrived_at: float


@dataclass(slots=True, eq=False)
class Lookup:
    """One question in flight, for however many clients; none where it only refreshes what is cached."""

    question: Question
    spelled: bytes
    """Name as the first client wrote it, type and class: sent upstream as it is."""
    zone: "Route"
    stale_at: float
    """When waiting clients get stale data if there is any (RFC 8767 5: the client response timer)."""
    deadline: float
    plan: list[Upstream]
    """Whom to ask, in order; shrinks from the front."""
    next_at: float = 0.0
    held_until: float = 0.0
    """An AAAA that waits for its A; 0 when it doesn't."""
    waits_for_a: bool = False
    """On an AAAA that failed or was denied: what its clients get depends on an A still in flight."""
    withheld: Verdict | None = None
    """The denial that waits."""
    a_said: Kind | None = None
    """On an AAAA: what its A turned out to be while this was in flight."""
    waiters: dict[Hashable, Waiter] = field(default_factory=dict)
    tries: list["Try"] = field(default_factory=list)
    asked: dict[tuple[Upstream, str], int] = field(default_factory=dict)
    """Tries so far by upstream and transport."""
    asked_at: dict[Upstream, float] = field(default_factory=dict)
    refusing: set[Upstream] = field(default_factory=set)
    """Upstreams that said they can't answer this; silence doesn't count."""
    network_failed: bool = False
    truncated: Verdict | None = None
    asked_once_more: bool = False
    done: bool = False

    def may_ask(self, upstream: Upstream, proto: str) -> bool:
        """Whether it has a try left there (RFC 9520 3.1)."""
        return self.asked.get((upstream, proto), 0) < MOST_TRIES

    def due(self) -> float:
        """When something has to be decided about it, if no answer comes before."""
        if self.held_until:
            return self.held_until
        if self.waits_for_a:
            return self.deadline
        due = self.deadline
        if self.plan and self.next_at < due:
            due = self.next_at
        return min(due, self.stale_at) if self.waiters and self.stale_at else due


@dataclass(slots=True, eq=False)
class Try:
    """One message to one upstream; open until it is answered, fails or is forgotten."""

    lookup: Lookup
    upstream: Upstream
    proto: str
    message: bytes
    edns: bool
    sent_at: float
    overdue: bool = False
    closed: bool = False

    @property
    def address(self) -> str:
        """Where it goes, `ip:port`."""
        return self.upstream.address


@dataclass(slots=True, eq=False)
class Route:
    """Where the names under a suffix are asked for."""

    suffix: bytes
    upstreams: Sequence[Upstream]
    fallback: Sequence[Upstream]
    service: bool
    lookups: int = 0
    """In flight."""


@dataclass(slots=True, frozen=True)
class Reply:
    """Send `message` to `client`."""

    client: Client
    message: bytes


@dataclass(slots=True, frozen=True)
class Ask:
    """Send the try's message to its upstream; the transport sets the ID."""

    attempt: Try


@dataclass(slots=True, frozen=True)
class Forget:
    """Nobody waits for this try any more."""

    attempt: Try


@dataclass(slots=True, frozen=True)
class Probe:
    """Ask a down upstream a question of our own."""

    upstream: Upstream
    message: bytes


Action = Reply | Ask | Forget | Probe
