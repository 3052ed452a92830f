"""The report types that can be asked for on demand: the one table of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_MINUTE: Final = 60

#: The type whose Job is this program's own sync.
POLICY_SYNC: Final = "kyverno-policy-sync"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportType:
    """A type of report; `name` is the name of its CronJob, too.

    A Job may take `timeout_seconds`. `backoff_limit`, where there is one, takes the place of the CronJob's own.
    """

    name: str
    timeout_seconds: int = 5 * _MINUTE
    backoff_limit: int | None = None


#: Every type by its name. A new one is a line here, and its Job is tested with those of all the others.
REPORT_TYPES: Final[Mapping[str, ReportType]] = MappingProxyType(
    {
        report_type.name: report_type
        for report_type in (
            ReportType(name="trivy", timeout_seconds=20 * _MINUTE),
            ReportType(name="image-trust", timeout_seconds=20 * _MINUTE),
            ReportType(name=POLICY_SYNC, timeout_seconds=10 * _MINUTE, backoff_limit=0),
            ReportType(name="cloudcosts"),
            ReportType(name="falco"),
            ReportType(name="nova"),
            ReportType(name="pluto"),
            ReportType(name="polaris"),
            ReportType(name="prometheus-metrics"),
            ReportType(name="goldilocks"),
            ReportType(name="rbac-reporter"),
            ReportType(name="right-sizer"),
            ReportType(name="workloads"),
            ReportType(name="kube-hunter"),
            ReportType(name="kube-bench"),
            ReportType(name="kyverno"),
            ReportType(name="gonogo"),
        )
    }
)
