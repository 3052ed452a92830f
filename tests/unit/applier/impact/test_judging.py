"""From what both sides say of a resource to what the plan changes for it."""

from __future__ import annotations

import pytest

from applier.impact.exclusions import Exclusions
from applier.impact.judging import Judgement, Row, judge, level_in
from applier.impact.model import Effect, Resource
from applier.impact.versions import Side, Version
from renderer.manifest import kinds
from renderer.manifest.effect.enforcement import Enforcement, Level
from renderer.manifest.identity import Identity

POD = Resource(kind="Pod", namespace="shop", name="web")
AUDIT, DENY = Enforcement(level=Level.AUDIT), Enforcement(level=Level.DENY)


def version(
    before: Enforcement | None = None,
    after: Enforcement | None = None,
    *,
    name: str = "one",
    kind: tuple[str, str] = (kinds.KYVERNO, "ClusterPolicy"),
    namespace: str = "",
    closed: bool = False,
) -> Version:
    found = kinds.find(*kind)
    assert found is not None
    levels = {side: {"r": level} for side, level in ((Side.BEFORE, before), (Side.AFTER, after)) if level}
    return Version(
        number=0,
        policy=Identity(kind=found, namespace=namespace, name=name),
        body={},
        exceptions=(),
        patterns=frozenset(),
        levels=levels,
        closed=frozenset(Side) if closed else frozenset(),
        steady=False,
    )


def row(of: Version, outcome: str = "fail", rule: str = "r") -> Row:
    return Row(version=of, rule=rule, outcome=outcome, message=f"{of.policy.name} says no")


def judged(*rows: Row, exclusions: Exclusions | None = None) -> Judgement:
    return judge(POD, {}, rows, exclusions or Exclusions())


def effects(judgement: Judgement) -> list[tuple[Effect, str, str]]:
    return [(one.effect, one.policy.name, one.rule) for one in judgement.affected]


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        (None, DENY, Effect.BLOCKED),
        (AUDIT, DENY, Effect.BLOCKED),
        (DENY, DENY, None),
        (DENY, None, Effect.LET_THROUGH),
        (DENY, AUDIT, Effect.LET_THROUGH),
        (None, AUDIT, Effect.REPORTED),
        (AUDIT, AUDIT, None),
        (AUDIT, None, None),
        (None, Enforcement(level=Level.WARN), Effect.REPORTED),
        (None, Enforcement(level=Level.OFF), None),
    ],
)
def test_what_a_violation_means_is_decided_by_the_actions(
    before: Enforcement | None, after: Enforcement | None, effect: Effect | None
) -> None:
    found = effects(judged(row(version(before, after))))
    assert found == ([(effect, "one", "r")] if effect else [])


@pytest.mark.parametrize("outcome", ["pass", "skip"])
def test_what_passes_changes_nothing(outcome: str) -> None:
    assert judged(row(version(None, DENY), outcome)) == Judgement()


def test_what_another_policy_blocks_before_and_after_is_neither_blocked_newly_nor_let_through() -> None:
    other = row(version(DENY, DENY, name="other"))
    assert judged(row(version(None, DENY)), other) == Judgement()
    assert judged(row(version(DENY, None)), other) == Judgement()


def test_a_policy_that_moves_to_another_kind_newly_blocks_and_reports_nothing() -> None:
    cel = (kinds.POLICIES, "ValidatingPolicy")
    for level in (AUDIT, DENY):
        assert judged(row(version(level, None)), row(version(None, level, kind=cel))) == Judgement()


def test_a_rule_that_kyverno_made_for_a_controller_counts_as_the_rule_that_it_was_made_from() -> None:
    for rule in ("autogen-r", "autogen-cronjob-r"):
        assert effects(judged(row(version(None, DENY), rule=rule))) == [(Effect.BLOCKED, "one", "r")]


def test_a_rule_that_fails_and_blocks_nothing_is_told_and_the_others_count() -> None:
    error = row(version(None, AUDIT, name="other", closed=True), "error")
    assert judged(error).unsure == (("ClusterPolicy/other rule r", "other says no"),)
    assert effects(judged(row(version(DENY, None)), error)) == [(Effect.LET_THROUGH, "one", "r")]
    assert effects(judged(row(version(None, DENY)), error)) == [(Effect.BLOCKED, "one", "r")]
    flipped = row(version(AUDIT, DENY, closed=True), "error")
    assert judged(flipped) == Judgement(affected=judged(flipped).affected)
    assert effects(judged(flipped)) == [(Effect.BLOCKED, "one", "r")]


def test_a_rule_that_fails_blocks_where_its_failure_policy_says_so_and_it_denies() -> None:
    assert effects(judged(row(version(None, DENY, closed=True), "error"))) == [(Effect.BLOCKED, "one", "r")]
    assert effects(judged(row(version(None, AUDIT, closed=True), "error"))) == []


def test_a_policy_of_a_namespace_says_nothing_of_others() -> None:
    kind = (kinds.POLICIES, "NamespacedValidatingPolicy")
    assert effects(judged(row(version(None, DENY, kind=kind, namespace="shop"))))
    assert judged(row(version(None, DENY, kind=kind, namespace="lab"))) == Judgement()


def test_what_kyverno_excludes_only_the_api_server_judges() -> None:
    excluded = Exclusions(filters=(("Pod", "shop", "*"),))
    assert judged(row(version(None, DENY)), exclusions=excluded) == Judgement()
    admission = (kinds.ADMISSION, "ValidatingAdmissionPolicy")
    assert effects(judged(row(version(None, DENY, kind=admission)), exclusions=excluded))


def test_an_override_holds_where_it_matches() -> None:
    places = ({"namespaces": ["shop-*"]}, {"namespaceSelector": {"matchLabels": {"env": "dev"}}})
    lax = Enforcement(level=Level.DENY, elsewhere=Level.AUDIT, places=places)
    assert level_in(lax, "web", {}) is Level.DENY
    assert level_in(lax, "shop-1", {}) is Level.AUDIT
    assert level_in(lax, "web", {"env": "dev"}) is Level.AUDIT
    mixed = Enforcement(
        level=Level.AUDIT,
        elsewhere=Level.DENY,
        mixed=True,
        places=({"namespaces": ["a"], "action": int(Level.AUDIT)}, {"namespaces": ["*"], "action": int(Level.DENY)}),
    )
    assert (level_in(mixed, "a", {}), level_in(mixed, "b", {})) == (Level.AUDIT, Level.DENY)
