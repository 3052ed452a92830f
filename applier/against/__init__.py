"""What a plan compares with when there is no cluster: another snapshot, a git revision of the same one, or a dump."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from applier import offline_schemas
from applier.against import dump
from applier.offline_schemas import SchemaSet
from applier.ports import Live, Resource
from applier.schema import defaults
from renderer import snapshot
from renderer.errors import DocumentErrors, InputError, Problem, SnapshotError, UsageError
from renderer.manifest.document import Policy, field_path
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.normalize import content

STANDARD_INPUT: Final = "-"
_GIT: Final = "git:"
_TAKES: Final = (
    "It takes a snapshot's directory, git:REV, or a file that kubectl get … -o yaml wrote (- for standard input)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A `ports.Counterpart`: policies that were saved, as a cluster of the schema set's versions would hold them.

    `notes` say by what was compared, and what may be missing.
    """

    live: Live
    documents: Mapping[str, JsonObject]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, held: Iterable[Policy], schemas: SchemaSet, *, wanted: Iterable[Policy], notes: Sequence[str] = ()
    ) -> Self:
        """Take what was saved, and by which schemas it is to be compared with what is wanted.

        Raises DocumentErrors when two objects have one identity and are not the same object.
        """
        held, wanted = list(held), list(wanted)
        resources = _serving(schemas.resources, [*held, *wanted])
        chosen = _one_of_each(held, resources)
        stored = defaults.default(chosen.values(), resources, schemas.documents)
        objects = {
            identity: _as_live(policy, stored.bodies.get(identity, policy.body), resources[identity.kind])
            for identity, policy in chosen.items()
            if identity.kind in resources
        }
        offline = f"no cluster was asked: compared by the schemas of {schemas.origin}, not dry-run"
        return cls(
            live=Live(resources=resources, objects=objects, unreadable={}),
            documents=schemas.documents,
            notes=(offline, *notes, *stored.notes, *_hidden(chosen, wanted, resources, schemas.documents)),
        )

    @classmethod
    def nothing(cls, schemas: SchemaSet) -> Self:
        """A cluster that serves what the set says and holds nothing: so policies are judged by schemas alone."""
        whose = f"of {schemas.origin}" if schemas.origin else "that were kept"
        return cls(
            live=Live(resources=schemas.resources, objects={}, unreadable={}),
            documents=schemas.documents,
            notes=(f"no cluster was asked: judged by the schemas {whose}",),
        )

    def observe(self, kinds: Sequence[Kind]) -> Live:
        """What was saved; see `ports.Counterpart`."""
        objects = {identity: body for identity, body in self.live.objects.items() if identity.kind in kinds}
        return replace(self.live, objects=objects)

    def schemas(self, api_versions: Collection[str]) -> Mapping[str, JsonObject]:
        """Those of the set; see `ports.Counterpart`."""
        return {version: self.documents[version] for version in api_versions & self.documents.keys()}


def _serving(resources: Mapping[Kind, Resource], policies: Iterable[Policy]) -> dict[Kind, Resource]:
    """The resources, as if a cluster served each policy's version too: of one without a schema that is noted."""
    served = dict(resources)
    for policy in policies:
        kind = policy.identity.kind
        version = policy.api_version.rpartition("/")[2]
        found = served.get(kind) or Resource(kind=kind, version=version, served=())
        if version not in found.served:
            found = replace(found, served=(*found.served, version))
        served[kind] = found
    return served


def _one_of_each(held: Iterable[Policy], resources: Mapping[Kind, Resource]) -> dict[Identity, Policy]:
    """Each object once. One that was read in two versions counts in the stored one, which hides no field."""
    chosen: dict[Identity, Policy] = {}
    twice: list[Problem] = []
    for policy in held:
        earlier = chosen.setdefault(policy.identity, policy)
        if earlier is policy:
            continue
        if not _is_same(earlier, policy):
            twice.append(policy.problem("is there twice; keep the one that is meant", "metadata", "name"))
        if policy.api_version == resources[policy.identity.kind].api_version:
            chosen[policy.identity] = policy
    if twice:
        raise DocumentErrors(twice, hint="Save it once more.")
    return chosen


