"""The order of the steps for one question; the only module that knows cache, pending lookups and upstreams.

Feed it what arrives (`receive_query`, `receive_answer`, `receive_failure`, `receive_probe`), call `expire` when
`deadline` has come, and after each of these carry out `take_actions`. It owns no socket and reads no clock.

Fresh cache, then endpoints (best first, hedged), other endpoints, fallback, stale data, SERVFAIL with the reason;
always within the time that the policy allows.
"""

from collections.abc import Callable, Hashable
from heapq import heappop, heappush

from proxy.core import local_names
from proxy.core.cache import Cache, Entry, Variant
from proxy.core.counters import (
    COALESCED,
    DROPPED,
    HEDGED,
    HELD,
    LOOPED,
    OVERLOADED,
    PREFETCHED,
    REJECTED,
    REQUEST_SECONDS,
    UPSTREAM_FAILED,
    UPSTREAM_SECONDS,
    Counts,
    answered_slot,
)
from proxy.core.lifetime import (
    FIRST_FAILURE_TTL,
    LONGEST_FAILURE_TTL,
    STALE_RECHECK,
    STALE_TTL,
    Kind,
    Verdict,
    judge,
)
from proxy.core.message import (
    AAAA,
    CD,
    IN,
    LARGEST_MESSAGE,
    RD,
    A,
    Answer,
    Ede,
    Malformed,
    Query,
    Rcode,
    Refusal,
    Sections,
    question_to_upstream,
    respond,
    respond_error,
    respond_refusal,
    scan_answer,
    scan_query,
)
from proxy.core.pending import (
    MOST_LOOKUPS,
    MOST_TRIES,
    MOST_WAITERS,
    RETRY_AFTER,
    TRY_LIFETIME,
    Action,
    Ask,
    Client,
    Forget,
    Lookup,
    Probe,
    Question,
    Reply,
    Try,
    Waiter,
    Zone,
)
from proxy.core.policy import DnsPolicy
from proxy.core.upstreams import NO_EDNS_FOR, Upstream
from proxy.core.zones import Zones

STALE_AFTER = 0.9
"""Of the time allowed: 1.8 s of 2 s, RFC 8767 5's client response timer."""
ANSWER_WITHIN = 0.95
"""Of the time allowed, so that the answer is there before it is over."""
PREFETCH_SHARE = 0.1
PREFETCH_USES = 2

_NOTHING = Sections(b"", (0, 0, 0), Rcode.NOERROR, False)
_CAME_BACK = b"this question came back to the proxy that forwarded it"
_FAILING_RCODES: dict[int, str] = {
    Rcode.SERVFAIL: "servfail",
    Rcode.REFUSED: "refused_rcode",
    Rcode.FORMERR: "formerr",
    Rcode.NOTIMP: "formerr",
}
_NEEDS_NO_EDNS = (Rcode.FORMERR, Rcode.NOTIMP, Rcode.BADVERS)


