"""Pure: from what is wanted and what is live to a plan. First a draft; then, with the server's word on it, the plan.

A draft compares what `schema` says the server would store. The server's word is a dry run of every change in it, so
that the patch between the live object and its answer is what would really change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from applier import diff
from applier.change import Action, Change, Plan, Refused, Rehearsed
from applier.guards import refusals as guards
from applier.guards.refusals import Allowed
from applier.ports import Live
from applier.selection import ALL, Selection
from renderer.manifest import effect, ownership
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.policyset import PolicySet


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stop:
    """The guard that stops a policy, why, and what more there is to say where several are listed."""

    guard: str
    why: str
    detail: str = ""


@dataclass(slots=True)
class _Refusals:
    """Identities by the guard that stops them."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, stop: _Stop, identity: Identity) -> None:
        self.found[stop.guard].append(f"{identity}{f': {stop.detail}' if stop.detail else ''}")

    def all(self) -> list[Refused]:
        makers = {
            "kind": guards.kind_unavailable,
            "generated": guards.generated,
            "terminating": guards.terminating,
            "owned": guards.not_owned,
        }
        return [makers[guard](self.found[guard]) for guard in makers if self.found[guard]]


def draft(
    desired: PolicySet,
    live: Live,
    *,
    allowed: Allowed,
    prune: bool = True,
    bodies: Mapping[Identity, JsonObject] = MappingProxyType({}),
    selection: Selection = ALL,
) -> Plan:
    """What has to be done if the server stores policies as `bodies` has them, and others just as they are written.

    Where `bodies` lacks one, its update may prove to be no change once the server has added its defaults (`settle`).
    Only what is in the selection is changed or deleted; the guards know of the rest (`selection`).
    """
    refusals = _Refusals()
    changes = [
        _wanted(policy, bodies.get(policy.identity, policy.body), live, allowed, refusals)
        for policy in selection.of(desired)
    ]
    owned = [identity for identity, body in live.objects.items() if _is_ours(body)]
    deletions = [
        Change(identity=identity, action=Action.DELETE, before=live.objects[identity])
        for identity in owned
        if prune and identity in selection and identity not in desired and not _is_terminating(live.objects[identity])
    ]
    stopped = refusals.all()
    at_stake = sorted(str(identity) for identity in owned if prune and identity in selection)
    if not len(desired) and at_stake and not allowed.empty:
        stopped.append(guards.empty_set(at_stake, len(owned)))
    elif (len(desired) or not allowed.empty) and allowed.max_delete.exceeded(len(deletions), len(owned)):
        names = sorted(str(change.identity) for change in deletions)
        stopped.append(guards.too_many_deletions(names, len(owned), allowed.max_delete))
    return Plan(
        changes=tuple(sorted([*changes, *deletions], key=lambda change: change.identity)),
        refusals=tuple(stopped),
        notes=tuple(_unread(live)),
    )


def settle(
    drafted: Plan,
    answers: Mapping[Identity, JsonObject],
    refused: Collection[Identity],
    replacing: Mapping[Identity, str] = MappingProxyType({}),
    deletable: Collection[Identity] = (),
) -> Plan:
    """The plan: each create and update as the server would store it; what changes nothing becomes unchanged.

    `answers` holds the dry runs of creates and updates, `deletable` what it would delete, `refused` what it refused;
    one that is in none was not dry-run, and says so. `replacing` has those that the server takes anew only, and its
    words.
    """

    def settled(change: Change) -> Change:
        if change.identity in refused:
            return replace(change, rehearsed=Rehearsed.REFUSED)
        if change.action is Action.DELETE and change.identity not in deletable:
            return replace(change, rehearsed=Rehearsed.NOT_ASKED)
        settled = _settled(change, answers.get(change.identity))
        if change.identity not in replacing:
            return settled
        reason = f"{_deleted_with(change)}{replacing[change.identity]}"
        return replace(settled, action=Action.REPLACE, patch=(), reason=reason)

    return replace(drafted, changes=tuple(settled(change) for change in drafted.changes))


