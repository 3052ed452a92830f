"""What people read of a plan, a verdict and an outcome."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import click

from applier.change import Action, Change, Plan, Rehearsed
from applier.guards.refusals import empty_set
from applier.report import text
from applier.report.outcome import outcome_lines
from applier.transaction.execution import Outcome
from applier.verdict import Finding, Layer, Verdict
from renderer.errors import ExitCode, Problem
from renderer.manifest.normalize import content
from tests.support.policies import cluster_policy, identity_of, live_object, validating_policy


def plain(lines: Iterable[str]) -> str:
    return click.unstyle("\n".join(lines))


def enforcing(name: str) -> dict[str, object]:
    body = cluster_policy(name)
    body["spec"]["validationFailureAction"] = "Enforce"
    return body


def updated() -> Change:
    identity = identity_of(cluster_policy("changed"))
    live = live_object(enforcing("changed"))
    after = content(live_object(cluster_policy("changed")), identity.kind)
    return Change(identity=identity, action=Action.UPDATE, before=live, after=after, drifted_by=("kubectl-edit",))


def test_an_update_shows_what_it_does_and_which_lines_change() -> None:
    shown = plain(text.plan_lines(Plan(changes=(updated(),)), where="on https://c"))
    assert shown.startswith("1 to update, 0 unchanged on https://c\nRisk: 1 weakens\n\n")
    assert "~ update ClusterPolicy/changed  (spec also written by kubectl-edit)" in shown
    assert "no longer denies requests (Deny → Audit)" in shown
    assert "    -  validationFailureAction: Enforce" in shown
    assert "    +  validationFailureAction: Audit" in shown
    assert shown.endswith("1 to update, 0 unchanged on https://c")


def test_a_create_and_a_delete_show_the_whole_policy_and_no_place_in_it() -> None:
    new, old = validating_policy("new"), live_object(cluster_policy("old"))
    plan = Plan(
        changes=(
            Change(identity=identity_of(new), action=Action.CREATE, after=new, rehearsed=Rehearsed.NOT_ASKED),
            Change(identity=identity_of(cluster_policy("old")), action=Action.DELETE, before=old),
        )
    )
    shown = plain(text.plan_lines(plan, where="on s"))
    assert "@@" not in shown
    assert "    +kind: ValidatingPolicy" in shown
    assert "    -kind: ClusterPolicy" in shown
    assert "resourceVersion" not in shown
    assert "not dry-run" in shown
    assert "@@" not in plain(text.plan_lines(plan, where="on s", diffs=False))


def test_no_change_is_one_line() -> None:
    plan = Plan(changes=(Change(identity=identity_of(cluster_policy()), action=Action.UNCHANGED),))
    assert plain(text.plan_lines(plan, where="on s")) == "No changes: 1 unchanged on s"


def test_a_refused_policy_is_shown_with_its_reason_and_what_would_have_happened() -> None:
    refused = replace(updated(), action=Action.REFUSED, reason="somebody else's", rehearsed=Rehearsed.NOT_ASKED)
    shown = plain(text.plan_lines(Plan(changes=(refused,)), where="on s"))
    assert shown.startswith("No changes: 0 unchanged, 1 refused on s\n")
    assert "! refused ClusterPolicy/changed  (somebody else's)" in shown
    assert "    +  validationFailureAction: Audit" in shown
    assert "dry-run" not in shown


def test_a_refusal_says_what_would_have_happened_and_how_to_allow_it() -> None:
    refused = empty_set(["ClusterPolicy/a"], 1)
    shown = plain(text.plan_lines(Plan(changes=(), refusals=(refused,)), where="on s"))
    assert "Refused: Insights wants no policy at all; applying that would delete all 1" in shown
    assert "  ClusterPolicy/a\n" in shown
    assert "--allow-empty" in shown


def test_a_verdict_shows_errors_first_and_what_could_not_be_judged() -> None:
    one, two = identity_of(cluster_policy("one")), identity_of(cluster_policy("two"))
    problem = Problem(source="a.yaml", line=3, policy="ClusterPolicy/one", field="spec.x", message="is wrong")
    verdict = Verdict(
        findings=(
            Finding(policy=two, layer=Layer.DEPRECATION, problem=problem, warning=True),
            Finding(policy=one, layer=Layer.SERVER, problem=problem),
        ),
        unjudged=((two, "the CLI does not know it"),),
    )
    assert plain(text.verdict_lines(verdict)).splitlines() == [
        "error [server] a.yaml:3: ClusterPolicy/one spec.x: is wrong",
        "warning [deprecation] a.yaml:3: ClusterPolicy/one spec.x: is wrong",
        "note ClusterPolicy/two: the CLI does not know it",
    ]


def test_an_outcome_names_every_policy() -> None:
    one, two = identity_of(cluster_policy("one")), identity_of(cluster_policy("two"))
    assert plain(outcome_lines(Outcome(applied=(one,), removed=(two,)))).splitlines() == [
        "+ ClusterPolicy/one",
        "- ClusterPolicy/two",
    ]
    failed = Outcome(
        restored=(one,), left_alone=((two, "theirs stands"),), not_undone=((one, "refused"),), code=ExitCode.ROLLED_BACK
    )
    assert plain(outcome_lines(failed)).splitlines() == [
        "restored ClusterPolicy/one",
        "left alone ClusterPolicy/two: theirs stands",
        "not restored ClusterPolicy/one: refused",
    ]


def test_a_policys_own_words_do_not_steer_a_terminal_nor_look_like_lines_of_ours() -> None:
    identity = identity_of(cluster_policy("a"))
    problem = Problem(
        source="a.yaml", field="spec.\x1b]0;x\x07\ny", message="no\x1b[2J\r\u202e\n1 of 1 policies are valid."
    )
    found = Finding(policy=identity, layer=Layer.SCHEMA, problem=problem)
    warned = [replace(found, warning=True), replace(found, warning=True, policy=identity_of(cluster_policy("b")))]
    for findings in ([found], warned[:1], warned):
        verdict = Verdict(findings=tuple(findings), unjudged=((identity, "no\x1b[2J\nyes"),))
        shown = "\n".join(text.verdict_lines(verdict)).replace("\x1b[0m", "")
        shown = re.sub("\x1b\\[[0-9]+m", "", shown)
        assert all(sign.isprintable() or sign == "\n" for sign in shown)
        assert "\\x1b[2J\\r\\u202e\n  1 of 1" in shown
        assert shown.endswith("\\x1b[2J\n  yes")
