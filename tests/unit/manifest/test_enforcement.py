"""What a rule or a policy in CEL does with a violation, by what it says of admission, background and actions."""

from __future__ import annotations

import pytest

from renderer.manifest.effect.covering import UnreadableError
from renderer.manifest.effect.enforcement import Enforcement, Level, of_cel_policy, of_rule
from renderer.manifest.jsontypes import JsonObject

DENYING: JsonObject = {"validate": {"pattern": {}, "failureAction": "Enforce"}}


@pytest.mark.parametrize(
    ("spec", "level"),
    [
        ({}, Level.DENY),
        ({"admission": True}, Level.DENY),
        ({"background": False}, Level.DENY),
        # It is not asked about requests; what the scan finds is reported.
        ({"admission": False}, Level.AUDIT),
        ({"admission": False, "background": True}, Level.AUDIT),
        ({"admission": False, "background": False}, Level.OFF),
    ],
)
def test_a_rule_that_is_not_run_at_admission_denies_nothing(spec: JsonObject, level: Level) -> None:
    assert of_rule(DENYING, spec) == Enforcement(level=level)


@pytest.mark.parametrize(
    ("evaluation", "level"),
    [
        (None, Level.DENY),
        ({"admission": {"enabled": True}, "background": {"enabled": False}}, Level.DENY),
        ({"admission": {"enabled": False}}, Level.AUDIT),
        ({"admission": {"enabled": False}, "background": {"enabled": True}}, Level.AUDIT),
        ({"admission": {"enabled": False}, "background": {"enabled": False}}, Level.OFF),
        ({"mode": "JSON"}, Level.OFF),
        ({"mode": "Kubernetes"}, Level.DENY),
    ],
)
def test_so_it_is_with_a_policy_in_cel(evaluation: JsonObject | None, level: Level) -> None:
    assert of_cel_policy({"validations": [{"expression": "true"}], "evaluation": evaluation}) == Enforcement(
        level=level
    )


@pytest.mark.parametrize(
    ("action", "level"),
    [
        ("Enforce", Level.DENY),
        ("enforce", Level.DENY),
        ("Audit", Level.AUDIT),
        ("audit", Level.AUDIT),
        ("", Level.AUDIT),
    ],
)
def test_an_action_is_read_in_either_case_of_its_first_letter(action: str, level: Level) -> None:
    assert of_rule({"validate": {"pattern": {}}}, {"validationFailureAction": action}) == Enforcement(level=level)


def test_an_action_that_nobody_knows_is_not_guessed_at() -> None:
    with pytest.raises(UnreadableError):
        of_rule({"validate": {"pattern": {}}}, {"validationFailureAction": "ENFORCE"})


def overriding(*overrides: JsonObject, action: str = "Audit") -> Enforcement:
    spec: JsonObject = {"validationFailureAction": action, "validationFailureActionOverrides": list(overrides)}
    return of_rule({"validate": {"pattern": {}}}, spec)


PROD: JsonObject = {"namespaces": ["prod"]}
LABELLED: JsonObject = {"namespaceSelector": {"matchLabels": {"tier": "prod"}}}


def test_an_override_holds_in_its_places_and_the_first_that_matches_counts() -> None:
    deny, report = {"action": "Enforce"}, {"action": "Audit"}
    assert overriding(deny | PROD) == Enforcement(level=Level.AUDIT, elsewhere=Level.DENY, places=(PROD,))
    assert overriding(report | LABELLED, action="Enforce") == Enforcement(
        level=Level.DENY, elsewhere=Level.AUDIT, places=(LABELLED,)
    )
    assert overriding({**PROD}, deny | LABELLED).places == (LABELLED,)  # one without an action says nothing
    assert overriding(deny) == Enforcement(level=Level.DENY)
    assert overriding(deny, report | PROD) == Enforcement(level=Level.DENY)
    assert overriding(deny | PROD, report) == Enforcement(level=Level.AUDIT, elsewhere=Level.DENY, places=(PROD,))
    assert overriding(report | PROD) == Enforcement(level=Level.AUDIT)
    masked = overriding(report | LABELLED, deny | PROD)
    assert (masked.level, masked.elsewhere, masked.mixed) == (Level.AUDIT, Level.DENY, True)
    assert masked.places == ({**LABELLED, "action": 1}, {**PROD, "action": 3})
    assert masked.denies
    assert not masked.denies_everywhere
