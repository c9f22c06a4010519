"""What is shown to the API server and what it is trusted by, read anew for each connection: both rotate."""

import contextlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.cluster.access import Access

MOST_BYTES = 4 * 1024 * 1024


class CredentialsError(Exception):
    """A token, CA or client certificate can't be used; the text names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    token: str
    """Empty: none."""
    tls: ssl.SSLContext | None
    """None where the server is plain http."""


class CredentialsReader:
    """Reads files; may block, so call it off the event loop, one call at a time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._material: tuple[bytes, bytes, bytes] | None = None
        self._context: ssl.SSLContext | None = None

    def read(self) -> Credentials:
        """What the files hold now. Raises CredentialsError."""
        access = self._access
        token = _read(access.token_file).decode("ascii", "replace").strip() if access.token_file else access.token
        if access.token_file and not token:
            raise CredentialsError(f"{access.token_file}: the token file is empty")
        if not (token.isascii() and token.isprintable()):
            raise CredentialsError(f"{access.token_file or 'the token'}: holds more than one line of plain ASCII")
        return Credentials(token, self._tls() if access.server.startswith("https:") else None)

    def _tls(self) -> ssl.SSLContext:
        access = self._access
        material = (
            _pem(access.ca_file, access.ca_data),
            _pem(access.client_cert_file, access.client_cert_data),
            _pem(access.client_key_file, access.client_key_data),
        )
        if self._context is None or material != self._material:
            self._context = self._make_context(*material)
            self._material = material
        return self._context

    def _make_context(self, ca: bytes, certificate: bytes, key: bytes) -> ssl.SSLContext:
        access = self._access
        try:
            context = ssl.create_default_context(cadata=ca.decode("ascii", "replace") or None)
        except (ssl.SSLError, ValueError) as error:
            raise CredentialsError(f"{access.ca_file or 'the CA data'}: no PEM certificates: {error}") from error
        # Python 3.13 insists on key identifiers, which many cluster CAs lack.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not access.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate or key:
            try:
                with _in_memory(certificate + b"\n" + key) as path:
                    context.load_cert_chain(path, password=_no_password)
            except (ssl.SSLError, OSError, ValueError) as error:
                where = access.client_cert_file or "the client certificate data"
                raise CredentialsError(f"{where}: no usable certificate and key: {error}") from error
        return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a password")


def _pem(path: Path | None, content: str) -> bytes:
    return _read(path) if path else content.encode()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise CredentialsError(f"{path}: larger than {MOST_BYTES} bytes")
    return content


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to the content for as long as the block runs; a key must not touch a disk."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
