"""What changes of exceptions, clean-up policies and shared data do, field by field."""

from __future__ import annotations

from typing import Final

import pytest

from renderer.manifest.effect import compare, enforces
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from tests.unit.manifest.effect_cases import ABSENT, OFF, Case, case, check, kind, policy, put, said


def block(**resources: object) -> JsonObject:
    return {"any": [{"resources": resources}]}


PODS: Final = block(kinds=["Pod"])
A_PODS: Final = block(kinds=["Pod"], namespaces=["a"])

# --- exceptions ------------------------------------------------------------------------------------

LEGACY: Final = kind("policyexceptions.kyverno.io")
EXCEPTION: Final = kind("policyexceptions.policies.kyverno.io")
EXEMPTS: Final = policy({"match": A_PODS, "exceptions": [{"policyName": "a", "ruleNames": ["x"]}]})


def excepted(name: str, *rules: str) -> JsonObject:
    return {"policyName": name, "ruleNames": list(rules)}


LEGACY_CASES = [
    case("match", A_PODS, PODS, "loosens EXCEPTION_WIDENED", weakens=True),
    case("match", PODS, A_PODS, "tightens EXCEPTION_NARROWED"),
    case("match", PODS, block(kinds=["Service"]), "unknown EXCEPTION_CHANGED", weakens=True),
    case("conditions", ABSENT, {"all": [{"key": "a"}]}, "tightens EXCEPTION_NARROWED"),
    case(
        "exceptions",
        [excepted("a", "x")],
        [excepted("a", "x"), excepted("b", "y")],
        "loosens EXCEPTION_WIDENED",
        weakens=True,
    ),
    case("exceptions", [excepted("a", "x")], [excepted("a", "*")], "loosens EXCEPTION_WIDENED", weakens=True),
    case("exceptions", [excepted("a", "x", "y")], [excepted("a", "y")], "tightens EXCEPTION_NARROWED"),
    case("exceptions", [excepted("a", "x")], [excepted("b", "x")], "unknown EXCEPTION_CHANGED", weakens=True),
    case("podSecurity", [{"controlName": "Seccomp"}], ABSENT, "loosens EXCEPTION_WIDENED", weakens=True),
    case(
        "podSecurity",
        [{"controlName": "Seccomp"}],
        [{"controlName": "Seccomp"}, {"controlName": "AppArmor"}],
        "loosens EXCEPTION_WIDENED",
        weakens=True,
    ),
    case("background", ABSENT, OFF, "tightens EXCEPTION_NARROWED"),
    case("new", ABSENT, 1, "unknown EXCEPTION_CHANGED", weakens=True),
]


@pytest.mark.parametrize("one", LEGACY_CASES, ids=str)
def test_legacy_exceptions(one: Case) -> None:
    check(EXEMPTS, LEGACY, one)


REFERENCE: Final = {"name": "a", "kind": "ValidatingPolicy"}
CONDITION: Final = {"name": "x", "expression": "true"}
EXEMPTS_CEL: Final = policy({"policyRefs": [REFERENCE], "matchConditions": [CONDITION]})
CASES = [
    case(
        "policyRefs",
        [REFERENCE],
        [REFERENCE, {**REFERENCE, "name": "b"}],
        "loosens EXCEPTION_WIDENED",
        weakens=True,
    ),
    case("matchConditions", [CONDITION], [], "loosens EXCEPTION_WIDENED", weakens=True),
    case("matchConditions", [CONDITION], [CONDITION, {"expression": "b"}], "tightens EXCEPTION_NARROWED"),
    case("matchConditions", [CONDITION], [{"expression": "b"}], "unknown EXCEPTION_CHANGED", weakens=True),
    case("images", ["a"], ["a", "b"], "loosens EXCEPTION_WIDENED", weakens=True),
    # Without images and values it exempts from the whole policy.
    case("images", ["a"], ABSENT, "loosens EXCEPTION_WIDENED", weakens=True),
    case("allowedValues", ABSENT, ["a"], "tightens EXCEPTION_NARROWED"),
    case("expiresAt", "2030-01-01T00:00:00Z", ABSENT, "loosens EXCEPTION_WIDENED", weakens=True),
    case(
        "expiresAt",
        "2030-01-01T00:00:00Z",
        "2031-01-01T00:00:00Z",
        "loosens EXCEPTION_WIDENED",
        weakens=True,
    ),
    case("expiresAt", "2030-01-01T00:00:00Z", "2030-01-01T01:00:00+01:00"),
    case("expiresAt", "2030-01-01T00:00:00Z", "some day", "unknown EXCEPTION_CHANGED", weakens=True),
    case("reportResult", ABSENT, "pass", "neutral PRESENTATION"),
    case("reportResult", ABSENT, "skip"),
    case("properties", ABSENT, {"ticket": "1"}, "neutral PRESENTATION"),
    case("evaluationMode", ABSENT, "JSON", "unknown EXCEPTION_CHANGED", weakens=True),
]


