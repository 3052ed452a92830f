"""What a plan's changes risk, and the order in which it is told."""

from __future__ import annotations

import pytest

from applier import risk
from applier.change import Action, Change, Plan
from applier.risk import Level
from renderer.manifest.effect import What
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import cluster_policy, exception, identity_of, live_object


def policy(name: str = "p", action: str = "Audit", *kinds: str) -> JsonObject:
    body = cluster_policy(name)
    body["spec"]["rules"][0]["validate"]["failureAction"] = action
    body["spec"]["rules"][0]["match"] = {"any": [{"resources": {"kinds": list(kinds or ["Pod"])}}]}
    return body


def change(before: JsonObject | None, after: JsonObject | None, action: Action = Action.UPDATE) -> Change:
    identity = identity_of(after or before or {})
    return Change(identity=identity, action=action, before=before and live_object(before), after=after)


def told(*changes: Change, weakening: bool | None = None) -> list[tuple[str, Level]]:
    found = None if weakening is None else frozenset(one.identity for one in changes if weakening)
    return [(one.code, one.level) for one in risk.of_plan(Plan(changes=changes, weakening=found))]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (policy(action="Enforce"), policy(), ("no-longer-enforces", Level.WEAKENS)),
        (policy(), policy(action="Enforce"), ("enforces", Level.DENIES)),
        (policy("p", "Enforce", "Pod", "Service"), policy("p", "Enforce"), ("matches-less", Level.WEAKENS)),
        (policy("p", "Enforce"), policy("p", "Enforce", "Pod", "Service"), ("matches-more", Level.DENIES)),
        (policy(), policy("p", "Audit", "Pod", "Service"), ("matches-more", Level.OTHER)),
    ],
)
def test_a_change_is_told_by_what_it_does(before: JsonObject, after: JsonObject, expected: tuple[str, Level]) -> None:
    assert told(change(before, after)) == [expected]


def test_a_deletion_is_told_whatever_it_did() -> None:
    assert told(change(policy(), None, Action.DELETE)) == [
        ("policy-deleted", Level.DELETES),
        ("reports-less", Level.OTHER),
    ]
    assert told(change(policy(action="Enforce"), None, Action.DELETE))[0] == ("no-longer-enforces", Level.WEAKENS)


def test_an_exception_weakens_only_where_what_it_exempts_from_denies() -> None:
    new = change(None, exception(), Action.CREATE)
    assert told(new, weakening=True) == [("exception-added", Level.WEAKENS)]
    assert told(new, weakening=False) == [("exception-added", Level.OTHER)]
    assert told(new) == [("exception-added", Level.WEAKENS)]


def test_the_worst_comes_first_whatever_the_order_of_policies() -> None:
    harmless = change(policy("a"), policy("a", "Audit", "Pod", "Service"))
    weakens = change(policy("b", "Enforce"), policy("b"))
    denies = change(policy("c"), policy("c", "Enforce"))
    plan = Plan(changes=(harmless, weakens, denies))
    assert [one.policy.name for one in risk.of_plan(plan)] == ["b", "c", "a"]
    assert [one.identity.name for one in risk.shown(plan)] == ["b", "c", "a"]


def test_what_stays_as_it_is_risks_nothing() -> None:
    assert told(change(policy(), policy(), Action.UNCHANGED)) == []


def test_codes_are_made_of_what_is_done_and_are_none_of_the_actions() -> None:
    codes = {risk.code(what) for what in What}
    assert "no-longer-enforces" in codes
    assert codes.isdisjoint({"policy-deleted", "policy-replaced", "policy-adopted"})
