"""What would be done to the node's kernel, as a value: the table's transaction, addresses, conntrack entries.

Wanted state and present state go in; nothing here reads or changes anything.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.node.table import TABLE, Mode, NodeListener, Present, Table, table, transaction

NODELOCAL_LINK = "nodelocaldns"
"""NodeLocal DNSCache's interface: it goes away with NodeLocal, so an address there has to be ours as well."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address of this machine, as the kernel has it or should."""

    ip: str
    interface: str
    ours: bool = True
    """We added it, so we may take it away."""
    up: bool = True
    """The interface is; while it is down the address receives nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from the present state to the wanted one; the order is that of the fields."""

    table: Table | None
    """None: there is to be no table."""
    transaction: str
    """Empty if the table is as wanted."""
    add: tuple[Address, ...]
    untrack: tuple[str, ...]
    """`ip:port` of UDP listeners, to which conntrack may have entries without DNAT: those are to be deleted."""
    remove: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The present state as it was read."""

    table: Present | None
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted state: `interface` holds what is added, `lease` is in seconds, `run` is who wants it."""

    listeners: tuple[NodeListener, ...]
    mode: Mode
    lease: float
    interface: str
    run: str
    asking_user: int | None = None
    """The user id of our workers."""
    leaving: tuple[NodeListener, ...] = ()
    """Listeners of before whose sockets may still be open."""


def plan(wanted: Wanted, found: Found, fingerprint: str = "") -> Plan:
    """What to do. `fingerprint` is what the table had when this run last wrote it."""
    listeners = [one for one in wanted.listeners if one.leasable]
    leaving = [one for one in wanted.leaving if one.leasable]
    known = [*listeners, *leaving]
    present = found.table
    made = table(known, wanted.mode, wanted.lease, wanted.asking_user, leaving) if known else None
    if made is None:
        change = f"delete table {TABLE}\n" if present is not None else ""
    elif present is not None and _unchanged(present, made, wanted.run, fingerprint):
        change = ""
    else:
        change = transaction(made, present, wanted.run)
    here = _here(found)
    missing = {
        one.ip: Address(one.ip, one.interface or wanted.interface) for one in listeners if _addable(one, wanted)
    }
    kept = {one.ip for one in known}
    return Plan(
        made,
        change,
        tuple(address for ip, address in missing.items() if ip not in here),
        tuple(dict.fromkeys(one.address for one in known if one.transport == "udp" and not one.of_one_link)),
        tuple(address for address in found.addresses if address.ours and address.ip not in kept),
    )


def beginning(wanted: Wanted, present: Present | None) -> str:
    """The transaction before the first where there is no table of ours: no packet to our own addresses is tracked.

    The kernel takes the hooks of a transaction into use before its rules, and with the first one for NAT it begins to
    track: without this, a flow could be tracked that finds no DNAT. A Service's packets have kube-proxy's. Empty if
    it is not needed: rules that a stop left translate, and must go on doing so until the next ones are there.
    """
    ours = present is not None and not present.other and present.chains
    untracked = [replace(one, fallback=()) for one in staying(wanted.listeners)]
    if ours or not untracked:
        return ""
    return transaction(table(untracked, wanted.mode, wanted.lease, wanted.asking_user), present, wanted.run)


def _unchanged(present: Present, made: Table, run: str, fingerprint: str) -> bool:
    return (present.run, present.digest, present.fingerprint) == (run, made.digest, fingerprint) and not present.other


def _here(found: Found) -> set[str]:
    return {address.ip for address in found.addresses if address.up and address.interface != NODELOCAL_LINK}


def _addable(listener: NodeListener, wanted: Wanted) -> bool:
    """A link-local IPv6 address is its interface's: on another one than ours it must be there."""
    return listener.interface in ("", wanted.interface)


def staying(listeners: Sequence[NodeListener]) -> tuple[NodeListener, ...]:
    """Those whose address and fallback outlive a clean stop: pods name it, and no Service has it."""
    return tuple(one for one in listeners if one.leasable and not one.service)


