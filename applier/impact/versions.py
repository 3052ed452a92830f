"""Pure: the versions of policies that have to be evaluated to see what a plan changes, and what of them can't be.

A version is a policy as it is (or will be) enforced, narrowed to its binding, with its exceptions. How strictly it
enforces is taken out of what is evaluated, so that a change of the action alone is evaluated once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, TypeAlias

from applier.change import Action, Plan
from applier.impact import exemptions, patterns, unevaluable
from applier.impact.model import NotEvaluated
from applier.impact.patterns import Pattern
from applier.verdict import Verdict
from renderer.manifest import ownership
from renderer.manifest.effect import enforcement
from renderer.manifest.effect.covering import UnreadableError
from renderer.manifest.effect.enforcement import Enforcement, Level
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import ADMISSION, KYVERNO


class Side(Enum):
    """Before the plan is applied, and after it."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What is evaluated: a policy, under a name made of its number, and its exceptions, as the kyverno CLI gets them.

    `levels` say, for each side on which it is there, what each rule does with what violates it; on those in `closed`
    it does so, too, where it fails to be evaluated. `patterns` are what it matches. `steady` says that the plan does
    not change it.
    """

    number: int
    policy: Identity
    body: JsonObject
    exceptions: tuple[JsonObject, ...]
    patterns: frozenset[Pattern]
    levels: Mapping[Side, Mapping[str, Enforcement]]
    closed: frozenset[Side]
    steady: bool

    @property
    def in_cel(self) -> bool:
        """Whether the CLI compiles it anew for each resource."""
        return self.policy.kind.group != KYVERNO

    @property
    def asked_by_server(self) -> bool:
        """Whether the API server itself evaluates it, and not Kyverno."""
        return self.policy.kind.group == ADMISSION

    @property
    def needs_namespaces(self) -> bool:
        """Whether it looks at the namespace that a resource is in."""
        return _OF_NAMESPACES.search(json.dumps([self.body, self.exceptions])) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Those that the plan changes, those that it leaves alone and that deny, and what can't be evaluated."""

    changed: tuple[Version, ...]
    steady: tuple[Version, ...]
    not_evaluated: tuple[NotEvaluated, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A version on one side, not yet named."""

    body: JsonObject
    patterns: frozenset[Pattern]
    levels: Mapping[str, Enforcement]
    closed: bool
    exceptions: tuple[JsonObject, ...] = ()

    @property
    def text(self) -> str:
        """Equal for what is evaluated alike."""
        return json.dumps([self.body, self.exceptions], sort_keys=True)


_Objects: TypeAlias = dict[Identity, JsonObject]
_RULED: Final = frozenset({"ClusterPolicy", "Policy"})
_IN_CEL: Final = frozenset({"ValidatingPolicy", "ValidatingAdmissionPolicy"})
_OF_NAMESPACES: Final = re.compile(r'\bnamespaceObject\b|"namespaceSelector"')
_CHECK_DROPPED: Final = frozenset({"failureAction", "failureActionOverrides", "allowExistingViolations"})
_KEPT_OF_RULES: Final = frozenset({"applyRules"})
_DROPPED_IN_CEL: Final = frozenset(
    {"validationActions", "evaluation", "failurePolicy", "webhookConfiguration", "auditAnnotations"}
)


def of_plan(plan: Plan, live: Mapping[Identity, JsonObject], verdict: Verdict) -> Versions:
    """What to evaluate, if the cluster holds `live`.

    What `verdict` says is not valid is left out, and told; so are exceptions that Kyverno says it does not process.
    """
    told = _Told()
    invalid = {finding.policy for finding in verdict.errors}
    ignored = dict(exemptions.unprocessed(verdict))
    for identity in sorted(invalid):
        told.add("it is not valid", str(identity))
    for identity, why in ignored.items():
        told.add(f"Kyverno says: {why}", str(identity))
    none = any(why in exemptions.NONE_PROCESSED for why in ignored.values())
    before, after = (
        _World(objects=objects, exceptions=[] if none else exemptions.in_world(objects))
        for objects in _sides(plan, live, invalid | ignored.keys())
    )
    changing = {change.identity for change in plan.effective} - invalid
    for identity in sorted(changing):
        if reason := unevaluable.OTHERS.get(identity.kind.name.removeprefix("Namespaced")):
            told.add(reason, str(identity))
    versions = list(_versions(_drafts(before), _drafts(after)))
    for identity in sorted(changing | {version.policy for version in versions if not version.steady}):
        for reason, subject in (*_left_out(identity, before), *_left_out(identity, after)):
            told.add(reason, subject)
    return Versions(
        changed=tuple(version for version in versions if not version.steady),
        steady=tuple(version for version in versions if version.steady and _denies(version)),
        not_evaluated=told.all(),
    )


def _sides(
    plan: Plan, live: Mapping[Identity, JsonObject], passed_over: Collection[Identity]
) -> tuple[_Objects, _Objects]:
    """What the cluster holds before and after, of what people write."""
    before = {identity: body for identity, body in live.items() if not ownership.is_generated(body)}
    after = dict(before)
    for change in plan.effective:
        if change.identity in passed_over:
            continue
        if change.action is Action.DELETE:
            after.pop(change.identity, None)
        elif change.after is not None:
            after[change.identity] = _named(change.after, change.identity)
    return before, after


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """What a cluster holds, and the exceptions among it that Kyverno processes."""

    objects: _Objects
    exceptions: list[tuple[Identity, JsonObject]]


class _Told:
    """Subjects by the reason why they are not evaluated, each once."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, None]] = {}

    def add(self, reason: str, subject: str) -> None:
        self._found.setdefault(reason, {})[subject] = None

    def all(self) -> tuple[NotEvaluated, ...]:
        return tuple(NotEvaluated(reason=reason, subjects=tuple(found)) for reason, found in self._found.items())


def _denies(version: Version) -> bool:
    return any(level.denies for level in version.levels[Side.AFTER].values())


def _named(body: JsonObject, identity: Identity) -> JsonObject:
    """With the kind and the namespace that a document may leave out."""
    namespace = {"namespace": identity.namespace} if identity.namespace else {}
    return {**body, "kind": identity.kind.name, "metadata": {**body["metadata"], **namespace}}


_Key: TypeAlias = tuple[Identity, str]


def _versions(before: Mapping[_Key, _Draft], after: Mapping[_Key, _Draft]) -> Iterator[Version]:
    number = 0
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old and new and old.text == new.text:
            same = (old.levels, old.closed) == (new.levels, new.closed)
            yield _version(number, key[0], new, {Side.BEFORE: old, Side.AFTER: new}, steady=same)
            number += 1
            continue
        for side, draft in ((Side.BEFORE, old), (Side.AFTER, new)):
            if draft:
                yield _version(number, key[0], draft, {side: draft}, steady=False)
                number += 1


def _version(number: int, policy: Identity, draft: _Draft, sides: Mapping[Side, _Draft], *, steady: bool) -> Version:
    """The draft under a name that is its own, so that results can be told apart whatever policies are called."""
    name = f"p{number}"
    exceptions = (
        {**_renamed(exception, f"x{number}-{index}"), "spec": exemptions.spec_for(policy, exception, name)}
        for index, exception in enumerate(draft.exceptions)
    )
    return Version(
        number=number,
        policy=policy,
        body=_renamed(draft.body, name),
        exceptions=tuple(exceptions),
        patterns=draft.patterns,
        levels={side: one.levels for side, one in sides.items()},
        closed=frozenset(side for side, one in sides.items() if one.closed),
        steady=steady,
    )


def _renamed(body: JsonObject, name: str) -> JsonObject:
    """The object under another name."""
    return {**body, "metadata": {**body["metadata"], "name": name}}


def _drafts(world: _World) -> dict[_Key, _Draft]:
    """What can be evaluated of a world, by policy and binding."""
    found: dict[_Key, _Draft] = {}
    bindings = _bindings(world)
    for identity, body in world.objects.items():
        draft = _draft(identity, body, world)
        if draft is None:
            continue
        if identity.kind.name != "ValidatingAdmissionPolicy":
            found[identity, ""] = draft
            continue
        for other, binding in bindings:
            if binding["spec"].get("policyName") == identity.name and not unevaluable.why_not_bound(binding["spec"]):
                found[identity, other.name] = _bound(draft, binding["spec"])
    return found


def _bindings(world: _World) -> list[tuple[Identity, JsonObject]]:
    return [
        (identity, body)
        for identity, body in world.objects.items()
        if identity.kind.name == "ValidatingAdmissionPolicyBinding" and isinstance(body.get("spec"), dict)
    ]


def _bound(draft: _Draft, binding: JsonObject) -> _Draft:
    """The policy narrowed to what its binding chooses, which decides what it does.

    The CLI gets no binding: with one, it looks at what that matches only, and no more at what the policy matches.
    """
    spec = draft.body["spec"]
    narrowed = patterns.both(spec.get("matchConstraints") or {}, binding.get("matchResources") or {})
    body = {**draft.body, "spec": {**spec, "matchConstraints": narrowed}}
    return replace(draft, body=body, levels={"": enforcement.of_binding(binding)})


def _draft(identity: Identity, body: JsonObject, world: _World) -> _Draft | None:
    """What of a policy that checks can be evaluated, None when it is nothing."""
    if not isinstance(body.get("spec"), dict):
        return None
    try:
        if identity.kind.name in _RULED:
            draft = _of_rules(body)
        elif identity.kind.name.removeprefix("Namespaced") in _IN_CEL:
            draft = _in_cel(identity, body)
        else:
            return None
    except UnreadableError:
        return None
    exceptions = (
        {**_bare(exception), "spec": exemptions.spec_for(identity, exception, identity.name)}
        for _, exception in exemptions.naming(identity, world.exceptions)
    )
    return replace(draft, exceptions=tuple(exceptions)) if draft else None


def _of_rules(body: JsonObject) -> _Draft | None:
    spec, annotations = body["spec"], body["metadata"].get("annotations") or {}
    if unevaluable.beyond_rules(spec):
        return None
    levels: dict[str, Enforcement] = {}
    kept: list[JsonObject] = []
    for rule in unevaluable.rules(spec):
        level = enforcement.of_rule(rule, spec)
        if not unevaluable.why_not(rule) and level.highest is not Level.OFF:
            levels[str(rule.get("name"))] = level
            kept.append(rule)
    if not kept:
        return None
    evaluated = {key: part for key, part in spec.items() if key in _KEPT_OF_RULES}
    return _Draft(
        body={**_bare(body), "spec": {**evaluated, "background": False, "rules": list(map(_plain, kept))}},
        patterns=frozenset(pattern for rule in kept for pattern in patterns.of_rule(rule, annotations)),
        levels=levels,
        closed=_is_closed(spec),
    )


def _plain(rule: JsonObject) -> JsonObject:
    validate = {key: part for key, part in rule["validate"].items() if key not in _CHECK_DROPPED}
    return {**{key: part for key, part in rule.items() if key != "skipBackgroundRequests"}, "validate": validate}


def _in_cel(identity: Identity, body: JsonObject) -> _Draft | None:
    spec = body["spec"]
    if unevaluable.why_not_in_cel(spec):
        return None
    level = enforcement.of_admission_policy(spec)
    autogen: Json = None
    if identity.kind.group != ADMISSION:
        level = enforcement.of_cel_policy(spec)
        autogen = spec.get("autogen") or {}
    if level.highest is Level.OFF:
        return None
    evaluated = {key: part for key, part in spec.items() if key not in _DROPPED_IN_CEL}
    return _Draft(
        body={**_bare(body), "spec": evaluated},
        patterns=frozenset(patterns.of_constraints(spec.get("matchConstraints"), autogen)),
        levels={"": level},
        closed=_is_closed(spec),
    )


def _is_closed(spec: JsonObject) -> bool:
    """Whether the failurePolicy, wherever it stands, is Fail, its default."""
    webhook = spec.get("webhookConfiguration") or {}
    return (webhook.get("failurePolicy") or spec.get("failurePolicy") or "Fail") == "Fail"


def _bare(body: JsonObject) -> JsonObject:
    """The object without what does not matter, above all without annotations that change how results are counted."""
    metadata = {key: part for key, part in body["metadata"].items() if key in ("name", "namespace")}
    annotations = {
        key: part
        for key, part in (body["metadata"].get("annotations") or {}).items()
        if key == "pod-policies.kyverno.io/autogen-controllers"
    }
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}


