"""What each relay would make of one StatsD line (`sidestep explain --statsd LINE`); sends nothing."""

from collections.abc import Sequence
from typing import Any

from proxy.core.spread import Spread, slot_of
from proxy.core.statsd import key, read


def explain_line(text: str, relays: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each of `relays` (as in `/status.json`) its name, the steps, and the endpoint if one alone gets it."""
    return [{"name": relay["name"], **_explained(text, relay)} for relay in relays]


def _explained(text: str, relay: dict[str, Any]) -> dict[str, Any]:
    if relay["mode"] != "statsd":
        return {"steps": ["it is in datagram mode: nothing in a datagram decides where it goes"], "endpoint": None}
    raw = text.encode(errors="surrogateescape")
    line = read(raw)
    if line is None:
        return {"steps": ["malformed: dropped and counted; a line is NAME:VALUE|TYPE"], "endpoint": None}
    steps = [f"a {line.kind}: name {_shown(line.name)}, value {_shown(line.value)}, then {_shown(line.suffix)}"]
    usable = [one["address"] for one in relay["endpoints"] if one["state"] in ("ready", "serving")]
    if not usable:
        return {"steps": [*steps, "no endpoint is usable: folded until there is one"], "endpoint": None}
    steps.append(f"usable endpoints: {', '.join(usable)}")
    endpoint = None
    match relay["spread"]:
        case "name" | "name+tags" as spread:
            spread_by = key(line, tags=spread == "name+tags")
            endpoint = _owner(spread_by, usable)
            steps.append(f"by {spread}, key {_shown(spread_by)}: to {endpoint}")
        case "source":
            steps.append("by source: the client's IP decides")
        case "packet":
            steps.append("by packet: any of them, anew for each datagram")
        case _:
            steps.append("to all of them")
    limits = {one["address"]: one["limit_bytes"] for one in relay["endpoints"]}
    limit = limits.get(endpoint) if endpoint else min((limits[one] or 0 for one in usable), default=None)
    if limit and len(raw) > limit:
        steps.append(f"oversize: {len(raw)} bytes, of which the path takes {limit}; dropped and counted")
        endpoint = None
    return {"steps": steps, "endpoint": endpoint}


def _owner(spread_by: bytes, usable: Sequence[str]) -> str:
    spread: Spread[str] = Spread()
    spread.change({address: address for address in usable})
    return spread.pick(slot_of(spread_by))


def _shown(raw: bytes) -> str:
    return repr(raw.decode(errors="backslashreplace"))