def drift(wanted: Wanted, found: Found, fingerprint: str) -> dict[str, list[str]]:
    """What is no longer as this run left it, by `table` and `address`; empty values where nothing is."""
    listeners = [one for one in wanted.listeners if one.leasable]
    table_trouble = []
    if listeners and found.table is None:
        table_trouble.append(f"the table {TABLE} is gone")
    elif listeners and found.table is not None and found.table.fingerprint != fingerprint:
        table_trouble.append(f"the table {TABLE} was changed")
    here = _here(found)
    gone = dict.fromkeys(one.ip for one in listeners if one.ip not in here and _addable(one, wanted))
    return {"table": table_trouble, "address": [f"the address {ip} is gone" for ip in gone]}


def things_that_stay(wanted: Wanted, found: Found, our_links: Collection[str]) -> list[str]:
    """What is still there after a clean stop, each by its name; `our_links` are those that we made or would make."""
    own = staying(wanted.listeners)
    others = {one.ip for one in found.addresses if not one.ours and one.interface != NODELOCAL_LINK}
    added = dict.fromkeys(one.ip for one in own if one.ip not in others and _addable(one, wanted))
    on = {one.ip: one.interface for one in found.addresses if one.ours}
    links = dict.fromkeys(on.get(ip, wanted.interface) for ip in added)
    stay = [f"address {ip}" for ip in added]
    if own:
        stay.append(f"table {TABLE}")
    return stay + [f"link {link}" for link in links if link in our_links]


def as_text(wanted: Wanted, found: Found, planned: Plan, stay: Sequence[str]) -> Iterator[str]:
    """Lines for people."""
    for address in planned.add:
        yield f"add address {address.ip} to {address.interface}"
    for address in planned.remove:
        yield f"remove address {address.ip} from {address.interface}"
    for listener in wanted.listeners:
        yield f"listener {listener.name}: {_fate(listener)}"
    if planned.table is None:
        yield f"no table {TABLE}"
    elif _as_wanted(found, planned):
        yield f"table {TABLE} is there as wanted; a start writes the same again"
    else:
        what = "is replaced" if found.table is not None else "is made"
        yield f"table {TABLE} {what}, in one transaction:"
        yield from (f"    {line}" for line in planned.transaction.splitlines())
    for untracked in planned.untrack:
        yield f"delete conntrack entries to {untracked} that have no DNAT"
    for thing in stay:
        yield f"stays after a stop: {thing}"


def as_json(wanted: Wanted, found: Found, planned: Plan, stay: Sequence[str]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "table": {
            "name": TABLE,
            "present": found.table is not None,
            "as_wanted": _as_wanted(found, planned),
            "transaction": planned.transaction.splitlines(),
        },
        "addresses": {
            "add": [{"address": one.ip, "interface": one.interface} for one in planned.add],
            "remove": [{"address": one.ip, "interface": one.interface} for one in planned.remove],
        },
        "conntrack": list(planned.untrack),
        "listeners": [
            {"listener": one.name, "service": one.service, "fallback": list(one.endpoints), "lease": one.leasable}
            for one in wanted.listeners
        ],
        "stays": list(stay),
    }


def _as_wanted(found: Found, planned: Plan) -> bool:
    return (
        found.table is not None
        and planned.table is not None
        and not found.table.other
        and found.table.digest == planned.table.digest
    )


def _fate(listener: NodeListener) -> str:
    if not listener.leasable:
        return "no lease, the kernel can't send a wildcard's or loopback's packets elsewhere"
    if listener.endpoints:
        to = ", ".join(listener.endpoints)
        return f"without lease to {'kube-proxy, or if it has no rule to ' if listener.service else ''}{to}"
    return (
        "without lease to kube-proxy" if listener.service else "no lease is needed, no endpoint could take its place"
    )
