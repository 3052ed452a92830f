"""Schemas for use with no cluster: the set that is shipped, and those that a user had an earlier run keep.

The file is gzip over JSON, whose checksum tells one that was cut off or changed: `form` (of the documents, as
`defaults.FORM`), `origin`, `resources` (`<plural>.<group>` to its `storage` version and those `served`) and `documents`
(group version to what `defaults.trimmed` leaves of it).
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from applier.ports import Resource
from applier.schema import defaults
from renderer.errors import InputError, RemoteError
from renderer.manifest import kinds
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import Kind

if TYPE_CHECKING:
    from applier.cluster.policies import KubernetesCluster

FILE: Final = "schemas.json.gz"
#: The largest file that is read, unpacked; the shipped one has 400 kB.
_MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSet:
    """How a cluster serves the managed kinds, and its schemas of them: what `defaults.default` takes.

    `origin` says whose they are, unless a user kept them.
    """

    origin: str
    resources: Mapping[Kind, Resource]
    documents: Mapping[str, JsonObject]


def published(cluster: KubernetesCluster, *, origin: str = "") -> SchemaSet:
    """What that cluster publishes now, of every managed kind in every version that it serves.

    Raises RemoteError when it does not publish all of it.
    """
    resources = cluster.resources()
    versions = {f"{kind.group}/{version}" for kind, resource in resources.items() for version in resource.served}
    found = SchemaSet(origin=origin, resources=resources, documents=cluster.schemas(versions))
    if lacking := _lacking(found):
        raise RemoteError(f"{cluster.server} does not publish the schemas of {', '.join(lacking)}.")
    return found


def _lacking(schemas: SchemaSet) -> list[str]:
    """The kinds and versions that are served and of which there is no schema."""
    return [
        f"{kind.resource} {version}"
        for kind, resource in schemas.resources.items()
        for version in resource.served
        if kind.name not in schemas.documents.get(f"{kind.group}/{version}", {}).get("kinds", {})
    ]


def load() -> SchemaSet:
    """The set that is shipped: what the versions of Kyverno and Kubernetes publish that `origin` names."""
    return decode((package_files.files("applier.schemas") / FILE).read_bytes())


def read(directory: Path) -> SchemaSet:
    """The set that `write` kept in that directory.

    Raises InputError when there is none, or it was cut off, changed, or written by another version of the program.
    """
    path = directory / FILE
    hint = f"Keep it anew where the cluster can be reached: insights-applier validate DIR --schema-cache {directory}"
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: the schemas can't be read: {error.strerror or error}.", hint=hint) from error
    except ValueError as error:
        raise InputError(f"{path}: these schemas can't be used: {error}.", hint=hint) from error


def write(directory: Path, schemas: SchemaSet) -> None:
    """Keep the set in that directory, which is made if need be; a reader sees all of it or the one before.

    Raises InputError when it can't be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=directory, prefix=f".{FILE}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(encode(schemas))
            Path(name).chmod(0o644)  # for a repository or a pipeline's cache, and no secret
            Path(name).replace(directory / FILE)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{directory}: the schemas can't be kept there: {error.strerror or error}.") from error


def encode(schemas: SchemaSet) -> bytes:
    """The file's bytes: the same for the same set, with one zlib."""
    return gzip.compress(text(schemas), compresslevel=9, mtime=0)


def text(schemas: SchemaSet) -> bytes:
    """What the file holds when unpacked: canonical JSON."""
    served = {
        kind.resource: {"storage": resource.version, "served": list(resource.served)}
        for kind, resource in schemas.resources.items()
    }
    whole = {
        "form": defaults.FORM,
        "origin": schemas.origin,
        "resources": served,
        "documents": dict(schemas.documents),
    }
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> SchemaSet:
    """The set that these bytes hold. Raises ValueError, saying why, when they hold none that we can read."""
    try:
        unpacker = zlib.decompressobj(wbits=31)  # gzip, and its checksum with it
        unpacked = unpacker.decompress(data, _MOST_BYTES)
        whole: Json = json.loads(unpacked) if unpacker.eof else None
    except (zlib.error, ValueError) as error:
        raise ValueError("the file is damaged") from error
    if not isinstance(whole, dict):
        raise ValueError("the file is damaged or was cut off")
    if whole.get("form") != defaults.FORM:
        raise ValueError("another version of this program wrote them")
    try:
        found = [_resource(name, entry) for name, entry in whole["resources"].items()]
        documents = {version: _document(document) for version, document in whole["documents"].items()}
        origin = str(whole["origin"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("they are not what this program writes") from error
    resources = {resource.kind: resource for resource in sorted(found, key=lambda resource: resource.kind)}
    schemas = SchemaSet(origin=origin, resources=resources, documents=documents)
    if lacking := _lacking(schemas):
        raise ValueError(f"they lack {', '.join(lacking)}")
    return schemas


def _resource(name: str, entry: JsonObject) -> Resource:
    kind = kinds.of_resource(name)
    if kind is None:
        raise KeyError(name)
    return Resource(kind=kind, version=str(entry["storage"]), served=tuple(map(str, entry["served"])))


def _document(document: JsonObject) -> JsonObject:
    if not isinstance(document["kinds"], dict) or not isinstance(document["types"], dict):
        raise TypeError(document)
    return document
