"""The chart's two workloads with only the image changed: their environment, user, files, memory, token and rights."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from ci.soak import CHART_RULES as RUNNER_RULES
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.ownership import OWNED_BY, OWNER
from tests.support import cluster, jobs
from tests.support.cluster import AGENT_NAMESPACE, wipe
from tests.support.insights import InsightsStandIn
from tests.support.jobs import JobsBed, cron_job, until
from tests.support.pods import MIB, PLACES, USER, Pod
from tests.support.policies import answer, cluster_policy, validating_policy
from tests.support.programs import CLUSTER, ORGANIZATION, TOKEN

pytestmark = [pytest.mark.jobs, pytest.mark.cluster]

PROGRAM: Final = "on-demand-job-runner"
SYNC: Final = "kyverno-policy-sync"
_RBAC: Final = "rbac.authorization.k8s.io"
_POLICIES: Final = "/apis/kyverno.io/v1/clusterpolicies"
#: A kind of which the chart knows nothing.
_CLEANUP: Final = "/apis/kyverno.io/v2/cleanuppolicies"

PodMaker = Callable[..., Pod]


@pytest.fixture
def bed(jobs_bed: JobsBed) -> JobsBed:
    wipe(jobs_bed.plane)
    return jobs_bed


@pytest.fixture
def pod(bed: JobsBed, tmp_path: Path) -> Iterator[PodMaker]:
    """Makes a pod of an account that may do what it is given, and nothing else."""
    with ExitStack() as stack:

        def make(name: str, rules: dict[str, list[JsonObject]], environment: dict[str, str], memory_mib: int) -> Pod:
            _grant(bed, stack, name, rules)
            server = urlsplit(bed.plane.server)
            kubelet = {
                "KUBERNETES_SERVICE_HOST": str(server.hostname),
                "KUBERNETES_SERVICE_PORT": str(server.port),
                "HOSTNAME": f"{name}-0",
                "HOME": "/",
            }
            return Pod(
                directory=tmp_path,
                environment={**kubelet, **environment},
                account=_mounted(bed, name, tmp_path / f"account-{name}"),
                memory_bytes=memory_mib * MIB,
            )

        yield make


def _grant(bed: JobsBed, stack: ExitStack, name: str, rules: dict[str, list[JsonObject]]) -> None:
    account = {"name": name, "namespace": AGENT_NAMESPACE}
    made: list[JsonObject] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}]
    for kind, granted in rules.items():
        metadata = account if kind == "Role" else {"name": name}
        common = {"apiVersion": f"{_RBAC}/v1", "metadata": metadata}
        made.append({**common, "kind": kind, "rules": granted})
        made.append(
            {
                **common,
                "kind": f"{kind}Binding",
                "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
                "subjects": [{"kind": "ServiceAccount", **account}],
            }
        )
    for body in made:
        bed.apply(body)
        stack.callback(bed.plane.api.call, "DELETE", bed.plane.api.path_of(body))


def _mounted(bed: JobsBed, account: str, directory: Path) -> Path:
    """What the kubelet mounts of an account: its token, the authority and the namespace."""
    path = f"/api/v1/namespaces/{AGENT_NAMESPACE}/serviceaccounts/{account}/token"
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    directory.mkdir(mode=0o755)
    (directory / "token").write_text(bed.plane.api.call("POST", path, wanted)["status"]["token"])
    (directory / "ca.crt").write_bytes(bed.plane.credentials.authority.read_bytes())
    (directory / "namespace").write_text(AGENT_NAMESPACE)
    return directory


@pytest.fixture
def sync_environment(insights: InsightsStandIn) -> dict[str, str]:
    """What the chart sets for the sync, with a proxy for the outside world that answers nobody."""
    return {
        "FAIRWINDS_INSIGHTS_HOST": insights.url,
        "FAIRWINDS_TOKEN": TOKEN,
        "FAIRWINDS_ORG": ORGANIZATION,
        "FAIRWINDS_CLUSTER": CLUSTER,
        "DRY_RUN": "false",
        "VALIDATE_POLICIES": "true",
        "LOCK_TIMEOUT": "30m",
        "LOG_LEVEL": "info",
        "FAIRWINDS_AGENT_CHART_VERSION": "5.0.0",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture
def runner_environment(insights: InsightsStandIn) -> dict[str, str]:
    """What the chart sets for the runner."""
    return {
        "HOST": insights.url,
        "ORGANIZATION": ORGANIZATION,
        "CLUSTER": CLUSTER,
        "TOKEN": TOKEN,
        "POLL_INTERVAL": "1s",
    }


@pytest.fixture
def sync_pod(pod: PodMaker, sync_environment: dict[str, str]) -> Pod:
    return pod(SYNC, cluster.CHART_RULES, sync_environment, 512)


def last_line(shown: str) -> JsonObject:
    line: JsonObject = json.loads(shown.splitlines()[-1])
    return line


def live(bed: JobsBed, path: str = _POLICIES) -> set[str]:
    return {item["metadata"]["name"] for item in bed.plane.api.call("GET", path)["items"]}


def test_a_pod_is_what_it_is_said_to_be(sync_pod: Pod) -> None:
    script = f"""
