"""Where Services and EndpointSlices are kept: in a real API server, or in a file where there is none."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from proxy.lab.control_plane import ControlPlane, Refused
from proxy.lab.services import Endpoint, Service, slices_of

_NAMESPACES = "/api/v1/namespaces"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces"


class Objects(Protocol):
    """One or the other. All raise Refused for what the API server will not take."""

    @property
    def what(self) -> str:
        """Where they are, for people."""
        ...

    @property
    def source(self) -> dict[str, Any]:
        """The sections of Sidestep's configuration that have it follow them."""
        ...

    def create(self, service: Service) -> None: ...

    def set(self, service: Service, endpoints: Sequence[Endpoint]) -> None: ...

    def delete(self, service: Service) -> None: ...

    def clear(self) -> None:
        """Delete every Service that was created, with its endpoints."""
        ...


class ApiObjects:
    """In the API server. Namespaces are made where they are needed."""

    def __init__(self, api: ControlPlane, kubeconfig: Path) -> None:
        self._api = api
        self._kubeconfig = kubeconfig
        self._namespaces: set[str] = set()

    @property
    def what(self) -> str:
        return f"kube-apiserver {self._api.ask('GET', '/version')['gitVersion']}"

    @property
    def source(self) -> dict[str, Any]:
        return {"kubernetes": {"kubeconfig": str(self._kubeconfig)}}

    def create(self, service: Service) -> None:
        namespace, _, _ = service.name.partition("/")
        self._namespaces.add(namespace)
        path = f"{_NAMESPACES}/{namespace}/services"
        try:
            self._api.ask("POST", path, service.manifest())
        except Refused as refused:
            if refused.status != 404:
                raise
            self._api.ask("POST", _NAMESPACES, {"metadata": {"name": namespace}})
            self._api.ask("POST", path, service.manifest())

    def set(self, service: Service, endpoints: Sequence[Endpoint]) -> None:
        path = f"{_SLICES}/{service.name.partition('/')[0]}/endpointslices"
        for manifest in slices_of(service, endpoints):
            try:
                self._api.ask("PUT", f"{path}/{manifest['metadata']['name']}", manifest)
            except Refused as refused:
                if refused.status != 404:
                    raise
                self._api.ask("POST", path, manifest)

    def delete(self, service: Service) -> None:
        namespace, _, name = service.name.partition("/")
        self._api.ask("DELETE", f"{_NAMESPACES}/{namespace}/services/{name}")
        for manifest in slices_of(service, ()):
            with contextlib.suppress(Refused):  # it never had endpoints
                self._api.ask("DELETE", f"{_SLICES}/{namespace}/endpointslices/{manifest['metadata']['name']}")

    def clear(self) -> None:
        for namespace in self._namespaces:
            with contextlib.suppress(Refused):  # the API server would not have a namespace of this name
                self._api.ask("DELETE", f"{_NAMESPACES}/{namespace}/services")
                self._api.ask("DELETE", f"{_SLICES}/{namespace}/endpointslices")
        self._namespaces.clear()


class FileObjects:
    """Slices in a file as Sidestep's `endpoints_file` has it; Services are only in the rules that the lab writes."""

    what = "no API server: endpoints in a file"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slices: dict[str, list[dict[str, Any]]] = {}
        self._write()

    @property
    def source(self) -> dict[str, Any]:
        return {"endpoints_file": str(self._path)}

    def create(self, service: Service) -> None:
        if service.name in self._slices:
            raise Refused(409, f"there is a Service {service.name} already")
        self.set(service, ())

    def set(self, service: Service, endpoints: Sequence[Endpoint]) -> None:
        manifests = slices_of(service, endpoints)
        for manifest in manifests:
            manifest["metadata"]["namespace"] = service.name.partition("/")[0]
        self._slices[service.name] = manifests
        self._write()

    def delete(self, service: Service) -> None:
        del self._slices[service.name]
        self._write()

    def clear(self) -> None:
        self._slices.clear()
        self._write()

    def _write(self) -> None:
        found = {
            "apiVersion": "v1",
            "kind": "List",
            "items": [one for found in self._slices.values() for one in found],
        }
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(found))  # YAML as well
        fresh.replace(self._path)
