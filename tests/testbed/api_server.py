"""The real kube-apiserver and etcd behind the interface that the contract tests use."""

import asyncio
import json
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy.cluster.access import Access
from tests.testbed.control_plane import NAMESPACE, PATHS, USER, ControlPlane, Refused

_RESOURCES = {
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
    "Service": ("/api/v1", "services"),
}
_GROUPS = {"endpointslices": "discovery.k8s.io", "services": ""}
_ROLE = f"{PATHS['ClusterRole']}/sidestep"
_ACCOUNT = f"{PATHS['ServiceAccount']}/sidestep"


class RealApiServer:
    """One test's view of the control plane: empty at first, with a token file of its own. See `ApiServer`."""

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self._plane = plane
        self._token_file = directory / "token"
        self._access = Access(plane.url, token_file=self._token_file, ca_file=plane.ca_file)

    @property
    def access(self) -> Access:
        return self._access

    async def open(self) -> None:
        """Remove what an earlier test left, and take a token."""
        await self._in_thread(self._clean)
        self._role = await self.ask("GET", _ROLE)
        self._audited = self._plane.audit_log.stat().st_size
        self._token_file.write_text(await self._in_thread(self._plane.account_token))

    async def close(self) -> None:
        """Leave the control plane running and with the role as it was."""
        self._plane.signal_server(signal.SIGCONT)
        if not await self._in_thread(self._plane.alive):
            await self.start()
        await self._write_role(self._role["rules"])

    def _clean(self) -> None:
        for group, plural in _RESOURCES.values():
            for item in self._plane.ask("GET", f"{group}/{plural}")["items"]:
                namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
                if namespace != "default":  # the API server's own
                    self._plane.ask("DELETE", f"{group}/namespaces/{namespace}/{plural}/{name}")

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    async def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """One request, see `ControlPlane.ask`."""
        return await asyncio.to_thread(self._plane.ask, method, path, body, token=token)

    async def put(self, manifest: Mapping[str, Any]) -> str:
        group, plural = _RESOURCES[manifest["kind"]]
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        collection = f"{group}/namespaces/{namespace}/{plural}"
        try:
            stored = await self.ask("PUT", f"{collection}/{name}", manifest)
        except Refused as refused:
            if refused.status != 404:
                raise
            try:
                stored = await self.ask("POST", collection, manifest)
            except Refused as refused:
                if refused.status != 404:
                    raise
                await self.ask("POST", PATHS["Namespace"], {"metadata": {"name": namespace}})
                stored = await self.ask("POST", collection, manifest)
        return str(stored["metadata"]["resourceVersion"])

    async def delete(self, kind: str, namespace: str, name: str) -> None:
        group, plural = _RESOURCES[kind]
        await self.ask("DELETE", f"{group}/namespaces/{namespace}/{plural}/{name}")

    async def compact(self) -> None:
        await self._in_thread(self._plane.compact)
        await self.stop()
        await self.start()

    async def freeze(self) -> None:
        self._plane.signal_server(signal.SIGSTOP)

    async def thaw(self) -> None:
        self._plane.signal_server(signal.SIGCONT)

    async def stop(self) -> None:
        self._plane.kill_server()

    async def start(self) -> None:
        self._plane.start_server()
        await self._in_thread(self._plane.wait_until_ready)

    async def remember(self) -> None:
        await self._in_thread(self._plane.copy_state)

    async def restore(self) -> None:
        self._plane.kill_server()
        self._plane.kill_etcd()
        await self._in_thread(self._plane.restore_state)
        self._plane.start_etcd()
        await self.start()

    async def rotate_token(self) -> None:
        """The account is made anew, which ends all its tokens. The restart is because the server believes a token for
        10 s more after it saw that it was good."""
        await self.ask("DELETE", _ACCOUNT)
        await self.ask("POST", PATHS["ServiceAccount"], {"metadata": {"name": "sidestep", "namespace": NAMESPACE}})
        token = await self._in_thread(self._plane.account_token)
        fresh = self._token_file.with_suffix(".new")
        fresh.write_text(token)
        fresh.replace(self._token_file)
        await self.stop()
        await self.start()

    async def rotate_certificate(self) -> None:
        """Restart with a certificate of a new CA, which `access.ca_file` holds from then on."""
        await self.stop()
        await self._in_thread(shutil.rmtree, self._plane.ca_file.parent)
        await self.start()

    async def forbid(self, verb: str, resource: str) -> None:
        rules = (await self.ask("GET", _ROLE))["rules"]
        for rule in rules:
            if resource in rule["resources"]:
                rule["verbs"] = [one for one in rule["verbs"] if one != verb]
        await self._write_role([rule for rule in rules if rule["verbs"]])
        await self._in_thread(self._until_allowed, verb, resource, False)

    async def allow(self, verb: str, resource: str) -> None:
        rules = (await self.ask("GET", _ROLE))["rules"]
        rules.append({"apiGroups": [_GROUPS[resource]], "resources": [resource], "verbs": [verb]})
        await self._write_role(rules)
        await self._in_thread(self._until_allowed, verb, resource, True)

    async def _write_role(self, rules: Any) -> None:
        role = await self.ask("GET", _ROLE)
        if role["rules"] != rules:
            await self.ask("PUT", _ROLE, {**role, "rules": rules})

    def _until_allowed(self, verb: str, resource: str, allowed: bool) -> None:
        """Until the authorizer has seen the new role."""
        attributes = {"verb": verb, "group": _GROUPS[resource], "resource": resource, "namespace": "default"}
        review = {"spec": {"user": USER, "resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        while self._plane.ask("POST", path, review)["status"]["allowed"] is not allowed:
            time.sleep(0.02)

    async def requested(self) -> set[tuple[str, str]]:
        with self._plane.audit_log.open("rb") as log:
            log.seek(self._audited)
            events = [json.loads(line) for line in log.read().splitlines(keepends=True) if line.endswith(b"\n")]
        return {(event["verb"], event["objectRef"]["resource"]) for event in events if "objectRef" in event}
