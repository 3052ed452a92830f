"""What the applier needs from outside, as protocols: the pure parts and the transaction know these only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from applier.change import Change
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
    """What the cluster holds: the objects of each readable kind, and the kinds that could not be read.

    `warnings` are the server's own, of each kind in the version that it stores, where it was listed.
    """

    resources: Mapping[Kind, Resource]
    objects: Mapping[Identity, JsonObject]
    unreadable: Mapping[Kind, str]
    warnings: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Access:
    """What an account may be allowed: a verb on objects of one kind, in a namespace ("": in all), by name ("": any)."""

    group: str
    plural: str
    verb: str
    namespace: str = ""
    name: str = ""

    @property
    def resource(self) -> str:
        """`<plural>.<group>`, as kubectl names it."""
        return f"{self.plural}.{self.group}".rstrip(".")


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


class Counterpart(Protocol):
    """What a plan compares with: a cluster, or what was saved of one."""

    def observe(self, kinds: Sequence[Kind]) -> Live:
        """Read every object of those kinds, in the storage version; one LIST per kind and 500 objects."""
        ...

    def schemas(self, api_versions: Collection[str]) -> Mapping[str, JsonObject]:
        """The schemas that the server publishes of those group versions, as `schema.trimmed` leaves them.

        One that can't be had, for whatever reason, is left out: dry runs then take its place.
        """
        ...


class Cluster(Counterpart, Protocol):
    """The Kubernetes API, as far as policies need it.

    Every call raises RemoteError when the server can't be reached, NotPermitted when it refuses the account,
    and ServerRefused when it refuses the request itself. No call outlives its time limit.
    """

    def identity(self) -> Mapping[str, str]:
        """UIDs that tell this cluster from every other, by what has them, as far as this account may read them."""
        ...

    def read(self, identity: Identity) -> JsonObject | None:
        """The object as it is now, or None when there is none."""
        ...

    def may_write(self, kinds: Sequence[Kind]) -> frozenset[Kind]:
        """Those kinds of which this account may create, patch and delete objects."""
        ...

    def denied(self, accesses: Sequence[Access]) -> list[Access]:
        """Those of them that this account does not have; none where the server does not say."""
        ...

    def account(self) -> Account | None:
        """Whom the server takes us for; None where it does not say."""
        ...

    def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        """The labels of a namespace; None where it is absent or may not be read."""
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


class ConfigMaps(Protocol):
    """The ConfigMaps of one namespace or another. Every call raises as those of `Cluster`."""

    def list_config_maps(self, namespace: str, selector: str, *, metadata_only: bool = False) -> list[JsonObject]:
        """Those whose labels match; with `metadata_only` without what they hold."""
        ...

    def read_config_map(self, namespace: str, name: str) -> JsonObject | None:
        """The ConfigMap, or None when there is none."""
        ...

    def write_config_map(self, body: JsonObject) -> JsonObject:
        """Create it, or replace the one whose resourceVersion it carries (409 when another was faster)."""
        ...

    def delete_config_map(self, namespace: str, name: str) -> None:
        """Delete it; ServerRefused with 404 when there is none."""
        ...


class Journal(Protocol):
    """What makes an apply survive its process: the record by which the next run takes a dead one's writes back.

    Every call raises a Failure, with the exit code that it means, when the record can't be kept.
    """

    def begin(self, changes: Sequence[Change]) -> None:
        """Record the writes to come, in their order, and what they find; durable when it returns.

        When it raises, nothing may be written.
        """
        ...

    def commit(self) -> None:
        """All is in place and verified: the record goes.

        When it raises, all stands in the cluster, and the record may say so or not: nothing may be taken back by
        this run, and the next one may.
        """
        ...

    def discard(self) -> None:
        """All was taken back: the record goes. When it raises, the next run finds nothing to take back."""
        ...


class NoJournal:
    """For what needs none: its writes are taken back by the process that made them, or not at all."""

    def begin(self, changes: Sequence[Change]) -> None:
        """Keep nothing."""

    def commit(self) -> None:
        """Nothing to do."""

    def discard(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom the cluster takes us for."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a policy says of one object: `outcome` is pass, fail, skip or error; `resource` names the object."""

    outcome: str
    message: str
    resource: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a policy says of some objects, none of what it does not match; `reason` is why it was not `judged`."""

    results: tuple[Evaluated, ...] = ()
    judged: bool = True
    reason: str = ""


class Evaluator(Protocol):
    """Something that evaluates a policy on objects, as the cluster would if they were created."""

    def evaluate(self, policy: Sequence[JsonObject], objects: Sequence[JsonObject], account: Account) -> Evaluation:
        """Evaluate one policy, with its bindings, on each of the objects, written by that account."""
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
