"""The stand-in for Insights: it keeps the contract, fails on demand, ends cleanly and runs by itself."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from renderer.errors import RemoteError
from renderer.insights.config import InsightsConfig, read_token
from renderer.insights.policies import fetch_policies
from renderer.insights.transport import Limits, Transport
from tests.support.insights import Fault, InsightsStandIn

TOKEN = "s3cr3t"
PREFIX = "/v0/organizations/acme/clusters/prod"
STATUS = {
    "policyName": "one",
    "reportType": "kyverno",
    "action": "apply",
    "status": "success",
    "lastAppliedAt": "2026-08-01T12:00:00Z",
    "policyBody": "kind: ClusterPolicy\n",
    "output": "",
}


@pytest.fixture
def insights() -> Iterator[InsightsStandIn]:
    with InsightsStandIn(token=TOKEN, organization="acme", clusters=["prod", "test"]) as stand_in:
        stand_in.publish("prod", "kind: ClusterPolicy\n")
        yield stand_in


def ask(
    insights: InsightsStandIn, method: str, path: str, *, body: Any = None, token: str | None = TOKEN
) -> tuple[int, bytes]:
    """Ask without our own client, which would hide the server's manners."""
    connection = HTTPConnection(urlsplit(insights.url).netloc, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        response: HTTPResponse = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class TestContract:
    POLICIES = f"{PREFIX}/kyverno-policies/with-app-groups-applied/yaml"

    def test_gives_a_clusters_policies(self, insights: InsightsStandIn) -> None:
        assert ask(insights, "GET", self.POLICIES) == (200, b"kind: ClusterPolicy\n")
        assert ask(insights, "GET", self.POLICIES.replace("prod", "test")) == (200, b"")

    @pytest.mark.parametrize("token", [None, "", "other", f"{TOKEN}x"])
    def test_refuses_another_token(self, insights: InsightsStandIn, token: str | None) -> None:
        assert ask(insights, "GET", self.POLICIES, token=token)[0] == 401

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", POLICIES.replace("acme", "other")),
            ("GET", POLICIES.replace("prod", "other")),
            ("GET", POLICIES.replace("prod", "..%2Fprod")),
            ("GET", f"{POLICIES}/"),
            ("PUT", POLICIES),
            ("GET", "/"),
            ("DELETE", f"{PREFIX}/policies/apply-status"),
        ],
    )
    def test_knows_nothing_else(self, insights: InsightsStandIn, method: str, path: str) -> None:
        assert ask(insights, method, path)[0] == 404

    def test_takes_a_status(self, insights: InsightsStandIn) -> None:
        assert ask(insights, "PUT", f"{PREFIX}/policies/apply-status", body=STATUS) == (204, b"")
        assert insights.statuses == [STATUS]

    @pytest.mark.parametrize(
        "change",
        [
            {"policyName": None},
            {"reportType": "opa"},
            {"action": "update"},
            {"status": "ok"},
            {"lastAppliedAt": "today"},
            {"lastAppliedAt": "2026-08-01T12:00:00"},
            {"policyBody": {}},
            {"output": None},
        ],
    )
    def test_refuses_a_status_that_breaks_the_contract(self, insights: InsightsStandIn, change: dict[str, Any]) -> None:
        assert ask(insights, "PUT", f"{PREFIX}/policies/apply-status", body=STATUS | change)[0] == 400
        assert ask(insights, "PUT", f"{PREFIX}/policies/apply-status", body=[])[0] == 400
        assert insights.statuses == []

    def test_hands_each_job_out_once(self, insights: InsightsStandIn) -> None:
        ids = {insights.enqueue_job("trivy") for _ in range(50)}
        other = insights.enqueue_job("trivy", cluster="test")
        claim = f"{PREFIX}/reports/on-demand-jobs/claim?limit=3"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: json.loads(ask(insights, "POST", claim)[1]), range(20)))
        assert max(len(jobs) for jobs in answers) == 3
        claimed = [job["id"] for jobs in answers for job in jobs]
        assert sorted(claimed) == sorted(ids)
        assert other not in claimed

    @pytest.mark.parametrize("query", ["", "?limit=0", "?limit=-1", "?limit=x"])
    def test_refuses_a_claim_without_a_limit(self, insights: InsightsStandIn, query: str) -> None:
        insights.enqueue_job("trivy")
        assert ask(insights, "POST", f"{PREFIX}/reports/on-demand-jobs/claim{query}")[0] == 400

    def test_takes_a_jobs_status(self, insights: InsightsStandIn) -> None:
        job = insights.enqueue_job("trivy", options={"a": "b"})
        path = f"{PREFIX}/reports/on-demand-jobs/{job}/status"
        assert ask(insights, "PATCH", path, body={"status": "running"})[0] == 204
        assert ask(insights, "PATCH", path, body={"status": "done"})[0] == 400
        assert ask(insights, "PATCH", path, body=None)[0] == 400
        assert ask(insights, "PATCH", path.replace(f"/{job}/", "/99/"), body={"status": "running"})[0] == 404
        assert insights.job_statuses == {job: ["running"]}

    def test_records_everything(self, insights: InsightsStandIn) -> None:
        ask(insights, "GET", f"{self.POLICIES}?a=1", token="other")
        insights.fail(Fault.SERVER_ERROR)
        ask(insights, "PATCH", "/unknown", body={"x": 1})
        first, second = insights.requests
        assert (first.call, first.cluster, first.status, first.query) == (
            "policies",
            "prod",
            401,
            {"a": ["1"]},
        )
        assert (second.call, second.method, second.path, second.body) == (
            None,
            "PATCH",
            "/unknown",
            b'{"x": 1}',
        )
        assert (second.status, second.fault) == (500, Fault.SERVER_ERROR)

    def test_needs_a_cluster_that_it_knows(self, insights: InsightsStandIn) -> None:
        with pytest.raises(KeyError):
            insights.publish("other", "")


