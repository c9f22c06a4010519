"""Configurations for the tests, and what `parse` says about them."""

from proxy.settings import SettingsError, parse

EXAMPLE = """\
dns:
  listen: ["169.254.20.10:53", "10.96.0.10:53"]
  zones:
    - suffix: cluster.local
      upstreams: {service: kube-system/kube-dns, port: dns}
      fallback: ["10.96.0.10:53"]
    - suffix: .
      upstreams: ["192.0.2.1:53", "192.0.2.2:53"]
  cache: {size: 32MiB, max_ttl: 1h, negative_max_ttl: 30s, stale: 1d, prefetch: true}
  timeout: 2s
  serialize: {enabled: true, hold: 250ms}
udp:
  - name: statsd
    listen: ["169.254.20.10:8125"]
    service: monitoring/statsd
    port: statsd
    mode: statsd
    spread: name
    fold: {size: 8MiB, age: 10m}
kubernetes: {server: null, token_file: null, ca_file: null}
endpoints_file: null
node: {manage: true, interface: sidestep0, lease: 500ms, probe: 100ms}
workers: {dns: 1, relay: 1}
admin: {listen: "127.0.0.1:9253", socket: /run/sidestep/admin.sock}
"""
"""Every section, with the defaults where there are any."""


def problems(text: str) -> list[str]:
    """What is wrong with the text, as `LINE:COLUMN: KEY: reason`."""
    try:
        parse(text, "x")
    except SettingsError as error:
        return [str(problem).removeprefix("x:") for problem in error.problems]
    return []


def problem(text: str) -> str:
    """The only thing that is wrong with the text."""
    (only,) = problems(text)
    return only


def reason(text: str) -> str:
    """The same without its place and key."""
    return problem(text).split(": ", 2)[2]
