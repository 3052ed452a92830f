"""From a YAML document to a policy: what it must have to be one, and everything wrong with it if it is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from renderer.errors import Problem
from renderer.manifest import kinds
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.ownership import is_generated
from renderer.manifest.yamlio import Document

#: A namespaced policy that names no namespace lands here, as with kubectl; the snapshot shows it.
DEFAULT_NAMESPACE: Final = "default"

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ (DNS subdomain, DNS label)
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME_LIMIT: Final = 253
_NAMESPACE_LIMIT: Final = 63

_GROUPS: Final = frozenset(kind.group for kind in kinds.KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy that has been checked, and where it was read from (for messages; it is not compared)."""

    identity: Identity
    body: JsonObject
    document: Document | None = field(default=None, compare=False, repr=False)

    @property
    def api_version(self) -> str:
        """The version that its author wrote it in, as `group/version`."""
        return str(self.body["apiVersion"])

    @property
    def source(self) -> str:
        """What the user calls the place that it was read from."""
        return self.document.source if self.document else ""

    def problem(self, message: str, *path: str | int) -> Problem:
        """That message, said of this policy at the line of the field `path`."""
        document = self.document
        return Problem(
            source=self.source or str(self.identity),
            line=document.line_of(*path) if document else 0,
            document=document.number if document else 0,
            policy=str(self.identity),
            field=field_path(path),
            message=message,
        )


def field_path(path: Iterable[str | int]) -> str:
    """`spec.rules[0].name` for `("spec", "rules", 0, "name")`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def parse(document: Document) -> tuple[Policy | None, list[Problem]]:
    """The policy that this document is, or everything that keeps it from being one.

    Every check answers, so that one run shows all the mistakes.
    """
    problems = [_problem(document, message, path) for path, message in _mistakes(document.value)]
    if problems:
        return None, problems
    body: JsonObject = document.value
    group = body["apiVersion"].rpartition("/")[0]
    kind = kinds.find(group, body["kind"])
    if kind is None:  # _mistakes has refused it
        msg = "a document passed the checks without a known kind"
        raise AssertionError(msg)
    metadata = body["metadata"]
    namespace = (metadata.get("namespace") or DEFAULT_NAMESPACE) if kind.namespaced else ""
    identity = Identity(kind=kind, namespace=namespace, name=metadata["name"])
    return Policy(identity=identity, body=body, document=document), []


def _problem(document: Document, message: str, path: tuple[str | int, ...]) -> Problem:
    return Problem(
        source=document.source,
        line=document.line_of(*path),
        document=document.number,
        policy=_called(document.value),
        field=field_path(path),
        message=message,
    )


def _called(value: Json) -> str:
    """`Kind/name` as far as the document says; only for messages."""
    if not isinstance(value, dict):
        return ""
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    parts = [part for part in (value.get("kind"), name) if isinstance(part, str)]
    return "/".join(parts)


_Mistakes = Iterator[tuple[tuple[str | int, ...], str]]


def _mistakes(value: Json) -> _Mistakes:
    if not isinstance(value, dict):
        yield (), f"is {type_name(value)}, not a policy: expected apiVersion, kind, metadata and spec"
        return
    yield from _kind_mistakes(value)
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        yield ("metadata",), "is missing" if metadata is None else f"is {type_name(metadata)}, not a map"
        return
    if "generateName" in metadata:
        yield ("metadata", "generateName"), "is not allowed: a policy is known by its name"
    if is_generated(value):
        yield ("metadata",), "has an owner or Kyverno's managed-by label: such objects are a controller's, never ours"
    yield from _name_mistakes(metadata, "name", _NAME, _NAME_LIMIT)
    if metadata.get("namespace"):
        yield from _name_mistakes(metadata, "namespace", _NAMESPACE, _NAMESPACE_LIMIT)
    for section in ("labels", "annotations"):
        yield from _string_map_mistakes(metadata.get(section), section)


def _kind_mistakes(body: JsonObject) -> _Mistakes:
    missing = [key for key in ("apiVersion", "kind") if not isinstance(body.get(key), str) or not body[key]]
    for key in missing:
        found = body.get(key)
        yield (key,), "is missing" if found in (None, "") else f"is {type_name(found)}, not text"
    if missing:
        return
    group, _, version = body["apiVersion"].rpartition("/")
    if kinds.find(group, body["kind"]) and version:
        return
    if group in _GROUPS:
        known = ", ".join(sorted(kind.name for kind in kinds.KINDS if kind.group == group))
        yield ("kind",), f"{body['kind']} of {group} is not a kind that is managed here; these are: {known}"
    else:
        yield (
            ("apiVersion",),
            f"{body['apiVersion']} {body['kind']} is not a policy; the API groups managed here are "
            + ", ".join(sorted(_GROUPS)),
        )


def _name_mistakes(metadata: JsonObject, key: str, pattern: re.Pattern[str], limit: int) -> _Mistakes:
    name = metadata.get(key)
    path = ("metadata", key)
    if name is None or name == "":
        yield path, "is missing"
    elif not isinstance(name, str):
        yield path, f"is {type_name(name)}, not text: put it in quotes"
    elif len(name) > limit:
        yield path, f"has {len(name)} characters; Kubernetes allows {limit}"
    elif not pattern.fullmatch(name):
        signs = "'-' and '.'" if pattern is _NAME else "'-'"
        yield path, f"{name!r} is no Kubernetes name: lower-case letters and digits, with {signs} in between"


def _string_map_mistakes(value: Json, section: str) -> _Mistakes:
    if value is None:
        return
    if not isinstance(value, dict):
        yield ("metadata", section), f"is {type_name(value)}, not a map"
        return
    for key, item in value.items():
        if item is not None and not isinstance(item, str):
            yield ("metadata", section, key), f"is {type_name(item)}, not text: put it in quotes"


def type_name(value: Json) -> str:
    """What kind of value it is, in words for messages."""
    names = {dict: "a map", list: "a list", str: "text", bool: "a boolean", type(None): "empty"}
    return names.get(type(value), "a number")
