"""The effect of a change as a whole: its order, its summary, its guards, and bodies that make no sense."""

from __future__ import annotations

from typing import Final

import pytest

from renderer.manifest import kinds
from renderer.manifest.effect import Direction, What, compare, enforces
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from tests.unit.manifest.effect_cases import kind, policy, put, said

CLUSTER_POLICY: Final = kind("clusterpolicies.kyverno.io")
MATCH: Final = {"any": [{"resources": {"kinds": ["Pod"]}}]}


def rule(name: str, action: str = "Enforce") -> JsonObject:
    return {"name": name, "match": MATCH, "validate": {"failureAction": action, "pattern": {"a": 1}}}


TWO: Final = policy({"rules": [rule("one"), rule("two", "Audit")]})


def test_a_new_policy_says_what_now_enforces() -> None:
    effect = compare(None, TWO, CLUSTER_POLICY)
    assert said(effect) == ("tightens ENFORCES", "tightens REPORTS_MORE")
    assert [change.sentence for change in effect.changes] == [
        "rule one now denies requests (Off → Deny)",
        "rule two reports violations, and denies nothing (Off → Audit)",
    ]
    assert effect.summary == "Rule one now denies requests (Off → Deny), and 1 more change."
    assert (effect.enforced_before, effect.enforces_after) == (False, True)
    assert effect.tightens
    assert not effect.may_loosen


def test_a_deleted_policy_says_what_no_longer_does() -> None:
    effect = compare(TWO, None, CLUSTER_POLICY)
    assert said(effect) == ("loosens NO_LONGER_ENFORCES", "loosens REPORTS_LESS")
    assert effect.worst
    assert effect.worst.sentence == "rule one no longer denies requests (Deny → Off): it is removed"
    assert effect.worst.path == "spec.rules[0]"
    assert (effect.enforced_before, effect.enforces_after) == (True, False)
    assert effect.weakens


def test_what_weakens_comes_first_then_the_worst() -> None:
    after = policy(
        {
            "background": False,
            "failurePolicy": "Ignore",
            "rules": [
                {**rule("one"), "exclude": MATCH, "context": [{"name": "a"}]},
                {**rule("two"), "match": {"any": []}},
            ],
        }
    )
    effect = compare(TWO, after, CLUSTER_POLICY)
    assert said(effect) == (
        "loosens FAILS_OPEN",
        "loosens EXCLUDES_MORE",
        "unknown ENFORCES_OTHERWISE",
        # From here on nothing is taken away from what denied.
        "loosens MATCHES_LESS",
        "tightens ENFORCES",
        "loosens REPORTS_LESS",
    )
    assert [change.path for change in effect.changes] == [
        "spec.webhookConfiguration.failurePolicy",
        "spec.rules[0].exclude",
        "spec.rules[0].context",
        "spec.rules[1].match",
        "spec.rules[1]",
        "spec.background",
    ]
    assert effect.summary.endswith(", and 5 more changes.")


def test_a_mixed_change_both_tightens_and_loosens() -> None:
    effect = compare(TWO, policy({"rules": [rule("one", "Audit"), rule("two")]}), CLUSTER_POLICY)
    assert (effect.tightens, effect.loosens, effect.weakens) == (True, True, True)
    assert [change.direction for change in effect.changes] == [Direction.LOOSENS, Direction.TIGHTENS]


def test_nothing_changes() -> None:
    effect = compare(TWO, {**TWO, "apiVersion": "kyverno.io/v2beta1", "status": {"ready": True}}, CLUSTER_POLICY)
    assert effect.changes == ()
    assert effect.summary == "Nothing changes in what it enforces, matches or does."
    assert not compare(None, None, CLUSTER_POLICY).changes


def test_a_scalar_says_what_it_was_and_what_it_is() -> None:
    effect = compare(TWO, put(TWO, "failurePolicy", "Ignore"), CLUSTER_POLICY)
    assert effect.summary == "The policy lets a request pass when it cannot be evaluated (Fail → Ignore)."


def test_names_can_break_no_line() -> None:
    effect = compare(None, policy({"rules": [rule("a\nSigned-off-by: <x>" + "y" * 200)]}), CLUSTER_POLICY)
    assert "\n" not in effect.summary
    assert len(effect.summary) < 160


def test_rules_of_one_name_are_told_apart() -> None:
    twice = policy({"rules": [rule("one"), rule("one", "Audit")]})
    assert said(compare(twice, put(twice, "rules.1.validate.failureAction", "Enforce"), CLUSTER_POLICY)) == (
        "tightens ENFORCES",
    )


@pytest.mark.parametrize(
    "body",
    [
        {"spec": "none"},
        {"spec": []},
        {"spec": {"rules": {}}},
        {"spec": {"rules": ["a"]}},
        {"spec": {"rules": [{"name": "a", "validate": "b"}]}},
        {"spec": {"rules": [rule("a")], "webhookConfiguration": 1}},
        {"spec": {}, "metadata": 1},
    ],
)
def test_what_makes_no_sense_is_unknown_and_never_harmless(body: JsonObject) -> None:
    for before, after in ((TWO, body), (body, TWO), (body, None)):
        effect = compare(before, after, CLUSTER_POLICY)
        assert said(effect) == ("unknown ENFORCES_OTHERWISE",)
        assert effect.weakens
    assert said(compare(None, body, CLUSTER_POLICY)) == ("unknown ENFORCES_OTHERWISE",)
    assert not compare(body, body, CLUSTER_POLICY).changes
    assert enforces(body, CLUSTER_POLICY)


@pytest.mark.parametrize("its_kind", kinds.KINDS, ids=lambda its_kind: its_kind.resource)
def test_every_kind_notices_a_field_that_it_does_not_know(its_kind: Kind) -> None:
    before, after = policy({"futureField": 1}), policy({"futureField": 2})
    effect = compare(before, after, its_kind)
    assert [change.direction for change in effect.changes] == [Direction.UNKNOWN]
    assert effect.changes[0].path == "spec.futureField"
    assert effect.may_loosen
    assert not compare(before, before, its_kind).changes


def test_every_what_has_its_own_words() -> None:
    assert len({what.value for what in What}) == len(What)
