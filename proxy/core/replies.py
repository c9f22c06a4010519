"""How answers look to a client, and how they are counted: the one place where a response is made."""

from proxy.core.cache import Entry
from proxy.core.counters import Counts, answered_slot
from proxy.core.lifetime import STALE_TTL, Kind
from proxy.core.message import (
    LARGEST_MESSAGE,
    Ede,
    Query,
    Rcode,
    Refusal,
    Sections,
    respond,
    respond_error,
    respond_refusal,
)
from proxy.core.pending import Client


class Replies:
    """Makes responses and adds them to the counters."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def answer(
        self,
        query: Query,
        client: Client,
        source: str,
        sections: Sections,
        *,
        age: int = 0,
        ttl: int | None = None,
        ede: Ede | None = None,
    ) -> bytes:
        """What is known, cut to what the client takes; `source` as in `counters.SOURCES`."""
        self._count(client, source, query.qtype, sections.rcode)
        limit = query.payload_size if client.proto == "udp" else LARGEST_MESSAGE
        return respond(query, sections, limit, age=age, ttl=ttl, ede=ede)

    def stale(self, query: Query, client: Client, entry: Entry) -> bytes:
        """Expired data under the TTL of RFC 8767 5, marked as what it is (RFC 8914 4.4, 4.20)."""
        ede = Ede.STALE_NXDOMAIN if entry.kind is Kind.NXDOMAIN else Ede.STALE_ANSWER
        return self.answer(query, client, "stale", entry.sections, ttl=STALE_TTL, ede=ede)

    def error(self, query: Query, client: Client, rcode: Rcode, ede: Ede, text: bytes = b"") -> bytes:
        """No data, and why."""
        self._count(client, "error", query.qtype, rcode)
        return respond_error(query, rcode, ede, text)

    def refusal(self, wire: bytes, refusal: Refusal, client: Client) -> bytes:
        """For a question that is none."""
        self._count(client, "error", 0 if refusal.query is None else refusal.query.qtype, refusal.rcode)
        return respond_refusal(wire, refusal)

    def _count(self, client: Client, source: str, qtype: int, rcode: int) -> None:
        self._counts[answered_slot(client.proto, source, qtype, rcode)] += 1
