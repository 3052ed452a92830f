"""The snapshot on disk: one file a policy, a kustomization, and a lock that says what must be there.

A reader refuses a directory that is not exactly what its lock says. A writer leaves the directory as it was or
as it should be, and never removes a file that it did not write.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from renderer.directory import Changed, compare, linked_folder, replace_files
from renderer.errors import DocumentErrors, SnapshotError
from renderer.manifest import ownership, yamlio
from renderer.manifest.document import Policy, parse
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.policyset import PolicySet

FORMAT_VERSION: Final = 1
LOCK: Final = "snapshot.lock"
KUSTOMIZATION: Final = "kustomization.yaml"
#: What a snapshot holds besides policies.
EMPTY: Final = frozenset({LOCK, KUSTOMIZATION})

_FILE_LIMIT_BYTES: Final = 16 * 1024 * 1024
_READ_BY_TOOLS: Final = (".yaml", ".yml", ".json")
_RENDER_AGAIN: Final = "Render it again with `insights-renderer render`, or restore it from git."


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The policies wanted on one cluster of an organization; `digest` stands for all of their bytes."""

    organization: str
    cluster: str
    policies: PolicySet
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A snapshot as bytes: what lies at each path, and the digest of it all."""

    contents: Mapping[str, bytes]
    digest: str


def render_files(policies: PolicySet, *, organization: str, cluster: str) -> Files:
    """The files of the snapshot, by path: the same policies give the same bytes on every machine. Pure."""
    contents = {policy.identity.path: yamlio.dump(policy.body).encode() for policy in policies}
    entries = [_lock_entry(policy, contents[policy.identity.path]) for policy in policies]
    entries.sort(key=lambda entry: entry["path"])
    digest = _digest(entries)
    lock = {
        "formatVersion": FORMAT_VERSION,
        "organization": organization,
        "cluster": cluster,
        "count": len(entries),
        "digest": digest,
        "policies": entries,
    }
    contents[KUSTOMIZATION] = _kustomization(entries)
    contents[LOCK] = (json.dumps(lock, indent=2, ensure_ascii=False) + "\n").encode()
    return Files(contents=contents, digest=digest)


def digest_of(policies: PolicySet) -> str:
    """The digest that a snapshot of these policies has. Pure."""
    return render_files(policies, organization="", cluster="").digest


def _lock_entry(policy: Policy, data: bytes) -> JsonObject:
    identity = policy.identity
    return {
        "path": identity.path,
        "apiVersion": policy.api_version,
        "kind": identity.kind.name,
        "namespace": identity.namespace,
        "name": identity.name,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _digest(entries: list[JsonObject]) -> str:
    lines = sorted(f"{entry['sha256']}  {entry['path']}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _kustomization(entries: list[JsonObject]) -> bytes:
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [entry["path"] for entry in entries],
    }
    return b"# Written by insights-renderer, so that kubectl -k, Flux and Argo CD can read this folder.\n" + (
        yamlio.dump(body).encode()
    )


def own_paths(directory: Path) -> frozenset[str]:
    """The paths that an earlier render wrote there, by its lock; none when there is no lock that can be read."""
    try:
        entries = _read_lock(_read_file(directory, LOCK), str(directory))["policies"]
    except SnapshotError:
        return frozenset()
    return EMPTY | {entry["path"] for entry in entries}


def extra_paths(directory: Path, listed: frozenset[str] | set[str]) -> list[str]:
    """YAML and JSON files of the directory, sorted, that are not among `listed`; hidden folders are not searched."""
    return sorted(path for path in _manifests(directory) if path not in listed)


def _manifests(directory: Path) -> Iterator[str]:
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            if _is_manifest(name):
                yield (Path(folder) / name).relative_to(directory).as_posix()


def _is_manifest(path: str) -> bool:
    return path.lower().endswith(_READ_BY_TOOLS)


def read(directory: Path) -> Snapshot:
    """The snapshot in `directory`, checked against its lock: bytes, paths, identities, and nothing besides.

    Raises SnapshotError that names everything that is truncated, edited, missing or extra.
    """
    if not directory.is_dir():
        raise SnapshotError(f"{directory} is no directory.", hint=_write_one(str(directory)))
    return _verified(lambda path: _read_file(directory, path), _manifests(directory), source=str(directory))


def read_files(contents: Mapping[str, bytes], *, source: str) -> Snapshot:
    """The snapshot that these files are, by path; `source` is what messages call the place they come from.

    Raises SnapshotError as `read` does.
    """
    visible = (path for path in contents if not any(part.startswith(".") for part in path.split("/")[:-1]))
    return _verified(contents.get, filter(_is_manifest, visible), source=source)


def _verified(file: Callable[[str], bytes | None], manifests: Iterable[str], *, source: str) -> Snapshot:
    """The snapshot among those files: `file` gives the bytes at a path, `manifests` are the paths that tools read."""
    lock = _read_lock(file(LOCK), source)
    entries: list[JsonObject] = lock["policies"]
    policies, details = [], []
    for entry in entries:
        policy, wrong = _read_policy(file(entry["path"]), entry, source)
        details += wrong
        if policy:
            policies.append(policy)
    if file(KUSTOMIZATION) != _kustomization(entries):
        details.append(f"{KUSTOMIZATION}: is missing or was edited")
    listed = {KUSTOMIZATION, *(entry["path"] for entry in entries)}
    details += [f"{path}: is not listed in {LOCK}" for path in sorted(set(manifests) - listed)]
    if lock["count"] != len(entries) or lock["digest"] != _digest(entries):
        details.append(f"{LOCK}: its count or digest does not match its own list: it was edited or truncated")
    if details:
        raise SnapshotError(
            f"{source} is not the snapshot that its {LOCK} describes.", details=details, hint=_RENDER_AGAIN
        )
    return Snapshot(
        organization=lock["organization"],
        cluster=lock["cluster"],
        policies=PolicySet(policies),
        digest=lock["digest"],
    )


def _read_policy(data: bytes | None, entry: JsonObject, source: str) -> tuple[Policy | None, list[str]]:
    path = entry["path"]
    if data is None:
        return None, [f"{path}: is missing"]
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        return None, [f"{path}: was edited or truncated (its sha256 is not the one in {LOCK})"]
    try:
        documents = yamlio.load(data, source=f"{source}/{path}")
    except DocumentErrors as error:
        return None, [str(problem) for problem in error.problems]
    if len(documents) != 1:
        return None, [f"{path}: holds {len(documents)} documents instead of one"]
    policy, problems = parse(documents[0])
    return policy, [*map(str, problems), *(_lock_mismatch(policy, entry) if policy else [])]


def _lock_mismatch(policy: Policy, entry: JsonObject) -> list[str]:
    if _lock_entry(policy, b"") | {"sha256": entry["sha256"]} != entry:
        return [f"{entry['path']}: holds {policy.identity}, which is not what {LOCK} says"]
    if not ownership.is_owned(policy.body):
        return [f"{entry['path']}: lacks the annotation {ownership.OWNED_BY}: {ownership.OWNER}"]
    return []


def _read_file(directory: Path, path: str) -> bytes | None:
    """The bytes at that path; None when it is no ordinary file (a link could point anywhere)."""
    target = directory / path
    try:
        if linked_folder(directory, path) or not stat.S_ISREG(target.lstat().st_mode):
            return None
        with target.open("rb") as file:
            return file.read(_FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotError(
            f"{target} can't be read: {error.strerror or error}.", hint="Check the path and its permissions."
        ) from error


def _write_one(source: str) -> str:
    return f"Write one with `insights-renderer render --out {source}`."


def _read_lock(data: bytes | None, source: str) -> JsonObject:
    if data is None:
        raise SnapshotError(f"{source} holds no {LOCK}: it is not a snapshot.", hint=_write_one(source))
    try:
        lock: Json = json.loads(data)
        if b"\\u" in data:
            json.dumps(lock, ensure_ascii=False).encode()  # refuses half of a surrogate pair, which no path can hold
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"{source}/{LOCK} is not valid JSON: {error}.", hint=_RENDER_AGAIN) from error
    if isinstance(lock, dict) and lock.get("formatVersion") not in (None, FORMAT_VERSION):
        raise SnapshotError(
            f"{source}/{LOCK} has format version {lock['formatVersion']}; this program reads {FORMAT_VERSION}.",
            hint="Use the version of the programs that wrote it, or render it again.",
        )
    problem = _lock_problem(lock)
    if problem:
        raise SnapshotError(f"{source}/{LOCK} {problem}.", hint=_RENDER_AGAIN)
    return dict(lock)


def _lock_problem(lock: Json) -> str:
    expected = {
        "formatVersion": int,
        "organization": str,
        "cluster": str,
        "count": int,
        "digest": str,
        "policies": list,
    }
    if not isinstance(lock, dict):
        return "is not a JSON object"
    for key, kind in expected.items():
        if type(lock.get(key)) is not kind:
            return f"has no valid {key}"
    keys = {"path", "apiVersion", "kind", "namespace", "name", "sha256"}
    seen = set()
    for entry in lock["policies"]:
        if not isinstance(entry, dict) or set(entry) != keys or not all(isinstance(v, str) for v in entry.values()):
            return "lists a policy that lacks a field or has one too many"
        path = Path(entry["path"])
        if path.is_absolute() or ".." in path.parts or "\0" in entry["path"]:
            return f"lists {entry['path']!r}, which is outside the snapshot"
        if entry["path"] in seen:
            return f"lists {entry['path']} twice"
        seen.add(entry["path"])
    return ""


def policies_at(directory: Path) -> PolicySet:
    """The policies that an earlier render wrote there, whatever became of them since: only for telling what changes.

    What can't be read as a policy any more is left out. Raises SnapshotError when a file can't be read at all.
    """
    found: dict[Identity, Policy] = {}
    for path in sorted(own_paths(directory) - EMPTY):
        documents, _ = yamlio.load_documents(_read_file(directory, path) or b"", source=path)
        found |= {policy.identity: policy for policy, _ in map(parse, documents) if policy}
    return PolicySet(found.values())


def would_change(directory: Path, files: Files) -> bool:
    """Whether `write` would change any byte."""
    return bool(compare(directory, files.contents, own=own_paths(directory)))


def write(directory: Path, files: Files) -> Changed:
    """Make `directory` that snapshot and say what changed; files that no render wrote stay.

    Raises ConfigurationError when the place can't be written.
    """
    return replace_files(directory, files.contents, own=lambda: own_paths(directory), last=LOCK)
