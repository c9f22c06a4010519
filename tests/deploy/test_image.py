"""The image, built for real with buildah: what is in it, and what is not."""

import subprocess
from pathlib import Path

import pytest

from tests import peers


@pytest.mark.timeout(700)
def test_it_has_the_command_and_nft_and_no_compiler(image: Path) -> None:
    look = "PATH=/opt/sidestep/bin:/usr/sbin:/usr/bin; for name; do command -v $name; done; true"
    names = ("sidestep", "nft", "gcc", "cc", "c++", "make")
    found = subprocess.run(
        ["chroot", image, "sh", "-c", look, "sh", *names], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["/opt/sidestep/bin/sidestep", "/usr/sbin/nft"]


def test_its_python_is_compiled_ahead(image: Path) -> None:
    """The container's file system is read-only: nothing could be compiled at its start."""
    package = next((image / "opt/sidestep/lib").glob("python3*")) / "site-packages/proxy"
    sources = [path for path in package.rglob("*.py") if path.read_text().strip()]
    assert sources
    for source in sources:
        assert list((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")), source


def test_it_checks_the_configuration_of_the_manifests(image: Path) -> None:
    text = (peers.ROOT / "deploy/base/config.yaml").read_text()
    indented = text.partition("sidestep.yaml: |\n")[2]
    (image / "tmp/sidestep.yaml").write_text("".join(line[4:] for line in indented.splitlines(keepends=True)))
    done = subprocess.run(
        ["chroot", image, "/opt/sidestep/bin/sidestep", "check-config", "/tmp/sidestep.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "/tmp/sidestep.yaml is fine\n")
