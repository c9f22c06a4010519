"""The order of the steps for one question; the only module that knows cache, clients and forwarding.

Feed it what arrives (`receive_query`, `receive_answer`, `receive_failure`, `receive_probe`), call `expire` when
`deadline` has come, and after each of these carry out `take_actions`. It owns no socket and reads no clock.

Fresh cache, then endpoints (best first, hedged), other endpoints, fallback, stale data, SERVFAIL with the reason;
always within the time that the policy allows.
"""

from collections.abc import Callable, Hashable

from proxy.core import local_names
from proxy.core.agenda import Agenda
from proxy.core.cache import Cache, Entry, Variant
from proxy.core.counters import (
    COALESCED,
    DROPPED,
    HELD,
    LOOPED,
    OVERLOADED,
    PREFETCHED,
    REQUEST_SECONDS,
    Counts,
    answered_slot,
)
from proxy.core.forwarding import Forwarder, Progress
from proxy.core.lifetime import FIRST_FAILURE_TTL, LONGEST_FAILURE_TTL, STALE_RECHECK, Kind, Verdict
from proxy.core.message import IN, RD, A, Ede, Query, Rcode, Refusal, Sections, scan_query
from proxy.core.pairs import Pairs
from proxy.core.pending import (
    MOST_LOOKUPS,
    MOST_LOOKUPS_OF_ZONE,
    MOST_WAITERS,
    Action,
    Client,
    Lookup,
    Question,
    Reply,
    Route,
    Try,
    Waiter,
)
from proxy.core.policy import DnsPolicy
from proxy.core.replies import Replies
from proxy.core.upstreams import Upstream
from proxy.core.zones import Zones

STALE_AFTER = 0.9
"""Of the time allowed: 1.8 s of 2 s, RFC 8767 5's client response timer."""
ANSWER_WITHIN = 0.95
"""Of the time allowed, so that the answer is there before it is over."""
PREFETCH_SHARE = 0.1
PREFETCH_USES = 2

_NOTHING = Sections(b"", (0, 0, 0), Rcode.NOERROR, False)
_FAILED = Sections(b"", (0, 0, 0), Rcode.SERVFAIL, False)
_CAME_BACK = b"this question came back to the proxy that forwarded it"
_TOO_MANY = b"too many questions in flight"


