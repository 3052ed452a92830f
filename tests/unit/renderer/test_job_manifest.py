"""The Job that a CronJob and a request make together."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from renderer.errors import InputError
from renderer.job_manifest import JobRequest, is_job_of, option_variables, render_job, variable_name
from renderer.manifest.jsontypes import JsonObject
from renderer.report_types import REPORT_TYPES

CRON_JOB: JsonObject = {
    "metadata": {"name": "trivy", "namespace": "insights-agent", "uid": "cron-job-uid"},
    "spec": {
        "suspend": True,
        "jobTemplate": {
            "metadata": {"labels": {"app": "trivy"}, "annotations": {"team": "security"}},
            "spec": {
                "backoffLimit": 4,
                "template": {
                    "metadata": {"labels": {"app": "trivy"}},
                    "spec": {
                        "restartPolicy": "Never",
                        "initContainers": [{"name": "fetch"}],
                        "containers": [
                            {
                                "name": "trivy",
                                "env": [
                                    {"name": "Z", "value": "last"},
                                    {
                                        "name": "IMAGES_TO_SCAN",
                                        "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
                                    },
                                    {"name": "A", "value": "first"},
                                ],
                            },
                            {"name": "uploader"},
                        ],
                    },
                },
            },
        },
    },
}


def cron_job(**spec: Any) -> JsonObject:
    changed = copy.deepcopy(CRON_JOB)
    changed["spec"]["jobTemplate"]["spec"].update(spec)
    return changed


def request(report_type: str = "trivy", key: str = "42", **different: Any) -> JobRequest:
    values = {"organization": "acme", "cluster": "prod", **different}
    return JobRequest(key=key, report_type=REPORT_TYPES[report_type], **values)


def test_is_the_cron_jobs_template_with_a_way_back_to_the_request() -> None:
    before = copy.deepcopy(CRON_JOB)
    job = render_job(CRON_JOB, request())
    assert before == CRON_JOB
    assert job["metadata"] == {
        "name": "trivy-on-demand-42",
        "namespace": "insights-agent",
        "labels": {
            "app": "trivy",
            "insights.fairwinds.com/on-demand-report-type": "trivy",
            "insights.fairwinds.com/on-demand-job-id": "42",
        },
        "annotations": {
            "team": "security",
            "cronjob.kubernetes.io/instantiate": "manual",
            "insights.fairwinds.com/organization": "acme",
            "insights.fairwinds.com/cluster": "prod",
        },
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "trivy", "uid": "cron-job-uid"}],
    }
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels == job["metadata"]["labels"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 600
    assert is_job_of(job, request())
    assert "suspend" not in job["spec"]


@pytest.mark.parametrize(
    ("report_type", "own", "seconds"),
    [
        ("trivy", None, 1200),
        ("trivy", 60, 60),
        ("trivy", 7200, 1200),
        ("image-trust", None, 1200),
        ("kyverno-policy-sync", None, 600),
        ("polaris", None, 300),
        ("polaris", 301, 300),
    ],
)
def test_takes_the_shorter_time_limit(report_type: str, own: int | None, seconds: int) -> None:
    template = {} if own is None else {"activeDeadlineSeconds": own}
    assert render_job(cron_job(**template), request(report_type))["spec"]["activeDeadlineSeconds"] == seconds


def test_keeps_the_backoff_limit_and_never_retries_a_policy_sync() -> None:
    assert render_job(CRON_JOB, request())["spec"]["backoffLimit"] == 4
    unset = cron_job()
    del unset["spec"]["jobTemplate"]["spec"]["backoffLimit"]
    assert "backoffLimit" not in render_job(unset, request())["spec"]
    assert render_job(CRON_JOB, request("kyverno-policy-sync"))["spec"]["backoffLimit"] == 0


def test_options_become_variables_of_every_container() -> None:
    options = {"imagesToScan": "a,b", "dryRun": "true"}
    pod = render_job(CRON_JOB, request(options=options))["spec"]["template"]["spec"]
    added = [{"name": "IMAGES_TO_SCAN", "value": "a,b"}, {"name": "DRY_RUN", "value": "true"}]
    assert pod["containers"][0]["env"] == [
        {"name": "Z", "value": "last"},
        {"name": "IMAGES_TO_SCAN", "value": "a,b"},
        {"name": "A", "value": "first"},
        {"name": "DRY_RUN", "value": "true"},
    ]
    assert pod["containers"][1]["env"] == added
    assert pod["initContainers"][0]["env"] == added
    untouched = render_job(CRON_JOB, request())["spec"]["template"]["spec"]["containers"]
    assert untouched == CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]


def test_a_variable_that_is_there_twice_is_replaced_once() -> None:
    twice = cron_job()
    container = twice["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "A", "value": "3"}]
    job = render_job(twice, request(options={"a": "new"}))
    assert job["spec"]["template"]["spec"]["containers"][0]["env"] == [
        {"name": "A", "value": "new"},
        {"name": "B", "value": "2"},
    ]


@pytest.mark.parametrize(
    ("option", "variable"),
    [
        ("imagesToScan", "IMAGES_TO_SCAN"),
        ("HTTPRequestID", "HTTP_REQUEST_ID"),
        ("jobID", "JOB_ID"),
        ("v2Beta", "V2_BETA"),
        ("plain", "PLAIN"),
        ("ALREADY_ONE", "ALREADY_ONE"),
        ("snake_case", "SNAKE_CASE"),
        ("dotted.name", "DOTTED.NAME"),
        ("kebab-name", "KEBAB-NAME"),
        ("x", "X"),
    ],
)
def test_variable_names(option: str, variable: str) -> None:
    assert variable_name(option) == variable


@pytest.mark.parametrize("value", ["$(TOKEN)", "$$(TOKEN)", "a$b", "$$", "100$"])
def test_a_value_is_never_expanded(value: str) -> None:
    (variable,) = option_variables({"option": value})
    assert _expanded(variable["value"]) == value


def _expanded(text: str) -> str:
    """As the kubelet does it: $$ is one dollar sign, $(NAME) a variable's value."""
    result, index = "", 0
    while index < len(text):
        if text.startswith("$$", index):
            result, index = f"{result}$", index + 2
        elif text.startswith("$(", index):
            raise AssertionError(f"{text} would be expanded")
        else:
            result, index = result + text[index], index + 1
    return result


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"": "x"}, "The option '' can't be a variable"),
        ({"a=b": "x"}, "The option 'a=b' can't be a variable"),
        ({"1st": "x"}, "The option '1st' can't be a variable"),
        ({"größe": "x"}, "The option 'größe' can't be a variable"),
        ({"a b": "x"}, "The option 'a b' can't be a variable"),
        ({"dryRun": "x", "DryRun": "y"}, "The options 'dryRun' and 'DryRun' are both the variable DRY_RUN"),
        ({"a": "x\0"}, "The option 'a' has a null character"),
        ({"a" * 70 + "=": "x"}, f"The option '{'a' * 60}…' can't be a variable"),
    ],
)
def test_what_can_be_no_variable_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        render_job(CRON_JOB, request(options=options))
    assert raised.value.message.startswith(message)


