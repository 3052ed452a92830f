"""Resources that run in a cluster: GET and LIST only, page by page, and never a Secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from applier.cluster.connection import Connection
from applier.impact.exclusions import Exclusions
from applier.impact.patterns import Served
from applier.ports import ServerRefused
from renderer.errors import NotPermitted, RemoteError
from renderer.manifest.jsontypes import Json, JsonObject

_PAGE: Final = 250
#: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
#: https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
#: Where Kyverno keeps its settings, unless it was installed elsewhere.
_SETTINGS: Final = "/api/v1/namespaces/kyverno/configmaps/kyverno"
_NAMESPACES: Final = "/api/v1/namespaces"


class RunningResources:
    """A `Source`: what a cluster holds, as far as the account may list it."""

    name: Final = "the cluster"

    def __init__(self, connection: Connection) -> None:
        """Take a connection; nothing is asked yet."""
        self._connection = connection

    def kinds(self) -> Sequence[Served]:
        """Every kind that the cluster serves, in every version (two requests)."""
        found: list[Served] = []
        for path in ("/api", "/apis"):
            answer = self._connection.get(path, accept=_DISCOVERY)
            if not isinstance(answer, dict) or answer.get("kind") != "APIGroupDiscoveryList":
                raise RemoteError(
                    "The API server does not list what it serves as Kubernetes 1.30 and later do.",
                    hint="Leave --impact out, or name a directory of manifests with --impact=DIR.",
                )
            for group in answer.get("items") or ():
                found += _served(group)
        return found

    def namespaces(self) -> Mapping[str, JsonObject] | None:
        """The metadata of all namespaces, if they may be listed."""
        try:
            pages = list(self._pages(_NAMESPACES, accept=_METADATA))
        except (NotPermitted, ServerRefused):
            return None
        return {item["metadata"]["name"]: item["metadata"] for page in pages for item in page}

    def exclusions(self) -> Exclusions | None:
        """What Kyverno's ConfigMap excludes, if it may be read."""
        try:
            settings = self._connection.get(_SETTINGS)
        except (NotPermitted, ServerRefused):
            return None
        return Exclusions.of(settings) if isinstance(settings, dict) else None

    def pages(self, served: Served) -> Iterator[list[JsonObject]]:
        """The resources of a kind, one page in memory at a time."""
        group = f"/apis/{served.group}" if served.group else "/api"
        for page in self._pages(f"{group}/{served.version}/{served.plural}"):
            for item in page:
                # Items of a list carry neither.
                item["apiVersion"], item["kind"] = served.api_version, served.kind
            yield page

    def _pages(self, path: str, **settings: Any) -> Iterator[list[JsonObject]]:
        query: dict[str, Any] = {"limit": _PAGE}
        while True:
            page = self._connection.get(path, query, **settings)
            if not isinstance(page, dict):
                raise RemoteError("The API server answered with something that is no list.")
            yield page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = token


def _served(group: Json) -> Iterator[Served]:
    """The kinds of a group; its first version is the one that the server prefers."""
    name = (group.get("metadata") or {}).get("name") or ""
    seen: set[str] = set()
    for version in group.get("versions") or ():
        for resource in version.get("resources") or ():
            plural = resource["resource"]
            kind = (resource.get("responseKind") or {}).get("kind") or ""
            yield Served(
                group=name,
                version=version["version"],
                kind=kind,
                plural=plural,
                listable="list" in (resource.get("verbs") or ()),
                preferred=plural not in seen,
            )
            seen.add(plural)