def refuse_replacing(settled: Plan) -> Plan:
    """The plan in which nothing is replaced: what would have been is refused, and says what that would delete."""
    replacing = settled.of(Action.REPLACE)
    if not replacing:
        return settled
    subjects = [f"{change.identity}: {change.reason}" for change in replacing]
    return replace(
        settled,
        changes=tuple(
            replace(change, action=Action.REFUSED) if change.action is Action.REPLACE else change
            for change in settled.changes
        ),
        refusals=(*settled.refusals, guards.needs_replacing(subjects)),
    )


def refuse_self_blocking(settled: Plan, blocking: Sequence[tuple[Identity, str]]) -> Plan:
    """The plan without the changes that would deny this program's own writes; `blocking` has why each would."""
    if not blocking:
        return settled
    reasons = dict(blocking)
    return replace(
        settled,
        changes=tuple(
            replace(change, action=Action.REFUSED, reason=reasons[change.identity])
            if change.identity in reasons
            else change
            for change in settled.changes
        ),
        refusals=(
            *settled.refusals,
            guards.self_blocking([f"{identity}: {why}" for identity, why in sorted(reasons.items())]),
        ),
    )


def _deleted_with(change: Change) -> str:
    deletes = effect.compare(change.before, None, change.identity.kind).deletes_downstream
    return "what it generated would be deleted with it. " if deletes else ""


def to_rehearse(drafted: Plan) -> Iterable[Change]:
    """The creates and updates of a draft whose outcome only the server knows."""
    return drafted.of(Action.CREATE, Action.UPDATE, Action.ADOPT)


def _wanted(policy: Policy, body: JsonObject, live: Live, allowed: Allowed, refusals: _Refusals) -> Change:
    identity = policy.identity
    resource = live.resources.get(identity.kind)
    before = live.objects.get(identity)
    api_version = resource.api_version if resource else policy.api_version
    after = diff.wanted(body, before, kind=identity.kind, api_version=api_version)
    operations = diff.patch(content(before, identity.kind), after) if before is not None else ()
    change = Change(
        identity=identity,
        action=_action(before, operations),
        before=before,
        after=after,
        patch=operations,
        policy=policy,
        drifted_by=diff.other_managers(before) if before is not None else (),
    )
    stop = _stop(change, live, allowed)
    if stop is None:
        return change
    refusals.add(stop, identity)
    return replace(change, action=Action.REFUSED, reason=stop.why, rehearsed=Rehearsed.NOT_ASKED)


def _action(before: JsonObject | None, operations: tuple[JsonObject, ...]) -> Action:
    if before is None:
        return Action.CREATE
    if not operations:
        return Action.UNCHANGED
    return Action.UPDATE if ownership.is_owned(before) else Action.ADOPT


def _stop(change: Change, live: Live, allowed: Allowed) -> _Stop | None:
    """What keeps this policy from being written, whatever else the plan holds."""
    kind, before = change.identity.kind, change.before
    if kind not in live.resources or kind in live.unreadable:
        why = live.unreadable.get(kind, "the cluster does not serve it")
        return _Stop(guard="kind", why=f"{kind.resource}: {why}", detail=why)
    if before is None:
        return None
    if ownership.is_generated(before):
        return _Stop(guard="generated", why="a controller keeps it")
    if _is_terminating(before):
        return _Stop(guard="terminating", why="it is being deleted and waits for its finalizers")
    if not ownership.is_owned(before) and not allowed.adopt:
        return _Stop(guard="owned", why="it exists and Insights does not own it")
    return None


def _settled(change: Change, answer: JsonObject | None) -> Change:
    if change.action not in (Action.CREATE, Action.UPDATE, Action.ADOPT):
        return change
    if answer is None:
        return replace(change, rehearsed=Rehearsed.NOT_ASKED)
    after = content(answer, change.identity.kind)
    if change.before is None:
        return replace(change, after=after)
    operations = diff.patch(content(change.before, change.identity.kind), after)
    return replace(change, after=after, patch=operations, action=change.action if operations else Action.UNCHANGED)


def _is_ours(body: JsonObject) -> bool:
    return ownership.is_owned(body) and not ownership.is_generated(body)


def _is_terminating(body: JsonObject) -> bool:
    return "deletionTimestamp" in body["metadata"]


def _unread(live: Live) -> Iterable[str]:
    for kind, why in sorted(live.unreadable.items()):
        yield f"{kind.resource}: {why}; its policies are neither compared nor deleted"
