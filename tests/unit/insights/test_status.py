"""Reporting a policy's status: exactly what Insights takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from renderer.errors import NotPermitted
from renderer.insights.status import PolicyStatus, report_status
from tests.support.insights import Fault, InsightsStandIn

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig
    from renderer.insights.transport import Transport

AT = datetime(2026, 8, 1, 12, 30, 15, 999999, tzinfo=timezone(timedelta(hours=2)))
APPLIED = PolicyStatus(
    policy_name="require-labels",
    action="apply",
    status="success",
    last_applied_at=AT,
    policy_body="kind: ClusterPolicy\n",
)


def test_sends_what_insights_takes(insights: InsightsStandIn, transport: Transport, config: InsightsConfig) -> None:
    report_status(transport, config, APPLIED)
    (request,) = insights.requests
    assert (request.method, request.path) == (
        "PUT",
        "/v0/organizations/acme/clusters/prod/policies/apply-status",
    )
    assert request.headers["Content-Type"] == "application/json"
    assert insights.statuses == [
        {
            "policyName": "require-labels",
            "reportType": "kyverno",
            "action": "apply",
            "status": "success",
            "lastAppliedAt": "2026-08-01T10:30:15Z",
            "policyBody": "kind: ClusterPolicy\n",
            "output": "",
        }
    ]


def test_sends_a_failed_deletion(insights: InsightsStandIn, transport: Transport, config: InsightsConfig) -> None:
    failed = PolicyStatus(
        policy_name="ü",
        action="delete",
        status="failed",
        last_applied_at=AT,
        policy_body="",
        output="line 1\nline 2",
    )
    report_status(transport, config, failed)
    (told,) = insights.statuses
    assert (told["policyName"], told["action"], told["status"], told["output"]) == (
        "ü",
        "delete",
        "failed",
        "line 1\nline 2",
    )


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        PolicyStatus(
            policy_name="x",
            action="apply",
            status="success",
            last_applied_at=datetime(2026, 8, 1),  # noqa: DTZ001 - the point of the test
            policy_body="",
        )


def test_is_sent_again_after_a_lost_answer(
    insights: InsightsStandIn, transport: Transport, config: InsightsConfig
) -> None:
    insights.fail(Fault.RESET, call="apply-status")
    report_status(transport, config, APPLIED)
    assert len(insights.requests) == 2
    assert len(insights.statuses) == 1


def test_a_refusal_names_the_policy(insights: InsightsStandIn, transport: Transport, config: InsightsConfig) -> None:
    insights.fail(Fault.FORBIDDEN)
    with pytest.raises(NotPermitted, match="Could not report the status of policy 'require-labels'"):
        report_status(transport, config, APPLIED)


def test_utc_stays_as_it_is() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    status = PolicyStatus(policy_name="x", action="apply", status="success", last_applied_at=at, policy_body="")
    assert status.to_json()["lastAppliedAt"] == "2026-01-02T03:04:05Z"
