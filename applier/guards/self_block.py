"""Which changes would deny this program's own next writes: its Lease, its journal, and the policies themselves.

Such a policy works within a second of its being written, and then keeps the journal from being finished and what was
written from being taken back. So each is evaluated before anything is written, on the very objects that are at stake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from applier import lock
from applier.change import Action, Change, Plan, Rehearsed
from applier.guards import own_writes
from applier.guards.own_writes import Namespaces, OwnWrite
from applier.journal import configmaps
from applier.ports import Account, Cluster, Evaluation, Evaluator, Live
from renderer.errors import Failure
from renderer.manifest import effect
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import ADMISSION
from renderer.manifest.normalize import content

_WRITES: Final = (Action.CREATE, Action.UPDATE, Action.ADOPT, Action.REPLACE)
_ALL: Final = frozenset({"CREATE", "UPDATE", "DELETE"})
_RULED: Final = frozenset({"ClusterPolicy", "Policy"})
_CHECKING: Final = frozenset({"ValidatingPolicy", "ImageValidatingPolicy"})
_BOUND: Final = {
    "ValidatingAdmissionPolicy": "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy": "MutatingAdmissionPolicyBinding",
}
#: What depends on more than an object that is created by an account: on the other operations, or on the cluster.
_DEPENDS: Final = re.compile(
    r"\b(?:oldObject|namespaceObject|authorizer|params|globalContext)\b"
    r"|\brequest\.(?:operation|dryRun|oldObject|roles|clusterRoles|namespace\b)"
    # CEL knows them with a capital and without.
    r"|\b(?:http|resource)\.(?:[Gg]et|[Ll]ist|[Pp]ost)\b"
    r"|\bimage\.[Gg]etMetadata\b"
    r'|"(?:apiCall|configMap|globalReference|imageRegistry|clusterRoles|roles|paramKind|operations)":'
)
#: A deletion has no such thing.
_OBJECT: Final = re.compile(r"\bobject\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A policy that acts on requests once this plan is executed, its binding, and the changes that it is due to."""

    changes: tuple[Change, ...]
    bodies: tuple[JsonObject, ...]
    checks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfBlock:
    """The guard: what this program keeps in the cluster, and who evaluates policies on it (None: nobody can)."""

    state: tuple[OwnWrite, ...]
    evaluator: Evaluator | None

    def find(self, plan: Plan, live: Live, cluster: Cluster) -> list[tuple[Identity, str]]:
        """The changes that would, or might, deny our own writes, each with what and why.

        Nothing is asked, and nothing run, unless a policy may match one of them.
        """
        writes = [*self.state, *_policies(plan, live)]
        unknown = Namespaces(labels={})
        candidates = [one for one in _candidates(plan, live) if any(_seen(one, write, unknown) for write in writes)]
        if not candidates:
            return []
        names = sorted({write.namespace for write in writes if write.namespace})
        known = {name: labels for name in names if (labels := cluster.namespace_labels(name)) is not None}
        account = cluster.account()
        return [
            (change.identity, why)
            for one in candidates
            if (why := self._judge(one, writes, Namespaces(labels=known), account))
            for change in one.changes
        ]

    def _judge(
        self, one: _Candidate, writes: Sequence[OwnWrite], namespaces: Namespaces, account: Account | None
    ) -> str:
        """Why it is refused, "" when it leaves our writes alone."""
        seen = {write: operations for write in writes if (operations := _seen(one, write, namespaces))}
        if not one.checks:
            seen = {write: operations for write, operations in seen.items() if not write.policy}
            return f"it may change {_named(seen)} as this program writes it" if seen else ""
        if not seen:
            return ""
        if self.evaluator is None:
            return f"it may deny {_named(seen)}, and nothing here can evaluate it"
        if account is None:
            return f"it may deny {_named(seen)}, and whom the cluster takes this account for is not known"
        try:
            bodies = [_plain(_relevant(body, seen, namespaces)) for body in one.bodies]
            found = self.evaluator.evaluate(bodies, [write.body for write in seen], account)
        except Failure as error:
            return f"it may deny {_named(seen)}, and could not be evaluated: {error.message}"
        return _said(one, seen, found)