class TestFaults:
    def test_come_in_their_order_and_for_their_call_only(self, insights: InsightsStandIn) -> None:
        insights.fail(Fault.FORBIDDEN, call="claim")
        insights.fail(Fault.SERVER_ERROR, times=2)
        insights.fail(Fault.UNAUTHORIZED, call="policies")

        def policies() -> int:
            return ask(insights, "GET", TestContract.POLICIES)[0]

        assert policies() == 500
        assert ask(insights, "POST", f"{PREFIX}/reports/on-demand-jobs/claim?limit=1")[0] == 403
        assert [policies(), policies(), policies()] == [500, 401, 200]

    def test_a_reset_is_a_reset(self, insights: InsightsStandIn) -> None:
        insights.fail(Fault.RESET)
        with pytest.raises(ConnectionResetError) as raised:
            ask(insights, "GET", TestContract.POLICIES)
        assert raised.type is ConnectionResetError  # its subclass means that the server hung up in order


def test_its_end_waits_for_no_client() -> None:
    before = threading.active_count()
    asked = threading.Event()
    with InsightsStandIn(token=TOKEN, on_request=lambda _: asked.set()) as insights:
        insights.fail(Fault.STALL)
        address = ("127.0.0.1", urlsplit(insights.url).port)
        with socket.create_connection(address) as idle, socket.create_connection(address) as stalled:
            idle.sendall(b"GET / HTTP/1.1\r\n")
            stalled.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert asked.wait(30)
            insights.stop()
            assert idle.recv(1) == b""
            assert stalled.recv(1) == b""
    assert threading.active_count() == before


class TestByItself:
    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, Path]:
        files = {name: tmp_path / name for name in ("token", "policies.yaml")}
        files["token"].write_text(f"{TOKEN}\n")
        files["policies.yaml"].write_text("a: 1\n")
        return files

    @pytest.fixture
    def process(self, files: dict[str, Path]) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.support.insights", "--port", "0"]
        command += ["--organization", "acme", "--cluster", "prod"]
        command += ["--token-file", str(files["token"]), "--policies", str(files["policies.yaml"])]
        root = Path(__file__).parents[2]
        with subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            yield process
            process.kill()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_serves_a_file_until_it_is_told_to_stop(
        self, process: subprocess.Popen[str], files: dict[str, Path], number: signal.Signals
    ) -> None:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        config = InsightsConfig.of(host=url, organization="acme", cluster="prod", token=read_token(files["token"]))
        with Transport(config) as transport:
            assert fetch_policies(transport, config) == b"a: 1\n"
            files["policies.yaml"].write_text("a: 2\n")
            assert fetch_policies(transport, config) == b"a: 2\n"
            process.send_signal(number)
            out, log = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out == ""
        assert log.splitlines() == [f"GET {TestContract.POLICIES} -> 200"] * 2
        assert TOKEN not in log

    def test_says_what_it_lacks(self, process: subprocess.Popen[str], files: dict[str, Path]) -> None:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        files["policies.yaml"].unlink()
        config = InsightsConfig.of(host=url, organization="acme", cluster="prod", token=TOKEN)
        with (
            Transport(config, limits=Limits(attempts=1)) as transport,
            pytest.raises(RemoteError, match="the policies can't be read"),
        ):
            fetch_policies(transport, config)
