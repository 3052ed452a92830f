"""The adapter to the Kubernetes API: what is served, what is live, and every write of a policy."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from applier.cluster import hearing
from applier.cluster.connection import JSON_PATCH, Connection
from applier.diff import FIELD_MANAGER
from applier.ports import Access, Account, Forbidden, Live, Resource, ServerRefused
from applier.schema import defaults
from applier.schema.cache import SchemaCache, directory
from renderer.errors import NotPermitted, RemoteError
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import KINDS, Kind

_PAGE: Final = 500
_CONCURRENCY: Final = 8
#: A dry run changes nothing, so that it may take longer than a write.
_DRY_RUN_SECONDS: Final = 30.0
_LIST_ATTEMPTS: Final = 3
#: One object, read in the midst of writes: who waits for it has a grace to keep.
_OBJECT_ATTEMPTS: Final = 2
#: What lives as long as its cluster; accounts differ in which of them they may read.
_IDENTITY: Final = {
    "configmap/kube-system/extension-apiserver-authentication": (
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    ),
    "namespace/kube-system": "/api/v1/namespaces/kube-system",
}
_VERBS: Final = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
_VERSION: Final = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")

A = TypeVar("A")
B = TypeVar("B")


class KubernetesCluster:
    """A `Cluster` and its `Leases` over one connection. Threads may share it."""

    def __init__(self, connection: Connection, *, cache: Path | None = None) -> None:
        """Take a connection, and where schemas are kept (by default, the user's cache); nothing is asked yet."""
        self._connection = connection
        self._schemas = SchemaCache(cache or directory(), form=defaults.FORM)
        self._resources: dict[Kind, Resource] | None = None

    @property
    def connection(self) -> Connection:
        """How the API server is reached."""
        return self._connection

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._connection.server

    def observe(self, kinds: Sequence[Kind] = KINDS) -> Live:
        """Read every object of those kinds that the cluster serves; see `ports.Cluster`."""
        resources = {kind: resource for kind, resource in self.resources().items() if kind in kinds}
        objects: dict[Identity, JsonObject] = {}
        unreadable: dict[Kind, str] = {}
        warnings: dict[Kind, tuple[str, ...]] = {}
        for (kind, _), (found, heard) in zip(
            resources.items(), _parallel(self._heard, resources.values()), strict=True
        ):
            if isinstance(found, str):
                unreadable[kind] = found
            else:
                objects |= found
                warnings[kind] = heard
        return Live(resources=resources, objects=objects, unreadable=unreadable, warnings=warnings)

    def resources(self) -> Mapping[Kind, Resource]:
        """The managed kinds that the cluster serves, each with the version it stores; asked once."""
        if self._resources is None:
            try:
                self._resources = self._discover()
            except (ServerRefused, KeyError, TypeError, AttributeError) as error:
                raise RemoteError(
                    f"{self.server} does not answer as a Kubernetes API server does.",
                    hint="Check the server's address in the kubeconfig, and what stands between.",
                ) from error
        return self._resources

    def _discover(self) -> dict[Kind, Resource]:
        groups = {group["name"]: group for group in self._connection.get("/apis")["groups"]}
        wanted = sorted({kind.group for kind in KINDS} & groups.keys())
        versions = [(group, version["version"]) for group in wanted for version in groups[group]["versions"]]
        return _served(dict(zip(versions, _parallel(self._group_version, versions), strict=True)))

    def _group_version(self, pair: tuple[str, str]) -> Json:
        """What a group and version serves; nothing when it went away since it was listed."""
        try:
            return self._connection.get(f"/apis/{pair[0]}/{pair[1]}")
        except ServerRefused as error:
            if error.status.code == 404:
                return {}
            raise

    def identity(self) -> Mapping[str, str]:
        """The UIDs of two objects that live as long as the cluster; see `ports.Cluster`."""
        found = zip(_IDENTITY, _parallel(self._uid, _IDENTITY.values()), strict=True)
        return {name: uid for name, uid in found if uid}

    def _uid(self, path: str) -> str:
        """The object's UID, or "" when there is none or this account may not read it."""
        try:
            return str(_object(self._connection.get(path))["metadata"]["uid"])
        except Forbidden:
            return ""
        except ServerRefused as error:
            if error.status.code == 404:
                return ""
            raise

    def schemas(self, api_versions: Collection[str]) -> Mapping[str, JsonObject]:
        """The schemas of those group versions, as far as they are published; see `ports.Cluster`."""
        addresses = _schema_addresses(self._published("/openapi/v3")) if api_versions else {}
        wanted = sorted(addresses.keys() & api_versions)
        found = _parallel(lambda version: self._schema(version, addresses[version]), wanted)
        return {version: document for version, document in zip(wanted, found, strict=True) if document is not None}

    def _schema(self, api_version: str, address: str) -> JsonObject | None:
        hash_ = parse_qs(urlsplit(address).query).get("hash", [""])[0]
        document = self._schemas.get(api_version, hash_)
        if document is None:
            document = defaults.trimmed(self._published(address))
            if document is not None:
                self._schemas.put(api_version, hash_, document)
        return document

    def _published(self, address: str) -> Json:
        """What the server publishes there; None when it can't be had, for everything works without it, but slower."""
        try:
            return self._connection.get(address)
        except (NotPermitted, RemoteError, ServerRefused):
            return None

    def read(self, identity: Identity) -> JsonObject | None:
        """The object as it is now, or None; see `ports.Cluster`."""
        try:
            path = self._path(identity)
            return _object(
                self._connection.get(path, seconds=self._connection.write_seconds, attempts=_OBJECT_ATTEMPTS)
            )
        except ServerRefused as error:
            if error.status.code == 404:
                return None
            raise

    def may_write(self, kinds: Sequence[Kind]) -> frozenset[Kind]:
        """The kinds of which this account may create, patch and delete objects (SelfSubjectAccessReview)."""
        reviews = [(kind, verb) for kind in kinds for verb in ("create", "patch", "delete")]
        answers = _parallel(lambda review: self._may(_access(*review)), reviews)
        denied = {kind for (kind, _), allowed in zip(reviews, answers, strict=True) if not allowed}
        return frozenset(kinds) - denied

    def denied(self, accesses: Sequence[Access]) -> list[Access]:
        """Those that this account does not have (SelfSubjectAccessReview); see `ports.Cluster`."""
        try:
            answers = _parallel(self._may, accesses)
        except (NotPermitted, ServerRefused, KeyError, TypeError):
            return []
        return [access for access, allowed in zip(accesses, answers, strict=True) if not allowed]

    def _may(self, access: Access) -> bool:
        attributes = {
            "group": access.group,
            "resource": access.plural,
            "verb": access.verb,
            "namespace": access.namespace,
            "name": access.name,
        }
        answer = self._connection.send(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        return bool(_object(answer)["status"].get("allowed"))

    def account(self) -> Account | None:
        """Whom the server takes us for (SelfSubjectReview, which every account may send); see `ports.Cluster`."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            answer = self._connection.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review)
            found = _object(answer)["status"]["userInfo"]
            return Account(name=found["username"], groups=tuple(found.get("groups") or ()))
        except (NotPermitted, ServerRefused, KeyError, TypeError):
            return None

    def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        """The labels of a namespace, if they can be read; see `ports.Cluster`."""
        try:
            found = _object(self._connection.get(f"/api/v1/namespaces/{quote(name, safe='')}"))
            return dict(found["metadata"].get("labels") or {})
        except (NotPermitted, ServerRefused):
            return None

    def create(self, body: JsonObject, identity: Identity, *, dry_run: bool = False) -> JsonObject:
        """Create it; see `ports.Cluster`."""
        return self._write("POST", self._collection(identity), body, identity, dry_run=dry_run)

    def patch(self, identity: Identity, operations: Sequence[Json], *, dry_run: bool = False) -> JsonObject:
        """Apply RFC 6902 operations; see `ports.Cluster`."""
        return self._write("PATCH", self._path(identity), list(operations), identity, dry_run=dry_run)

    def delete(self, identity: Identity, *, uid: str, resource_version: str = "", dry_run: bool = False) -> None:
        """Delete that very object; see `ports.Cluster`."""
        options = delete_options(uid=uid, resource_version=resource_version, dry_run=dry_run)
        self._send("DELETE", self._path(identity), {}, options, identity, dry_run=dry_run)

    def read_lease(self, namespace: str, name: str) -> JsonObject | None:
        """The Lease, or None when there is none."""
        try:
            return _object(self._connection.get(f"{_leases(namespace)}/{name}"))
        except ServerRefused as error:
            if error.status.code == 404:
                return None
            raise

    def write_lease(self, lease: JsonObject, *, seconds: float) -> JsonObject:
        """Create the Lease, or replace the one whose resourceVersion it carries, within so many seconds.

        Raises ServerRefused with 409 when another was faster.
        """
        metadata = lease["metadata"]
        path = _leases(metadata["namespace"])
        exists = "resourceVersion" in metadata
        return _object(
            self._connection.send(
                "PUT" if exists else "POST",
                f"{path}/{metadata['name']}" if exists else path,
                {"fieldManager": FIELD_MANAGER},
                lease,
                seconds=seconds,
            )
        )

    def _write(self, method: str, path: str, body: Json, identity: Identity, *, dry_run: bool) -> JsonObject:
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        stored = _object(self._send(method, path, query, body, identity, dry_run=dry_run))
        if not isinstance(stored.get("metadata"), dict) or stored["metadata"].get("name") != identity.name:
            raise RemoteError(f"{self.server} answered the write of {identity} with something else.")
        return stored

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Json, identity: Identity, *, dry_run: bool
    ) -> Json:
        """One write within its time limit. A 403 that is not about the account's rights is an admission's refusal."""
        seconds = _DRY_RUN_SECONDS if dry_run else None
        content_type = JSON_PATCH if method == "PATCH" else "application/json"
        try:
            return self._connection.write(method, path, query, body, content_type=content_type, seconds=seconds)
        except Forbidden as error:
            if self._may(_access(identity.kind, _VERBS[method], identity.namespace)):
                raise ServerRefused(error.status) from error
            raise

    def _heard(self, resource: Resource) -> tuple[dict[Identity, JsonObject] | str, tuple[str, ...]]:
        """What `_list` gives, and what the server said of it: that its version is deprecated, say."""
        with hearing.listen() as heard:
            found = self._list(resource)
        return found, tuple(dict.fromkeys(heard))

    def _list(self, resource: Resource) -> dict[Identity, JsonObject] | str:
        """Every object of a kind, page by page; or why this account can't read them."""
        path = f"/apis/{resource.api_version}/{resource.kind.plural}"
        for attempt in range(_LIST_ATTEMPTS):
            try:
                return self._pages(resource, path)
            except Forbidden:
                return "this account may not list it"
            except ServerRefused as error:
                # 410: the list took longer than the server keeps its continue token; begin again.
                if error.status.code != 410 or attempt == _LIST_ATTEMPTS - 1:
                    raise RemoteError(f"{resource.kind.resource} can't be listed: {error.message}") from error
        raise AssertionError  # the last attempt returns or raises

    def _pages(self, resource: Resource, path: str) -> dict[Identity, JsonObject]:
        objects: dict[Identity, JsonObject] = {}
        query: dict[str, Any] = {"limit": _PAGE}
        while True:
            page = _object(self._connection.get(path, query))
            for item in page.get("items") or ():
                # Items of a list carry neither, and everything later expects both.
                item["apiVersion"], item["kind"] = resource.api_version, resource.kind.name
                metadata = item["metadata"]
                identity = Identity(kind=resource.kind, namespace=metadata.get("namespace", ""), name=metadata["name"])
                objects[identity] = item
            token = page["metadata"].get("continue")
            if not token:
                return objects
            query["continue"] = token

    def _collection(self, identity: Identity) -> str:
        resource = self.resources()[identity.kind]
        namespace = f"/namespaces/{quote(identity.namespace, safe='')}" if identity.namespace else ""
        return f"/apis/{resource.api_version}{namespace}/{resource.kind.plural}"

    def _path(self, identity: Identity) -> str:
        return f"{self._collection(identity)}/{quote(identity.name, safe='')}"


def _access(kind: Kind, verb: str, namespace: str = "") -> Access:
    return Access(group=kind.group, plural=kind.plural, verb=verb, namespace=namespace)


def delete_options(*, uid: str, resource_version: str = "", dry_run: bool = False) -> JsonObject:
    """The body of every DELETE. The dry run is in it, because with a body the server ignores the query."""
    preconditions = {"uid": uid}
    if resource_version:
        preconditions["resourceVersion"] = resource_version
    options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
    if dry_run:
        options["dryRun"] = ["All"]
    return options


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases"


def _object(answer: Json) -> JsonObject:
    if not isinstance(answer, dict):
        raise RemoteError("The API server answered with something that is no object.")
    return answer


def _parallel(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        return list(pool.map(function, items))


def _served(lists: Mapping[tuple[str, str], Json]) -> dict[Kind, Resource]:
    """Which kinds are served, and in which version each is stored, from the answers to `/apis/<group>/<version>`."""
    found: dict[Kind, dict[str, str]] = {}
    for (group, version), answer in lists.items():
        for entry in answer.get("resources") or ():
            kind = next((k for k in KINDS if (k.group, k.plural) == (group, entry["name"])), None)
            if kind is not None:
                found.setdefault(kind, {})[version] = entry.get("storageVersionHash", "")
    return {kind: _resource(kind, hashes) for kind, hashes in sorted(found.items())}


def _resource(kind: Kind, hashes: Mapping[str, str]) -> Resource:
    served = tuple(sorted(hashes, key=version_rank, reverse=True))
    stored = next((version for version in served if storage_hash(kind, version) in hashes.values()), served[0])
    return Resource(kind=kind, version=stored, served=served)


def _schema_addresses(index: Json) -> dict[str, str]:
    """Where the schema of each group version is, with its hash, from the answer to `/openapi/v3`."""
    prefix = "apis/"
    try:
        return {
            path.removeprefix(prefix): entry["serverRelativeURL"]
            for path, entry in index["paths"].items()
            if path.startswith(prefix)
        }
    except (AttributeError, KeyError, TypeError):
        return {}


def storage_hash(kind: Kind, version: str) -> str:
    """What the API server calls a stored version: base64 of the first 8 bytes of sha256("group/version/Kind")."""
    digest = hashlib.sha256(f"{kind.group}/{version}/{kind.name}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def version_rank(version: str) -> tuple[int, int, int]:
    """Kubernetes' order of versions: v2 above v1 above v1beta2 above v1beta1 above v1alpha1."""
    match = _VERSION.fullmatch(version)
    if not match:
        return (0, 0, 0)
    stability = {None: 3, "beta": 2, "alpha": 1}[match[2]]
    return (stability, int(match[1]), int(match[3] or 0))