def state(namespace: str) -> tuple[OwnWrite, ...]:
    """What this program keeps in the lock's namespace: its Lease, and the ConfigMaps of its journal."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": lock.LEASE, "namespace": namespace},
        "spec": {"holderIdentity": "host_1_0", "leaseDurationSeconds": 15, "leaseTransitions": 0},
    }
    return (
        OwnWrite(group="coordination.k8s.io", plural="leases", operations=_ALL - {"DELETE"}, body=lease),
        OwnWrite(group="", plural="configmaps", operations=_ALL, body=configmaps.likeness(namespace)),
    )


def _policies(plan: Plan, live: Live) -> Iterator[OwnWrite]:
    """The policies that this run writes, and writes back if it has to; the server asks nobody about its own kinds."""
    for change in plan.effective:
        kind = change.identity.kind
        if kind.group == ADMISSION or kind not in live.resources:
            continue
        for body in (change.after, change.before):
            if body is not None:
                held = content(body, kind)
                yield OwnWrite(
                    group=kind.group, plural=kind.plural, operations=_ALL, body=_at(held, change), policy=True
                )


def _at(body: JsonObject, change: Change) -> JsonObject:
    """The body with its namespace, which a document may leave out, and its kind."""
    namespace = {"namespace": change.identity.namespace} if change.identity.namespace else {}
    return {**body, "kind": change.identity.kind.name, "metadata": {**body["metadata"], **namespace}}


def _candidates(plan: Plan, live: Live) -> Iterator[_Candidate]:
    held: dict[Identity, tuple[JsonObject, Change | None]] = {
        identity: (body, None) for identity, body in live.objects.items()
    }
    for change in plan.changes:
        if change.action is Action.DELETE:
            held.pop(change.identity, None)
        elif change.action in _WRITES and change.rehearsed is not Rehearsed.REFUSED and change.after is not None:
            held[change.identity] = (change.after, change)
    for identity, (body, due) in held.items():
        if not isinstance(body.get("spec"), dict):
            continue  # no server takes it
        if identity.kind.name in _BOUND:
            yield from _bound(identity, body, due, held)
        elif due is not None:
            yield from _alone(identity, body, due)


def _alone(identity: Identity, body: JsonObject, change: Change) -> Iterator[_Candidate]:
    name = identity.kind.name
    if name in _RULED:
        rules = [rule for rule in own_writes.items(body["spec"].get("rules")) if isinstance(rule, dict)]
        denying = [rule for rule in rules if effect.enforces(_with_rules(body, [rule]), identity.kind)]
        mutating = [rule for rule in rules if own_writes.mutates_more_than_metadata(_with_rules(body, [rule]))]
        for chosen, checks in ((denying, True), *(([rule], False) for rule in mutating)):
            if chosen:
                yield _Candidate(changes=(change,), bodies=(_at(_with_rules(body, chosen), change),), checks=checks)
    elif not _at_admission(body):
        return
    elif name.removeprefix("Namespaced") in _CHECKING and effect.enforces(body, identity.kind):
        yield _Candidate(changes=(change,), bodies=(_at(body, change),), checks=True)
    elif name.removeprefix("Namespaced") == "MutatingPolicy" and own_writes.mutates_more_than_metadata(body):
        yield _Candidate(changes=(change,), bodies=(_at(body, change),), checks=False)


def _at_admission(body: JsonObject) -> bool:
    """Whether a policy in CEL has a say in requests to the API server."""
    evaluation = body["spec"].get("evaluation") or {}
    admission = evaluation.get("admission") or {}
    return admission.get("enabled") is not False and evaluation.get("mode") in (None, "", "Kubernetes")


def _with_rules(body: JsonObject, rules: list[JsonObject]) -> JsonObject:
    return {**body, "spec": {**body["spec"], "rules": rules}}


def _bound(
    identity: Identity, body: JsonObject, change: Change | None, held: dict[Identity, tuple[JsonObject, Change | None]]
) -> Iterator[_Candidate]:
    """A policy of the server's own, once with each binding that makes it act."""
    checks = identity.kind.name == "ValidatingAdmissionPolicy"
    if not checks and not own_writes.mutates_more_than_metadata(body):
        return
    for other, (binding, bound) in held.items():
        if (
            other.kind.name != _BOUND[identity.kind.name]
            or (binding.get("spec") or {}).get("policyName") != identity.name
        ):
            continue
        due = tuple(one for one in (change, bound) if one is not None)
        if due and (not checks or effect.enforces(binding, other.kind)):
            yield _Candidate(changes=due, bodies=(body, binding), checks=checks)


