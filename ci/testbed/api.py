"""A small client of the cluster's own API, for setting clusters up and cleaning them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import requests

from renderer.errors import RemoteError
from renderer.manifest.jsontypes import Json, JsonObject

_TIMEOUT_S: Final = 30.0
_FIELD_MANAGER: Final = "testbed"


class Api:
    """Talks to `server` with a token; the certificate of every answer is checked, so it is our cluster's."""

    def __init__(self, server: str, *, token: str, authority: Path) -> None:
        self._server = server
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business on the loopback
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = str(authority)
        self._resources: dict[str, dict[str, JsonObject]] = {}

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """One request and its answer, whatever its status; RemoteError when there is no answer."""
        try:
            return self._session.request(
                method,
                self._server + path,
                json=body,
                headers={**(headers or {}), **({"Content-Type": content_type} if body is not None else {})},
                params=params,
                timeout=_TIMEOUT_S,
            )
        except requests.RequestException as error:
            raise RemoteError(f"{self._server}{path}: no answer ({type(error).__name__}).") from error

    def call(self, method: str, path: str, body: Json = None, **options: Json) -> JsonObject:
        """One request and the document it answers; RemoteError for any status but 2xx."""
        answer = self.ask(method, path, body, **options)
        if not answer.ok:
            raise RemoteError(f"{method} {path}: HTTP {answer.status_code}: {message(answer)}")
        document: JsonObject = answer.json()
        return document

    def answers(self, path: str) -> bool:
        """True when a GET of `path` is answered with 2xx."""
        try:
            return self.ask("GET", path).ok
        except RemoteError:
            return False

    def resources(self, api_version: str) -> dict[str, JsonObject]:
        """The resources of one group and version by kind, without subresources; kept once known."""
        if api_version not in self._resources:
            listed = self.call("GET", group_path(api_version))["resources"]
            kinds = {entry["kind"]: entry for entry in listed if "/" not in entry["name"]}
            self._resources[api_version] = kinds
        return self._resources[api_version]

    def collections(self, groups: Collection[str]) -> list[str]:
        """The address of every collection that these API groups serve, in each of their versions."""
        return [
            f"/apis/{version['groupVersion']}/{resource['name']}?limit=1"
            for group in self.call("GET", "/apis")["groups"]
            if group["name"] in groups
            for version in group["versions"]
            for resource in self.resources(version["groupVersion"]).values()
            if "list" in resource["verbs"]
        ]

    def path_of(self, document: JsonObject) -> str:
        """The address of the object that `document` describes."""
        resource = self.resources(document["apiVersion"])[document["kind"]]
        namespace = document["metadata"].get("namespace", "default")
        scope = f"/namespaces/{namespace}" if resource["namespaced"] else ""
        name = document["metadata"]["name"]
        return f"{group_path(document['apiVersion'])}{scope}/{resource['name']}/{name}"

    def apply(self, document: JsonObject) -> JsonObject:
        """Server-side apply of one document, taking over every field that it sets."""
        return self.call(
            "PATCH",
            self.path_of(document),
            document,
            content_type="application/apply-patch+yaml",
            params={"fieldManager": _FIELD_MANAGER, "force": "true"},
        )


def group_path(api_version: str) -> str:
    """Where the API serves a group and version such as `v1` or `apps/v1`."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def message(answer: requests.Response) -> str:
    """Why the API refused, as far as it says."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason
