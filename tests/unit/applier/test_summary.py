"""The line that ends a sync, as it is specified."""

from __future__ import annotations

import json

from applier import statuses, summary
from applier.change import Action, Change, Plan
from applier.transaction.execution import Outcome
from renderer.errors import ExitCode, RemoteError
from tests.support.policies import cluster_policy, identity_of, validating_policy

ONE, TWO = identity_of(cluster_policy("one")), identity_of(cluster_policy("two"))
SAME_NAME = identity_of(validating_policy("one"))


def test_a_sync_that_completed() -> None:
    line = summary.of_outcome(Outcome(applied=(TWO, ONE), updated=()), seconds=5.21)
    assert json.dumps(line, separators=(",", ":")) == (
        '{"level":"info","msg":"Policy sync completed","success":true,"duration":"5.2s",'
        '"summary":"Applied 2, Updated 0, Removed 0, Failed 0",'
        '"applied":["one","two"],"updated":[],"removed":[],"failed":[]}'
    )


def test_after_a_rollback_only_what_failed_is_named() -> None:
    outcome = Outcome(
        failed=((ONE, "refused"),), restored=(TWO,), reason="ClusterPolicy/one: refused", code=ExitCode.ROLLED_BACK
    )
    line = summary.of_outcome(outcome, seconds=1)
    assert (line["level"], line["msg"], line["success"]) == ("error", "Policy sync failed", False)
    assert (line["applied"], line["updated"], line["removed"], line["failed"]) == ([], [], [], ["one"])
    assert line["error"] == "ClusterPolicy/one: refused"


def test_two_policies_of_one_name_are_told_apart() -> None:
    line = summary.of_outcome(Outcome(applied=(ONE,), removed=(SAME_NAME,)), seconds=1)
    assert (line["applied"], line["removed"]) == (["ClusterPolicy/one"], ["ValidatingPolicy/one"])


def test_a_dry_run_says_what_would_have_been_done() -> None:
    plan = Plan(changes=(Change(identity=ONE, action=Action.CREATE), Change(identity=TWO, action=Action.UNCHANGED)))
    line = summary.of_dry_run(plan, seconds=1)
    assert line["summary"] == "Dry run, nothing was written: Applied 1, Updated 0, Removed 0, Failed 0"
    assert (line["applied"], line["dryRun"]) == (["one"], True)


def test_a_failure_before_the_first_write() -> None:
    line = summary.of_failure(RemoteError("Insights is away.", hint="Wait."), seconds=0.35)
    assert (line["success"], line["duration"], line["error"]) == (False, "350ms", "Insights is away.\nWait.")


def test_insights_hears_one_status_a_name_and_the_worse_one() -> None:
    from datetime import UTC, datetime

    plan = Plan(
        changes=(
            Change(identity=ONE, action=Action.CREATE, after=cluster_policy("one")),
            Change(identity=SAME_NAME, action=Action.DELETE, before=validating_policy("one")),
            Change(identity=TWO, action=Action.UPDATE, after=cluster_policy("two")),
        )
    )
    outcome = Outcome(failed=((ONE, "refused"),), reason="ClusterPolicy/one: refused", code=ExitCode.ROLLED_BACK)
    told = {status.policy_name: status for status in statuses.of_outcome(plan, outcome, at=datetime.now(UTC))}
    assert told.keys() == {"one", "two"}
    assert told["one"].status == "failed"
    assert "refused" in told["one"].output
    assert "rolled back" in told["two"].output
    done = statuses.of_outcome(plan, Outcome(applied=(ONE,), updated=(TWO,)), at=datetime.now(UTC))
    assert {(status.policy_name, status.action, status.status) for status in done} >= {("two", "apply", "success")}
