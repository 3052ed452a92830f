"""Pure: from what `kubectl get … -o yaml` or `-o json` printed to the policies in it.

One object, several documents, a List of kubectl's or one of the API (`kubectl get --raw`): all are read. What is no
policy is counted, since people dump more than policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from renderer.errors import DocumentErrors, Problem
from renderer.manifest import kinds, yamlio
from renderer.manifest.document import DEFAULT_NAMESPACE, Policy, field_path
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.yamlio import Document, Limits

#: A List is one document, however many objects it holds.
LIMITS: Final = Limits(nodes_after_aliases=3_000_000)
_LIST: Final = "List"
_MOST_PROBLEMS: Final = 20
_AGAIN: Final = "Save it once more: kubectl get KIND,KIND… --all-namespaces -o yaml > FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """The policies of a dump, each as the server gave it, in their order; and how many objects were none.

    Two of one identity are possible: the same object, read in two versions.
    """

    policies: tuple[Policy, ...]
    ignored: int


def read(data: bytes, *, source: str) -> Dump:
    """Read a dump; `source` is what messages call it.

    Raises DocumentErrors when it is none, or was cut off where that shows.
    """
    documents, problems = yamlio.load_documents(data, source=source, limits=LIMITS)
    if not documents and not problems:
        problems = [Problem(source=source, message="is empty; kubectl writes a List even when there is no object")]
    policies, ignored = [], 0
    for one in chain.from_iterable(map(_objects, documents)):
        if isinstance(one, Policy):
            policies.append(one)
        elif one is None:
            ignored += 1
        else:
            problems.append(one)
        # To find the line of each, the document is read once more.
        if len(problems) >= _MOST_PROBLEMS:
            break
    if problems:
        raise DocumentErrors(problems[:_MOST_PROBLEMS], hint=_AGAIN)
    return Dump(policies=tuple(policies), ignored=ignored)


def _objects(document: Document) -> Iterator[Policy | Problem | None]:
    """Each object of a document: a policy, None for what is none, or what is wrong with it."""
    value = document.value
    items = value.get("items") if isinstance(value, dict) else None
    if not isinstance(items, list):
        yield _object(document, value, ())
        return
    listed = value.get("kind")
    if not isinstance(listed, str) or not listed.endswith(_LIST):
        yield _problem(document, ("items",), "are there, but no kind List, which kubectl writes last: it was cut off")
        return
    # The API's own lists say once what their items are.
    common = {} if listed == _LIST else {"apiVersion": value.get("apiVersion"), "kind": listed.removesuffix(_LIST)}
    for index, item in enumerate(items):
        yield _object(document, common | item if isinstance(item, dict) else item, ("items", index))


def _object(document: Document, value: Json, path: tuple[str | int, ...]) -> Policy | Problem | None:
    if not isinstance(value, dict):
        return _problem(document, path, "is no object of Kubernetes")
    api_version, name = value.get("apiVersion"), value.get("kind")
    if not isinstance(api_version, str) or not isinstance(name, str):
        return _problem(document, path, "has no apiVersion or no kind")
    kind = kinds.find(api_version.rpartition("/")[0], name)
    if kind is None:
        return None
    metadata: Json = value.get("metadata")
    if wrong := _wrong_metadata(metadata):
        return _problem(document, (*path, "metadata"), wrong)
    if not isinstance(value.get("spec"), dict):
        return _problem(document, (*path, "spec"), "is missing, or no map: the dump was cut off or edited")
    namespace = metadata.get("namespace") or DEFAULT_NAMESPACE
    identity = Identity(kind=kind, namespace=namespace if kind.namespaced else "", name=metadata["name"])
    return Policy(identity=identity, body={**value, "metadata": _metadata(metadata)})


def _wrong_metadata(metadata: Json) -> str:
    if not isinstance(metadata, dict):
        return "is missing: the dump was cut off or edited"
    for key in ("name", "namespace"):
        if not isinstance(metadata.get(key, ""), str | None):
            return f"has a {key} that is no text"
    if not metadata.get("name"):
        return "has no name: the dump was cut off or edited"
    for section in ("labels", "annotations"):
        if not isinstance(metadata.get(section), dict | None):
            return f"has {section} that are no map"
    return ""


def _metadata(metadata: JsonObject) -> JsonObject:
    """The metadata, without a record of managers that is not as the server writes it: it only informs."""
    entries = metadata.get("managedFields")
    if isinstance(entries, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("manager"), str | None)
        and isinstance(entry.get("fieldsV1"), dict | None)
        for entry in entries
    ):
        return metadata
    return {key: value for key, value in metadata.items() if key != "managedFields"}


def _problem(document: Document, path: tuple[str | int, ...], message: str) -> Problem:
    return Problem(
        source=document.source,
        line=document.line_of(*path),
        document=document.number,
        field=field_path(path),
        message=message,
    )