def _is_same(one: Policy, other: Policy) -> bool:
    uid = one.body["metadata"].get("uid")
    return one.body == other.body or (bool(uid) and uid == other.body["metadata"].get("uid"))


def _hidden(
    held: Mapping[Identity, Policy],
    wanted: Iterable[Policy],
    resources: Mapping[Kind, Resource],
    documents: Mapping[str, JsonObject],
) -> Iterator[str]:
    """A note for each object that was read in a version which can't show a field that is wanted."""
    for policy in wanted:
        kind, saved = policy.identity.kind, held.get(policy.identity)
        if saved is None or saved.api_version in (resources[kind].api_version, policy.api_version):
            continue
        document = documents.get(saved.api_version, {"kinds": {}})
        if kind.name in document["kinds"]:
            own = defaults.Schema(document["kinds"][kind.name], document["types"])
            if lost := own.prune(content(policy.body, kind))[1]:
                fields = ", ".join(map(field_path, lost))
                yield f"{policy.identity} was saved in {saved.api_version}, which lacks {fields}: it shows as a change"


def _as_live(policy: Policy, stored: JsonObject, resource: Resource) -> JsonObject:
    """The object as a server would give it: content in the storage version, and whatever metadata was saved."""
    return {
        **content(stored, policy.identity.kind),
        "apiVersion": resource.api_version,
        "metadata": policy.body["metadata"],
    }


def read(other: str, directory: Path, wanted: Collection[Policy]) -> Saved:
    """What `other` names: a snapshot's directory, `git:REV` (of `directory`), or a dump's file (`-`: standard input).

    Raises SnapshotError, DocumentErrors or InputError for what can't be used, ConfigurationError for a revision that
    is not there, UsageError for nothing.
    """
    if not other:
        raise UsageError("--against is empty; without it, the cluster is asked.", hint=_TAKES)
    schemas = offline_schemas.load()
    if other.startswith(_GIT):
        return _at_revision(directory, other, schemas, wanted)
    if other != STANDARD_INPUT and Path(other).is_dir():
        return Saved.of(snapshot.read(Path(other)).policies, schemas, wanted=wanted)
    found = dump.read(_bytes(other), source=called(other))
    return Saved.of(found.policies, schemas, wanted=wanted, notes=list(_dump_notes(found, wanted)))


def called(other: str) -> str:
    """What people read of it."""
    return "standard input" if other == STANDARD_INPUT else other


def _at_revision(directory: Path, other: str, schemas: SchemaSet, wanted: Iterable[Policy]) -> Saved:
    from renderer.gitrepo import files_at

    files = files_at(directory, other.removeprefix(_GIT))
    if not files:
        note = f"{directory} was not there at {other.removeprefix(_GIT)}: all of it is new"
        return Saved.of((), schemas, wanted=wanted, notes=[note])
    try:
        policies = snapshot.read_files(files, source=f"{other}:{directory}").policies
    except SnapshotError as error:
        error.hint = "Name another revision."
        raise
    return Saved.of(policies, schemas, wanted=wanted)


def _bytes(other: str) -> bytes:
    """The bytes of a dump, or one more than may be."""
    try:
        if other == STANDARD_INPUT:
            if sys.stdin is None:
                raise InputError("--against: standard input is closed.", hint=_TAKES)
            return sys.stdin.buffer.read(dump.LIMITS.bytes + 1)
        with Path(other).open("rb") as file:
            return file.read(dump.LIMITS.bytes + 1)
    except OSError as error:
        raise InputError(
            f"--against: {called(other)} can't be read: {error.strerror or error}.",
            hint=_TAKES,
        ) from error


def _dump_notes(found: dump.Dump, wanted: Iterable[Policy]) -> Iterator[str]:
    if found.ignored:
        objects = "1 object is" if found.ignored == 1 else f"{found.ignored} objects are"
        yield f"{objects} no policy, and ignored"
    absent = {policy.identity.kind for policy in wanted} - {policy.identity.kind for policy in found.policies}
    if absent:
        kinds = ", ".join(kind.resource for kind in sorted(absent))
        yield f"nothing of these kinds was saved, so all of them counts as new: {kinds}"
