"""The ledger of questions: whatever happens, each is answered once and in time, or dropped under a reason."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import dns.message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.core import counters
from proxy.core.cache import Cache
from proxy.core.message import Answer, scan_answer
from proxy.core.pending import MOST_TRIES, TRY_LIFETIME, Ask, Forget, Lookup, Probe, Reply, Try
from proxy.core.policy import DnsPolicy, Zone
from proxy.core.resolver import Resolver
from proxy.core.upstreams import Upstream
from tests.fakes import question, reply, soa

NAMES = ["a.example", "b.example", "A.example", "in.other.example", "localhost"]
TYPES = ["A", "A", "AAAA", "AAAA", "TXT"]
FAILURES = ["refused", "unreachable", "no_socket", "malformed"]


@dataclass(eq=False)
class FakeClient:
    """One question's sender; what it gets is in `replies`."""

    address: tuple[str, int]
    proto: str
    query: bytes
    asked_at: float
    replies: list[bytes] = field(default_factory=list)
    dropped: bool = False

    @property
    def reply(self) -> Callable[[bytes], object]:
        return self.replies.append


def positive(query: dns.message.Message, ttl: int) -> dns.message.Message:
    asked = query.question[0]
    data = {1: "A 192.0.2.1", 28: "AAAA 2001:db8::1"}.get(asked.rdtype, 'TXT "x"')
    return reply(query, f"{asked.name} {ttl} {data}")


BEHAVIOURS: dict[str, Callable[[dns.message.Message], bytes | dns.message.Message]] = {
    "positive": lambda query: positive(query, 5),
    "ttl 0": lambda query: positive(query, 0),
    "long": lambda query: positive(query, 300),
    "nxdomain": lambda query: reply(query, rcode="NXDOMAIN", authority=[soa(minimum=5)]),
    "nodata": lambda query: reply(query, authority=[soa(minimum=5)]),
    "nodata without soa": lambda query: reply(query),
    "alias": lambda query: reply(query, f"{query.question[0].name} 5 CNAME c.example."),
    "loop": lambda query: reply(query, f"{query.question[0].name} 5 CNAME {query.question[0].name}"),
    "servfail": lambda query: reply(query, rcode="SERVFAIL"),
    "refused": lambda query: reply(query, rcode="REFUSED"),
    "formerr": lambda query: reply(query, rcode="FORMERR"),
    "bare formerr": lambda query: query.to_wire()[:2] + b"\x81\x81" + bytes(8),
    "truncated": lambda query: reply(query, flags=0x0200),
    "another question": lambda query: reply(question("z.example")),
    "garbage": lambda query: query.to_wire() + b"\0",
    "itself": lambda query: query.to_wire(),
}


def policy(upstreams: int, timeout: float = 2.0, **keywords: bool) -> DnsPolicy:
    addresses = tuple(f"192.0.2.{n}:53" for n in range(upstreams))
    zones = (
        Zone(".", addresses, ("198.51.100.1:53",) if upstreams > 1 else ()),
        Zone("other.example.", ("203.0.113.1:53",)),
    )
    return DnsPolicy(zones, cache_bytes=20_000, stale=20, timeout=timeout, **keywords)


