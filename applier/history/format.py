"""Pure: a revision as bytes. The policies as rendered, compressed, in chunks; and a head that says the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from applier.journal.key import Key
from applier.journal.sealed import (
    CHUNK_BYTES,
    DIGEST,
    Trust,
    count,
    join,
    matching,
    opened,
    seal,
    split,
    text,
)
from renderer.errors import InputError
from renderer.manifest import ownership
from renderer.manifest.document import Policy, parse
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.policyset import PolicySet, duplicates
from renderer.manifest.yamlio import Document

VERSION: Final = 1
#: What policies may have unpacked: a head that nobody vouches for must not fill the memory.
POLICIES_BYTES: Final = 256 * 1024 * 1024
#: No head of ours can be taken for that of a journal, which the same key signs.
_RECORD: Final = "revision"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
#: The greatest number that a head may have: whoever can't sign must not write one that is never reached.
MOST: Final = 999_999_999


class RevisionError(InputError):
    """A revision can't be used: not there, damaged, forged, of another cluster, or of a newer version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a set of policies comes from, as far as it is known: which command, for which cluster, at which commit."""

    command: str
    organization: str = ""
    cluster: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a revision is, but for its policies.

    `name` is what it is kept under, `lease` and `cluster` hold the UIDs by which its cluster is known, `run` is who
    held the lock and `account` whom the cluster took it for. `digest` is that of a snapshot of the same policies. The
    counts are what the run wrote; `chunks` the SHA-256 of each chunk in order.
    """

    name: str
    number: int
    kept: str
    lease: str
    cluster: Mapping[str, str]
    run: str
    account: str
    origin: Origin
    digest: str
    policies: int
    created: int = 0
    updated: int = 0
    deleted: int = 0
    chunks: tuple[str, ...] = field(default=())


def pack(policies: Iterable[Policy]) -> tuple[bytes, ...]:
    """The policies as chunks; the same ones give the same bytes."""
    return split([policy.body for policy in policies], CHUNK_BYTES)


def unpack(head: Head, chunks: Sequence[bytes]) -> PolicySet:
    """The policies of the chunks that the head names. Raises RevisionError when they are not that.

    They are checked as a snapshot's are: each is one that Insights owns, of a kind that is managed here.
    """
    bodies = join(head.chunks, chunks, most_bytes=POLICIES_BYTES, called="policies", error=RevisionError)
    if not isinstance(bodies, list) or len(bodies) != head.policies:
        raise RevisionError(f"it does not hold the {head.policies} policies that its head says.")
    policies, problems = [], []
    for number, body in enumerate(bodies, 1):
        policy, wrong = parse(Document(value=body, source=f"revision {head.number}", number=number, line=0))
        problems += wrong
        if policy:
            policies.append(policy)
            if not ownership.is_owned(body):
                problems.append(policy.problem("is not owned by Insights"))
    problems += duplicates(policies)
    if problems:
        raise RevisionError("it holds what is no policy of ours.", details=[str(problem) for problem in problems])
    return PolicySet(policies)


def write_head(head: Head, key: Key | None) -> bytes:
    """The head as JSON that people can read, signed when there is a key."""
    return seal(_fields(head), key)


def read_head(data: bytes, key: Key | None) -> tuple[Head, Trust]:
    """The head, and whether it can be trusted. Raises RevisionError when it is none, or of a newer version."""
    return opened(data, key, version=VERSION, read=_head, error=RevisionError)


def _fields(head: Head) -> dict[str, Json]:
    return {
        "formatVersion": VERSION,
        "record": _RECORD,
        "name": head.name,
        "number": head.number,
        "kept": head.kept,
        "lease": head.lease,
        "cluster": dict(head.cluster),
        "run": head.run,
        "account": head.account,
        "origin": {
            "command": head.origin.command,
            "organization": head.origin.organization,
            "cluster": head.origin.cluster,
            "commit": head.origin.commit,
        },
        "digest": head.digest,
        "policies": head.policies,
        "created": head.created,
        "updated": head.updated,
        "deleted": head.deleted,
        "chunks": list(head.chunks),
    }


def _head(fields: JsonObject) -> Head:
    if (fields["formatVersion"], fields["record"]) != (VERSION, _RECORD):
        raise ValueError
    origin = fields["origin"]
    return Head(
        name=matching(_NAME, fields["name"]),
        number=count(fields["number"], MOST),
        kept=text(fields["kept"]),
        lease=text(fields["lease"]),
        cluster={text(key): text(value) for key, value in fields["cluster"].items()},
        run=text(fields["run"]),
        account=text(fields["account"]),
        origin=Origin(**{name: text(origin[name]) for name in ("command", "organization", "cluster", "commit")}),
        digest=matching(DIGEST, fields["digest"]),
        policies=count(fields["policies"], MOST),
        created=count(fields["created"], MOST),
        updated=count(fields["updated"], MOST),
        deleted=count(fields["deleted"], MOST),
        chunks=tuple(matching(DIGEST, digest) for digest in fields["chunks"]),
    )
