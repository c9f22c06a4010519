"""A and AAAA of one name: whether one has to wait for the other, and how their verdicts are kept alike.

Stubs take the two answers together: musl gives up a name when one half fails or denies it.
"""

from proxy.core.cache import Cache
from proxy.core.lifetime import Kind, Verdict
from proxy.core.message import AAAA, A, Rcode, Sections
from proxy.core.pending import Lookup, Question


class Pairs:
    """Reads the lookups in flight and the cache; decides nothing but what the pair has to do with it."""

    def __init__(self, lookups: dict[Question, Lookup], cache: Cache) -> None:
        self._lookups = lookups
        self._cache = cache

    def a_said(self, lookup: Lookup, now: float) -> Kind | None:
        """What is known of the A beside an AAAA, from its own answer or the cache; None for nothing."""
        if lookup.a_said is None:
            entry = self._cache.fresh(lookup.question.name, A, lookup.question.do_cd, now)
            return None if entry is None else entry.kind
        return lookup.a_said

    def a_is_there(self, question: Question, now: float) -> bool:
        """Whether whoever asks for the A beside this AAAA gets an address, be it a stale one."""
        if question.qtype != AAAA:
            return False
        entry = self._cache.stale_entry(question.name, A, question.do_cd, now)
        return entry is not None and entry.kind is Kind.POSITIVE

    def depends_on_a(self, lookup: Lookup, now: float) -> bool:
        """Whether this is an AAAA whose A is in flight, with nothing known of it yet."""
        question = lookup.question
        if question.qtype != AAAA or Question(question.name, A, question.do_cd) not in self._lookups:
            return False
        return self.a_said(lookup, now) is None

    def aaaa_of(self, lookup: Lookup) -> Lookup | None:
        """The AAAA in flight beside an A."""
        question = lookup.question
        return self._lookups.get(Question(question.name, AAAA, question.do_cd)) if question.qtype == A else None

    def withheld(self, lookup: Lookup) -> Verdict | None:
        """The NXDOMAIN that this AAAA, or the AAAA beside this A, has waited with."""
        pair = self.aaaa_of(lookup) if lookup.question.qtype == A else lookup
        return None if pair is None else pair.withheld

    def same_verdict(self, lookup: Lookup, verdict: Verdict, now: float) -> Verdict:
        """A name whose A is known to be there is not denied: its NXDOMAIN becomes NODATA with the same SOA."""
        if self.a_said(lookup, now) in (None, Kind.NXDOMAIN):
            return verdict
        sections = verdict.sections
        nodata = Sections(sections.data, sections.counts, Rcode.NOERROR, sections.authentic)
        return Verdict(Kind.NODATA, verdict.lifetime, nodata, verdict.chained)
