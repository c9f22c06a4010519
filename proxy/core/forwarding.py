"""Asking upstreams: whom next and when, what a reply is worth, and who is unwell.

It knows lookups and upstreams but neither clients nor the cache; the resolver decides what an outcome means.
"""

from collections.abc import Callable, Iterable
from enum import Enum

from proxy.core.agenda import Agenda
from proxy.core.counters import HEDGED, LOOPED, REJECTED, UPSTREAM_FAILED, UPSTREAM_SECONDS, Counts
from proxy.core.lifetime import Kind, Verdict, judge
from proxy.core.message import IN, Answer, Malformed, Rcode, question_to_upstream, scan_answer
from proxy.core.pending import RETRY_AFTER, TRY_LIFETIME, Ask, Forget, Lookup, Probe, Try
from proxy.core.policy import DnsPolicy
from proxy.core.upstreams import NO_EDNS_FOR, Upstream
from proxy.core.zones import Zones

_FAILING_RCODES: dict[int, str] = {
    Rcode.SERVFAIL: "servfail",
    Rcode.REFUSED: "refused_rcode",
    Rcode.FORMERR: "formerr",
    Rcode.NOTIMP: "formerr",
}
_NEEDS_NO_EDNS = (Rcode.FORMERR, Rcode.NOTIMP, Rcode.BADVERS)


class Progress(Enum):
    """How a lookup stands after something arrived for it that was no answer."""

    REJECTED = "not acceptable as a reply: the try goes on"
    WAITING = "somebody may still answer"
    EXHAUSTED = "nobody is left who could answer"