class Resolver:
    """Questions, answers and time in; answers and actions out. All times are monotonic seconds."""

    def __init__(
        self,
        policy: DnsPolicy,
        cache: Cache,
        counts: Counts,
        random: Callable[[], float],
        marker: bytes,
    ) -> None:
        """`marker` is random text of this process that makes its own probes recognisable."""
        self.cache = cache
        self._counts = counts
        self._random = random
        self._marker = b"sidestep-" + marker
        self._actions: list[Action] = []
        self._lookups: dict[Question, Lookup] = {}
        self._timers: list[tuple[float, int, Lookup | Try | Upstream]] = []
        self._timer_number = 0
        self.configure(policy)

    def configure(self, policy: DnsPolicy) -> None:
        """Take on a policy; the cache, what is in flight and what is known of upstreams that stay are kept."""
        self._policy = policy
        self.zones = Zones(policy, getattr(self, "zones", None))
        self.cache.resize(policy.cache_bytes, policy.stale)

    @property
    def in_flight(self) -> int:
        """Questions that clients wait for or that refresh the cache."""
        return len(self._lookups)

    def take_actions(self) -> list[Action]:
        """What to do now, in order; the caller owns the list."""
        actions = self._actions
        if actions:
            self._actions = []
        return actions

    def deadline(self) -> float | None:
        """When `expire` has to be called next."""
        return self._timers[0][0] if self._timers else None

    # What arrives

    def receive_query(self, wire: bytes, client: Client, now: float) -> bytes | None:
        """One question of at least 12 bytes without QR. Returns the answer if it is known already."""
        variant = self.cache.variants.get(wire[2:]) if client.proto == "udp" else None
        if variant is not None and now < variant.entry.expires_at:
            return self._from_variant(wire, variant, client, now)
        query = scan_query(wire)
        if isinstance(query, Refusal):
            self._count_answer(client, "error", query.query, query.rcode)
            return respond_refusal(wire, query)
        return self._answer(query, client, now)

    def receive_own_query(self, wire: bytes, client: Client) -> bytes:
        """A question that the shell recognised as one of our own tries: a loop, answered at once (P29)."""
        self._counts[LOOPED.base] += 1
        query = scan_query(wire)
        if isinstance(query, Refusal):
            return respond_refusal(wire, query)
        return self._error(query, client, Rcode.SERVFAIL, Ede.OTHER, _CAME_BACK)

    def receive_answer(self, attempt: Try, wire: bytes, now: float) -> bool:
        """A message from the try's upstream with its ID. False: it is no answer to it, keep waiting."""
        answer = scan_answer(wire)
        if isinstance(answer, Malformed):
            reason = "malformed" if answer is Malformed.BROKEN else "not_a_response"
            self._counts[REJECTED.slot(reason)] += 1
            if attempt.proto == "tcp":  # nobody else writes into that connection
                self.receive_failure(attempt, "malformed", now)
                return True
            return False
        question = attempt.lookup.question
        if answer.name and (answer.name, answer.qtype, answer.qclass) != (question.name, question.qtype, IN):
            self._counts[REJECTED.slot("question")] += 1
            return False
        attempt.closed = True
        attempt.lookup.tries.remove(attempt)
        UPSTREAM_SECONDS.observe(self._counts, now - attempt.sent_at)
        self._take_answer(attempt, answer, now)
        return True

    def receive_failure(self, attempt: Try, reason: str, now: float) -> None:
        """The try is over without an answer; `reason` is one of `UPSTREAM_FAILED`'s."""
        if attempt.closed:
            return
        attempt.closed = True
        attempt.lookup.tries.remove(attempt)
        attempt.lookup.network_failed = True
        self._try_failed(attempt, reason, now)

    def receive_probe(self, upstream: Upstream, wire: bytes | None, now: float) -> None:
        """The reply to a probe, None for silence. Only a server that can answer is up (not SERVFAIL, REFUSED)."""
        upstream.probing = False
        answer = None if wire is None else scan_answer(wire)
        if isinstance(answer, Answer) and answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN) and not upstream.looping:
            upstream.observe_recovery()
        elif upstream.down:
            upstream.observe_probe_failure(now)
            self._set_timer(upstream.probe_at, upstream)

    def expire(self, now: float) -> None:
        """Act on everything whose time has come."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            item = heappop(timers)[2]
            if isinstance(item, Lookup):
                self._lookup_due(item, now)
            elif isinstance(item, Try):
                self._try_overdue(item, now)
            elif item.down and not item.probing and self.zones.knows(item):
                self._probe(item)

    # Answers that need nobody

    def _from_variant(self, wire: bytes, variant: Variant, client: Client, now: float) -> bytes:
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
            return self._error(query, client, Rcode.REFUSED, Ede.NOT_SUPPORTED)
        rcode = local_names.refused_type(query.qtype)
        if rcode is not None:
            return self._error(query, client, rcode, Ede.NOT_SUPPORTED)
        if query.name[1:].startswith(self._marker):
            self._probe_came_back(query.name)
            return self._error(query, client, Rcode.SERVFAIL, Ede.OTHER, _CAME_BACK)
        local = local_names.answer(query.name, query.qtype)
        if local is not None:
            return self._render(query, client, "local", local)
        do_cd = query.do | (query.flags & CD) >> 3
        entry = self.cache.fresh(query.name, query.qtype, do_cd, now)
        if entry is not None:
            return self._from_entry(query, client, entry, now)
        if not query.flags & RD:
            return self._error(query, client, Rcode.REFUSED, Ede.NOT_AUTHORITATIVE)
        question = Question(query.name, query.qtype, do_cd)
        failure = self.cache.failure(query.name, query.qtype, do_cd)
        if failure is not None and now < failure.expires_at:
            stale = self.cache.stale_entry(query.name, query.qtype, do_cd, now)
            if stale is not None:
                return self._from_stale(query, client, stale)
            return self._error(query, client, Rcode.SERVFAIL, Ede.CACHED_ERROR)
        return self._join(question, query, client, now)

    def _from_entry(self, query: Query, client: Client, entry: Entry, now: float) -> bytes:
        self.cache.use(entry)
        age = int(now - entry.stored_at)
        message = self._render(query, client, "cache", entry.sections, age=age)
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

    def _from_stale(self, query: Query, client: Client, stale: Entry) -> bytes:
        ede = Ede.STALE_NXDOMAIN if stale.kind is Kind.NXDOMAIN else Ede.STALE_ANSWER
        return self._render(query, client, "stale", stale.sections, ttl=STALE_TTL, ede=ede)

    def _render(
        self,
        query: Query,
        client: Client,
        source: str,
        sections: Sections,
        *,
        age: int = 0,
        ttl: int | None = None,
        ede: Ede | None = None,
        ede_text: bytes = b"",
    ) -> bytes:
        self._count_answer(client, source, query, sections.rcode)
        limit = query.payload_size if client.proto == "udp" else LARGEST_MESSAGE
        return respond(query, sections, limit, age=age, ttl=ttl, ede=ede, ede_text=ede_text)

    def _error(self, query: Query, client: Client, rcode: Rcode, ede: Ede | None = None, text: bytes = b"") -> bytes:
        self._count_answer(client, "error", query, rcode)
        return respond_error(query, rcode, ede, text)

    def _count_answer(self, client: Client, source: str, query: Query | None, rcode: int) -> None:
        self._counts[answered_slot(client.proto, source, query.qtype if query else 0, rcode)] += 1

    # Lookups

    def _join(self, question: Question, query: Query, client: Client, now: float) -> bytes | None:
        lookup = self._lookups.get(question)
        if lookup is None:
            zone = self.zones.find(question.name)
            if zone is None or not (zone.upstreams or zone.fallback):
                return self._error(query, client, Rcode.REFUSED, Ede.NOT_AUTHORITATIVE)
            if local_names.is_private_reverse(question.name) and zone.suffix == b"\0" and not zone.service:
                return self._render(query, client, "local", local_names.no_such_private_name())
            if len(self._lookups) >= MOST_LOOKUPS:
                return self._overloaded(question, query, client, now)
            lookup = self._start(question, query, zone, now)
        else:
            if len(lookup.waiters) >= MOST_WAITERS:
                return self._overloaded(question, query, client, now)
            self._counts[COALESCED.base] += 1
        waiter = Waiter(client, query, now)
        key: Hashable = (client.address, query.wire[:2]) if client.proto == "udp" else waiter
        if key in lookup.waiters:  # a stub that sends again while it waits gets one answer (P28)
            self._counts[DROPPED.slot("duplicate")] += 1
            return None
        first = not lookup.waiters
        lookup.waiters[key] = waiter
        if first:
            self._set_timer(lookup.due(), lookup)
        return None

    def _overloaded(self, question: Question, query: Query, client: Client, now: float) -> bytes:
        self._counts[OVERLOADED.base] += 1
        stale = self.cache.stale_entry(question.name, question.qtype, question.do_cd, now)
        if stale is not None:
            return self._from_stale(query, client, stale)
        return self._error(query, client, Rcode.SERVFAIL, Ede.OTHER, b"too many questions in flight")

    def _start(self, question: Question, query: Query, zone: Zone, now: float) -> Lookup:
        stale = self.cache.stale_entry(question.name, question.qtype, question.do_cd, now)
        lookup = Lookup(
            question,
            query.wire[12 : query.question_end],
            zone,
            now,
            now + self._policy.timeout * STALE_AFTER if stale is not None else 0.0,
            now + self._policy.timeout * ANSWER_WITHIN,
            self.zones.plan(zone, self._random),
        )
        self._lookups[question] = lookup
        if question.qtype == AAAA and self._policy.serialize:
            first = self._lookups.get(Question(question.name, A, question.do_cd))
            if first is not None and first.sibling is None:
                first.sibling = lookup
                lookup.held_until = now + self._policy.hold
                self._set_timer(lookup.held_until, lookup)
                return lookup
        self._ask_next(lookup, now)
        return lookup

    def _worth_prefetching(self, entry: Entry, now: float) -> bool:
        left = entry.expires_at - now
        return (
            self._policy.prefetch
            and entry.renders >= PREFETCH_USES
            and left <= max(1.0, entry.lifetime * PREFETCH_SHARE)
        )

    def _prefetch(self, query: Query, now: float) -> None:
        question = Question(query.name, query.qtype, query.do | (query.flags & CD) >> 3)
        zone = self.zones.find(query.name)
        if question in self._lookups or len(self._lookups) * 2 > MOST_LOOKUPS or zone is None:
            return
        failure = self.cache.failure(*_parts(question))
        if failure is not None and now < failure.expires_at:
            return
        self._counts[PREFETCHED.base] += 1
        self._start(question, query, zone, now)

    def _ask_next(self, lookup: Lookup, now: float) -> None:
        """Ask the next upstream of the plan whose turn has come; `next_at` says when the one after it is due."""
        plan = lookup.plan
        while plan and (plan[0] in lookup.refusing or lookup.asked.get(plan[0], 0) >= MOST_TRIES):
            plan.pop(0)
        if plan:
            upstream = plan[0]
            turn = self._turn(lookup, upstream)
            if now < turn:
                lookup.next_at = turn
            else:
                plan.pop(0)
                if lookup.tries:
                    self._counts[HEDGED.base] += 1
                self._ask(lookup, upstream, "udp", now, edns=now >= upstream.no_edns_until)
                following = next((u for u in plan if u not in lookup.refusing), None)
                if following is not None:
                    first = len(lookup.asked) == 1 and lookup.asked[upstream] == 1
                    wait = upstream.hedge_after() if first and following is not upstream else RETRY_AFTER
                    lookup.next_at = max(now + wait, self._turn(lookup, following))
        elif not lookup.tries:
            self._give_up(lookup, now)
            return
        self._set_timer(lookup.due(), lookup)

    def _turn(self, lookup: Lookup, upstream: Upstream) -> float:
        """When this upstream may be asked (again) for this question."""
        times = lookup.asked.get(upstream, 0)
        return lookup.asked_at[upstream] + RETRY_AFTER * 2 ** (times - 1) if times else 0.0

    def _ask(self, lookup: Lookup, upstream: Upstream, proto: str, now: float, *, edns: bool) -> None:
        do_cd = lookup.question.do_cd
        message = question_to_upstream(lookup.spelled, edns=edns, do=bool(do_cd & 1), cd=bool(do_cd & 2))
        attempt = Try(lookup, upstream, proto, message, edns, now)
        lookup.tries.append(attempt)
        if proto == "udp":
            lookup.asked[upstream] = lookup.asked.get(upstream, 0) + 1
            lookup.asked_at[upstream] = now
        self._set_timer(now + TRY_LIFETIME, attempt)
        self._actions.append(Ask(attempt))

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
            self._serve_stale(lookup, now)
        if lookup.plan and now >= lookup.next_at:
            self._ask_next(lookup, now)
        else:
            self._set_timer(lookup.due(), lookup)

    def _release(self, lookup: Lookup, released_by: str, now: float) -> None:
        """Let an AAAA go that waited for its A."""
        self._counts[HELD.slot(released_by)] += 1
        lookup.held_until = 0.0
        self._ask_next(lookup, now)

    # Answers from upstreams

    def _take_answer(self, attempt: Try, answer: Answer, now: float) -> None:
        lookup, upstream = attempt.lookup, attempt.upstream
        verdict = judge(answer, self._policy.max_ttl, self._policy.negative_max_ttl)
        if verdict.kind is Kind.FAILURE:
            if attempt.edns and answer.rcode in _NEEDS_NO_EDNS and not lookup.done:
                upstream.no_edns_until = now + NO_EDNS_FOR  # RFC 6891 7
                self._ask(lookup, upstream, attempt.proto, now, edns=False)
                return
            self._try_failed(attempt, _FAILING_RCODES.get(answer.rcode, "other_rcode"), now)
            return
        upstream.observe_answer(now - attempt.sent_at, now)
        if verdict.kind is Kind.TRUNCATED and not lookup.done:
            lookup.truncated = verdict
            if attempt.proto == "udp":
                self._ask(lookup, upstream, "tcp", now, edns=attempt.edns)
            else:
                self._try_failed(attempt, "malformed", now)
        elif verdict.kind is not Kind.TRUNCATED:
            self._answered(lookup, verdict, now)

    def _answered(self, lookup: Lookup, verdict: Verdict, now: float) -> None:
        """An answer is known: keep it and give it to everybody who waits. It may come after they were served."""
        question = lookup.question
        if verdict.kind is Kind.NXDOMAIN and question.qtype != A and not verdict.chained:
            verdict = self._same_verdict_as_a(question, verdict, now)
        if verdict.lifetime > 0 and (not lookup.done or self.cache.fresh(*_parts(question), now) is None):
            self.cache.store(*_parts(question), verdict, now)
        if lookup.done:
            return
        self._finish(lookup, now)
        self._reply_all(lookup, "upstream", verdict.sections, now)
        sibling = lookup.sibling
        if sibling is not None and sibling.held_until:
            if verdict.kind is Kind.NXDOMAIN:
                self._counts[HELD.slot("nxdomain")] += 1
                sibling.held_until = 0.0
                self._finish(sibling, now)
                self._reply_all(sibling, "upstream", verdict.sections, now)
            else:
                self._release(sibling, "answer", now)

    def _same_verdict_as_a(self, question: Question, verdict: Verdict, now: float) -> Verdict:
        """A name whose A is known to be there is not denied: stubs take the pair's verdicts together."""
        a_entry = self.cache.fresh(question.name, A, question.do_cd, now)
        if a_entry is None or a_entry.kind is Kind.NXDOMAIN:
            return verdict
        sections = verdict.sections
        nodata = Sections(sections.data, sections.counts, Rcode.NOERROR, sections.authentic)
        return Verdict(Kind.NODATA, verdict.lifetime, nodata, verdict.chained)

    def _try_failed(self, attempt: Try, reason: str, now: float) -> None:
        lookup, upstream = attempt.lookup, attempt.upstream
        self._counts[UPSTREAM_FAILED.slot(reason)] += 1
        self._observe_failure(upstream, now)
        if lookup.done:
            return
        lookup.refusing.add(upstream)
        self._ask_next(lookup, now)

    def _try_overdue(self, attempt: Try, now: float) -> None:
        if attempt.closed:
            return
        attempt.overdue = True
        if attempt.upstream.answered_at < attempt.sent_at:
            self._counts[UPSTREAM_FAILED.slot("timeout")] += 1
            self._observe_failure(attempt.upstream, now)
        if attempt.lookup.done:
            self._forget(attempt)

    def _observe_failure(self, upstream: Upstream, now: float) -> None:
        was_down = upstream.down
        upstream.observe_failure(now)
        if upstream.down and not was_down:
            self._set_timer(upstream.probe_at, upstream)

    # Ends of lookups

    def _give_up(self, lookup: Lookup, now: float) -> None:
        """Nobody answered: stale data, a truncated answer, NODATA where A is there, or else SERVFAIL."""
        question = lookup.question
        a_entry = None
        if question.qtype == AAAA:
            a_entry = self.cache.fresh(question.name, A, question.do_cd, now)
        a_is_there = a_entry is not None and a_entry.kind is Kind.POSITIVE
        if a_is_there and lookup.refusing and not lookup.asked_once_more and now < lookup.deadline:
            self._ask_once_more(lookup, now)
            return
        stale = self.cache.stale_entry(*_parts(question), now)
        self._remember_failure(lookup, stale, now)
        self._finish(lookup, now)
        if stale is not None:
            self._reply_stale(lookup, stale, now)
        elif lookup.truncated is not None:
            self._reply_all(lookup, "upstream", lookup.truncated.sections, now)
        elif a_is_there:
            # musl gives up the whole name when one half fails (field of stubs: "A good, AAAA SERVFAIL").
            self._reply_all(lookup, "error", _NOTHING, now)
        else:
            failed = Sections(b"", (0, 0, 0), Rcode.SERVFAIL, False)
            ede = Ede.NETWORK_ERROR if lookup.network_failed else Ede.NO_REACHABLE_AUTHORITY
            self._reply_all(lookup, "error", failed, now, ede=ede)
        sibling = lookup.sibling
        if sibling is not None and sibling.held_until:
            self._release(sibling, "failure", now)

    def _ask_once_more(self, lookup: Lookup, now: float) -> None:
        lookup.asked_once_more = True
        lookup.refusing.clear()
        upstream = self.zones.plan(lookup.zone, self._random)[0]
        self._ask(lookup, upstream, "udp", now, edns=now >= upstream.no_edns_until)
        self._set_timer(lookup.due(), lookup)

    def _remember_failure(self, lookup: Lookup, stale: Entry | None, now: float) -> None:
        parts = _parts(lookup.question)
        if self.cache.fresh(*parts, now) is not None:
            return  # a prefetch that failed: the data is still good, and is asked for again when it isn't
        if stale is not None:
            lifetime = STALE_RECHECK
        else:
            last = self.cache.failure(*parts)
            again = last is not None and now < last.expires_at + 2 * LONGEST_FAILURE_TTL
            lifetime = min(last.lifetime * 2, LONGEST_FAILURE_TTL) if last and again else FIRST_FAILURE_TTL
        self.cache.store_failure(*parts, _NOTHING, lifetime, now)

    def _finish(self, lookup: Lookup, now: float) -> None:
        lookup.done = True
        del self._lookups[lookup.question]
        for attempt in [t for t in lookup.tries if t.overdue]:
            self._forget(attempt)

    def _forget(self, attempt: Try) -> None:
        attempt.closed = True
        attempt.lookup.tries.remove(attempt)
        self._actions.append(Forget(attempt))

    def _serve_stale(self, lookup: Lookup, now: float) -> None:
        stale = self.cache.stale_entry(*_parts(lookup.question), now)
        lookup.stale_at = 0.0
        if stale is not None:
            self._reply_stale(lookup, stale, now)

    def _reply_stale(self, lookup: Lookup, stale: Entry, now: float) -> None:
        ede = Ede.STALE_NXDOMAIN if stale.kind is Kind.NXDOMAIN else Ede.STALE_ANSWER
        self._reply_all(lookup, "stale", stale.sections, now, ttl=STALE_TTL, ede=ede)

    def _reply_all(
        self,
        lookup: Lookup,
        source: str,
        sections: Sections,
        now: float,
        *,
        ttl: int | None = None,
        ede: Ede | None = None,
    ) -> None:
        waiters, lookup.waiters = lookup.waiters, {}
        for waiter in waiters.values():
            message = self._render(waiter.query, waiter.client, source, sections, ttl=ttl, ede=ede)
            REQUEST_SECONDS.observe(self._counts, now - waiter.arrived_at)
            self._actions.append(Reply(waiter.client, message))

    # Probes

    def _probe(self, upstream: Upstream) -> None:
        upstream.probing = True
        name = self.zones.probe_name(upstream, self._marker)
        message = question_to_upstream(name + b"\0\x01\0\x01", edns=False, do=False, cd=False)
        self._actions.append(Probe(upstream, message))

    def _probe_came_back(self, name: bytes) -> None:
        self._counts[LOOPED.base] += 1
        upstream = self.zones.probed(name)
        if upstream is not None:
            upstream.looping = True

    def _set_timer(self, when: float, item: Lookup | Try | Upstream) -> None:
        self._timer_number += 1
        heappush(self._timers, (when, self._timer_number, item))


def _parts(question: Question) -> tuple[bytes, int, int]:
    return question.name, question.qtype, question.do_cd
