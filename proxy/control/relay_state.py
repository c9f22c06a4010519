"""What a run knows of its relays, for `/status.json`: endpoints with their states, ledgers, folded values."""

from collections.abc import Iterator
from typing import Any

from proxy.control.endpoints import Endpoints
from proxy.control.kernel_drops import kernel_drops_of
from proxy.control.relay_workers import RelayWorkers
from proxy.core import ledger
from proxy.settings import Settings, wanted_by

MOST_FOLDED = 100
"""Folded values that a status shows, the newest."""


def status(settings: Settings, workers: RelayWorkers, endpoints: Endpoints) -> list[dict[str, Any]]:
    """One entry per relay, in the order of the configuration."""
    return list(_statuses(settings, workers, endpoints))


def ledger_of(counts: list[int]) -> dict[str, Any]:
    """The block as `/status.json` has it; reasons that dropped nothing are left out.

    Lines that a worker has in hand at this moment count as received once they have ended somewhere.
    """
    dropped = {reason: counts[offset] for reason, offset in ledger.DROPPED.items() if counts[offset]}
    return {
        "received": counts[ledger.RECEIVED] - ledger.unaccounted(counts),
        "forwarded": counts[ledger.FORWARDED],
        "folded": counts[ledger.FOLDED],
        "dropped": dropped,
    }


def _statuses(settings: Settings, workers: RelayWorkers, endpoints: Endpoints) -> Iterator[dict[str, Any]]:
    drops = kernel_drops_of(workers.sockets)
    for relay in settings.udp:
        counts = workers.ledger(relay.name)
        states = workers.states(relay.name)
        wanted = wanted_by(relay)
        ejected = {address for state in states for address in state.ejected}
        limits = {address: limit for state in states for address, limit in state.limits.items()}
        folded = [value for state in states for value in state.folded][-MOST_FOLDED:]
        yield {
            "name": relay.name,
            "mode": relay.mode,
            "spread": relay.spread_by,
            "listen": list(relay.listen),
            "service": relay.service,
            "port": relay.port,
            "endpoints": [
                {
                    "address": endpoint.address,
                    "state": "ejected" if endpoint.address in ejected else endpoint.state,
                    "limit_bytes": limits.get(endpoint.address),
                }
                for endpoint in (endpoints.of(wanted) if wanted else ())
            ],
            "ledger": ledger_of(counts),
            "counts": {name: counts[offset] for name, offset in ledger.COUNTED.items()},
            "sessions": counts[ledger.LEVEL["sessions"]],
            "fold": {
                "lines": counts[ledger.LEVEL["fold_lines"]],
                "bytes": counts[ledger.LEVEL["fold_bytes"]],
                "values": [
                    {
                        "name": value.name,
                        "kind": value.kind,
                        "value": value.value,
                        "suffix": value.suffix,
                        "lines": value.lines,
                    }
                    for value in folded
                ],
            },
            "malformed": [line for state in states for line in state.malformed],
            "kernel_drops": {address: drops[address] for address in relay.listen if address in drops},
        }
