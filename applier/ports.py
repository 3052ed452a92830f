"""What the applier needs from outside, as protocols: the pure parts and the transaction know these only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from applier.verdict import Verdict
from renderer.errors import ExitCode, Failure, NotPermitted
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """How the cluster serves a kind: the version it stores, and all that it serves."""

    kind: Kind
    version: str
    served: tuple[str, ...]

    @property
    def api_version(self) -> str:
        """`group/version` of the storage version: diffs, writes and before-images know no other."""
        return f"{self.kind.group}/{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What the cluster holds: the objects of each readable kind, and the kinds that could not be read."""

    resources: Mapping[Kind, Resource]
    objects: Mapping[Identity, JsonObject]
    unreadable: Mapping[Kind, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A refusal of the server, as its Status object tells it."""

    code: int
    reason: str
    message: str
    causes: tuple[tuple[str, str], ...] = ()


class ServerRefused(Failure):
    """The server answered with an error status that is about the request; `status` says which."""

    # Where nothing better is known of it, the server is not one that we can work with.
    code = ExitCode.UNAVAILABLE

    def __init__(self, status: Status, *, hint: str = "") -> None:
        super().__init__(f"{status.message} ({status.code} {status.reason})", hint=hint)
        self.status = status


class Unauthenticated(NotPermitted):
    """The server does not know this account at all (401)."""


class Forbidden(NotPermitted):
    """The server knows the account and does not allow this (403), whoever decided it; `status` is its answer."""

    def __init__(self, message: str, *, hint: str, status: Status) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Cluster(Protocol):
    """The Kubernetes API, as far as policies need it.

    Every call raises RemoteError when the server can't be reached, NotPermitted when it refuses the account,
    and ServerRefused when it refuses the request itself. No call outlives its time limit.
    """

    def observe(self, kinds: Sequence[Kind]) -> Live:
        """Read every object of those kinds, in the storage version; one LIST per kind and 500 objects."""
        ...

    def schemas(self, api_versions: Collection[str]) -> Mapping[str, JsonObject]:
        """The schemas that the server publishes of those group versions, as `schema.trimmed` leaves them.

        One that can't be had, for whatever reason, is left out: dry runs then take its place.
        """
        ...

    def read(self, identity: Identity) -> JsonObject | None:
        """The object as it is now, or None when there is none."""
        ...

    def may_write(self, kinds: Sequence[Kind]) -> frozenset[Kind]:
        """Those kinds of which this account may create, patch and delete objects."""
        ...

    def create(self, body: JsonObject, identity: Identity, *, dry_run: bool = False) -> JsonObject:
        """Create it; the answer is the object as stored (or as it would be)."""
        ...

    def patch(self, identity: Identity, operations: Sequence[Json], *, dry_run: bool = False) -> JsonObject:
        """Apply RFC 6902 operations; the answer is the object as stored (or as it would be)."""
        ...

    def delete(self, identity: Identity, *, uid: str, resource_version: str = "", dry_run: bool = False) -> None:
        """Delete that very object (by uid, and unchanged since resource_version when it is given)."""
        ...


class Leases(Protocol):
    """The Lease objects of one namespace or another."""

    def read_lease(self, namespace: str, name: str) -> JsonObject | None:
        """The Lease, or None when there is none."""
        ...

    def write_lease(self, lease: JsonObject, *, seconds: float) -> JsonObject:
        """Create it, or replace the one whose resourceVersion it carries, within so many seconds.

        Raises ServerRefused with 409 when another was faster.
        """
        ...


class Validator(Protocol):
    """Something that judges policies before anything is written."""

    def validate(self, policies: Sequence[Policy]) -> Verdict:
        """Judge all of them in one pass. A policy that could not be checked is never silently valid."""
        ...


class Clock(Protocol):
    """Time, so that tests can hold it."""

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...
