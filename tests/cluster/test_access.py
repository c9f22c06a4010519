"""How the API server is reached: by a pod's environment, by settings, by a kubeconfig."""

import base64
import json
from pathlib import Path

import pytest
import yaml

from proxy.cluster.access import Access, AccessError, from_settings, in_cluster
from proxy.cluster.kubeconfig import MOST_BYTES, from_kubeconfig

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIC\n-----END PRIVATE KEY-----\n"


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kubeconfig(
    tmp_path: Path, cluster: dict | None = None, user: dict | None = None, text: str | None = None, **changed: object
) -> Path:
    """A file with one context; `cluster` and `user` are added to theirs, `changed` replaces whole keys."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "gone", "user": "gone"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        **changed,
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(content) if text is None else text)
    return path


def refusal(path: Path) -> str:
    """Why it isn't taken, without the name of the file, which always stands in front."""
    with pytest.raises(AccessError) as caught:
        from_kubeconfig(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


class TestInCluster:
    def test_it_takes_the_address_of_the_environment_and_the_files_of_the_service_account(self):
        access = in_cluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"})
        account = Path("/var/run/secrets/kubernetes.io/serviceaccount")
        assert access == Access(
            "https://10.96.0.1:443", token_file=account / "token", ca_file=account / "ca.crt", verify=True
        )

    def test_it_puts_brackets_around_an_ipv6_address(self):
        access = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"})
        assert access.server == "https://[fd00::1]:443"

    def test_it_can_be_given_another_place_for_the_files(self, tmp_path):
        environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        assert in_cluster(environ, tmp_path).token_file == tmp_path / "token"

    @pytest.mark.parametrize(
        ("environ", "missing"),
        [({}, "KUBERNETES_SERVICE_HOST"), ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "KUBERNETES_SERVICE_PORT")],
    )
    def test_it_says_what_to_set_where_there_is_no_cluster(self, environ, missing):
        with pytest.raises(AccessError, match=f"{missing} is not in .*kubernetes.kubeconfig .*endpoints_file"):
            in_cluster(environ)

    def test_it_refuses_a_port_that_is_none(self):
        with pytest.raises(AccessError, match=r"KUBERNETES_SERVICE_PORT: found 'https://10.96.0.1:x'"):
            in_cluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "x"})


class TestFromSettings:
    def test_it_takes_server_token_and_ca(self):
        assert from_settings("https://192.0.2.1:6443/", "/run/token", "/run/ca.crt") == Access(
            "https://192.0.2.1:6443", token_file=Path("/run/token"), ca_file=Path("/run/ca.crt")
        )

    def test_it_needs_no_credentials(self):
        assert from_settings("http://127.0.0.1:8001").describe() == "http://127.0.0.1:8001 with no credentials"

    @pytest.mark.parametrize(
        "server", ["", "192.0.2.1:6443", "ftp://192.0.2.1", "https://", "https://[::1", "https://a:99999"]
    )
    def test_it_refuses_what_is_no_url_of_a_server(self, server):
        with pytest.raises(AccessError, match=r"kubernetes\.server: found .*; allowed is a URL such as https://"):
            from_settings(server)

    @pytest.mark.parametrize(
        "server", ["https://me:secret@192.0.2.1", "https://192.0.2.1/?a=b", "https://192.0.2.1/#a"]
    )
    def test_it_refuses_what_does_not_belong_into_the_url_and_shows_no_password(self, server):
        with pytest.raises(AccessError, match="more than scheme, host, port and path") as caught:
            from_settings(server)
        assert "secret" not in str(caught.value)


