"""Which policies refer to which."""

from __future__ import annotations

import pytest

from applier.change import Action, Change
from applier.transaction import references
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    context,
    exception,
    identity_of,
    validating_policy,
)


def change(body: JsonObject) -> Change:
    return Change(identity=identity_of(body), action=Action.CREATE, after=body)


def kyverno_exception(policy: str) -> JsonObject:
    return {
        "apiVersion": "kyverno.io/v2",
        "kind": "PolicyException",
        "metadata": {"name": "one", "namespace": "team"},
        "spec": {"exceptions": [{"policyName": policy, "ruleNames": ["team"]}]},
    }


def reading(expression: str) -> JsonObject:
    return validating_policy("reading", expression=expression)


NAMESPACED = {**cluster_policy("one"), "kind": "Policy", "metadata": {"name": "one", "namespace": "team"}}
WITH_CONTEXT = cluster_policy("reading")
WITH_CONTEXT["spec"]["rules"][0]["context"] = [{"name": "all", "globalReference": {"name": "namespaces"}}]


@pytest.mark.parametrize(
    ("referring", "to"),
    [
        (admission_binding("b", policy="p"), admission_policy("p")),
        (exception(), validating_policy("require-owner")),
        (kyverno_exception("one"), cluster_policy("one")),
        (kyverno_exception("team/one"), NAMESPACED),
        (WITH_CONTEXT, context("namespaces")),
        (reading("globalContext.Get('namespaces', '').size() > 0"), context("namespaces")),
        (reading('globalContext.Get("namespaces", "").size() > 0'), context("namespaces")),
    ],
)
def test_a_reference_holds_in_both_directions_before_and_after(referring: JsonObject, to: JsonObject) -> None:
    gone = Change(identity=identity_of(referring), action=Action.DELETE, before=referring)
    for one in (change(referring), gone):
        assert references.between(one, [change(to)]) == identity_of(to)
        assert references.between(change(to), [one]) == identity_of(referring)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (admission_binding("b", policy="p"), admission_policy("q")),
        (admission_binding("b", policy="p"), cluster_policy("p")),
        (exception(), cluster_policy("require-owner")),
        (exception(), validating_policy("another")),
        ({**kyverno_exception("one"), "spec": {"exceptions": ["one"]}}, cluster_policy("one")),
        (kyverno_exception("one"), validating_policy("one")),
        (kyverno_exception("one"), NAMESPACED),
        (kyverno_exception("team/one"), cluster_policy("one")),
        (reading("namespaces > 1"), context("namespaces")),
        (cluster_policy("one"), validating_policy("one")),
    ],
)
def test_others_do_not_refer_to_each_other(one: JsonObject, other: JsonObject) -> None:
    assert references.between(change(one), [change(other)]) is None
    assert references.between(change(other), [change(one)]) is None


def test_what_needs_what_is_left_out_is_left_out_too() -> None:
    policy, excepted = change(validating_policy("require-owner")), change(exception())
    binding, bound = change(admission_binding("b", policy="p")), change(admission_policy("p"))
    refused = {policy.identity: "refused"}
    out = references.left_out([excepted, binding, bound, policy], refused)
    assert out == {**refused, excepted.identity: references.because(policy.identity)}


def test_what_needs_that_in_turn_is_left_out_as_well() -> None:
    entry = change(context("namespaces"))
    policy = change({**reading("globalContext.Get('namespaces', '')"), "metadata": {"name": "require-owner"}})
    excepted = change(exception())
    out = references.left_out([excepted, policy, entry], {entry.identity: "refused"})
    assert list(out) == [entry.identity, policy.identity, excepted.identity]
    assert out[excepted.identity] == f"it was left out, because {policy.identity} could not be written."
