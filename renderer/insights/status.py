"""Telling Insights what became of a policy on the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig
    from renderer.insights.transport import Transport
    from renderer.manifest.jsontypes import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatus:
    """The outcome for one policy: `policy_body` is its YAML, `output` the error's text ("" after a success).

    `last_applied_at` must know its time zone (ValueError).
    """

    policy_name: str
    action: Literal["apply", "delete"]
    status: Literal["success", "failed"]
    last_applied_at: datetime
    policy_body: str
    output: str = ""

    def __post_init__(self) -> None:
        """Refuse a time without a zone: it would be sent as if it were UTC."""
        if self.last_applied_at.tzinfo is None:
            raise ValueError("last_applied_at needs a time zone")

    def to_json(self) -> JsonObject:
        """Give the body that Insights takes; the time in RFC 3339, UTC, whole seconds."""
        applied_at = self.last_applied_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
        return {
            "policyName": self.policy_name,
            "reportType": "kyverno",
            "action": self.action,
            "status": self.status,
            "lastAppliedAt": f"{applied_at}Z",
            "policyBody": self.policy_body,
            "output": self.output,
        }


def report_status(transport: Transport, config: InsightsConfig, status: PolicyStatus) -> None:
    """Report one policy's outcome; sent again if need be, since the last report counts.

    Raises what Transport.send raises.
    """
    from renderer.insights.transport import Call

    transport.send(
        Call(
            method="PUT",
            url=config.url("policies/apply-status"),
            purpose=f"report the status of policy {status.policy_name!r}",
            missing=config.subject,
            repeatable=True,
            payload=status.to_json(),
        )
    )
