"""What a policy or rule does with a request that violates it: nothing, report, warn or deny, and where.

The rules are Kyverno 1.19.1's (v1.Spec and v1.Rule; EngineResponse.ruleAction and matchOverride;
ValidatingPolicySpec.ValidationActions, AdmissionEnabled, EvaluationMode) and those of the
ValidatingAdmissionPolicyBinding of admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from renderer.manifest.effect.covering import UnreadableError, items, mapping, same, texts
from renderer.manifest.effect.matching import resource_filter
from renderer.manifest.jsontypes import Json, JsonObject


class Level(IntEnum):
    """What happens to a request that violates the policy, from nothing to denial."""

    OFF = 0
    AUDIT = 1
    WARN = 2
    DENY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """The level of one rule, and where another level holds instead.

    `elsewhere` holds in the namespaces of `places` (flat filters: `namespaces`, `namespaceSelector`). `mixed`
    is for overrides that mask each other: then only sameness can be seen.
    """

    level: Level
    elsewhere: Level = Level.OFF
    places: tuple[JsonObject, ...] = ()
    mixed: bool = False

    @property
    def highest(self) -> Level:
        """The highest level that holds anywhere."""
        return max(self.level, self.elsewhere) if self.places else self.level

    @property
    def denies(self) -> bool:
        """True when it denies a request anywhere."""
        return self.highest is Level.DENY

    @property
    def denies_everywhere(self) -> bool:
        """True when no override lifts the denial."""
        return self.level is Level.DENY and not self.places

    def covers(self, other: Enforcement) -> bool:
        """Whether it certainly denies wherever the other denies."""
        if same(self.places, other.places) and (self.level, self.mixed) == (other.level, other.mixed):
            return True
        if not other.denies or self.denies_everywhere:
            return True
        if self.mixed or other.mixed or self.level is not other.level:
            return False
        wide, narrow = (self, other) if self.level is not Level.DENY else (other, self)
        return all(any(resource_filter(one, two) for one in wide.places) for two in narrow.places)


OFF = Enforcement(level=Level.OFF)


# --- ClusterPolicy and Policy ----------------------------------------------------------------------


def of_rule(rule: JsonObject, spec: JsonObject) -> Enforcement:
    """Say what a `validate` or `verifyImages` rule of that spec does; raises UnreadableError as covering.py.

    `assert` alone checks nothing (without effect since Kyverno 1.19). A rule that is not run at admission
    reports what the background scan finds, if that is on.
    """
    validate = mapping(rule.get("validate"))
    if not (validate.keys() - _NO_CHECK or rule.get("verifyImages")):
        return OFF
    if spec.get("admission") is False:
        return OFF if spec.get("background") is False else Enforcement(level=Level.AUDIT)
    own = _action(validate) if validate else _image_action(rule)
    spec_overrides = items(spec.get("validationFailureActionOverrides"))
    overrides = items(validate.get("failureActionOverrides"))
    if own is None:
        return _overridden(_action(spec, "validationFailureAction") or Level.AUDIT, [*overrides, *spec_overrides])
    # With an action of its own, the rule denies only if the spec's overrides, where they match, deny as well.
    return _overridden(own, overrides or (spec_overrides if own is Level.DENY else []))


_NO_CHECK = {"assert", "message", "failureAction", "failureActionOverrides", "allowExistingViolations"}


def _action(holder: JsonObject, key: str = "failureAction") -> Level | None:
    """Audit or Enforce, in either case of the first letter, None where it is left out."""
    value = holder.get(key)
    if value in (None, ""):
        return None
    if value in ("Enforce", "enforce"):
        return Level.DENY
    if value in ("Audit", "audit"):
        return Level.AUDIT
    raise UnreadableError


def _image_action(rule: JsonObject) -> Level | None:
    """Take the strictest of the entries that say one."""
    said = [action for entry in items(rule.get("verifyImages")) if (action := _action(mapping(entry))) is not None]
    return max(said, default=None)


def _overridden(level: Level, overrides: list[Json]) -> Enforcement:
    """Read the level and the places that differ; of several overrides that match, the first one counts."""
    places: list[tuple[Level, JsonObject]] = []
    for override in map(mapping, overrides):
        action = _action(override, "action")
        if action is None:
            continue
        place = {key: override[key] for key in ("namespaces", "namespaceSelector") if override.get(key)}
        texts(place.get("namespaces"))
        if not place:  # for every namespace: nothing after it counts
            level = action
            break
        places.append((action, place))
    while places and places[-1][0] is level:
        places.pop()
    if not places:
        return Enforcement(level=level)
    mixed = any(action is level for action, _ in places)
    return Enforcement(
        level=level,
        elsewhere=Level.AUDIT if level is Level.DENY else Level.DENY,
        places=tuple({**place, "action": int(action)} if mixed else place for action, place in places),
        mixed=mixed,
    )


# --- policies in CEL -------------------------------------------------------------------------------


def of_cel_policy(spec: JsonObject) -> Enforcement:
    """Say what a ValidatingPolicy or ImageValidatingPolicy of Kyverno's does: Deny where it says nothing."""
    evaluation = mapping(spec.get("evaluation"))
    if not items(spec.get("validations")) or evaluation.get("mode") == "JSON":
        return OFF
    if mapping(evaluation.get("admission")).get("enabled") is False:
        scanned = mapping(evaluation.get("background")).get("enabled") is not False
        return Enforcement(level=Level.AUDIT) if scanned else OFF
    return Enforcement(level=_strictest(texts(spec.get("validationActions")) or ["Deny"]))


def of_admission_policy(spec: JsonObject) -> Enforcement:
    """Say what a ValidatingAdmissionPolicy does where a binding says Deny; without one it does nothing."""
    return Enforcement(level=Level.DENY) if items(spec.get("validations")) else OFF


def of_binding(spec: JsonObject) -> Enforcement:
    """Say what a ValidatingAdmissionPolicyBinding has its policy do; validationActions has no default."""
    return Enforcement(level=_strictest(texts(spec.get("validationActions"))))


def _strictest(actions: list[str]) -> Level:
    levels = {"Audit": Level.AUDIT, "Warn": Level.WARN, "Deny": Level.DENY}
    if not levels.keys() >= set(actions):
        raise UnreadableError
    return max((levels[action] for action in actions), default=Level.OFF)
