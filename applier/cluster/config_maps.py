"""The adapter to ConfigMaps, where the applier keeps what has to outlive it."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from applier.cluster.connection import JSON, Connection
from applier.diff import FIELD_MANAGER
from applier.ports import ServerRefused
from renderer.errors import RemoteError
from renderer.manifest.jsontypes import Json, JsonObject

_PAGE: Final = 50
#: https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class KubernetesConfigMaps:
    """`ports.ConfigMaps` over a connection."""

    def __init__(self, connection: Connection) -> None:
        """Take a connection; nothing is asked yet."""
        self._connection = connection

    def list_config_maps(self, namespace: str, selector: str, *, metadata_only: bool = False) -> list[JsonObject]:
        """See `ports.ConfigMaps`."""
        accept = _METADATA if metadata_only else JSON
        items: list[JsonObject] = []
        query: dict[str, str] = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = _object(self._connection.get(_path(namespace), query, accept=accept))
            items.extend(page.get("items") or ())
            token = page["metadata"].get("continue")
            if not token:
                return items
            query["continue"] = token

    def read_config_map(self, namespace: str, name: str) -> JsonObject | None:
        """See `ports.ConfigMaps`."""
        try:
            return _object(self._connection.get(_path(namespace, name)))
        except ServerRefused as error:
            if error.status.code == 404:
                return None
            raise

    def write_config_map(self, body: JsonObject) -> JsonObject:
        """See `ports.ConfigMaps`."""
        metadata = body["metadata"]
        if "resourceVersion" in metadata:
            return _object(self._send("PUT", _path(metadata["namespace"], metadata["name"]), body))
        return _object(self._send("POST", _path(metadata["namespace"]), body))

    def delete_config_map(self, namespace: str, name: str) -> None:
        """See `ports.ConfigMaps`."""
        self._send("DELETE", _path(namespace, name), None)

    def _send(self, method: str, path: str, body: Json) -> Json:
        return self._connection.write(method, path, {"fieldManager": FIELD_MANAGER} if body else None, body)


def _path(namespace: str, name: str = "") -> str:
    collection = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps"
    return f"{collection}/{quote(name, safe='')}" if name else collection


def _object(answer: Json) -> JsonObject:
    if not isinstance(answer, dict):
        raise RemoteError("The API server answered with something that is no object.")
    return answer
