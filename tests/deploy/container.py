"""One container of the DaemonSet on a node of the lab, as a runtime would start it from the manifests.

Own mount and PID namespace, the node's network, a read-only root, exactly the manifest's capabilities, user, mounts,
environment and command. What is missing of a pod: its cgroup, and the runtime's seccomp profile.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from proxy.control.client import AdminClient
from proxy.control.errors import CannotRun
from proxy.lab import tools
from proxy.lab.cluster import Cluster
from tests import peers

BASE = peers.ROOT / "deploy" / "base"
UNINSTALL = peers.ROOT / "deploy" / "uninstall"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
"""Where the API server takes each kind."""
CAPABILITIES = {"KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "NET_BIND_SERVICE": 10, "NET_ADMIN": 12}
"""Their numbers (linux/capability.h)."""
_PATH = "/opt/sidestep/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ROOT = """
set -e
root={root}
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o size=64k,mode=755 dev "$root/dev"
for name in null zero full random urandom tty; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o size=64m,mode=1777 shm "$root/dev/shm"
{mounts}
exec chroot "$root" {command}
"""


def manifests(directory: Path = BASE) -> list[dict[str, Any]]:
    """Everything that a kustomization lists, in its order."""
    listed = yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]
    return [item for name in listed for item in yaml.safe_load_all((directory / name).read_text())]


def of_kind(kind: str, directory: Path = BASE) -> dict[str, Any]:
    """The only manifest of this kind."""
    (found,) = [item for item in manifests(directory) if item["kind"] == kind]
    return found


class Volumes:
    """What a kubelet puts on the node for a pod: the ConfigMap, the account's token and CA, the host path."""

    def __init__(self, cluster: Cluster, resolv_conf: str, namespace: str = "sidestep") -> None:
        assert cluster.api is not None
        self.cluster = cluster
        self.directory = cluster.run.directory / "pod"
        self.run = self.directory / "host-run" / "sidestep"
        """The host path of /run/sidestep; pods come and go, it stays."""
        self.config = self.directory / "config"
        self._account = self.directory / "account"
        for made in (self.directory, self.run.parent, self.config, self._account):
            made.mkdir()
        self.write(of_kind("ConfigMap")["data"])
        asked = {"spec": {"expirationSeconds": 3600}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/sidestep/token"
        (self._account / "token").write_text(cluster.api.ask("POST", path, asked)["status"]["token"])
        (self._account / "ca.crt").write_text(cluster.api.ca_file.read_text())
        (self._account / "namespace").write_text(namespace)
        (self.directory / "resolv.conf").write_text(resolv_conf)

    def write(self, files: Mapping[str, str]) -> None:
        """The ConfigMap's content."""
        for name, text in files.items():
            (self.config / name).write_text(text)

    def remove(self) -> None:
        """All of it."""
        shutil.rmtree(self.directory)

    def mounts(self, pod: Mapping[str, Any], container: Mapping[str, Any]) -> list[tuple[Path, str, bool]]:
        """Source, target and whether it is read-only, as the manifest says and as kubelets add."""
        sources = {"config": self.config, "run": self.run, "host-run": self.run.parent}
        if any(volume["name"] == "run" for volume in pod["volumes"]):
            self.run.mkdir(exist_ok=True)  # DirectoryOrCreate
        listed = [
            (sources[mount["name"]], mount["mountPath"], mount.get("readOnly", False))
            for mount in container["volumeMounts"]
        ]
        if pod.get("automountServiceAccountToken", True):
            listed.append((self._account, ACCOUNT, True))
        return [*listed, (self.directory / "resolv.conf", "/etc/resolv.conf", True)]


class Container:
    """The first container of a pod; `uid` is the pod's. What is left of it ends with the context."""

    def __init__(self, volumes: Volumes, image: Path, uid: str, daemonset: Mapping[str, Any]) -> None:
        self._pod = daemonset["spec"]["template"]["spec"]
        self.manifest = [*self._pod.get("initContainers", ()), *self._pod["containers"]][0]
        self.uid = uid
        self.node = volumes.cluster.node
        self._volumes = volumes
        self._image = image
        self._process: subprocess.Popen[bytes] | None = None
        api = volumes.cluster.api
        assert api is not None
        fields = {"spec.nodeName": self.node.name, "metadata.uid": uid}
        self._environment = {
            "PATH": _PATH,
            "PYTHONDONTWRITEBYTECODE": "1",
            "KUBERNETES_SERVICE_HOST": api.address,
            "KUBERNETES_SERVICE_PORT": str(api.port),
        } | {one["name"]: fields[one["valueFrom"]["fieldRef"]["fieldPath"]] for one in self.manifest.get("env", ())}
        assert self._pod["hostNetwork"]
        context = self.manifest["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"]["drop"] == ["ALL"]
        self.capabilities: list[str] = context["capabilities"]["add"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # --kill-child: with it goes all of the container
            self._process.wait()

    def start(self) -> None:
        """Start it and come back at once."""
        mounts = []
        for source, target, read_only in self._volumes.mounts(self._pod, self.manifest):
            inside = self._image / target[1:].replace("var/run/", "run/")
            if source.is_dir():
                inside.mkdir(parents=True, exist_ok=True)
            else:
                inside.touch()
            quoted = shlex.quote(str(inside))
            mounts.append(f"mount --bind {shlex.quote(str(source))} {quoted}")
            if read_only:
                mounts.append(f"mount -o remount,bind,ro {quoted}")
        words = self.manifest.get("command", ["sidestep"]) + self.manifest["args"]
        script = _ROOT.format(
            root=shlex.quote(str(self._image)), mounts="\n".join(mounts), command=shlex.join(self._confined(words))
        )
        namespaces = ("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--ipc", "--uts")
        self._process = self.node.spawn("unshare", *namespaces, "sh", "-c", script, log=self.uid)

    def _confined(self, words: Sequence[str]) -> list[str]:
        kept = ",".join(f"+{name.lower()}" for name in self.capabilities)
        environment = [f"{name}={value}" for name, value in self._environment.items()]
        limited = ("setpriv", "--bounding-set", f"-all,{kept}", "--inh-caps", "-all", "--no-new-privs")
        return ["/usr/bin/env", "-i", *environment, *limited, *words]

    @property
    def pid(self) -> int:
        """Of its process 1, as this machine counts."""
        assert self._process is not None
        outer = self._process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(children[0])

    @property
    def ended(self) -> int | None:
        """Its exit status; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        """The end of what it logged."""
        return self.node.log(self.uid)

    def wait(self, limit: float = 30) -> int:
        """Its exit status, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(limit)

    def exec(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in it, as `kubectl exec` and a preStop do."""
        entered = (tools.find("nsenter") or "nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-i", "-u", "-r", "-w")
        return subprocess.run(
            [*entered, "--", *self._confined(words)], capture_output=True, text=True, timeout=60, check=False
        )

    def wait_serving(self, limit: float = 30) -> None:
        """Until it says that it is ready, and whoever answers on the admin socket says so as well."""
        admin = AdminClient(self._volumes.run / "admin.sock", 5)

        def serving() -> bool:
            if self.ended is not None:
                raise RuntimeError(f"{self.uid} ended with {self.ended}")
            with contextlib.suppress(CannotRun):
                return self.said("ready; try") and not admin.readiness()
            return False

        self.wait_until(serving, "to serve", limit)

    def said(self, text: str) -> bool:
        """Whether it logged that."""
        return text in self.log

    def wait_until(self, holds: Callable[[], bool], what: str, limit: float = 30) -> None:
        """Raises RuntimeError with its log after `limit` seconds."""
        try:
            tools.until(holds, f"{self.uid} {what}", limit)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.log}") from None

    def stop(self, limit: float = 20) -> tuple[int, str]:
        """As a kubelet does: the preStop, then SIGTERM, then SIGKILL. Its exit status and what the preStop said."""
        assert self._process is not None
        said = self.exec(*self.manifest["lifecycle"]["preStop"]["exec"]["command"])
        os.kill(self.pid, signal.SIGTERM)
        status = self._process.wait(limit)
        return status, said.stdout + said.stderr
