"""What people are told of a status."""

from typing import Any

from proxy.control.text import findings


def status(**watch: Any) -> dict[str, Any]:
    return {
        "config": {"error": None},
        "dns": {"upstreams": []},
        "udp": [],
        "node": {"lease": {}},
        "watch": {"age_seconds": None, "error": None, "notes": [], **watch},
    }


def test_endpoints_that_are_known_have_their_age() -> None:
    assert findings(status(age_seconds=61.4, error="refused"), []) == ["endpoints are those of 61 s ago: refused"]


def test_endpoints_that_nobody_told_yet_have_no_age() -> None:
    assert findings(status(error="refused"), []) == ["no endpoints are known: refused"]
