"""What the image runs, by its environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from applier.entrypoint import chosen, config_file
from renderer.errors import ConfigurationError

SYNC = {"FAIRWINDS_ORG": "acme", "FAIRWINDS_CLUSTER": "prod", "FAIRWINDS_TOKEN": "t"}
RUNNER = {"HOST": "https://insights.example", "ORGANIZATION": "acme", "CLUSTER": "prod", "TOKEN": "t"}
FILE = Path("/etc/kyverno-policy-sync/config.yaml")


@pytest.mark.parametrize(
    ("environ", "config", "command"),
    [
        ({"JOB_TYPE": "kyverno-policy-sync"}, None, ["sync"]),
        ({"JOB_TYPE": "kyverno-policy-sync", **RUNNER}, FILE, ["sync"]),
        (SYNC, None, ["sync"]),
        ({**SYNC, "HOST": "shell", "FAIRWINDS_AGENT_CHART_VERSION": "5"}, None, ["sync"]),
        ({**SYNC, "JOB_TYPE": ""}, None, ["sync"]),
        ({"JOB_TYPE": "trivy"}, None, ["run-jobs"]),
        ({"JOB_TYPE": "trivy", **RUNNER, **SYNC}, None, ["run-jobs"]),
        (RUNNER, None, ["run-jobs"]),
        (RUNNER, FILE, ["run-jobs", "--config", str(FILE)]),
        ({"HOST": "shell"}, FILE, ["run-jobs", "--config", str(FILE)]),
        ({**RUNNER, "FAIRWINDS_AGENT_CHART_VERSION": "5"}, None, ["run-jobs"]),
    ],
)
def test_the_environment_says_what_to_run(environ: dict[str, str], config: Path | None, command: Sequence[str]) -> None:
    assert list(chosen(environ, config)) == command


@pytest.mark.parametrize(
    ("environ", "config", "words"),
    [
        ({**SYNC, **RUNNER}, None, ["not clear", "FAIRWINDS_ORG", "FAIRWINDS_TOKEN", "ORGANIZATION", "CLUSTER, TOKEN"]),
        (SYNC, FILE, ["not clear", "FAIRWINDS_ORG", str(FILE)]),
        ({}, None, ["Nothing says what to run", "FAIRWINDS_ORG", "ORGANIZATION", "config.yaml", "JOB_TYPE"]),
        ({"HOST": "shell"}, None, ["Nothing says what to run"]),
        ({"JOB_TYPE": "trivvy"}, None, ["'trivvy' is no report type", "trivy"]),
    ],
)
def test_what_is_not_clear_names_both(environ: dict[str, str], config: Path | None, words: Sequence[str]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        chosen(environ, config)
    for word in words:
        assert word in str(raised.value)


def test_finds_the_first_file_unless_another_is_named(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    assert config_file({}, [first, second]) is None
    (second / "config.yaml").write_text("{}")
    assert config_file({}, [first, second]) == second / "config.yaml"
    assert config_file({"INSIGHTS_CONFIG": "other.yaml"}, [first, second]) is None
