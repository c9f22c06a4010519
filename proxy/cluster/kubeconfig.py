"""What a kubeconfig says of its current context, as an `Access`; what this proxy can't do is refused by name."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from proxy.cluster.access import Access, AccessError, checked_server
from proxy.documents.files import SettingsUnreadable, read_text
from proxy.documents.reader import Reading, SettingsError
from proxy.documents.values import PlainValues

MOST_BYTES = 1024 * 1024
_UNSUPPORTED_CLUSTER = {
    "proxy-url": "the API server is reached without a proxy; name a server that this node reaches itself",
}
_A_TOKEN = "give this proxy a service account and its token (token or tokenFile)"
_UNSUPPORTED_USER = {
    "exec": f"no program is run for credentials; {_A_TOKEN}",
    "auth-provider": f"auth providers are not supported; {_A_TOKEN}",
    "username": f"the API server has no passwords since Kubernetes 1.19; {_A_TOKEN}",
    "password": f"the API server has no passwords since Kubernetes 1.19; {_A_TOKEN}",
    "as": f"nobody is impersonated; {_A_TOKEN}",
}


def from_kubeconfig(path: str | Path) -> Access:
    """The access of its current context. Raises AccessError with the file, the key and what to do."""
    return _Kubeconfig(Path(path)).access()


class _Kubeconfig:
    def __init__(self, path: Path) -> None:
        self._path = path

    def access(self) -> Access:
        content = self._load()
        chosen = self._text(content, "current-context", "")
        if not chosen:
            raise self._wrong("current-context", "missing; set it: kubectl config use-context NAME")
        context, key = self._named(content, "contexts", "context", chosen, "current-context")
        cluster, in_cluster = self._named(
            content, "clusters", "cluster", self._text(context, "cluster", key), f"{key}.cluster"
        )
        user: Mapping[str, Any] = {}
        in_user = ""
        if name := self._text(context, "user", key):
            user, in_user = self._named(content, "users", "user", name, f"{key}.user")
        self._refuse(cluster, in_cluster, _UNSUPPORTED_CLUSTER)
        self._refuse(user, in_user, _UNSUPPORTED_USER)
        server = self._text(cluster, "server", in_cluster)
        if not server:
            raise self._wrong(f"{in_cluster}.server", "missing; write the URL of the API server")
        ca_file, ca_data = self._pem(cluster, "certificate-authority", in_cluster)
        cert_file, cert_data = self._pem(user, "client-certificate", in_user)
        key_file, key_data = self._pem(user, "client-key", in_user)
        has_cert, has_key = bool(cert_file or cert_data), bool(key_file or key_data)
        if has_cert != has_key:
            missing = "client-key" if has_cert else "client-certificate"
            raise self._wrong(f"{in_user}.{missing}", "missing; certificate and key go together")
        insecure = cluster.get("insecure-skip-tls-verify") or False
        if not isinstance(insecure, bool):
            raise self._wrong(f"{in_cluster}.insecure-skip-tls-verify", "allowed are true and false")
        if insecure and (ca_file or ca_data):
            raise self._wrong(
                f"{in_cluster}.insecure-skip-tls-verify", "found it beside certificate-authority; leave one out"
            )
        token_file = self._text(user, "tokenFile", in_user)
        return Access(
            checked_server(server, f"{self._path}: {in_cluster}.server"),
            token_file=self._beside(token_file) if token_file else None,
            # As for kubectl, the file wins.
            token="" if token_file else self._text(user, "token", in_user),
            ca_file=ca_file,
            ca_data=ca_data,
            client_cert_file=cert_file,
            client_cert_data=cert_data,
            client_key_file=key_file,
            client_key_data=key_data,
            verify=not insecure,
            server_name=self._text(cluster, "tls-server-name", in_cluster),
        )

    def _load(self) -> Mapping[str, Any]:
        reading = Reading(str(self._path))
        try:
            text = read_text(self._path, "check kubernetes.kubeconfig", MOST_BYTES)
            content = _from_json(text)
            if content is None:
                documents = reading.stream(text)
                content = PlainValues(reading).of(documents[0], "") if documents else None
            if reading.problems:
                raise SettingsError(reading.problems)
        except SettingsUnreadable as error:
            raise AccessError(str(error)) from error
        except SettingsError as error:
            raise AccessError(str(error.problems[0])) from None
        if not isinstance(content, dict):
            raise AccessError(f"{self._path}: this is no kubeconfig; name a file such as ~/.kube/config")
        return content

    def _named(
        self, content: Mapping[str, Any], kind: str, inner: str, name: str, asked_by: str
    ) -> tuple[Mapping[str, Any], str]:
        """The entry of this name in one of the lists, and its key for errors."""
        entries = content.get(kind) or []
        if not isinstance(entries, list):
            raise self._wrong(kind, "allowed is a list")
        for index, entry in enumerate(entries):
            if isinstance(entry, dict) and entry.get("name") == name:
                found = entry.get(inner) or {}
                key = f"{kind}[{index}].{inner}"
                if not isinstance(found, dict):
                    raise self._wrong(key, "allowed is a mapping")
                return found, key
        raise self._wrong(asked_by, f"found {name[:100]!r}, and no entry of {kind} has that name")

    def _text(self, mapping: Mapping[str, Any], name: str, within: str) -> str:
        value = mapping.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(f"{within}.{name}" if within else name, "allowed is text; write it in quotes")
        return value

    def _pem(self, mapping: Mapping[str, Any], name: str, within: str) -> tuple[Path | None, str]:
        """The file or the data of this name; as for kubectl, data wins."""
        encoded = self._text(mapping, f"{name}-data", within)
        if not encoded:
            file = self._text(mapping, name, within)
            return (self._beside(file) if file else None), ""
        try:
            pem = base64.b64decode("".join(encoded.split()), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            pem = ""
        if "-----BEGIN " not in pem:
            raise self._wrong(f"{within}.{name}-data", "this is no base64 of a PEM text")
        return None, pem

    def _beside(self, file: str) -> Path:
        return self._path.parent / file

    def _refuse(self, mapping: Mapping[str, Any], within: str, unsupported: Mapping[str, str]) -> None:
        for name, reason in unsupported.items():
            if mapping.get(name):
                raise self._wrong(f"{within}.{name}", reason)

    def _wrong(self, key: str, reason: str) -> AccessError:
        return AccessError(f"{self._path}: {key}: {reason}")


def _from_json(text: str) -> Any:
    """Its value, None if it isn't JSON. JSON may have tabs between its tokens, YAML 1.1 may not."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
