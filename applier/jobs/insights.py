"""The adapter to Insights' on-demand jobs: short calls, for one turn makes several and the next turn tries again."""

from __future__ import annotations

from typing import Final, Self

from renderer.insights.config import InsightsConfig
from renderer.insights.jobs import claim_jobs, report_job
from renderer.insights.transport import Limits, Transport
from renderer.on_demand import Claim, JobStatus

#: One call, all its attempts together, stays well below what a silent leader is given (`lead_seconds`).
_LIMITS: Final = Limits(connect_seconds=5, read_seconds=10, request_seconds=10, call_seconds=15, attempts=2)


class InsightsJobs:
    """`ports.Insights` for one cluster; a context manager."""

    def __init__(self, config: InsightsConfig) -> None:
        """Prepare, without connecting. Raises as `Transport` does."""
        self._config = config
        self._transport = Transport(config, limits=_LIMITS, connections=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def claim(self, limit: int) -> Claim:
        """See `ports.Insights`."""
        return claim_jobs(self._transport, self._config, limit)

    def report(self, job_id: int, status: JobStatus, *, seconds: float) -> None:
        """See `ports.Insights`."""
        report_job(self._transport, self._config, job_id, status, seconds=seconds)
