"""Pure: what of a resource is evaluated, and which Pods are alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from applier.impact.model import Resource
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import digest

#: In which Pods of one owner differ; nothing that people write.
_OWN_LABELS: Final = frozenset(
    {"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index"}
)
_OWN_FIELDS: Final = frozenset({"nodeName", "hostname"})
_TOKEN_VOLUME: Final = re.compile(r"\bkube-api-access-[a-z0-9]{5}\b")
_DROPPED: Final = frozenset({"managedFields", "resourceVersion", "generation", "selfLink", "uid"})
_OVER: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A resource as it is evaluated: it carries `number` as its uid, by which results are told apart."""

    number: int
    body: JsonObject
    key: str

    @property
    def uid(self) -> str:
        """What stands in the body."""
        return f"r{self.number}"

    def resource(self, alike: int) -> Resource:
        """What reports show of it."""
        metadata = self.body["metadata"]
        return Resource(
            kind=self.body["kind"],
            namespace=metadata.get("namespace") or "",
            name=metadata.get("name") or metadata.get("generateName") or "",
            api_version=self.body["apiVersion"],
            alike=alike,
        )


@dataclass(slots=True)
class Crowd:
    """Lets the first of those that are alike through, and counts the others."""

    count: int = 0
    over: int = 0
    _seen: dict[str, int] = field(default_factory=dict)

    def take(self, bodies: Iterable[JsonObject]) -> Iterator[Workload]:
        """Those that are to be evaluated, slimmed."""
        for body in bodies:
            if _is_over(body):
                self.over += 1
                continue
            self.count += 1
            key = _likeness(body)
            if key in self._seen:
                self._seen[key] += 1
                continue
            if key:
                self._seen[key] = 0
            yield Workload(number=self.count, body=_slim(body, f"r{self.count}"), key=key)

    def alike(self, key: str) -> int:
        """How many more there are of a workload with that key, as far as they were seen."""
        return self._seen.get(key, 0)


def _is_over(body: JsonObject) -> bool:
    """Whether it runs no more: a Pod that ended, a ReplicaSet that its Deployment replaced."""
    status, spec = body.get("status") or {}, body.get("spec") or {}
    if body["kind"] == "Pod":
        return status.get("phase") in _OVER
    return body["kind"] == "ReplicaSet" and spec.get("replicas") == 0 and bool(_owner(body))


def _owner(body: JsonObject) -> str:
    owners = body["metadata"].get("ownerReferences") or []
    return next((str(owner.get("uid")) for owner in owners if owner.get("controller")), "")


def _likeness(body: JsonObject) -> str:
    """Equal for Pods of one owner that differ in names only, "" for all else."""
    if body["kind"] != "Pod" or not (owner := _owner(body)):
        return ""
    metadata = body["metadata"]
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key not in _OWN_LABELS}
    spec = {key: value for key, value in (body.get("spec") or {}).items() if key not in _OWN_FIELDS}
    text = json.dumps([owner, labels, metadata.get("annotations"), spec], sort_keys=True)
    return digest(_TOKEN_VOLUME.sub("kube-api-access", text))


def _slim(body: JsonObject, uid: str) -> JsonObject:
    """The resource as it would be sent: without its status, and with a uid of ours."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in _DROPPED}
    return {**{key: value for key, value in body.items() if key != "status"}, "metadata": {**metadata, "uid": uid}}
