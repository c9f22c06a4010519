"""A resolver driven by hand: questions in, its actions out."""

from collections.abc import Callable
from dataclasses import dataclass, field

import dns.message

from proxy.core import counters
from proxy.core.cache import Cache
from proxy.core.pending import Ask, Forget, Probe, Reply, Try
from proxy.core.policy import DnsPolicy, Zone
from proxy.core.resolver import Resolver
from proxy.core.upstreams import Upstream
from tests.fakes import question

MARKER = b"0123abcd"
POLICY = DnsPolicy((Zone(".", ("192.0.2.1:53",)),))


@dataclass(eq=False)
class FakeClient:
    """Whoever sent one question."""

    address: tuple[str, int] = ("10.0.0.1", 5353)
    proto: str = "udp"
    replies: list[bytes] = field(default_factory=list)

    @property
    def reply(self) -> Callable[[bytes], object]:
        return self.replies.append


class Asking:
    """A resolver, what it wants open, and time."""

    def __init__(self, policy: DnsPolicy = POLICY) -> None:
        self.now = 1000.0
        self.counts = [0] * counters.SLOTS
        cache = Cache(policy.cache_bytes, policy.stale, self.counts)
        self.resolver = Resolver(policy, cache, self.counts, lambda: 0.5, MARKER)
        self.tries: list[Try] = []
        self.probes: list[tuple[Upstream, bytes]] = []

    def ask(
        self, name: str, rtype: str = "A", client: FakeClient | None = None, number: int = 7, **keywords: object
    ) -> dns.message.Message | None:
        """The answer, if there is one at once."""
        query = question(name, rtype, **keywords)
        query.id = number
        answer = self.resolver.receive_query(query.to_wire(), client or FakeClient(), self.now)
        self.act()
        return None if answer is None else dns.message.from_wire(answer)

    def answer(self, respond: Callable[[dns.message.Message], dns.message.Message], which: int = 0) -> bool:
        """Let an upstream reply to one of the open tries."""
        attempt = self.tries[which]
        wire = respond(dns.message.from_wire(bytes(attempt.message))).to_wire()
        accepted = self.resolver.receive_answer(attempt, wire, self.now)
        if accepted:
            self.tries.remove(attempt)
        self.act()
        return accepted

    def fail(self, reason: str = "refused", which: int = 0) -> None:
        self.resolver.receive_failure(self.tries.pop(which), reason, self.now)
        self.act()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.resolver.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.resolver.expire(self.now)
            self.act()
        self.now = end

    def act(self) -> None:
        for action in self.resolver.take_actions():
            match action:
                case Reply():
                    action.client.reply(action.message)
                case Ask():
                    self.tries.append(action.attempt)
                case Forget():
                    self.tries.remove(action.attempt)
                case Probe():
                    self.probes.append((action.upstream, action.message))

    def count(self, family: counters.Family, *labels: str) -> int:
        return self.counts[family.slot(*labels)]
