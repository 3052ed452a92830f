"""The policies that Insights wants on a cluster, as the bytes it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig
    from renderer.insights.transport import Transport


def fetch_policies(transport: Transport, config: InsightsConfig) -> bytes:
    """Fetch all policies wanted on the cluster: multi-document YAML, not yet read.

    An empty answer is given as it is: whether it is meant is for the guards to say. Raises what
    Transport.send raises.
    """
    from renderer.insights.transport import Call

    answer = transport.send(
        Call(
            method="GET",
            url=config.url("kyverno-policies/with-app-groups-applied/yaml"),
            purpose=f"fetch the policies of {config.subject}",
            missing=config.subject,
            repeatable=True,
        )
    )
    return answer.body
