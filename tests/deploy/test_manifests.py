"""The manifests: the API server takes each of them, and the configuration and the account in them are right."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import __version__
from proxy.settings import parse
from tests import peers
from tests.deploy.container import BASE, CAPABILITIES, PATHS, UNINSTALL, manifests, of_kind
from tests.testbed.control_plane import ControlPlane


def container() -> dict[str, Any]:
    (only,) = of_kind("DaemonSet")["spec"]["template"]["spec"]["containers"]
    return dict(only)


@pytest.mark.parametrize("directory", [BASE, UNINSTALL], ids=lambda directory: directory.name)
def test_the_kustomization_lists_every_file_once(directory: Path) -> None:
    listed = yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    "manifest",
    [*manifests(), *manifests(UNINSTALL)],
    ids=lambda item: f"{item['kind']}-{item['metadata']['name']}",
)
def test_the_api_server_takes_it_whole(manifest: dict[str, Any], control_plane: ControlPlane) -> None:
    """A server-side dry run that refuses unknown and repeated fields."""
    manifest = {**manifest, "metadata": {**manifest["metadata"], "name": f"{manifest['metadata']['name']}-tried"}}
    path = PATHS[manifest["kind"]].format(namespace=manifest["metadata"].get("namespace"))
    made = control_plane.ask("POST", f"{path}?dryRun=All&fieldValidation=Strict", manifest)
    assert made["metadata"]["uid"]


def test_the_configuration_is_right() -> None:
    settings = parse(of_kind("ConfigMap")["data"]["sidestep.yaml"])
    assert settings.dns is not None
    assert settings.dns.listen == ("169.254.20.10:53", "10.96.0.10:53")
    assert settings.node.manage


def test_probes_and_files_are_where_the_configuration_has_them() -> None:
    settings = parse(of_kind("ConfigMap")["data"]["sidestep.yaml"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container()[probe]["httpGet"]
        assert f"{asked['host']}:{asked['port']}" == settings.admin.listen
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert str(Path(settings.admin.socket).parent) in mounts
    assert container()["args"] == ["run", "--config", "/etc/sidestep/sidestep.yaml"]
    assert "/etc/sidestep" in mounts


def test_it_has_no_more_rights_than_it_needs() -> None:
    context = container()["securityContext"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert set(context["capabilities"]["add"]) == set(CAPABILITIES)
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert "privileged" not in context


def test_the_image_tag_is_this_version() -> None:
    for directory in (BASE, UNINSTALL):
        (named,) = yaml.safe_load((directory / "kustomization.yaml").read_text())["images"]
        assert named == {"name": "sidestep", "newTag": __version__}
        pod = of_kind("DaemonSet", directory)["spec"]["template"]["spec"]
        assert {one["image"] for one in (*pod.get("initContainers", ()), *pod["containers"])} == {"sidestep"}
    written = re.findall(r"(?:\bsidestep:|newTag: )([\w.]+)", (peers.ROOT / "deploy" / "README.md").read_text())
    assert set(written) == {__version__}


def test_the_cleanup_can_do_no_more_than_the_kernel_part_takes() -> None:
    pod = of_kind("DaemonSet", UNINSTALL)["spec"]["template"]["spec"]
    assert not pod["automountServiceAccountToken"]
    (cleanup,), (rest,) = pod["initContainers"], pod["containers"]
    for one, names in ((cleanup, ["NET_ADMIN"]), (rest, [])):
        context = one["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"], **({"add": names} if names else {})}
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert rest["securityContext"]["runAsNonRoot"]
