"""Pure: from what is wanted and what is live to a plan. First a draft; then, with the server's word on it, the plan.

A draft compares what `schema` says the server would store. The server's word is a dry run of every change in it, so
that the patch between the live object and its answer is what would really change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from applier import diff, guards
from applier.change import Action, Change, Plan, Refused, Rehearsed
from applier.guards import Allowed
from applier.ports import Live
from renderer.manifest import ownership
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.policyset import PolicySet


@dataclass(slots=True)
class _Refusals:
    """Identities by the guard that stops them."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, guard: str, identity: Identity, why: str = "") -> None:
        self.found[guard].append(f"{identity}{f': {why}' if why else ''}")

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
) -> Plan:
    """What has to be done if the server stores policies as `bodies` has them, and others just as they are written.

    Where `bodies` lacks one, its update may prove to be no change once the server has added its defaults (`settle`).
    """
    refusals = _Refusals()
    changes = [
        change
        for policy in desired
        if (change := _wanted(policy, bodies.get(policy.identity, policy.body), live, allowed, refusals))
    ]
    owned = [identity for identity, body in live.objects.items() if _is_ours(body)]
    deletions = [
        Change(identity=identity, action=Action.DELETE, before=live.objects[identity])
        for identity in owned
        if prune and identity not in desired and not _is_terminating(live.objects[identity])
    ]
    stopped = refusals.all()
    if not len(desired) and owned and prune and not allowed.empty:
        stopped.insert(0, guards.empty_set(sorted(map(str, owned))))
    elif (len(desired) or not allowed.empty) and allowed.max_delete.exceeded(len(deletions), len(owned)):
        names = sorted(str(change.identity) for change in deletions)
        stopped.append(guards.too_many_deletions(names, len(owned), allowed.max_delete))
    return Plan(
        changes=tuple(sorted([*changes, *deletions], key=lambda change: change.identity)),
        refusals=tuple(stopped),
        notes=tuple(_unread(live)),
    )


def settle(drafted: Plan, answers: Mapping[Identity, JsonObject], refused: Collection[Identity]) -> Plan:
    """The plan: each create and update as the server would store it; what changes nothing becomes unchanged.

    `answers` holds the dry runs of creates and updates, `refused` those that the server refused; one that is in
    neither was not dry-run, and says so.
    """

    def settled(change: Change) -> Change:
        if change.identity in refused:
            return replace(change, rehearsed=Rehearsed.REFUSED)
        return _settled(change, answers.get(change.identity))

    return replace(drafted, changes=tuple(settled(change) for change in drafted.changes))


def to_rehearse(drafted: Plan) -> Iterable[Change]:
    """The creates and updates of a draft whose outcome only the server knows."""
    return drafted.of(Action.CREATE, Action.UPDATE, Action.ADOPT)


def _wanted(policy: Policy, body: JsonObject, live: Live, allowed: Allowed, refusals: _Refusals) -> Change | None:
    identity = policy.identity
    resource = live.resources.get(identity.kind)
    if resource is None or identity.kind in live.unreadable:
        refusals.add("kind", identity, live.unreadable.get(identity.kind, "the cluster does not serve it"))
        return None
    before = live.objects.get(identity)
    action = Action.CREATE
    if before is not None:
        if ownership.is_generated(before):
            refusals.add("generated", identity)
            return None
        if _is_terminating(before):
            refusals.add("terminating", identity)
            return None
        action = Action.UPDATE if ownership.is_owned(before) else Action.ADOPT
        if action is Action.ADOPT and not allowed.adopt:
            refusals.add("owned", identity)
            return None
    after = diff.wanted(body, before, kind=identity.kind, api_version=resource.api_version)
    operations = diff.patch(content(before, identity.kind), after) if before is not None else ()
    if before is not None and not operations:
        action = Action.UNCHANGED
    return Change(
        identity=identity,
        action=action,
        before=before,
        after=after,
        patch=operations,
        policy=policy,
        drifted_by=diff.other_managers(before) if before is not None else (),
    )


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