@pytest.mark.parametrize("spec", [{}, {"jobTemplate": None}, {"jobTemplate": {"spec": {"template": {}}}}])
def test_a_cron_job_without_a_template_is_named(spec: JsonObject) -> None:
    with pytest.raises(InputError, match="The CronJob trivy has no template of a Job"):
        render_job({**CRON_JOB, "spec": spec}, request())


@pytest.mark.parametrize("report_type", REPORT_TYPES)
@pytest.mark.parametrize("key", ["0", "7", str(2**63 - 1)])
def test_names_fit_and_are_no_schedules(report_type: str, key: str) -> None:
    name = request(report_type, key).job_name
    assert len(name) <= 63
    # a schedule's Job is CRONJOB-MINUTES
    assert not name.removeprefix(f"{report_type}-").isdigit()
    assert name == request(report_type, key).job_name != request(report_type, f"1{key}").job_name


@pytest.mark.parametrize("different", [{"organization": "other"}, {"cluster": "other"}, {"key": "43"}])
def test_a_job_of_another_request_is_told_apart(different: dict[str, str]) -> None:
    assert not is_job_of(render_job(CRON_JOB, request()), request(**different))


def test_the_table_is_complete() -> None:
    assert len(REPORT_TYPES) == 17
    assert all(report_type.timeout_seconds >= 300 for report_type in REPORT_TYPES.values())
