"""What all tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A loaded machine is no defect.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = [
    "tests.support.cluster",
    "tests.support.programs",
    "tests.support.fleet",
    "tests.support.jobs",
    "tests.support.repositories",
    "tests.support.git_http",
    "tests.support.forges",
]


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that our programs read reaches a test from outside."""
    for name in list(os.environ):
        if name.startswith(("FAIRWINDS_", "INSIGHTS_")) or name in _SETTINGS:
            monkeypatch.delenv(name)


_SETTINGS = frozenset(
    [
        "DRY_RUN",
        "VALIDATE_POLICIES",
        "SYNC_INTERVAL",
        "LOCK_TIMEOUT",
        "LOG_LEVEL",
        "JOB_TYPE",
        "ON_FAILURE",
        "KUBECONFIG",
        "HOST",
        "ORGANIZATION",
        "CLUSTER",
        "TOKEN",
        "POLL_INTERVAL",
        "MAX_CONCURRENT_JOBS",
        "DEV_MODE",
        "NAMESPACE",
        "POD_NAME",
        "JOB_NAME",
    ]
)