class Resolver:
    """Questions, answers and time in; answers and actions out. All times are monotonic seconds."""

    def __init__(
        self, policy: DnsPolicy, cache: Cache, counts: Counts, random: Callable[[], float], marker: bytes
    ) -> None:
        """`marker` is random text of this process that makes its own probes recognisable."""
        self.cache = cache
        self._policy = policy
        self._counts = counts
        self._random = random
        self._agenda = Agenda()
        self._forwarder = Forwarder(policy, self._agenda, counts, random, b"sidestep-" + marker)
        self._replies = Replies(counts)
        self._lookups: dict[Question, Lookup] = {}
        self._pairs = Pairs(self._lookups, cache)

    def configure(self, policy: DnsPolicy) -> None:
        """Take on a policy; the cache, what is in flight and what is known of upstreams that stay are kept."""
        self._policy = policy
        self._forwarder.configure(policy, self._lookups.values())
        self.cache.resize(policy.cache_bytes, policy.stale)

    @property
    def zones(self) -> Zones:
        """Where questions go, and what is known of each upstream."""
        return self._forwarder.zones

    @property
    def in_flight(self) -> int:
        """Questions that clients wait for or that refresh the cache."""
        return len(self._lookups)

    def take_actions(self) -> list[Action]:
        """What to do now, in order; the caller owns the list."""
        return self._agenda.take_actions()

    def deadline(self) -> float | None:
        """When `expire` has to be called next."""
        return self._agenda.next_time()

    # What arrives

    def receive_query(self, wire: bytes, client: Client, now: float) -> bytes | None:
        """One question of at least 12 bytes without QR. Returns the answer if it is known already."""
        variant = self.cache.variants.get(wire[2:]) if client.proto == "udp" else None
        if variant is not None and now < variant.entry.expires_at:
            return self._from_variant(wire, variant, now)
        query = scan_query(wire)
        if isinstance(query, Refusal):
            return self._replies.refusal(wire, query, client)
        return self._answer(query, client, now)

    def receive_own_query(self, wire: bytes, client: Client) -> bytes:
        """A question that the shell recognised as one of our own tries: a loop, answered at once (P29)."""
        self._counts[LOOPED.base] += 1
        query = scan_query(wire)
        if isinstance(query, Refusal):
            return self._replies.refusal(wire, query, client)
        return self._replies.error(query, client, Rcode.SERVFAIL, Ede.OTHER, _CAME_BACK)

    def receive_answer(self, attempt: Try, wire: bytes, now: float) -> bool:
        """A message from the try's upstream with its ID. False: it is no answer to it, keep waiting."""
        outcome = self._forwarder.receive_answer(attempt, wire, now)
        if outcome is Progress.REJECTED:
            return False
        if isinstance(outcome, Verdict):
            self._answered(attempt.lookup, outcome, now)
        else:
            self._go_on(attempt.lookup, outcome, now)
        return True

    def receive_failure(self, attempt: Try, reason: str, now: float) -> None:
        """The try is over without an answer; `reason` is one of `UPSTREAM_FAILED`'s."""
        if not attempt.closed:
            self._go_on(attempt.lookup, self._forwarder.receive_failure(attempt, reason, now), now)

    def receive_probe(self, upstream: Upstream, wire: bytes | None, now: float) -> None:
        """The reply to a `Probe`, None for silence."""
        self._forwarder.receive_probe(upstream, wire, now)

    def expire(self, now: float) -> None:
        """Act on everything whose time has come."""
        while (item := self._agenda.due(now)) is not None:
            if isinstance(item, Lookup):
                self._lookup_due(item, now)
            elif isinstance(item, Try):
                self._forwarder.overdue(item, now)
            else:
                self._forwarder.probe(item)

    # Answers that need nobody

    def _from_variant(self, wire: bytes, variant: Variant, now: float) -> bytes:
        variant.refresh(now)
        entry = variant.entry
        self.cache.use(entry)
        self._counts[variant.slot] += 1
        if self._worth_prefetching(entry, now):
            query = scan_query(wire)
            if isinstance(query, Query):
                self._prefetch(query, now)
        return wire[:2] + variant.body

    def _answer(self, query: Query, client: Client, now: float) -> bytes | None:
        if query.qclass != IN:
            return self._replies.error(query, client, Rcode.REFUSED, Ede.NOT_SUPPORTED)
        rcode = local_names.refused_type(query.qtype)
        if rcode is not None:
            return self._replies.error(query, client, rcode, Ede.NOT_SUPPORTED)
        if self._forwarder.is_probe(query.name):
            return self._replies.error(query, client, Rcode.SERVFAIL, Ede.OTHER, _CAME_BACK)
        local = local_names.answer(query.name, query.qtype)
        if local is not None:
            return self._replies.answer(query, client, "local", local)
        do_cd = query.do_cd
        entry = self.cache.fresh(query.name, query.qtype, do_cd, now)
        if entry is not None:
            return self._from_entry(query, client, entry, now)
        if not query.flags & RD:
            return self._replies.error(query, client, Rcode.REFUSED, Ede.NOT_AUTHORITATIVE)
        question = Question(query.name, query.qtype, do_cd)
        failure = self.cache.failure(query.name, query.qtype, do_cd)
        if failure is not None and now < failure.expires_at:
            return self._unasked(question, query, client, now, Ede.CACHED_ERROR)
        return self._join(question, query, client, now)

    def _from_entry(self, query: Query, client: Client, entry: Entry, now: float) -> bytes:
        self.cache.use(entry)
        age = int(now - entry.stored_at)
        message = self._replies.answer(query, client, "cache", entry.sections, age=age)
        if entry.renders > 1:
            self._keep_variant(query, client, entry, message, age)
            if self._worth_prefetching(entry, now):
                self._prefetch(query, now)
        return message

    def _keep_variant(self, query: Query, client: Client, entry: Entry, message: bytes, age: int) -> None:
        complete = query.question_end + len(entry.sections.data) + 11 * query.edns == len(message)
        if client.proto == "udp" and complete and not query.edns_options:
            slot = answered_slot("udp", "cache", query.qtype, entry.sections.rcode)
            variant = Variant(entry, message, query.question_end, age, slot)
            self.cache.add_variant(entry, query.wire[2:], variant)

    # Lookups

    def _join(self, question: Question, query: Query, client: Client, now: float) -> bytes | None:
        lookup = self._lookups.get(question)
        if lookup is None:
            zone = self.zones.find(question.name)
            if zone is None:
                return self._replies.error(query, client, Rcode.REFUSED, Ede.NOT_AUTHORITATIVE)
            if local_names.is_private_reverse(question.name) and zone.suffix == b"\0" and not zone.service:
                return self._replies.answer(query, client, "local", local_names.no_such_private_name())
            if not (zone.upstreams or zone.fallback):  # a Service without endpoints: it will have some again
                return self._unasked(question, query, client, now, Ede.NOT_READY)
            if len(self._lookups) >= MOST_LOOKUPS or zone.lookups >= MOST_LOOKUPS_OF_ZONE:
                return self._overloaded(question, query, client, now)
            lookup = self._start(question, query, zone, now)
        else:
            if len(lookup.waiters) >= MOST_WAITERS:
                return self._overloaded(question, query, client, now)
            self._counts[COALESCED.base] += 1
        query.wire = query.wire[: query.question_end]  # a query over TCP may have 64 KiB of options behind
        waiter = Waiter(client, query, now)
        key: Hashable = (client.address, query.wire[:2]) if client.proto == "udp" else waiter
        if key in lookup.waiters:  # a stub that sends again while it waits gets one answer (P28)
            self._counts[DROPPED.slot("duplicate")] += 1
            return None
        lookup.waiters[key] = waiter
        if lookup.stale_at and len(lookup.waiters) == 1:
            self._agenda.look_at(lookup.due(), lookup)
        return None

    def _overloaded(self, question: Question, query: Query, client: Client, now: float) -> bytes:
        self._counts[OVERLOADED.base] += 1
        return self._unasked(question, query, client, now, Ede.OTHER, _TOO_MANY)

    def _unasked(
        self, question: Question, query: Query, client: Client, now: float, ede: Ede, text: bytes = b""
    ) -> bytes:
        """What is there when nobody can be asked: stale data, NODATA where A is there, or SERVFAIL and why."""
        stale = self.cache.stale_entry(*_parts(question), now)
        if stale is not None:
            return self._replies.stale(query, client, stale)
        rcode = Rcode.NOERROR if self._pairs.a_is_there(question, now) else Rcode.SERVFAIL
        return self._replies.error(query, client, rcode, ede, text)

    def _start(self, question: Question, query: Query, zone: Route, now: float) -> Lookup:
        stale = self.cache.stale_entry(question.name, question.qtype, question.do_cd, now)
        lookup = Lookup(
            question,
            query.wire[12 : query.question_end],
            zone,
            now + self._policy.timeout * STALE_AFTER if stale is not None else 0.0,
            now + self._policy.timeout * ANSWER_WITHIN,
            self.zones.plan(zone, self._random),
        )
        self._lookups[question] = lookup
        zone.lookups += 1
        if self._policy.serialize and self._pairs.depends_on_a(lookup, now):
            lookup.held_until = now + self._policy.hold
            self._agenda.look_at(lookup.held_until, lookup)
            return lookup
        self._go_on(lookup, self._forwarder.ask_next(lookup, now), now)
        return lookup

    def _worth_prefetching(self, entry: Entry, now: float) -> bool:
        # Half of it at most: an upstream that caches gives out TTL 1 for a whole second.
        last = min(max(1.0, entry.lifetime * PREFETCH_SHARE), entry.lifetime / 2)
        return self._policy.prefetch and entry.renders >= PREFETCH_USES and entry.expires_at - now <= last

    def _prefetch(self, query: Query, now: float) -> None:
        question = Question(query.name, query.qtype, query.do_cd)
        zone = self.zones.find(query.name)
        if question in self._lookups or len(self._lookups) * 2 > MOST_LOOKUPS or zone is None:
            return
        if not query.flags & RD:  # P25: nobody is asked on its behalf
            return
        failure = self.cache.failure(*_parts(question))
        if failure is not None and now < failure.expires_at:
            return
        self._counts[PREFETCHED.base] += 1
        self._start(question, query, zone, now)

    def _go_on(self, lookup: Lookup, progress: Progress, now: float) -> None:
        """Look at the lookup again when its next step is due, or end it when there is none."""
        if lookup.done:
            return
        if progress is Progress.EXHAUSTED:
            self._give_up(lookup, now)
        else:
            self._agenda.look_at(lookup.due(), lookup)

    def _lookup_due(self, lookup: Lookup, now: float) -> None:
        if lookup.done or now < lookup.due():
            return
        if lookup.held_until:
            self._release(lookup, "timeout", now)
            return
        if now >= lookup.deadline:
            self._give_up(lookup, now)
            return
        if lookup.waiters and lookup.stale_at and now >= lookup.stale_at:
            if self._pairs.withheld(lookup) is not None:  # newer than what is stale
                self._give_up(lookup, now)
                return
            self._serve_stale(lookup, now)
        if lookup.plan and now >= lookup.next_at:
            self._go_on(lookup, self._forwarder.ask_next(lookup, now), now)
        else:
            self._agenda.look_at(lookup.due(), lookup)

    def _release(self, lookup: Lookup, released_by: str, now: float) -> None:
        """Let an AAAA go that waited for its A."""
        self._counts[HELD.slot(released_by)] += 1
        lookup.held_until = 0.0
        self._go_on(lookup, self._forwarder.ask_next(lookup, now), now)

    # Answers from upstreams

    def _answered(self, lookup: Lookup, verdict: Verdict, now: float) -> None:
        """An answer is known: keep it and give it to everybody who waits. It may come after they were served."""
        question = lookup.question
        if lookup.done:
            lookup = self._lookups.get(question, lookup)
        if verdict.kind is Kind.NXDOMAIN and question.qtype != A:
            if not lookup.done and self._waits_for_a(lookup, now):
                lookup.withheld = verdict
                return
            verdict = self._pairs.same_verdict(lookup, verdict, now)
        if not lookup.done or self.cache.fresh(*_parts(question), now) is None:
            self.cache.store(*_parts(question), verdict, now)
        if lookup.done:
            return
        self._finish(lookup)
        self._reply_all(lookup, "upstream", verdict.sections, now)
        self._a_is_known(lookup, verdict, now)

    # A and AAAA

    def _waits_for_a(self, lookup: Lookup, now: float) -> bool:
        """Whether an AAAA that failed or was denied has to wait: what its A says decides what it should look like."""
        if now >= lookup.deadline or not self._pairs.depends_on_a(lookup, now):
            return False
        lookup.waits_for_a = True
        self._agenda.look_at(lookup.deadline, lookup)
        return True

    def _a_is_known(self, first: Lookup, verdict: Verdict | None, now: float) -> None:
        """If this was an A, answered or not (None): its AAAA is answered along with it, asked, or decided."""
        pair = self._pairs.aaaa_of(first)
        if pair is None:
            return
        pair.a_said = None if verdict is None else verdict.kind
        if verdict is not None and verdict.kind is Kind.NXDOMAIN:
            if pair.held_until:
                self._counts[HELD.slot("nxdomain")] += 1
            self._finish(pair)
            self._reply_all(pair, "upstream", verdict.sections, now)
        elif pair.held_until:
            self._release(pair, "failure" if verdict is None else "answer", now)
        elif pair.waits_for_a:
            self._give_up(pair, now)

    # Ends of lookups

    def _give_up(self, lookup: Lookup, now: float) -> None:
        """Nobody answered: stale data, over UDP a truncated answer, NODATA where A is there, or else SERVFAIL."""
        question = lookup.question
        denied = self._pairs.withheld(lookup)
        if denied is not None:
            self._answered(lookup, denied, now)
            return
        if self._waits_for_a(lookup, now):
            return
        a_is_there = lookup.a_said is Kind.POSITIVE or self._pairs.a_is_there(question, now)
        if a_is_there and now < lookup.deadline and self._forwarder.ask_once_more(lookup, now):
            self._agenda.look_at(lookup.due(), lookup)
            return
        self._finish(lookup)
        stale = self.cache.stale_entry(*_parts(question), now)
        if stale is not None:
            self._reply_stale(lookup, stale, now)
        else:
            # musl gives up the whole name when one half fails.
            sections = _NOTHING if a_is_there else _FAILED
            ede = Ede.NETWORK_ERROR if lookup.network_failed else Ede.NO_REACHABLE_AUTHORITY
            self._reply_failure(lookup, sections, ede, now)
        # The next AAAA asks again; silence is remembered. What was truncated is never kept (RFC 2181 9).
        if not (a_is_there and lookup.refusing) and (stale is not None or lookup.truncated is None):
            self._remember_failure(question, stale, now)
        self._a_is_known(lookup, None, now)

    def _remember_failure(self, question: Question, stale: Entry | None, now: float) -> None:
        """After a failed prefetch as well: the data is still good, and the next hit must not ask again at once."""
        parts = _parts(question)
        if stale is not None and stale.expires_at <= now:
            lifetime = STALE_RECHECK
        else:
            last = self.cache.failure(*parts)
            again = last is not None and now < last.expires_at + 2 * LONGEST_FAILURE_TTL
            lifetime = min(last.lifetime * 2, LONGEST_FAILURE_TTL) if last and again else FIRST_FAILURE_TTL
        self.cache.store_failure(*parts, _NOTHING, lifetime, now)

    def _finish(self, lookup: Lookup) -> None:
        lookup.done = True
        del self._lookups[lookup.question]
        lookup.zone.lookups -= 1
        self._forwarder.finish(lookup)

    def _serve_stale(self, lookup: Lookup, now: float) -> None:
        stale = self.cache.stale_entry(*_parts(lookup.question), now)
        lookup.stale_at = 0.0
        if stale is not None:
            self._reply_stale(lookup, stale, now)

    def _reply_stale(self, lookup: Lookup, stale: Entry, now: float) -> None:
        self._reply(lookup, lambda waiter: self._replies.stale(waiter.query, waiter.client, stale), now)

    def _reply_failure(self, lookup: Lookup, sections: Sections, ede: Ede, now: float) -> None:
        """A truncated answer is better than none over UDP; TC over TCP would only be asked again and again."""
        truncated = lookup.truncated

        def message(waiter: Waiter) -> bytes:
            if truncated is not None and waiter.client.proto == "udp":
                return self._replies.answer(waiter.query, waiter.client, "upstream", truncated.sections)
            return self._replies.answer(waiter.query, waiter.client, "error", sections, ede=ede)

        self._reply(lookup, message, now)

    def _reply_all(self, lookup: Lookup, source: str, sections: Sections, now: float, ede: Ede | None = None) -> None:
        def message(waiter: Waiter) -> bytes:
            return self._replies.answer(waiter.query, waiter.client, source, sections, ede=ede)

        self._reply(lookup, message, now)

    def _reply(self, lookup: Lookup, message: Callable[[Waiter], bytes], now: float) -> None:
        waiters, lookup.waiters = lookup.waiters, {}
        for waiter in waiters.values():
            REQUEST_SECONDS.observe(self._counts, now - waiter.arrived_at)
            self._agenda.do(Reply(waiter.client, message(waiter)))


def _parts(question: Question) -> tuple[bytes, int, int]:
    return question.name, question.qtype, question.do_cd
