"""The runner's settings: each mistake is one clear error, and flags come before the environment and the file."""

from __future__ import annotations

import json

import pytest

from renderer.errors import ExitCode
from tests.support.insights import InsightsStandIn
from tests.support.programs import TOKEN, Programs

SETTINGS = {"ORGANIZATION": "acme", "CLUSTER": "prod", "TOKEN": TOKEN, "NAMESPACE": "insights-agent"}


@pytest.fixture
def image(offline: Programs, insights: InsightsStandIn) -> Programs:
    """The image's program, with the runner's settings and no cluster."""
    kept = {name: offline.environment[name] for name in ("PATH", "HOME", "PYTHONPATH", "PYTHONWARNINGS")}
    return Programs(directory=offline.directory, environment={**kept, **SETTINGS, "HOST": insights.url})


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"POLL_INTERVAL": "15"}, "'15' is not accepted"),
        ({"POLL_INTERVAL": "0"}, "POLL_INTERVAL (--poll-interval): jobs can't be polled all the time"),
        ({"MAX_CONCURRENT_JOBS": "0"}, "'--max-concurrent-jobs' (env var: 'MAX_CONCURRENT_JOBS')"),
        ({"MAX_CONCURRENT_JOBS": "many"}, "'many' is not a valid integer"),
        ({"DEV_MODE": "perhaps"}, "'perhaps' is not a valid boolean"),
        ({"HOST": "insights.example"}, "HOST (--host): 'insights.example' does not begin with https://"),
        ({"HOST": "http://insights.example"}, "HOST (--host): 'http://insights.example' would send the token"),
        ({"TOKEN": "a b"}, "TOKEN (--token-file) holds a space"),
        ({"ORGANIZATION": ".."}, "ORGANIZATION (--organization): '..' is not accepted"),
        ({"JOB_TYPE": "trivvy"}, "JOB_TYPE: 'trivvy' is no report type"),
        ({"INSIGHTS_LEAD_TIMEOUT": "20s"}, "INSIGHTS_LEAD_TIMEOUT (--lead-timeout): a runner that works"),
        ({"FAIRWINDS_ORG": "acme"}, "It is not clear what to run: FAIRWINDS_ORG is for kyverno-policy-sync"),
        ({"LOG_LEVEL": "loud"}, "'loud' is not one of"),
        ({"INSIGHTS_CONFIG": "absent.yaml"}, "--config: absent.yaml can't be read"),
        ({"KUBECONFIG": "absent"}, "No cluster is configured: absent does not exist"),
    ],
)
def test_a_wrong_variable_is_one_clear_error(image: Programs, variables: dict[str, str], message: str) -> None:
    done = image.with_(**variables).run("on-demand-job-runner")
    assert (done.returncode, message in done.stderr) == (ExitCode.CONFIGURATION, True), done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error:")]) == 1


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("ORGANIZATION", "ORGANIZATION (--organization) is not set"),
        ("CLUSTER", "CLUSTER (--cluster) is not set"),
        ("TOKEN", "TOKEN (--token-file) is not set"),
        ("NAMESPACE", "NAMESPACE (--namespace) is not set, and this is not a pod"),
    ],
)
def test_a_missing_variable_is_named(image: Programs, missing: str, message: str) -> None:
    (image.directory / "kubeconfig").write_text(KUBECONFIG)
    done = image.without(missing).with_(KUBECONFIG="kubeconfig").run("on-demand-job-runner")
    assert (done.returncode, message in done.stderr) == (ExitCode.CONFIGURATION, True), done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pollIntervall: 15s\n", "has pollIntervall, which the runner does not take"),
        ("maxConcurrentJobs: [1]\n", "has something else than one value for maxConcurrentJobs"),
        ("- a\n", "is not one YAML map of settings"),
        ("maxConcurrentJobs: none\n", "'none' is not a valid integer"),
        ("token: a b\n", "token in config.yaml holds a space"),
        ("a: b: c\n", "config.yaml:1"),
    ],
)
def test_a_mistake_in_the_file_is_named(image: Programs, text: str, message: str) -> None:
    (image.directory / "config.yaml").write_text(text)
    done = image.without("TOKEN").run("on-demand-job-runner")
    assert done.returncode in (ExitCode.CONFIGURATION, ExitCode.INPUT)
    assert message in done.stderr


def test_flags_come_before_the_environment_and_that_before_the_file(image: Programs, insights: InsightsStandIn) -> None:
    (image.directory / "config.yaml").write_text(
        f"organization: from-the-file\ncluster: prod\ntoken: {TOKEN}\nhost: {insights.url}\n"
        "maxConcurrentJobs: 3\ndevMode: false\npollInterval: 7s\n"
    )
    (image.directory / "kubeconfig").write_text(KUBECONFIG)
    from_file = image.without(*SETTINGS, "HOST").with_(NAMESPACE="insights-agent", KUBECONFIG="kubeconfig")
    with_both = from_file.with_(ORGANIZATION="from-the-environment", POLL_INTERVAL="8s")
    assert _started(from_file) == ("from-the-file", 7.0, 3)
    assert _started(with_both) == ("from-the-environment", 8.0, 3)
    assert _started(with_both, "--organization", "from-a-flag") == ("from-a-flag", 8.0, 3)


def _started(image: Programs, *flags: str) -> tuple[str, float, int]:
    """What the runner says of itself when it begins."""
    process = image.start("on-demand-job-runner", *flags)
    try:
        assert process.stdout
        line = json.loads(process.stdout.readline())
        return line["organization"], line["poll_seconds"], line["max_concurrent_jobs"]
    finally:
        process.kill()
        process.communicate()


def test_help_tells_what_the_environment_means(image: Programs) -> None:
    done = image.run("on-demand-job-runner", "--help")
    assert done.returncode == 0
    for word in ("JOB_TYPE=kyverno-policy-sync", "FAIRWINDS_ORG", "ORGANIZATION", "config.yaml"):
        assert word in done.stdout


#: Of a server that nobody asks anything before the settings are checked.
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
"""
