"""The addresses that Services have and had, and which stale flows are due for deletion, round after round."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from proxy.core.endpoint_choice import live
from proxy.core.endpoints import Service, ServicePort, Slice
from proxy.core.flows import ServiceAddress, StaleFlow, Untranslated

MOST_FORMER = 10_000
"""Endpoints that are remembered of one address; the oldest are forgotten."""

_Key = tuple[int, str, str]


def addresses_of(
    name: str, service: Service, slices: Sequence[Slice], untranslated: Untranslated = "leaves"
) -> Iterator[ServiceAddress]:
    """Each ClusterIP and UDP port of the Service `namespace/name`; `slices` are its own."""
    for port in service.ports:
        if port.protocol == "UDP":
            targets = live(slices, ServicePort(name, port.name))
            for ip in service.cluster_ips:
                host = f"[{ip}]" if ":" in ip else ip
                yield ServiceAddress(f"{host}:{port.number}", name, targets, untranslated)


class FormerServices:
    """Remembers whose an address was, so that flows of Services that are gone are still known as theirs."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[ServiceAddress, dict[str, None]]] = {}

    def with_former(self, now: Iterable[ServiceAddress], without_slices: Iterable[str]) -> list[ServiceAddress]:
        """Those of now, and those that were told before and are no more.

        Services without any slice count as gone: one that exists and has no endpoint has an empty slice. Only flows
        to endpoints that it had are judged then: its address may have gone to another Service.
        """
        lost = set(without_slices)
        current = [one for one in now if one.service not in lost]
        told = {one.address for one in current}
        for one in current:
            _, targets = self._seen.setdefault(one.address, (one, {}))
            for target in one.targets or ():
                targets.pop(target, None)
                targets[target] = None
            for oldest in list(targets)[: max(0, len(targets) - MOST_FORMER)]:
                del targets[oldest]
            self._seen[one.address] = one, targets
        gone = [
            replace(one, targets=frozenset(), gone=True, former=frozenset(targets))
            for address, (one, targets) in self._seen.items()
            if address not in told
        ]
        return current + gone


@dataclass(frozen=True, slots=True)
class Round:
    """What one look at the table means."""

    new: tuple[StaleFlow, ...]
    """Stale for the second time running, and never told before."""
    due: tuple[StaleFlow, ...]
    """To be deleted now."""
    deferred: int
    """Due, and left for the next round because of the limit."""


class Sweep:
    """Which flows may be deleted: those that two looks in a row found stale, and only so many a round.

    One look isn't enough: an endpoint may be known to kube-proxy a moment before it is known here.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._before: set[_Key] = set()
        self._told: set[_Key] = set()

    def next_round(self, found: Iterable[StaleFlow]) -> Round:
        """Take what a look found."""
        stale = {_key(one): one for one in found}
        confirmed = [one for key, one in stale.items() if key in self._before]
        new = tuple(one for one in confirmed if _key(one) not in self._told)
        self._before = set(stale)
        self._told = {key for key in self._told if key in stale} | {_key(one) for one in new}
        return Round(new, tuple(confirmed[: self._most]), max(0, len(confirmed) - self._most))

    def forget(self) -> None:
        """There was no look: what comes next is a first one again."""
        self._before.clear()


def _key(stale: StaleFlow) -> _Key:
    return stale.flow.id, stale.flow.source, stale.flow.destination