class Forwarder:
    """Carries lookups to upstreams, try by try."""

    def __init__(
        self, policy: DnsPolicy, agenda: Agenda, counts: Counts, random: Callable[[], float], marker: bytes
    ) -> None:
        self._agenda = agenda
        self._counts = counts
        self._random = random
        self._marker = marker
        self._policy = policy
        self.zones = Zones(policy, None)

    def configure(self, policy: DnsPolicy, lookups: Iterable[Lookup]) -> None:
        """Take on a policy, keeping what is known of upstreams that stay.

        Lookups in flight whose upstreams are other ones now ask those when their next turn comes.
        """
        self._policy = policy
        before, self.zones = self.zones, Zones(policy, self.zones)
        for lookup in lookups:
            old, new = before.find(lookup.question.name), self.zones.find(lookup.question.name)
            if new is None or old is None:
                continue
            lookup.zone = new
            new.lookups += 1
            if (old.upstreams, old.fallback) != (new.upstreams, new.fallback):
                lookup.plan = self.zones.plan(new, self._random)
                self._agenda.look_at(lookup.due(), lookup)

    def ask_next(self, lookup: Lookup, now: float) -> Progress:
        """Ask the next upstream of the plan if its turn has come; `lookup.next_at` says when the next turn is."""
        plan = lookup.plan
        while plan and (plan[0] in lookup.refusing or not lookup.may_ask(plan[0], "udp")):
            plan.pop(0)
        if not plan:
            return Progress.WAITING if lookup.tries else Progress.EXHAUSTED
        turn = _turn(lookup, plan[0])
        if now < turn:
            lookup.next_at = turn
            return Progress.WAITING
        upstream = plan.pop(0)
        if lookup.tries:
            self._counts[HEDGED.base] += 1
        first = not lookup.asked
        self._ask(lookup, upstream, "udp", now, edns=now >= upstream.no_edns_until)
        following = next((u for u in plan if u not in lookup.refusing), None)
        if following is not None:
            patience = upstream.hedge_after() if first and following is not upstream else RETRY_AFTER
            lookup.next_at = max(now + patience, _turn(lookup, following))
        return Progress.WAITING

    def ask_once_more(self, lookup: Lookup, now: float) -> bool:
        """Ask somebody again who refused, as for an AAAA whose A is there; False if nobody has a try left."""
        if lookup.asked_once_more:
            return False
        lookup.asked_once_more = True
        plan = self.zones.plan(lookup.zone, self._random)
        upstream = next((u for u in plan if u in lookup.refusing and lookup.may_ask(u, "udp")), None)
        if upstream is None:
            return False
        lookup.refusing.clear()
        self._ask(lookup, upstream, "udp", now, edns=now >= upstream.no_edns_until)
        return True

    def receive_answer(self, attempt: Try, wire: bytes, now: float) -> Verdict | Progress:
        """A message from the try's upstream with its ID: an answer worth giving to clients, or how it stands."""
        answer = scan_answer(wire)
        if isinstance(answer, Malformed):
            reason = "malformed" if answer is Malformed.BROKEN else "not_a_response"
            self._counts[REJECTED.slot(reason)] += 1
            if attempt.proto == "tcp":  # nobody else can have written into that connection
                return self.receive_failure(attempt, "malformed", now)
            return Progress.REJECTED
        question = attempt.lookup.question
        if answer.name and (answer.name, answer.qtype, answer.qclass) != (question.name, question.qtype, IN):
            self._counts[REJECTED.slot("question")] += 1
            return Progress.REJECTED
        _close(attempt)
        UPSTREAM_SECONDS.observe(self._counts, now - attempt.sent_at)
        return self._take(attempt, answer, now)

    def receive_failure(self, attempt: Try, reason: str, now: float) -> Progress:
        """The try ended without a reply; `reason` is one of `UPSTREAM_FAILED`'s."""
        _close(attempt)
        attempt.lookup.network_failed = True
        return self._failed(attempt, reason, now)

    def overdue(self, attempt: Try, now: float) -> None:
        """The try has had its time. It stays open while its question does, but speaks against its upstream."""
        if attempt.closed:
            return
        attempt.overdue = True
        if attempt.upstream.answered_at < attempt.sent_at:
            self._counts[UPSTREAM_FAILED.slot("timeout")] += 1
            self._observe_failure(attempt.upstream, now)
        if attempt.lookup.done:
            self._forget(attempt)

    def finish(self, lookup: Lookup) -> None:
        """Nobody waits any more. Young tries stay open a while: a late answer still tells something."""
        for attempt in [t for t in lookup.tries if t.overdue]:
            self._forget(attempt)

    def probe(self, upstream: Upstream) -> None:
        """Ask a down upstream for a name that only this process would ask for."""
        if not upstream.down or upstream.probing or not self.zones.knows(upstream):
            return
        upstream.probing = True
        name = self.zones.probe_name(upstream, self._marker)
        message = question_to_upstream(name + b"\0\x01\0\x01", edns=False, do=False, cd=False)
        self._agenda.do(Probe(upstream, message))

    def receive_probe(self, upstream: Upstream, wire: bytes | None, now: float) -> None:
        """The reply to a probe, None for silence. Up is who can answer: SERVFAIL and REFUSED are no recovery."""
        upstream.probing = False
        answer = None if wire is None else scan_answer(wire)
        well = isinstance(answer, Answer) and answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN)
        if well and not upstream.looping:
            upstream.observe_recovery()
        elif upstream.down:
            upstream.looping = False
            upstream.observe_probe_failure(now)
            self._agenda.look_at(upstream.probe_at, upstream)

    def is_probe(self, name: bytes) -> bool:
        """Whether a client asks for a name of ours, so that an upstream must have sent it on to us (P29)."""
        if not name[1:].startswith(self._marker):
            return False
        self._counts[LOOPED.base] += 1
        upstream = self.zones.probed(name)
        if upstream is not None:
            upstream.looping = True
        return True

    def _ask(self, lookup: Lookup, upstream: Upstream, proto: str, now: float, *, edns: bool) -> None:
        do_cd = lookup.question.do_cd
        message = question_to_upstream(lookup.spelled, edns=edns, do=bool(do_cd & 1), cd=bool(do_cd & 2))
        attempt = Try(lookup, upstream, proto, message, edns, now)
        lookup.tries.append(attempt)
        lookup.asked[upstream, proto] = lookup.asked.get((upstream, proto), 0) + 1
        if proto == "udp":
            lookup.asked_at[upstream] = now
        self._agenda.look_at(now + TRY_LIFETIME, attempt)
        self._agenda.do(Ask(attempt))

    def _take(self, attempt: Try, answer: Answer, now: float) -> Verdict | Progress:
        lookup, upstream = attempt.lookup, attempt.upstream
        verdict = judge(answer, self._policy.max_ttl, self._policy.negative_max_ttl)
        if verdict.kind is Kind.FAILURE:
            again = not lookup.done and lookup.may_ask(upstream, attempt.proto)
            if attempt.edns and answer.rcode in _NEEDS_NO_EDNS and again:
                self._ask(lookup, upstream, attempt.proto, now, edns=False)  # RFC 6891 7
                return Progress.WAITING
            return self._refused(attempt, _FAILING_RCODES.get(answer.rcode, "other_rcode"), now)
        upstream.observe_answer(now - attempt.sent_at, now)
        if not attempt.edns:
            self._answered_without_edns(attempt, verdict, now)
        if verdict.kind is not Kind.TRUNCATED:
            return verdict
        lookup.truncated = verdict
        if attempt.proto == "tcp":
            return self._failed(attempt, "malformed", now)
        if lookup.done:
            return Progress.WAITING
        if not lookup.may_ask(upstream, "tcp"):
            return self._next_after_failure(attempt, now)
        self._ask(lookup, upstream, "tcp", now, edns=attempt.edns)
        return Progress.WAITING

    def _answered_without_edns(self, attempt: Try, verdict: Verdict, now: float) -> None:
        """Only success without EDNS shows that EDNS was what the upstream choked on."""
        if now >= attempt.upstream.no_edns_until:
            attempt.upstream.no_edns_until = now + NO_EDNS_FOR
        if attempt.lookup.question.do_cd & 1:
            verdict.lifetime = 0  # DO was never asked for, so it isn't what the entry for DO stands for

    def _refused(self, attempt: Try, reason: str, now: float) -> Progress:
        """A reply that says "not by me". One broken name must not take its upstream down: it counts once."""
        name = attempt.lookup.question.name
        known = name == attempt.upstream.refused_name
        attempt.upstream.refused_name = name
        return self._failed(attempt, reason, now, known=known)

    def _failed(self, attempt: Try, reason: str, now: float, *, known: bool = False) -> Progress:
        self._counts[UPSTREAM_FAILED.slot(reason)] += 1
        if not known and reason != "no_socket":  # that was for want of descriptors here
            self._observe_failure(attempt.upstream, now)
        return self._next_after_failure(attempt, now)

    def _next_after_failure(self, attempt: Try, now: float) -> Progress:
        lookup = attempt.lookup
        if lookup.done:
            return Progress.WAITING
        lookup.refusing.add(attempt.upstream)
        return self.ask_next(lookup, now)

    def _observe_failure(self, upstream: Upstream, now: float) -> None:
        was_down = upstream.down
        upstream.observe_failure(now)
        if upstream.down and not was_down:
            self._agenda.look_at(upstream.probe_at, upstream)

    def _forget(self, attempt: Try) -> None:
        _close(attempt)
        self._agenda.do(Forget(attempt))


def _turn(lookup: Lookup, upstream: Upstream) -> float:
    """When this upstream may be asked (again) for this question."""
    times = lookup.asked.get((upstream, "udp"), 0)
    return lookup.asked_at[upstream] + RETRY_AFTER * 2 ** (times - 1) if times else 0.0


def _close(attempt: Try) -> None:
    attempt.closed = True
    attempt.lookup.tries.remove(attempt)
