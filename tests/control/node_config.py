"""A configuration for the node of `tests.node.network`: our own address, a Service's and loopback."""

from pathlib import Path

CONFIG = """
dns:
  listen: ["169.254.20.10:53", "10.96.0.10:53", "127.0.0.1:53"]
  zones:
    - suffix: .
      upstreams: {{service: kube-system/kube-dns, port: 53}}
      fallback: ["10.96.0.10:53"]
endpoints_file: {endpoints}
node: {{lease: 300ms, probe: 50ms}}
admin: {{listen: "127.0.0.1:9253", socket: {directory}/sidestep/admin.sock}}
"""
ENDPOINTS = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}]
endpoints: [{addresses: [10.244.1.2], conditions: {ready: true}}]
"""


def write(directory: Path) -> Path:
    """The configuration's file, beside that of its endpoints."""
    (directory / "endpoints.yaml").write_text(ENDPOINTS)
    file = directory / "sidestep.yaml"
    file.write_text(CONFIG.format(endpoints=directory / "endpoints.yaml", directory=directory))
    return file
