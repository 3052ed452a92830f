"""A plan in a file: it approves what a later plan of the same snapshot may do, and is never executed itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Final

from applier import whole_file
from applier.change import Action, Plan, Rehearsed
from applier.report.document import FORMAT, FORMAT_VERSION, SCHEMA, Entry
from applier.saved_plan import approval
from renderer.errors import ExitCode, InputError, InvalidPolicies, Refusal
from renderer.manifest import kinds
from renderer.manifest.document import field_path
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.snapshot import Snapshot

_LIMIT_BYTES: Final = 256 * 1024 * 1024
_PATHS_SHOWN: Final = 3
_MAKE_ANEW: Final = "Make a new plan with `insights-applier plan DIR --out FILE`, and have that approved."
_UNIDENTIFIED: Final = (
    "this account may read neither the namespace kube-system nor the ConfigMap "
    "kube-system/extension-apiserver-authentication; without a UID of the cluster, a saved plan can't be applied"
)
_IDLE: Final = (Action.UNCHANGED, Action.REFUSED)
_STATES: Final = {
    Action.CREATE: "created",
    Action.UPDATE: "updated",
    Action.ADOPT: "adopted",
    Action.REPLACE: "replaced",
    Action.DELETE: "deleted",
    Action.UNCHANGED: "left as it is",
    Action.REFUSED: "refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """What a file approves; `refusals` and `errors` say why it can't be applied at all, if so.

    `entries` decide, and `shown` has the same changes as the file shows them.
    """

    path: Path
    identity: Mapping[str, str]
    organization: str
    cluster: str
    digest: str
    flags: Mapping[str, Json]
    entries: Mapping[Identity, Entry]
    shown: Mapping[Identity, JsonObject]
    refusals: tuple[tuple[ExitCode, str], ...]
    errors: tuple[str, ...]

    def require_appliable(self) -> None:
        """Raise what the plan itself said: Refusal for what a guard refused, InvalidPolicies for what is not valid."""
        if self.refusals:
            raise Refusal(
                self.refusals[0][0],
                f"The plan in {self.path} was refused when it was made; nothing was written.",
                details=[message for _, message in self.refusals],
                hint=_MAKE_ANEW,
            )
        if self.errors:
            raise InvalidPolicies(
                f"The plan in {self.path} holds policies that are not valid; nothing was written.",
                details=self.errors,
                hint="Correct them in Insights (or where they come from), and make a new plan.",
            )

    def require_cluster(self, found: Mapping[str, str]) -> None:
        """Raise Refusal unless this is the cluster that was planned for: every UID that both know is the same."""
        common = self.identity.keys() & found.keys()
        if not common:
            raise Refusal(
                ExitCode.WRONG_CLUSTER,
                f"Nothing tells whether this is the cluster that {self.path} was made for; nothing was written.",
                details=[f"The plan knows {_names(self.identity)}.", f"This account may read {_names(found)}."],
                hint="Let both accounts get one of the two: the namespace kube-system, or the ConfigMap "
                "kube-system/extension-apiserver-authentication.",
            )
        others = [
            f"{name} has the UID {found[name]}, and {self.identity[name]} in the plan."
            for name in sorted(common)
            if found[name] != self.identity[name]
        ]
        if others:
            raise Refusal(
                ExitCode.WRONG_CLUSTER,
                f"The plan in {self.path} was made for another cluster; nothing was written.",
                details=others,
                hint="Check --context and --kubeconfig, or make a plan for this cluster.",
            )

    def require_same(self, identity: Mapping[str, str], snapshot: Snapshot, plan: Plan) -> None:
        """Raise Refusal that names everything in which this cluster, snapshot and new plan differ from the file.

        What guards refuse of the new plan alone is not the file's business.
        """
        self.require_cluster(identity)
        now = {change.identity: Entry.of(change) for change in plan.changes}
        differences = [
            *self._of_the_snapshot(snapshot),
            *(
                f"{identity}: {what}"
                for identity in sorted(self.entries.keys() | now.keys())
                if (what := difference(self.entries.get(identity), now.get(identity)))
            ),
        ]
        if not differences:
            self._require_unedited(plan)
        if differences:
            raise Refusal(
                ExitCode.STALE_PLAN,
                f"The plan in {self.path} is stale; nothing was written. Since it was made:",
                details=differences,
                hint=_MAKE_ANEW,
            )

    def _require_unedited(self, plan: Plan) -> None:
        """Raise InputError where the file shows people something else than it approves."""
        for change in plan.changes:
            planned = self.entries.get(change.identity)
            if planned and not approval.is_approved(self.shown[change.identity], planned, change):
                raise _unusable(self.path, f"was edited: what it shows of {change.identity} is not what it approves")

    def _of_the_snapshot(self, snapshot: Snapshot) -> Iterator[str]:
        if snapshot.digest != self.digest:
            yield f"The snapshot is another: its digest is {snapshot.digest}, and {self.digest} in the plan."
        if (snapshot.organization, snapshot.cluster) != (self.organization, self.cluster):
            yield (
                f"The snapshot is of {snapshot.organization}/{snapshot.cluster}, "
                f"and the plan of {self.organization}/{self.cluster}."
            )


def difference(planned: Entry | None, now: Entry | None) -> str:
    """In what one policy's way is not the planned one any more, in words; "" when it is. Pure.

    It is while the same object holds the same of what is Insights' business, and would end up the same. Where the
    server was not asked what it would store, the outcome follows from the snapshot and the live object alone.
    """
    if planned is None:
        done = _STATES[now.action] if now and now.action not in _IDLE else ""
        return f"is not in the plan, and would be {done} now" if done else ""
    if now is None:
        gone = f"is gone, or this account can't read it; the plan has it {_STATES[planned.action]}"
        return "" if planned.action in _IDLE else gone
    if planned.action is Action.UNCHANGED is now.action:
        return ""
    return _of_the_object(planned, now) or _of_the_outcome(planned, now)


def _of_the_object(planned: Entry, now: Entry) -> str:
    if planned.uid != now.uid:
        if planned.uid is None:
            return "exists now, and the plan creates it"
        if now.uid is None:
            # What is refused was perhaps not even read.
            return "" if now.action is Action.REFUSED else "is gone; it would be created now"
        return f"was replaced by another object of that name (UID {now.uid}, and {planned.uid} in the plan)"
    if planned.before != now.before:
        if now.action is Action.UNCHANGED and planned.action not in _IDLE and planned.after == now.after:
            return f"is already as it should be; the plan has it {_STATES[planned.action]}"
        also = sorted(now.paths - planned.paths)
        more = f" and {len(also) - _PATHS_SHOWN} more places" if len(also) > _PATHS_SHOWN else ""
        places = f"; it now differs at {', '.join(also[:_PATHS_SHOWN])}{more} too" if also else ""
        return f"was changed by somebody{places}"
    return ""


def _of_the_outcome(planned: Entry, now: Entry) -> str:
    if now.action is Action.REFUSED:  # the refusal itself says more
        return ""
    uncertain = {planned.rehearsed, now.rehearsed} - {Rehearsed.ACCEPTED, None}
    if uncertain and now.action in (planned.action, Action.UNCHANGED):
        return ""
    if planned.action is now.action:
        return "" if planned.after == now.after else "would be stored otherwise than the server said then"
    return f"would be {_STATES[now.action]} now, and {_STATES[planned.action]} by the plan"


def noting(plan: Plan, identity: Mapping[str, str]) -> Plan:
    """The plan, with a note when no UID of the cluster could be read: no file of it can be applied."""
    return plan if identity else replace(plan, notes=(*plan.notes, _UNIDENTIFIED))


def write(path: Path, document: JsonObject) -> None:
    """Save the document: all of it or nothing, readable by its owner. Raises ConfigurationError."""
    whole_file.write(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n", flag="--out")


def read(path: Path) -> SavedPlan:
    """Read a saved plan. Raises InputError when it is missing, truncated, of a newer version, or no plan at all."""
    document = _document(path)
    entries = [_entry(change, path) for change in document["changes"]]
    known = {entry.identity: entry for entry in entries}
    if len(known) != len(entries):
        raise _unusable(path, "lists a policy twice")
    return SavedPlan(
        path=path,
        identity=document["cluster"]["identity"],
        organization=document["snapshot"]["organization"],
        cluster=document["snapshot"]["cluster"],
        digest=document["snapshot"]["digest"],
        flags=document["flags"],
        entries=known,
        shown={entry.identity: change for entry, change in zip(entries, document["changes"], strict=True)},
        refusals=tuple((_exit_code(one["exitCode"], path), one["message"]) for one in document["refusals"]),
        errors=tuple(
            f"[{one['layer']}] {one['message']}" for one in document["findings"] if one["severity"] == "error"
        ),
    )


def _document(path: Path) -> JsonObject:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"--plan: {path} can't be read: {error.strerror or error}.",
            hint="Name the file that `plan DIR --out FILE` wrote.",
        ) from error
    if len(data) > _LIMIT_BYTES:
        raise _unusable(path, f"is larger than {_LIMIT_BYTES} bytes")
    try:
        document: Json = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = f"{error}" if isinstance(error, json.JSONDecodeError) else "it is not JSON text"
        raise _unusable(path, f"is truncated, or no JSON: {reason}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _unusable(path, f"is JSON, but no saved plan: it has no format {FORMAT!r}")
    version = document.get("formatVersion")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"--plan: {path} has the format version {version}; this program reads {FORMAT_VERSION}.",
            hint="Use the version of the program that made the plan, or make a new plan with this one.",
        )
    return _checked(document, path)


def _checked(document: JsonObject, path: Path) -> JsonObject:
    import jsonschema_rs

    schema = json.loads(resources.files("applier.report").joinpath(SCHEMA).read_bytes())
    try:
        error = next(jsonschema_rs.Draft7Validator(schema, mask="the value").iter_errors(document), None)
    except UnicodeEncodeError as text:
        raise _unusable(path, "is no valid plan: it holds half of a surrogate pair, which is no text") from text
    if error is not None:
        place = field_path(error.instance_path) or "the document"
        raise _unusable(path, f"is no valid plan: {place}: {error.message}")
    return document


def _entry(change: JsonObject, path: Path) -> Entry:
    kind = kinds.find(change["group"], change["kind"])
    if kind is None:
        raise _unusable(path, f"has a {change['kind']} of {change['group']}, which this program does not manage")
    return Entry(
        identity=Identity(kind=kind, namespace=change["namespace"], name=change["name"]),
        action=Action(change["action"]),
        uid=change["uid"],
        before=change["before"],
        after=change["after"],
        rehearsed=Rehearsed(change["dryRun"]) if change["dryRun"] else None,
        paths=frozenset(operation["path"] for operation in change.get("patch", ()) if operation["op"] != "test"),
    )


def _exit_code(value: int, path: Path) -> ExitCode:
    try:
        return ExitCode(value)
    except ValueError as error:
        raise _unusable(path, f"has a refusal with the exit code {value}, which there is not") from error


def _unusable(path: Path, what: str) -> InputError:
    return InputError(f"--plan: {path} {what}.", hint=_MAKE_ANEW)


def _names(identity: Mapping[str, str]) -> str:
    return " and ".join(f"the UID of {name}" for name in sorted(identity)) or "no UID of it"
