"""The JSON Schema takes what `parse` takes, refuses what it can refuse, and the documentation agrees with both."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.settings import Settings, SettingsError, default_settings, json_schema, parse
from proxy.settings.kinds import Section
from tests.settings.texts import EXAMPLE

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def violations(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """The part of JSON Schema that ours uses."""
    assert schema.keys() <= {
        *("$schema", "$comment", "title", "description", "default", "type", "enum", "oneOf", "pattern", "minimum"),
        *("maximum", "minItems", "maxItems", "items", "properties", "required", "additionalProperties"),
    }
    kind = schema.get("type")
    if kind == "integer":
        right = isinstance(value, int) and not isinstance(value, bool)
    else:
        right = kind is None or isinstance(value, TYPES[kind])
    if not right:
        yield f"{path}: no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not one of {schema['enum']}"
    if "oneOf" in schema:
        fits = [one for one in schema["oneOf"] if not list(violations(value, one, path))]
        if len(fits) != 1:
            yield f"{path}: fits {len(fits)} of {len(schema['oneOf'])}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{path}: doesn't match"
    if kind == "integer" and not schema["minimum"] <= value <= schema["maximum"]:
        yield f"{path}: out of bounds"
    if kind == "array":
        if not schema["minItems"] <= len(value) <= schema["maxItems"]:
            yield f"{path}: too short or too long"
        for index, item in enumerate(value):
            yield from violations(item, schema["items"], f"{path}[{index}]")
    if kind == "object":
        yield from (f"{path}.{name}: missing" for name in schema.get("required", []) if name not in value)
        for name, item in value.items():
            if name in schema["properties"]:
                yield from violations(item, schema["properties"][name], f"{path}.{name}")
            else:
                yield f"{path}.{name}: unknown"


def sections(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key with its dotted path."""
    for name, below in schema.get("properties", {}).items():
        yield f"{path}{name}", below
        yield from sections(below, f"{path}{name}.")
        yield from sections(below.get("items", {}), f"{path}{name}[].")


def test_it_takes_every_section():
    assert list(violations(yaml.safe_load(EXAMPLE), json_schema())) == []


@pytest.mark.parametrize("settings", [default_settings(), parse(EXAMPLE)])
def test_it_takes_every_default(settings):
    assert list(violations(Section(Settings).plain(settings), json_schema())) == []


def test_it_has_defaults_that_it_takes_itself():
    for path, schema in sections(json_schema()):
        if "default" in schema:
            assert list(violations(schema["default"], schema, path)) == []


def test_it_describes_every_key():
    assert all(schema["description"].endswith(".") for _, schema in sections(json_schema()))


@pytest.mark.parametrize(
    "text",
    [
        "dnss: {}",
        "dns: []",
        "dns: {timeout: 2}",
        "dns: {timeout: 2 s}",
        "dns: {cache: {size: 32MB}}",
        "dns: {cache: {prefetch: 1}}",
        "dns: {listen: [localhost]}",
        "dns: {listen: [127.0.0.1]}",
        "dns: {listen: []}",
        "dns: {zones: [{suffix: .}]}",
        "dns: {zones: [{suffix: ., upstreams: {}}]}",
        "dns: {zones: [{suffix: ., upstreams: [example.com]}]}",
        "dns: {zones: [{suffix: ., upstreams: {service: x, port: 1}}]}",
        "workers: {dns: 0}",
        'udp: [{name: x, listen: ["[::1]:1"], spread: tags}]',
        'udp: [{name: x, listen: ["[::1]:1"], port: "1"}]',
    ],
)
def test_it_refuses_what_one_key_shows_to_be_wrong(text):
    assert list(violations(yaml.safe_load(text), json_schema()))


def test_it_is_documented_key_by_key_with_default_and_limits():
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    documented = {line.split("`")[1]: line for line in rows}
    for path, schema in sections(json_schema()):
        if "properties" in schema or ("items" in schema and "properties" in schema["items"]):
            continue
        assert path in documented, path
        if "$comment" in schema:
            least, most = re.match(r"(\S+) to ([^ ,]+)", schema["$comment"]).groups()
            assert f"{least} to {most}" in documented[path], path
        if isinstance(schema.get("default"), str | int | bool):
            assert f"`{yaml.safe_dump(schema['default']).split()[0]}`" in documented[path], path


WRONG = """\
dns:
  listn: ["127.0.0.1:5300"]
  max_ttl: 1h
  timeout: 2
  zones:
    - suffix: .
      upstreams: ["192.0.2.1:99999", "127.0.0.1:5300"]
    - suffix: cluster.local
      upstreams: {service: kube-dns, port: dns}
  cache: {size: 32MB}
workers: {dns: 0}
workers: {}
"""


def test_it_prints_the_errors_that_its_documentation_shows():
    with pytest.raises(SettingsError) as caught:
        parse(WRONG, "sidestep.yaml")
    assert f"```\n{caught.value}\n```" in DOCUMENT.read_text()


def test_it_has_examples_in_its_documentation_that_are_right():
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        parse(block)
