"""Pure: a journal as bytes. The intents, compressed, in chunks; and a head that names the chunks and is signed.

Only a head makes a journal: it is written last, and names every chunk by its digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from applier.change import Action, Change
from applier.journal import sealed
from applier.journal.key import Key
from applier.journal.sealed import DIGEST, UNREADABLE, Trust, count, join, matching, opened, seal, split, text
from renderer.errors import InputError
from renderer.manifest import kinds, ownership
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject

VERSION: Final = 1
CHUNK_BYTES: Final = sealed.CHUNK_BYTES
#: What intents may have unpacked: a head that nobody vouches for must not fill the memory.
INTENTS_BYTES: Final = 512 * 1024 * 1024

#: What names a transaction, and so ConfigMaps and files.
TRANSACTION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_WRITES: Final = frozenset({Action.CREATE, Action.UPDATE, Action.ADOPT, Action.REPLACE, Action.DELETE})
#: Of a before-image: what an undo has no use for.
_NOT_KEPT: Final = frozenset({"managedFields", "selfLink"})


class JournalError(InputError):
    """A journal can't be used: damaged, forged, of another cluster, or of a newer version."""


class State(Enum):
    """How far the run came that wrote the journal."""

    WRITING = "writing"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fencing:
    """Which holder of the lock wrote: the Lease's UID and its transitions, which grow with each new holder."""

    lease: str
    transitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a journal is, but for its intents.

    `cluster` holds the UIDs by which a cluster is known, `supersedes` the transactions that go when this one is
    committed, `chunks` the SHA-256 of each chunk in order.
    """

    transaction: str
    state: State = State.WRITING
    fencing: Fencing
    cluster: Mapping[str, str]
    holder: str
    started: str
    mode: str
    supersedes: tuple[str, ...] = ()
    intents: int
    chunks: tuple[str, ...]


def pack(changes: Sequence[Change]) -> tuple[bytes, ...]:
    """The intents as chunks, each of CHUNK_BYTES at most; the same changes give the same bytes."""
    return split([_intent(change) for change in changes], CHUNK_BYTES)


def unpack(head: Head, chunks: Sequence[bytes]) -> tuple[Change, ...]:
    """The intents of the chunks that the head names. Raises JournalError when they are not that."""
    intents = join(head.chunks, chunks, most_bytes=INTENTS_BYTES, called="intents", error=JournalError)
    try:
        changes = tuple(map(_change, intents))
    except UNREADABLE as error:
        raise JournalError("its intents can't be read.") from error
    if len(changes) != head.intents:
        raise JournalError(f"it holds {len(changes)} intents, and its head says {head.intents}.")
    return changes


def write_head(head: Head, key: Key | None) -> bytes:
    """The head as JSON that people can read, signed when there is a key."""
    return seal(_fields(head), key)


def read_head(data: bytes, key: Key | None) -> tuple[Head, Trust]:
    """The head, and whether it can be trusted. Raises JournalError when it is none, or of a newer version."""
    return opened(data, key, version=VERSION, read=_head, error=JournalError)


def _fields(head: Head) -> dict[str, Any]:
    return {
        "formatVersion": VERSION,
        "transaction": head.transaction,
        "state": head.state.value,
        "fencing": {"lease": head.fencing.lease, "transitions": head.fencing.transitions},
        "cluster": dict(head.cluster),
        "holder": head.holder,
        "started": head.started,
        "mode": head.mode,
        "supersedes": list(head.supersedes),
        "intents": head.intents,
        "chunks": list(head.chunks),
    }


def _head(fields: JsonObject) -> Head:
    if fields["formatVersion"] != VERSION:
        raise ValueError
    fencing = fields["fencing"]
    return Head(
        transaction=matching(TRANSACTION, fields["transaction"]),
        state=State(fields["state"]),
        fencing=Fencing(lease=text(fencing["lease"]), transitions=count(fencing["transitions"])),
        cluster={text(key): text(value) for key, value in fields["cluster"].items()},
        holder=text(fields["holder"]),
        started=text(fields["started"]),
        mode=text(fields["mode"]),
        supersedes=tuple(matching(TRANSACTION, name) for name in fields["supersedes"]),
        intents=count(fields["intents"]),
        chunks=tuple(matching(DIGEST, digest) for digest in fields["chunks"]),
    )


def _intent(change: Change) -> JsonObject:
    identity = change.identity
    return {
        "action": change.action.value,
        "group": identity.kind.group,
        "kind": identity.kind.name,
        "namespace": identity.namespace,
        "name": identity.name,
        "before": _image(change.before),
        "after": change.after,
        "patch": list(change.patch),
    }


def _image(before: JsonObject | None) -> JsonObject | None:
    if before is None:
        return None
    metadata = {key: value for key, value in before["metadata"].items() if key not in _NOT_KEPT}
    return {**{key: value for key, value in before.items() if key != "status"}, "metadata": metadata}


def _change(intent: JsonObject) -> Change:
    """The intent, if it is one that a run of ours can have had. Raises JournalError."""
    kind = kinds.find(intent["group"], intent["kind"])
    if kind is None:
        raise JournalError(f"it names a kind that is not ours: {str(intent['kind'])[:100]}.")
    identity = Identity(kind=kind, namespace=text(intent["namespace"]), name=text(intent["name"]))
    change = Change(
        identity=identity,
        action=Action(intent["action"]),
        before=intent["before"],
        after=intent["after"],
        patch=tuple(intent["patch"]),
    )
    problem = _problem(change)
    if problem:
        raise JournalError(f"{identity}: {problem}.")
    return change


def _problem(change: Change) -> str:
    """What keeps the intent from being a run's of ours, or ""."""
    action, before, after = change.action, change.before, change.after
    if action not in _WRITES:
        return f"{action.value} is no write"
    if (before is None) is not (action is Action.CREATE) or (after is None) is not (action is Action.DELETE):
        return f"its images are not those of a {action.value}"
    for image in (before, after):
        if image is not None and not _shows(image, change.identity):
            return "an image shows another object"
    if before is not None and not (before["metadata"].get("uid") and before["metadata"].get("resourceVersion")):
        return "its image has no uid"
    owned = [image for image in (after, None if action is Action.ADOPT else before) if image is not None]
    if not all(map(ownership.is_owned, owned)) or ownership.is_generated(before or {}):
        return "it is not owned by Insights"
    return ""


def _shows(image: JsonObject, identity: Identity) -> bool:
    metadata = image["metadata"]
    group = str(image["apiVersion"]).rpartition("/")[0]
    namespace = metadata.get("namespace", "") if identity.kind.namespaced else ""
    return (group, image["kind"], namespace, metadata["name"]) == (
        identity.kind.group,
        identity.kind.name,
        identity.namespace,
        identity.name,
    )