def _seen(one: _Candidate, write: OwnWrite, namespaces: Namespaces) -> frozenset[str]:
    """By which operations it may see that write."""
    policy = one.bodies[0]
    own = policy["metadata"].get("namespace", "")
    if own and own != write.namespace:
        return frozenset()
    spec = policy["spec"]
    if policy["kind"] in _RULED:
        rules = spec["rules"]
        return _ALL if any(own_writes.rule_may_see(rule, write, namespaces) for rule in rules) else frozenset()
    seen = own_writes.seen_operations(spec.get("matchConstraints"), write, namespaces)
    for binding in one.bodies[1:]:
        narrowed = binding["spec"].get("matchResources")
        seen &= own_writes.seen_operations(narrowed or {}, write, namespaces)
    return seen


def _relevant(body: JsonObject, writes: Iterable[OwnWrite], namespaces: Namespaces) -> JsonObject:
    """A policy with rules without those that see none of these writes."""
    if body["kind"] not in _RULED:
        return body
    seeing = [
        rule
        for rule in body["spec"]["rules"]
        if any(own_writes.rule_may_see(rule, write, namespaces) for write in writes)
    ]
    return _with_rules(body, seeing)


def _said(one: _Candidate, seen: dict[OwnWrite, frozenset[str]], found: Evaluation) -> str:
    denied = [result for result in found.results if result.outcome == "fail"]
    if denied:
        return f"it would deny {denied[0].resource or _named(seen)}: {denied[0].message or 'it says no more'}"
    if not found.judged:
        return f"it may deny {_named(seen)}, and could not be evaluated: {found.reason}"
    failed = [result for result in found.results if result.outcome not in ("pass", "skip")]
    if failed:
        return f"it may deny {_named(seen)}, and could not be evaluated: {failed[0].message}"
    # Where its conditions keep it away from all of them, only they matter.
    away = all(result.outcome == "skip" for result in found.results) and bool(found.results)
    kept = one.bodies[0]["spec"].get("matchConditions")
    text = json.dumps(kept if away and kept else _without_matching([body["spec"] for body in one.bodies]))
    depends = _DEPENDS.search(text)
    if depends is None and one.bodies[0]["kind"] not in _RULED and any("DELETE" in ops for ops in seen.values()):
        depends = _OBJECT.search(text)
    if depends is None:
        return ""
    what = depends[0].strip('":')
    return f"it may deny {_named(seen)}: what it says of `{what}` can't be evaluated beforehand"


def _without_matching(value: Json) -> Json:
    """What is evaluated; what it matches was looked at already."""
    if isinstance(value, dict):
        return {key: _without_matching(part) for key, part in value.items() if key not in _MATCHING}
    return [_without_matching(part) for part in value] if isinstance(value, list) else value


_MATCHING: Final = ("match", "matchConstraints", "matchResources")


def _named(writes: Iterable[OwnWrite]) -> str:
    names = [str(write) for write in writes]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _plain(body: JsonObject) -> JsonObject:
    """A copy that is evaluated on what it is given: what it matches by operation and place was looked at before."""
    spec: dict[str, Any] = {**body["spec"]}
    for field in ("matchConstraints", "matchResources"):
        if isinstance(spec.get(field), dict):
            spec[field] = {key: _any_operation(part) for key, part in spec[field].items() if key in _KEPT}
    if body["kind"] in _RULED:
        spec.pop("webhookConfiguration", None)
        spec["background"] = False
        spec["rules"] = [{**rule, "match": _anywhere(rule.get("match"))} for rule in spec["rules"]]
    metadata = {key: part for key, part in body["metadata"].items() if key in ("name", "namespace", "annotations")}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": spec}


_KEPT: Final = frozenset({"resourceRules", "matchPolicy"})


def _any_operation(rules: Json) -> Json:
    if not isinstance(rules, list):
        return rules
    return [{**rule, "operations": ["*"]} if isinstance(rule, dict) else rule for rule in rules]


_PLACE: Final = ("operations", "namespaceSelector")


def _anywhere(value: Json) -> Json:
    """A rule's match, for every operation and namespace: the CLI knows neither."""
    if isinstance(value, dict):
        return {key: _anywhere(part) for key, part in value.items() if key not in _PLACE}
    return [_anywhere(part) for part in value] if isinstance(value, list) else value