import os, pathlib
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print({{name: status[name].split() for name in ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs")}})
for place in ("/", "/etc", "/usr", "/root", "/var", "/run", "/proc", {str(Path.cwd())!r}, *{PLACES!r}):
    try:
        with open(f"{{place}}/probe", "w"): print("wrote", place)
    except OSError: pass
"""
    ended = sync_pod.run("python", "-c", script)
    assert ended.code == 0, ended.shown
    first, *wrote = ended.shown.splitlines()
    assert first.count(f"['{USER}', '{USER}', '{USER}', '{USER}']") == 2
    assert first.count("['0000000000000000']") == 3
    assert "'Groups': []" in first
    assert "'NoNewPrivs': ['1']" in first
    assert wrote == ["wrote /tmp", "wrote /output"]
    greedy = replace(sync_pod, memory_bytes=64 * MIB).run("python", "-c", f"print(len(bytes(range(256)) * {MIB}))")
    assert (greedy.code, greedy.shown) == (-signal.SIGKILL, "")


def test_the_sync_of_500_policies_lives_within_the_charts_rights_and_memory(
    sync_pod: Pod, bed: JobsBed, insights: InsightsStandIn
) -> None:
    wanted = [cluster_policy(f"c{number:03}") for number in range(400)]
    wanted += [validating_policy(f"v{number:03}") for number in range(100)]
    insights.publish(CLUSTER, answer(*wanted))
    ended = sync_pod.run(PROGRAM)
    assert ended.code == 0, ended.shown
    assert last_line(ended.shown)["summary"] == "Applied 500, Updated 0, Removed 0, Failed 0"
    assert {status["status"] for status in insights.statuses} == {"success"}
    assert len(insights.statuses) == 500
    assert len(live(bed)) == 400
    print(f"The sync and the kyverno CLI had at most {ended.peak_bytes // MIB} of 512 MiB at once")
    again = sync_pod.run(PROGRAM)
    assert last_line(again.shown)["summary"] == "Applied 0, Updated 0, Removed 0, Failed 0"


def test_the_runner_claims_a_sync_whose_pod_then_syncs(
    pod: PodMaker, sync_environment: dict[str, str], runner_environment: dict[str, str],
    bed: JobsBed, insights: InsightsStandIn, tmp_path: Path,
) -> None:  # fmt: skip
    chart = cron_job(SYNC)
    container = chart["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": name, "value": value} for name, value in sync_environment.items()]
    for body in (chart, cron_job("trivy")):
        bed.apply(body)
    insights.publish(CLUSTER, answer(cluster_policy("one")))
    claimed = [insights.enqueue_job(SYNC), insights.enqueue_job("trivy", options={"imagesToScan": "a:1"})]
    runner = pod(PROGRAM, {"Role": RUNNER_RULES}, runner_environment, 256)
    log = tmp_path / "runner.log"
    with log.open("w") as stream, runner.started(stream, PROGRAM) as (process, memory):
        until(
            lambda: [insights.job_statuses.get(job) for job in claimed] == [["running", "completed"]] * 2,
            f"both are reported: {log.read_text()}",
        )
        # The namespace's init is the program itself: setpriv and env gave their place to it.
        process.send_signal(signal.SIGTERM)
        assert process.wait(jobs.SECONDS) == 0, log.read_text()
        peak = memory.peak_bytes()
    print(f"The runner had at most {peak // MIB} of 256 MiB")
    # The node of the test runs nothing: the Job's pod is run here, with what the Job says.
    (made,) = (job for name, job in bed.jobs().items() if name.startswith(SYNC))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    variables = {str(variable["name"]): str(variable["value"]) for variable in container["env"]}
    assert "command" not in container
    ended = pod(SYNC, cluster.CHART_RULES, variables, 512).run(PROGRAM)
    assert (ended.code, live(bed)) == (0, {"one"}), ended.shown


@pytest.mark.parametrize("place", PLACES)
def test_one_writable_place_is_enough_for_the_kyverno_cli(
    sync_pod: Pod, bed: JobsBed, insights: InsightsStandIn, place: str
) -> None:
    insights.publish(CLUSTER, answer(cluster_policy("one")))
    ended = replace(sync_pod, writable=(place,)).run(PROGRAM)
    assert ended.code == 0, ended.shown
    assert "was not asked" not in ended.shown
    assert live(bed) == {"one"}


def test_with_no_writable_place_nothing_is_written_unless_the_kyverno_cli_is_left_out(
    sync_pod: Pod, bed: JobsBed, insights: InsightsStandIn
) -> None:
    insights.publish(CLUSTER, answer(cluster_policy("one")))
    bare = replace(sync_pod, writable=())
    ended = bare.run(PROGRAM)
    assert ended.code == ExitCode.CONFIGURATION
    assert "needs a writable directory and there is none" in ended.shown
    assert live(bed) == set()
    without_cli = replace(bare, environment={**bare.environment, "VALIDATE_POLICIES": "false"})
    ended = without_cli.run(PROGRAM)
    assert ended.code == 0, ended.shown
    assert live(bed) == {"one"}


def test_the_runner_writes_nowhere(
    pod: PodMaker, runner_environment: dict[str, str], bed: JobsBed, insights: InsightsStandIn, tmp_path: Path
) -> None:
    bed.apply(cron_job("trivy"))
    job = insights.enqueue_job("trivy")
    bare = replace(pod(PROGRAM, {"Role": RUNNER_RULES}, runner_environment, 256), writable=())
    with (tmp_path / "runner.log").open("w") as stream, bare.started(stream, PROGRAM):
        until(lambda: insights.job_statuses.get(job) == ["running", "completed"], "the job is reported")


def test_what_the_account_may_not_read_is_named_not_pruned_and_not_wanted_in_vain(
    sync_pod: Pod, bed: JobsBed, insights: InsightsStandIn
) -> None:
    unreadable: JsonObject = {
        "apiVersion": "kyverno.io/v2",
        "kind": "CleanupPolicy",
        "metadata": {"name": "tidy", "namespace": "default"},
        "spec": {"schedule": "0 0 * * *", "match": {"any": [{"resources": {"kinds": ["Pod"]}}]}},
    }
    bed.apply({**unreadable, "metadata": {**unreadable["metadata"], "annotations": {OWNED_BY: OWNER}}})
    insights.publish(CLUSTER, answer(cluster_policy("one")))
    ended = sync_pod.run(PROGRAM)
    assert ended.code == 0, ended.shown
    assert "cleanuppolicies.kyverno.io" in ended.shown
    assert (live(bed), live(bed, _CLEANUP)) == ({"one"}, {"tidy"})

    insights.publish(CLUSTER, answer(cluster_policy("one"), cluster_policy("two"), unreadable))
    ended = sync_pod.run(PROGRAM)
    assert ended.code == ExitCode.KIND_UNAVAILABLE
    assert "CleanupPolicy/default/tidy: this account may not list it" in ended.shown
    assert live(bed) == {"one"}
