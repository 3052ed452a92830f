"""A cluster in memory that keeps the API server's rules of identity and versions, and fails where it is told to.

It serves fast property tests; every promise they test is tested on the real server too.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any

import jsonpatch

from applier.ports import Access, Account, Live, ServerRefused, Status
from renderer.errors import RemoteError
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import KINDS, Kind
from renderer.manifest.normalize import content
from tests.support.policies import live


class Fault(Enum):
    """What goes wrong with a write."""

    REFUSED = "the server refuses it"
    LOST_BEFORE = "the connection breaks before the server acts"
    LOST_AFTER = "the connection breaks after the server acted"


class SimulatedCluster:
    """Objects by identity; each write may be preceded by what somebody else does, or fail. Threads may share it."""

    def __init__(self, objects: Mapping[Identity, JsonObject] | None = None) -> None:
        """Start with these objects."""
        self.objects: dict[Identity, JsonObject] = copy.deepcopy(dict(objects or {}))
        self.published: dict[str, JsonObject] = {}
        self.writes = 0
        self.faults: dict[int, Fault] = {}
        self.before_write: Callable[[int], None] = lambda _number: None
        self._versions = itertools.count(1000)
        self._lock = threading.RLock()

    def contents(self) -> dict[Identity, JsonObject]:
        """What it holds, without what only the server knows."""
        return {identity: content(body, identity.kind) for identity, body in self.objects.items()}

    def observe(self, kinds: Sequence[Kind] = KINDS) -> Live:
        """See `ports.Cluster`."""
        with self._lock:
            held = {identity: copy.deepcopy(body) for identity, body in self.objects.items() if identity.kind in kinds}
        return Live(resources=live().resources, objects=held, unreadable={})

    def identity(self) -> Mapping[str, str]:
        """One UID, since there is one such cluster."""
        return {"namespace/kube-system": "uid-of-the-simulation"}

    def schemas(self, api_versions: Collection[str]) -> Mapping[str, JsonObject]:
        """Those of `published`; whatever they say, it stores what it is sent."""
        return {version: document for version, document in self.published.items() if version in api_versions}

    def read(self, identity: Identity) -> JsonObject | None:
        """See `ports.Cluster`."""
        return copy.deepcopy(self.objects.get(identity))

    def may_write(self, kinds: Sequence[Kind]) -> frozenset[Kind]:
        """Everything may be written."""
        return frozenset(kinds)

    def denied(self, accesses: Sequence[Access]) -> list[Access]:  # noqa: ARG002 - the port's signature
        """Nothing is."""
        return []

    def account(self) -> Account | None:
        """See `ports.Cluster`."""
        return Account(name="applier", groups=("system:authenticated",))

    def namespace_labels(self, name: str) -> Mapping[str, str] | None:  # noqa: ARG002 - the port's signature
        """Namespaces can't be read."""
        return None

    def create(self, body: JsonObject, identity: Identity, *, dry_run: bool = False) -> JsonObject:
        """See `ports.Cluster`."""

        def act() -> JsonObject:
            if identity in self.objects:
                raise _refused(409, "AlreadyExists")
            new = copy.deepcopy(body)
            new["metadata"] |= {"uid": f"uid-{next(self._versions)}"}
            return self._store(identity, new, dry_run=dry_run)

        created: JsonObject = self._write(act, dry_run=dry_run)
        return created

    def patch(self, identity: Identity, operations: Sequence[Json], *, dry_run: bool = False) -> JsonObject:
        """See `ports.Cluster`."""

        def act() -> JsonObject:
            found = self._found(identity)
            try:
                patched: JsonObject = jsonpatch.apply_patch(copy.deepcopy(found), list(operations))
            except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
                raise _refused(422, "Invalid") from error
            if patched["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                raise _refused(409, "Conflict")
            return self._store(identity, patched, dry_run=dry_run)

        written: JsonObject = self._write(act, dry_run=dry_run)
        return written

    def delete(self, identity: Identity, *, uid: str, resource_version: str = "", dry_run: bool = False) -> None:
        """See `ports.Cluster`."""

        def act() -> None:
            metadata = self._found(identity)["metadata"]
            if metadata["uid"] != uid or resource_version not in ("", metadata["resourceVersion"]):
                raise _refused(409, "Conflict")
            if not dry_run:
                del self.objects[identity]

        self._write(act, dry_run=dry_run)

    def edit(self, identity: Identity, **spec: Any) -> None:
        """Somebody else sets these fields of the spec."""
        with self._lock:
            body = copy.deepcopy(self.objects[identity])
            body["spec"] |= spec
            self._store(identity, body, dry_run=False)

    def touch(self, identity: Identity) -> None:
        """A status write: the version moves, the content stays."""
        self._store(identity, copy.deepcopy(self.objects[identity]), dry_run=False)

    def _write(self, act: Callable[[], Any], *, dry_run: bool) -> Any:
        with self._lock:
            if dry_run:
                return copy.deepcopy(act())
            self.writes += 1
            self.before_write(self.writes)
            fault = self.faults.get(self.writes)
            if fault is Fault.REFUSED:
                raise _refused(400, "BadRequest")
            if fault is Fault.LOST_BEFORE:
                raise RemoteError("the connection broke")
            result = act()
            if fault is Fault.LOST_AFTER:
                raise RemoteError("the connection broke")
            return copy.deepcopy(result)

    def _found(self, identity: Identity) -> JsonObject:
        if identity not in self.objects:
            raise _refused(404, "NotFound")
        return self.objects[identity]

    def _store(self, identity: Identity, body: JsonObject, *, dry_run: bool) -> JsonObject:
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        if not dry_run:
            self.objects[identity] = body
        return body


def _refused(code: int, reason: str) -> ServerRefused:
    return ServerRefused(Status(code=code, reason=reason, message="refused"))