class Ledger(RuleBasedStateMachine):
    @initialize(upstreams=st.integers(1, 3), seed=st.integers(0, 1000), serialize=st.booleans())
    def start(self, upstreams: int, seed: int, serialize: bool) -> None:
        self.now = 1000.0
        self.policy = policy(upstreams, serialize=serialize)
        self.counts = [0] * counters.SLOTS
        cache = Cache(self.policy.cache_bytes, self.policy.stale, self.counts)
        self.resolver = Resolver(self.policy, cache, self.counts, Random(seed).random, b"0123abcd")
        self.clients: list[FakeClient] = []
        self.open: list[Try] = []
        self.probes: list[Upstream] = []
        self.sent: Counter[tuple[Lookup, Upstream, str]] = Counter()

    @rule(
        name=st.sampled_from(NAMES),
        rtype=st.sampled_from(TYPES),
        number=st.integers(1, 3),
        proto=st.sampled_from(["udp", "udp", "tcp"]),
        edns=st.booleans(),
    )
    def ask(self, name: str, rtype: str, number: int, proto: str, edns: bool) -> None:
        query = question(name, rtype, use_edns=0 if edns else None)
        query.id = number
        client = FakeClient((f"10.0.0.{number}", 5353), proto, query.to_wire(), self.now)
        duplicates = self.dropped()
        answer = self.resolver.receive_query(client.query, client, self.now)
        client.dropped = self.dropped() > duplicates
        self.clients.append(client)
        if answer is not None:
            client.replies.append(answer)
        self.act()

    @rule()
    def ask_rubbish(self) -> None:
        client = FakeClient(("10.0.0.9", 5353), "udp", b"\0\7\1\0" + bytes(8), self.now)
        self.clients.append(client)
        answer = self.resolver.receive_query(client.query, client, self.now)
        assert answer is not None
        client.replies.append(answer)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 30), behaviour=st.sampled_from(sorted(BEHAVIOURS)))
    def answer(self, which: int, behaviour: str) -> None:
        attempt = self.open[which % len(self.open)]
        response = BEHAVIOURS[behaviour](dns.message.from_wire(bytes(attempt.message)))
        wire = response if isinstance(response, bytes) else response.to_wire()
        over = self.resolver.receive_answer(attempt, wire, self.now)
        if over:
            self.open.remove(attempt)
        assert over == attempt.closed
        self.act()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 30), reason=st.sampled_from(FAILURES))
    def fail(self, which: int, reason: str) -> None:
        attempt = self.open.pop(which % len(self.open))
        self.resolver.receive_failure(attempt, reason, self.now)
        self.act()

    @precondition(lambda self: self.probes)
    @rule(well=st.booleans())
    def answer_probe(self, well: bool) -> None:
        wire = b"\0\0\x81\x83" + b"\0\1\0\0\0\0\0\0" + b"\1x\0\0\1\0\1"
        self.resolver.receive_probe(self.probes.pop(), wire if well else None, self.now)
        self.act()

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.125, 0.25, 0.5, 1.0, 2.0, 4.5, 30.0]))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.resolver.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.resolver.expire(self.now)
            self.act()
        self.now = end

    @rule(upstreams=st.integers(1, 3))
    def configure(self, upstreams: int) -> None:
        self.resolver.configure(policy(upstreams, serialize=self.policy.serialize))
        self.act()

    def act(self) -> None:
        for action in self.resolver.take_actions():
            match action:
                case Reply():
                    assert not isinstance(action.client, str)
                    action.client.reply(action.message)
                case Ask():
                    assert action.attempt not in self.open
                    self.open.append(action.attempt)
                    attempt = action.attempt
                    self.sent[attempt.lookup, attempt.upstream, attempt.proto] += 1
                case Forget():
                    self.open.remove(action.attempt)
                case Probe():
                    self.probes.append(action.upstream)

    def dropped(self) -> int:
        return sum(count for _, count in counters.DROPPED.samples(self.counts))

    @invariant()
    def it_answers_each_question_once_and_in_time(self) -> None:
        for client in self.clients:
            assert len(client.replies) <= (0 if client.dropped else 1)
            if not client.replies and not client.dropped:
                assert self.now - client.asked_at < self.policy.timeout

    @invariant()
    def its_ledger_is_even(self) -> None:
        answered = sum(count for _, count in counters.ANSWERED.samples(self.counts))
        waiting = sum(not client.replies and not client.dropped for client in self.clients)
        assert answered == sum(len(client.replies) for client in self.clients)
        assert len(self.clients) == answered + self.dropped() + waiting
        assert waiting == sum(len(lookup.waiters) for lookup in self.resolver._lookups.values())

    @invariant()
    def its_answers_are_answers(self) -> None:
        for client in self.clients:
            for message in client.replies:
                assert message[:2] == client.query[:2]
                if len(message) > 12:
                    answer = scan_answer(message)
                    assert isinstance(answer, Answer)
                    assert message[12 : answer.question_end] == client.query[12 : answer.question_end]

    @invariant()
    def it_holds_no_try_for_ever(self) -> None:
        for attempt in self.open:
            assert not attempt.closed
            assert self.now - attempt.sent_at < self.policy.timeout + TRY_LIFETIME

    @invariant()
    def it_asks_nobody_too_often(self) -> None:
        assert max(self.sent.values(), default=0) <= MOST_TRIES

    def teardown(self) -> None:
        self.wait(10.0)
        self.it_answers_each_question_once_and_in_time()
        assert not self.open
        assert self.resolver.in_flight == 0


Ledger.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedger = Ledger.TestCase