def _left_out(identity: Identity, world: _World) -> Iterator[tuple[str, str]]:
    """Why parts of a policy, or all of it, are not evaluated."""
    body = world.objects.get(identity)
    if body is None or not isinstance(body.get("spec"), dict):
        return
    try:
        yield from _parts_left_out(identity, body["spec"])
    except UnreadableError:
        yield unevaluable.UNREADABLE, str(identity)
    for other, binding in _bindings(world) if identity.kind.name == "ValidatingAdmissionPolicy" else ():
        if binding["spec"].get("policyName") == identity.name and (why := unevaluable.why_not_bound(binding["spec"])):
            yield why, str(other)
    for other, exception in exemptions.naming(identity, world.exceptions):
        if unevaluable.names_users(exception["spec"].get("match")):
            yield unevaluable.USER, str(other)


def _parts_left_out(identity: Identity, spec: JsonObject) -> Iterator[tuple[str, str]]:
    if identity.kind.name.removeprefix("Namespaced") in _IN_CEL:
        if reason := unevaluable.why_not_in_cel(spec):
            yield reason, str(identity)
    elif identity.kind.name in _RULED:
        if reason := unevaluable.beyond_rules(spec):
            yield reason, str(identity)
            return
        for rule in unevaluable.rules(spec):
            if reason := unevaluable.why_not(rule):
                yield reason, f"{identity} rule {rule.get('name')}"
            enforcement.of_rule(rule, spec)  # raises what made a draft of it impossible
