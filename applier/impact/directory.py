"""Resources from manifests in a directory, read as Kubernetes reads them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from applier.guards.own_writes import NAME_LABEL
from applier.impact.exclusions import Exclusions
from applier.impact.patterns import Served
from renderer.errors import DocumentErrors, InputError, Problem
from renderer.manifest import yamlio
from renderer.manifest.document import field_path
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.yamlio import Document

_ENDINGS: Final = (".yaml", ".yml", ".json")
_FILE_BYTES: Final = 64 * 1024 * 1024
_ALL_BYTES: Final = 512 * 1024 * 1024
_PAGE: Final = 500
#: Fields of metadata, by the types that they may have.
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "name": (str,),
    "generateName": (str,),
    "namespace": (str,),
    "labels": (dict,),
    "annotations": (dict,),
    "ownerReferences": (list,),
}
_HINT: Final = "--impact=DIR takes a directory of manifests: .yaml, .yml and .json files, at any depth."

_Place: TypeAlias = tuple[str | int, ...]


class Manifests:
    """A `Source`: every file of the directory was read when it was made."""

    def __init__(self, directory: Path, exclusions: Exclusions | None = None) -> None:
        """Read the directory; `exclusions` are those of the cluster that the manifests are for, if they are known.

        Raises InputError when it is none or holds no manifest, DocumentErrors for every file that can't be read.
        """
        self.name = str(directory)
        self._exclusions = exclusions or Exclusions()
        self._found: dict[Served, list[JsonObject]] = {}
        seen: set[tuple[str, ...]] = set()
        for body in _objects(directory):
            metadata = body["metadata"]
            key = (
                body["apiVersion"],
                body["kind"],
                metadata.get("namespace") or "",
                metadata.get("name") or str(id(body)),
            )
            if key not in seen:
                seen.add(key)
                self._found.setdefault(Served.of_manifest(body), []).append(body)

    def kinds(self) -> Sequence[Served]:
        """The kinds of the manifests."""
        return sorted(self._found)

    def namespaces(self) -> Mapping[str, JsonObject]:
        """The namespaces among the manifests."""
        return {
            body["metadata"]["name"]: _with_name(body["metadata"])
            for served, bodies in self._found.items()
            for body in bodies
            if (served.group, served.kind) == ("", "Namespace") and body["metadata"].get("name")
        }

    def exclusions(self) -> Exclusions:
        """Those that it was given."""
        return self._exclusions

    def pages(self, served: Served) -> Iterator[list[JsonObject]]:
        """The manifests of that kind."""
        found = self._found[served]
        for start in range(0, len(found), _PAGE):
            yield found[start : start + _PAGE]


def _with_name(metadata: JsonObject) -> JsonObject:
    """With the label that the server sets."""
    return {**metadata, "labels": {**(metadata.get("labels") or {}), NAME_LABEL: metadata["name"]}}


def _objects(directory: Path) -> Iterator[JsonObject]:
    problems: list[Problem] = []
    count = size = 0
    for path in _files(directory):
        count += 1
        try:
            data = _read(path)
        except OSError as error:
            problems.append(Problem(source=str(path), message=f"can't be read: {error.strerror or error}"))
            continue
        size += len(data)
        if size > _ALL_BYTES:
            raise InputError(
                f"--impact: {directory} holds more than {_ALL_BYTES // 1024**2} MiB of manifests.", hint=_HINT
            )
        documents, found = yamlio.load_documents(data, source=str(path))
        problems += found
        for document in documents:
            for body, place in _of_document(document.value, ()):
                if wrong := _wrong_field(body):
                    problems.append(_problem(document, (*place, *wrong)))
                else:
                    yield body
    if problems:
        raise DocumentErrors(problems, hint="Correct the files that are named, or name another directory.")
    if not count:
        raise InputError(f"--impact: {directory} holds no manifest.", hint=_HINT)


def _files(directory: Path) -> Iterator[Path]:
    if not directory.is_dir():
        what = "is no directory" if directory.exists() else "does not exist"
        raise InputError(f"--impact: {directory} {what}.", hint=_HINT)

    def unreadable(error: OSError) -> None:
        raise InputError(f"--impact: {error.filename} can't be read: {error.strerror or error}.", hint=_HINT) from error

    for place, folders, names in os.walk(directory, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if name.endswith(_ENDINGS))


def _read(path: Path) -> bytes:
    """What the file holds; OSError for a pipe or a device, which may never end."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(_FILE_BYTES + 1)


def _of_document(value: Json, place: _Place) -> Iterator[tuple[JsonObject, _Place]]:
    """Each object of a document, with its place in it.

    What is no object of Kubernetes (values, settings of other tools) is passed over.
    """
    if not isinstance(value, dict):
        return
    if isinstance(value.get("items"), list) and str(value.get("kind", "")).endswith("List"):
        for number, item in enumerate(value["items"]):
            yield from _of_document(item, (*place, "items", number))
        return
    named = isinstance(value.get("apiVersion"), str) and isinstance(value.get("kind"), str)
    if named and isinstance(value.get("metadata"), dict):
        yield value, place


def _wrong_field(body: JsonObject) -> _Place:
    """The first field that no server would take, of those that are looked at here; () when there is none."""
    metadata = body["metadata"]
    for key, types in _TYPES.items():
        if not isinstance(metadata.get(key), (*types, type(None))):
            return "metadata", key
    for key in ("labels", "annotations"):
        for name, text in (metadata.get(key) or {}).items():
            if not isinstance(text, str):
                return "metadata", key, name
    for number, owner in enumerate(metadata.get("ownerReferences") or []):
        if not isinstance(owner, dict):
            return "metadata", "ownerReferences", number
    return next(((key,) for key in ("spec", "status") if not _may_be_object(body, key)), ())


def _may_be_object(body: JsonObject, key: str) -> bool:
    return body["kind"] not in ("Pod", "ReplicaSet") or isinstance(body.get(key), (dict, type(None)))


def _problem(document: Document, place: _Place) -> Problem:
    return Problem(
        source=document.source,
        line=document.line_of(*place),
        document=document.number,
        field=field_path(place),
        message="has a type that Kubernetes does not take there",
    )
