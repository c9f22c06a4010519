import ssl
from pathlib import Path

import pytest

from proxy.cluster.access import Access
from proxy.cluster.answers import ApiError
from proxy.cluster.api import Api
from proxy.cluster.credentials import CredentialsError, CredentialsReader
from proxy.cluster.timing import Timing
from tests.cluster.certificates import make_certificate, server_context
from tests.cluster.fake_api_server import FakeApiServer

HTTPS = "https://127.0.0.1:6443"


def test_it_reads_the_token_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    reader = CredentialsReader(Access(HTTPS, token_file=path))
    assert reader.read().token == "one"
    path.write_text("two\n")
    assert reader.read().token == "two"


def test_it_keeps_the_tls_context_while_the_files_stay_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_bytes(make_certificate(tmp_path, "one")[0].read_bytes())
    reader = CredentialsReader(Access(HTTPS, ca_file=path))
    first = reader.read().tls
    assert reader.read().tls is first
    path.write_bytes(make_certificate(tmp_path, "two")[0].read_bytes())
    second = reader.read().tls
    assert second is not None
    assert second is not first
    assert second.verify_mode is ssl.CERT_REQUIRED
    [ca] = second.get_ca_certs()
    assert ca["subject"] == ((("commonName", "two"),),)


def test_plain_http_has_no_tls() -> None:
    assert CredentialsReader(Access("http://127.0.0.1:8001")).read().tls is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b" \n", "empty"),
        (b"a\nb", "one line"),
        (b"\xff", "one line"),
        (b"x" * 5_000_000, "larger"),
    ],
)
def test_it_says_what_is_wrong_with_a_token_file(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialsError, match=reason) as caught:
        CredentialsReader(Access(HTTPS, token_file=path)).read()
    assert str(path) in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_it_says_what_is_wrong_with_a_ca_and_a_client_certificate(tmp_path: Path) -> None:
    path = tmp_path / "broken.crt"
    path.write_text("no certificate")
    with pytest.raises(CredentialsError, match="no PEM certificates") as caught:
        CredentialsReader(Access(HTTPS, ca_file=path)).read()
    assert str(path) in str(caught.value)
    certificate, _ = make_certificate(tmp_path, "client")
    with pytest.raises(CredentialsError, match="no usable certificate and key") as caught:
        CredentialsReader(Access(HTTPS, client_cert_file=certificate, client_key_data="nonsense")).read()
    assert str(certificate) in str(caught.value)


@pytest.mark.parametrize("how", ["files", "data"])
async def test_it_shows_a_client_certificate(tmp_path: Path, how: str) -> None:
    certificate, key = make_certificate(tmp_path)
    client, client_key = make_certificate(tmp_path, "client")
    server = FakeApiServer(tmp_path, tls=server_context(certificate, key, client_ca=client), ca_file=certificate)
    await server.start()
    given = server.access
    if how == "files":
        access = Access(
            given.server, token="token-1", ca_file=certificate, client_cert_file=client, client_key_file=client_key
        )
    else:
        access = Access(
            given.server,
            token="token-1",
            ca_data=certificate.read_text(),
            client_cert_data=client.read_text(),
            client_key_data=client_key.read_text(),
        )
    async with Api(access, Timing()).connect() as connection:
        assert (await connection.list("monitoring", ["statsd"], "")).metadata.resource_version == server.version
    await server.stop()


async def test_it_checks_the_name_that_it_was_given_and_none_if_told_so(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, alternative="DNS:kube.example")
    server = FakeApiServer(tmp_path, tls=server_context(certificate, key))
    await server.start()
    url = server.access.server

    async def ask(access: Access) -> None:
        async with Api(access, Timing()).connect() as connection:
            await connection.list("monitoring", ["statsd"], "")

    for wrong in (Access(url, token="token-1", ca_file=certificate), Access(url, token="token-1")):
        with pytest.raises(ApiError, match="certificate verify failed"):
            await ask(wrong)
    assert not server.seen
    await ask(Access(url, token="token-1", ca_file=certificate, server_name="kube.example"))
    await ask(Access(url, token="token-1", verify=False))
    await server.stop()
