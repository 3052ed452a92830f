"""On-demand jobs: claimed once, read strictly, reported."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from renderer.errors import ConfigurationError, RemoteError
from renderer.insights.jobs import claim_jobs, parse_claim, report_job
from renderer.insights.transport import Transport
from renderer.on_demand import Claim, ClaimedJob, UnreadableJob
from tests.support.insights import Fault, InsightsStandIn
from tests.unit.insights.rawserver import saying

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig


def test_claims_up_to_the_limit_and_nothing_twice(
    insights: InsightsStandIn, transport: Transport, config: InsightsConfig
) -> None:
    ids = [insights.enqueue_job("trivy", options={"imagesToScan": "a,b"}), insights.enqueue_job("polaris"), 3]
    insights.enqueue_job("kyverno-policy-sync")
    assert claim_jobs(transport, config, 2) == Claim(
        jobs=(
            ClaimedJob(id=ids[0], report_type="trivy", options={"imagesToScan": "a,b"}),
            ClaimedJob(id=ids[1], report_type="polaris", options={}),
        )
    )
    assert [job.id for job in claim_jobs(transport, config, 2).jobs] == [3]
    assert claim_jobs(transport, config, 2) == Claim()
    first = insights.requests[0]
    assert (first.method, first.query) == ("POST", {"limit": ["2"]})
    assert first.path == "/v0/organizations/acme/clusters/prod/reports/on-demand-jobs/claim"


def test_reports_each_status(insights: InsightsStandIn, transport: Transport, config: InsightsConfig) -> None:
    job = insights.enqueue_job("trivy")
    report_job(transport, config, job, "running")
    report_job(transport, config, job, "completed")
    assert insights.job_statuses == {job: ["running", "completed"]}
    assert insights.requests[0].method == "PATCH"
    assert insights.requests[0].path.endswith(f"/reports/on-demand-jobs/{job}/status")


def test_a_report_is_sent_again_after_a_lost_answer(
    insights: InsightsStandIn, transport: Transport, config: InsightsConfig
) -> None:
    job = insights.enqueue_job("trivy")
    insights.fail(Fault.RESET, times=2)
    report_job(transport, config, job, "failed")
    assert len(insights.requests) == 3
    assert insights.job_statuses == {job: ["failed"]}


def test_an_unknown_job_is_named(transport: Transport, config: InsightsConfig) -> None:
    with pytest.raises(ConfigurationError, match="it knows no job 77 for cluster 'prod' of organization 'acme'"):
        report_job(transport, config, 77, "running")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_a_mistake(transport: Transport, config: InsightsConfig, limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        claim_jobs(transport, config, limit)


@pytest.mark.parametrize("body", [b"[]", b"null", b" [ ] \n"])
def test_no_jobs(body: bytes) -> None:
    assert parse_claim(body) == Claim()


def test_more_fields_do_no_harm() -> None:
    body = b'[{"id": 1, "reportType": "x", "status": "pending", "options": null, "new": [1]}]'
    assert parse_claim(body) == Claim(jobs=(ClaimedJob(id=1, report_type="x"),))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"reportType": None}, "reportType is missing or null, not a name"),
        ({"reportType": ""}, "reportType is empty, not a name"),
        ({"reportType": ["x"]}, "reportType is a list, not a name"),
        ({"options": "a=b"}, "options is a string, not an object"),
        ({"options": ["a"]}, "options is a list, not an object"),
        ({"options": {"depth": 3}}, "options.depth is a number, not a string"),
        ({"options": {"all": True}}, "options.all is a boolean, not a string"),
        ({"options": {"none": None}}, "options.none is missing or null, not a string"),
        ({"options": {"a\ud800": 1}}, r"options.'a\ud800' is a number, not a string"),
        ({"options": {"a\ud800": "b"}}, r"options.'a\ud800' has half a character (a lone surrogate)"),
        ({"options": {"a": "\udfff"}}, "options.a has half a character (a lone surrogate)"),
        ({"reportType": "\ud800"}, r"reportType is '\ud800', which can't be a name"),
        ({"reportType": "x" * 64}, f"reportType is {'x' * 63}…, which can't be a name"),
    ],
)
def test_an_unreadable_job_stands_beside_the_others(fields: dict[str, Any], problem: str) -> None:
    entries = [{"id": 1, "reportType": "x", "options": None} | fields, {"id": 2, "reportType": "y"}]
    assert parse_claim(json.dumps(entries).encode()) == Claim(
        jobs=(ClaimedJob(id=2, report_type="y"),), unreadable=(UnreadableJob(id=1, problem=problem),)
    )


def test_a_job_without_an_id_takes_no_other_down() -> None:
    entries = [{"id": 1, "reportType": "x"}, {"reportType": "hidden"}, None, {"id": 2, "reportType": "y"}]
    claim = parse_claim(json.dumps(entries).encode())
    assert [job.id for job in claim.jobs] == [1, 2]
    assert claim.nameless == (
        "item 2: id is missing or null, not a number that counts jobs",
        "item 3 is missing or null, not an object",
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "it is not JSON: line 1, column 1"),
        (b"[{", "it is not JSON: line 1, column 3"),
        (b"\xff", "it is not UTF-8"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"{}", "it is an object, not a list"),
        (b"3", "it is a number, not a list"),
        (b'"hidden"', "it is a string, not a list"),
        (b"[3]", "item 1 is a number, not an object"),
        (b'[{"id": null, "reportType": null, "options": null}]', "item 1: id is missing or null, not a number"),
        (b"[null]", "item 1 is missing or null, not an object"),
        (b'[{"id": "hidden", "reportType": "x"}]', "item 1: id is a string, not a number"),
        (b'[{"id": true, "reportType": "x"}]', "item 1: id is a boolean, not a number"),
        (b'[{"id": 1.5, "reportType": "x"}]', "item 1: id is a number, not a number that counts"),
        (b'[{"id": -1, "reportType": "x"}]', "item 1: id is a number, not a number that counts"),
    ],
)
def test_what_is_no_list_of_jobs_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        parse_claim(body)
    assert "hidden" not in str(raised.value)


def test_an_answer_without_sense_is_a_remote_error(config: InsightsConfig) -> None:
    with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as server:
        elsewhere = replace(config, host=server.url)
        with (
            Transport(elsewhere, environ={}) as transport,
            pytest.raises(RemoteError, match=r"Could not claim on-demand jobs for cluster 'prod'.*no list of jobs"),
        ):
            claim_jobs(transport, elsewhere, 1)


def test_no_content_is_no_jobs(config: InsightsConfig) -> None:
    with saying(b"HTTP/1.1 204 No Content\r\n\r\n") as server:
        elsewhere = replace(config, host=server.url)
        with Transport(elsewhere, environ={}) as transport:
            assert claim_jobs(transport, elsewhere, 1) == Claim()