@pytest.mark.parametrize("one", CASES, ids=str)
def test_exceptions(one: Case) -> None:
    check(EXEMPTS_CEL, EXCEPTION, one)


@pytest.mark.parametrize(("body", "its_kind"), [(EXEMPTS, LEGACY), (EXEMPTS_CEL, EXCEPTION)])
def test_exceptions_that_come_and_go(body: JsonObject, its_kind: Kind) -> None:
    added, removed = compare(None, body, its_kind), compare(body, None, its_kind)
    assert said(added) == ("loosens EXCEPTION_ADDED",)
    assert added.weakens  # what it exempts from may enforce
    assert added.summary == "The exception now exempts resources from a."
    assert said(removed) == ("tightens EXCEPTION_REMOVED",)
    assert not removed.weakens
    assert not enforces(body, its_kind)


def test_an_exception_names_three_policies_at_most() -> None:
    many = put(EXEMPTS, "exceptions", [excepted(name, "*") for name in "abcde"])
    assert compare(None, many, LEGACY).summary == "The exception now exempts resources from a, b, c and 2 more."


# --- clean-up --------------------------------------------------------------------------------------

CLEANS: Final = policy({"match": A_PODS, "schedule": "0 0 * * *"})
CLEANUP = [
    case("match", A_PODS, PODS, "tightens DELETES_MORE"),
    case("match", PODS, A_PODS, "loosens DELETES_LESS"),
    case("exclude", ABSENT, A_PODS, "loosens DELETES_LESS"),
    case("exclude", A_PODS, PODS, "loosens DELETES_LESS"),
    case("conditions", {"any": [{"key": "a"}]}, {"any": [{"key": "a"}, {"key": "b"}]}, "tightens DELETES_MORE"),
    case("conditions", {"all": [{"key": "a"}]}, {"all": [{"key": "b"}]}, "unknown DELETES_OTHERWISE"),
    case("schedule", "0 0 * * *", "* * * * *", "unknown DELETES_OTHERWISE"),
    case("context", ABSENT, [{"name": "a"}], "unknown DELETES_OTHERWISE"),
]


@pytest.mark.parametrize("one", CLEANUP, ids=str)
@pytest.mark.parametrize("plural", ["cleanuppolicies", "clustercleanuppolicies"])
def test_cleanup_policies(plural: str, one: Case) -> None:
    its_kind = kind(f"{plural}.kyverno.io")
    check(CLEANS, its_kind, one)
    assert said(compare(None, CLEANS, its_kind)) == ("tightens DELETES",)
    assert said(compare(CLEANS, None, its_kind)) == ("loosens NO_LONGER_DELETES",)
    assert not compare(CLEANS, None, its_kind).weakens


# --- shared data -----------------------------------------------------------------------------------


def test_shared_data_may_change_what_any_policy_decides() -> None:
    its_kind = kind("globalcontextentries.kyverno.io")
    entry = policy({"kubernetesResource": {"version": "v1", "resource": "pods"}})
    other = put(entry, "kubernetesResource.namespace", "a")
    changed = compare(entry, other, its_kind)
    assert said(changed) == said(compare(other, entry, its_kind)) == ("unknown SHARED_DATA_CHANGED",)
    assert changed.weakens
    assert changed.changes[0].path == "spec.kubernetesResource.namespace"
    assert compare(entry, None, its_kind).weakens
    added = compare(None, entry, its_kind)
    assert said(added) == ("unknown SHARED_DATA_CHANGED",)
    assert not added.weakens
