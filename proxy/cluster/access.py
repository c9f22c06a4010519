"""How the API server is reached, as a value: as a pod does, by the settings, or as a kubeconfig says.

It describes and never connects. What rotates stays a path, so that whoever connects reads it each time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class AccessError(ValueError):
    """What is given doesn't say how to reach an API server; the text names the file or setting, and what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is, what it is trusted by, and what is shown to it. Of a file and data only one is set."""

    server: str
    """`https://host:port` and maybe a path, without a slash at its end."""
    token_file: Path | None = None
    token: str = field(default="", repr=False)
    ca_file: Path | None = None
    """PEM certificates; with no `ca_data` either, those that the system trusts count."""
    ca_data: str = ""
    client_cert_file: Path | None = None
    client_cert_data: str = ""
    client_key_file: Path | None = None
    client_key_data: str = field(default="", repr=False)
    verify: bool = True
    """False: any certificate is taken."""
    server_name: str = ""
    """The name that the server's certificate must hold; empty for the host of `server`."""

    def describe(self) -> str:
        """The server and what is shown to it, on one line and without a secret."""
        if self.token_file:
            shows = f"the token in {self.token_file}"
        elif self.token:
            shows = "a token"
        elif self.client_cert_file or self.client_cert_data:
            shows = "a client certificate"
        else:
            shows = "no credentials"
        return f"{self.server} with {shows}" + ("" if self.verify else ", its certificate unchecked")


def in_cluster(environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> Access:
    """As a pod reaches it: the address from its environment, token and CA from its service account's volume."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        missing = "KUBERNETES_SERVICE_PORT" if host else "KUBERNETES_SERVICE_HOST"
        raise AccessError(
            f"{missing} is not in the environment, so this is no pod; set kubernetes.kubeconfig or "
            "kubernetes.server, or give the endpoints in endpoints_file"
        )
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(
        checked_server(server, "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT"),
        token_file=account / "token",
        ca_file=account / "ca.crt",
    )


def from_settings(server: str, token_file: str | None = None, ca_file: str | None = None) -> Access:
    """As the section `kubernetes` says; the CA only counts for https."""
    return Access(
        checked_server(server, "kubernetes.server"),
        token_file=Path(token_file) if token_file else None,
        ca_file=Path(ca_file) if ca_file else None,
    )


def checked_server(url: str, where: str) -> str:
    """The URL without a slash at its end. Raises AccessError, which begins with `where`."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("https", "http") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        right = False
    if not right:
        found = "a URL with a password" if "@" in url else repr(url[:200])
        raise AccessError(f"{where}: found {found}; allowed is a URL such as https://192.0.2.1:6443")
    if parts.username is not None or parts.query or parts.fragment:
        raise AccessError(f"{where}: found more than scheme, host, port and path in the URL; leave the rest out")
    return url.rstrip("/")