class TestKubeconfig:
    def test_it_takes_the_current_context(self, tmp_path):
        path = kubeconfig(tmp_path, {"tls-server-name": "kubernetes"}, {"token": "abc"})
        assert from_kubeconfig(path) == Access("https://192.0.2.1:6443", token="abc", server_name="kubernetes")

    def test_it_reads_json(self, tmp_path):
        content = yaml.safe_load(kubeconfig(tmp_path, user={"token": "abc"}).read_text())
        path = kubeconfig(tmp_path, text=json.dumps(content, indent="\t"))
        assert from_kubeconfig(path).token == "abc"

    def test_it_reads_yaml_in_braces(self, tmp_path):
        text = "{current-context: a, contexts: [{name: a, context: {cluster: c}}],"
        text += " clusters: [{name: c, cluster: {server: 'http://127.0.0.1:8001'}}]}"
        assert from_kubeconfig(kubeconfig(tmp_path, text=text)) == Access("http://127.0.0.1:8001")

    def test_it_decodes_data(self, tmp_path):
        path = kubeconfig(
            tmp_path,
            {"certificate-authority-data": in_base64(PEM)},
            {"client-certificate-data": in_base64(PEM), "client-key-data": in_base64(KEY)},
        )
        assert from_kubeconfig(path) == Access(
            "https://192.0.2.1:6443", ca_data=PEM, client_cert_data=PEM, client_key_data=KEY
        )

    def test_it_takes_paths_from_where_the_kubeconfig_is(self, tmp_path):
        path = kubeconfig(
            tmp_path,
            {"certificate-authority": "pki/ca.crt"},
            {"client-certificate": "/etc/c.crt", "client-key": "c.key", "tokenFile": "token"},
        )
        access = from_kubeconfig(path)
        assert access.ca_file == tmp_path / "pki/ca.crt"
        assert (access.client_cert_file, access.client_key_file) == (Path("/etc/c.crt"), tmp_path / "c.key")
        assert access.token_file == tmp_path / "token"

    def test_it_prefers_data_to_a_file_and_a_token_file_to_a_token_as_kubectl_does(self, tmp_path):
        path = kubeconfig(
            tmp_path,
            {"certificate-authority-data": in_base64(PEM), "certificate-authority": "ca.crt"},
            {"token": "old", "tokenFile": "token"},
        )
        access = from_kubeconfig(path)
        assert (access.ca_data, access.ca_file) == (PEM, None)
        assert (access.token, access.token_file) == ("", tmp_path / "token")

    def test_it_can_leave_the_certificate_unchecked(self, tmp_path):
        access = from_kubeconfig(kubeconfig(tmp_path, {"insecure-skip-tls-verify": True}))
        assert not access.verify
        assert access.describe() == "https://192.0.2.1:6443 with no credentials, its certificate unchecked"

    def test_it_takes_null_for_absent(self, tmp_path):
        path = kubeconfig(
            tmp_path, {"proxy-url": None, "insecure-skip-tls-verify": None}, {"exec": None, "token": "abc"}
        )
        assert from_kubeconfig(path).token == "abc"

    @pytest.mark.parametrize(
        ("user", "key", "advice"),
        [
            (
                {"exec": {"command": "aws"}},
                "users[0].user.exec",
                "no program is run for credentials; give this proxy",
            ),
            ({"auth-provider": {"name": "gcp"}}, "users[0].user.auth-provider", "give this proxy a service account"),
            ({"username": "me", "password": "secret"}, "users[0].user.username", "give this proxy a service account"),
            ({"as": "root", "token": "abc"}, "users[0].user.as", "nobody is impersonated"),
        ],
    )
    def test_it_refuses_other_credentials_and_says_what_to_do_instead(self, tmp_path, user, key, advice):
        said = refusal(kubeconfig(tmp_path, user=user))
        assert said.startswith(f"{key}: ")
        assert advice in said
        assert "secret" not in said

    def test_it_refuses_a_proxy(self, tmp_path):
        said = refusal(kubeconfig(tmp_path, {"proxy-url": "http://192.0.2.9:3128"}))
        assert said.startswith("clusters[0].cluster.proxy-url: the API server is reached without a proxy")

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"current-context": ""}, "current-context: missing; set it"),
            ({"current-context": "x"}, "current-context: found 'x', and no entry of contexts has that name"),
            ({"current-context": "there"}, "contexts[0].context.cluster: found 'gone', and no entry of clusters"),
            ({"users": None}, "contexts[1].context.user: found 'u', and no entry of users has that name"),
            ({"clusters": {}}, "contexts[1].context.cluster: found 'c', and no entry of clusters has that name"),
            ({"clusters": "c"}, "clusters: allowed is a list"),
            ({"clusters": [{"name": "c", "cluster": []}]}, "clusters[0].cluster.server: missing"),
            ({"clusters": [{"name": "c", "cluster": ["x"]}]}, "clusters[0].cluster: allowed is a mapping"),
            ({"clusters": [{"name": "c", "cluster": {"server": "192.0.2.1"}}]}, "clusters[0].cluster.server: found"),
            ({"current-context": 7}, "current-context: allowed is text; write it in quotes"),
        ],
    )
    def test_it_names_the_key_that_is_wrong(self, tmp_path, changed, said):
        assert refusal(kubeconfig(tmp_path, **changed)).startswith(said)

    @pytest.mark.parametrize(
        ("cluster", "user", "said"),
        [
            ({}, {"client-certificate": "c.crt"}, "users[0].user.client-key: missing; certificate and key"),
            ({}, {"client-key": "c.key"}, "users[0].user.client-certificate: missing; certificate and key"),
            ({"certificate-authority-data": "%%"}, {}, "clusters[0].cluster.certificate-authority-data: this is no"),
            (
                {"certificate-authority-data": in_base64("hello")},
                {},
                "clusters[0].cluster.certificate-authority-data:",
            ),
            ({"insecure-skip-tls-verify": "yes"}, {}, "clusters[0].cluster.insecure-skip-tls-verify: allowed are"),
            (
                {"insecure-skip-tls-verify": True, "certificate-authority": "ca.crt"},
                {},
                "clusters[0].cluster.insecure-skip-tls-verify: found it beside certificate-authority",
            ),
            ({}, {"token": 12345}, "users[0].user.token: allowed is text; write it in quotes"),
        ],
    )
    def test_it_refuses_values_that_can_not_be_meant(self, tmp_path, cluster, user, said):
        assert refusal(kubeconfig(tmp_path, cluster, user)).startswith(said)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a: [", "2:1: (file): YAML: "),
            ("\x00", "1:1: (file): found the character U+0000"),
            ("a: !!python/name:os.system x", "1:4: a: found the tag"),
            ("[" * 5000, "1:21: (file): YAML: nested more than 20 deep"),
            ("a: *b", "1:4: (file): YAML: found undefined alias"),
            ('{"a": ', "2:1: (file): YAML: "),
            ("a: 1\na: 2", "2:1: a: repeated key"),
        ],
    )
    def test_it_says_where_a_file_is_no_yaml(self, tmp_path, text, said):
        path = kubeconfig(tmp_path, text=text)
        with pytest.raises(AccessError) as caught:
            from_kubeconfig(path)
        assert str(caught.value).startswith(f"{path}:{said}")

    def test_it_quotes_nothing_of_a_file_that_is_no_yaml(self, tmp_path):
        path = kubeconfig(tmp_path, text="token: secret: secret")
        with pytest.raises(AccessError, match=r":1:14: \(file\): YAML: mapping values") as caught:
            from_kubeconfig(path)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("text", ["", "hello", "[]"])
    def test_it_refuses_another_kind_of_file(self, tmp_path, text):
        assert refusal(kubeconfig(tmp_path, text=text)).startswith("this is no kubeconfig")

    def test_it_refuses_a_huge_file(self, tmp_path):
        path = kubeconfig(tmp_path, text="#" * (MOST_BYTES + 1))
        with pytest.raises(AccessError, match=f"cannot read {path}: it has over 1024 KiB"):
            from_kubeconfig(path)

    def test_it_names_a_file_that_can_not_be_read(self, tmp_path):
        with pytest.raises(AccessError, match=f"cannot read {tmp_path / 'none'}: there is no such file; check"):
            from_kubeconfig(tmp_path / "none")


def test_it_shows_no_secret():
    access = Access("https://192.0.2.1", token="abc-token", client_key_data="abc-key", client_cert_data=PEM)
    assert "abc" not in repr(access) + access.describe()


@pytest.mark.parametrize(
    ("access", "shows"),
    [
        (Access("https://a", token_file=Path("/run/t")), "https://a with the token in /run/t"),
        (Access("https://a", token="x"), "https://a with a token"),
        (
            Access("https://a", client_cert_file=Path("/c"), client_key_file=Path("/k")),
            "https://a with a client certificate",
        ),
    ],
)
def test_it_describes_itself_on_one_line(access, shows):
    assert access.describe() == shows
