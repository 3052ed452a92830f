"""The rendered manifests on a real control plane: accepted as they stand, restricted, and what they start runs."""

from __future__ import annotations

import copy
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from ci.testbed import toolchain
from ci.testbed.controlplane import ControlPlane
from renderer.deploy import command, manifests, values
from renderer.manifest import yamlio
from renderer.manifest.jsontypes import JsonObject
from tests.support.tools import tool

EXAMPLES: Final = Path(__file__).parents[2] / "ci" / "deploy"
_PATIENCE_S: Final = 120.0
#: Kyverno's own policy of the level `restricted`, which holds that of `baseline`; for pods, without their owners.
_RESTRICTED: Final = "cmd/cli/kubectl-kyverno/_testdata/policies/restricted.yaml"
_COUNTS: Final = re.compile(r"pass: (\d+), fail: (\d+), warn: (\d+), error: (\d+), skip: (\d+)")
_LONG_AGO: Final = "2020-01-01T00:00:00Z"


def kubectl(plane: ControlPlane, *arguments: str) -> str:
    done = subprocess.run(
        [tool("kubectl"), f"--kubeconfig={plane.kubeconfig}", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "PodSecurity" not in done.stderr, done.stderr
    return done.stdout


def pods(value: Any) -> Iterator[JsonObject]:
    """Every pod that a manifest would start."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": value["metadata"], "spec": value["spec"]}
        for item in value.values():
            yield from pods(item)


def rendered(variant: str) -> list[JsonObject]:
    return [
        document.value
        for path in sorted((EXAMPLES / variant).glob("*.yaml"))
        for document in yamlio.load(path.read_bytes(), source=path.name)
    ]


@pytest.mark.cluster
@pytest.mark.parametrize("variant", ["agent", "watch", "fleet"])
def test_the_server_accepts_every_manifest_strictly(control_plane: ControlPlane, variant: str) -> None:
    for body in rendered(variant):
        if body["kind"] == "Namespace":  # a dry run makes none for what is in it
            control_plane.api.apply(body)
    done = kubectl(
        control_plane, "apply", "--dry-run=server", "--validate=strict", "-o=name", "-k", str(EXAMPLES / variant)
    )
    assert len(done.splitlines()) == len([body for body in rendered(variant) if body["kind"] != "Kustomization"])


@pytest.mark.tool
class TestRestricted:
    def _counts(self, directory: Path, found: list[JsonObject]) -> tuple[int, ...]:
        resources = directory / "pods.yaml"
        resources.write_text("---\n".join(yamlio.dump(pod) for pod in found))
        policy = toolchain.kyverno_source() / _RESTRICTED
        shown = subprocess.run(
            [tool("kyverno"), "apply", policy, "--resource", resources], capture_output=True, text=True, check=False
        ).stdout
        counts = _COUNTS.search(shown)
        assert counts, shown
        return tuple(map(int, counts.groups()))

    def _pods(self) -> list[JsonObject]:
        found = [pod for variant in ("agent", "watch", "fleet") for body in rendered(variant) for pod in pods(body)]
        for number, pod in enumerate(found):
            pod["metadata"] = {**pod["metadata"], "name": f"pod-{number}", "namespace": "default"}
        return found

    def test_every_pod_passes(self, tmp_path: Path) -> None:
        assert self._counts(tmp_path, self._pods()) == (5, 0, 0, 0, 0)

    @pytest.mark.parametrize(
        ("place", "name", "value"),
        [
            ("pod", "runAsNonRoot", False),
            ("pod", "seccompProfile", {"type": "Unconfined"}),
            ("container", "allowPrivilegeEscalation", True),
            ("container", "capabilities", {"drop": ["NET_RAW"]}),
        ],
    )
    def test_a_pod_that_is_less_restricted_does_not(self, tmp_path: Path, place: str, name: str, value: object) -> None:
        (pod, *_) = copy.deepcopy(self._pods())
        holder = pod["spec"] if place == "pod" else pod["spec"]["containers"][0]
        holder["securityContext"][name] = value
        assert self._counts(tmp_path, [pod])[:2] == (0, 1)


@pytest.fixture
def applied(jobs_plane: ControlPlane, tmp_path: Path) -> ControlPlane:
    """Everything, in a namespace whose pods have to be restricted."""
    settings = ["image=registry.example/runner:1", "organization=acme", "cluster=prod", "namespace=restricted"]
    settings += ["create-namespace=true", "parts=sync,runner,fleet", "fleet-shards=3", "sync-interval=1m"]
    settings += ["fleet-repository=https://git.example/policies.git"]
    command.write(tmp_path / "all", manifests.render(values.read(settings)))
    kubectl(jobs_plane, "apply", "--validate=strict", "-k", str(tmp_path / "all"))
    assert "created" not in kubectl(jobs_plane, "apply", "-k", str(tmp_path / "all"))
    return jobs_plane


@pytest.mark.jobs
def test_what_is_applied_runs(applied: ControlPlane) -> None:
    for name, completions in (("kyverno-policy-sync", 1), ("insights-fleet", 3)):
        # As if it had been there for long, so that a run is due now.
        status = {"status": {"lastScheduleTime": _LONG_AGO}}
        path = f"/apis/batch/v1/namespaces/restricted/cronjobs/{name}/status"
        applied.api.call("PATCH", path, status, content_type="application/merge-patch+json")
        _eventually(partial(_is_done, applied, name, completions))
    runner = "/apis/apps/v1/namespaces/restricted/deployments/on-demand-job-runner"
    _eventually(lambda: applied.api.call("GET", runner)["status"].get("availableReplicas") == 1)
    budget = "/apis/policy/v1/namespaces/restricted/poddisruptionbudgets/kyverno-policy-sync"
    _eventually(lambda: applied.api.call("GET", budget).get("status", {}).get("observedGeneration") == 1)


def _is_done(plane: ControlPlane, cron_job: str, completions: int) -> bool:
    """Whether a Job of that CronJob is complete, with so many pods that ended well."""
    jobs = plane.api.call("GET", "/apis/batch/v1/namespaces/restricted/jobs")["items"]
    return any(
        job["metadata"]["ownerReferences"][0]["name"] == cron_job
        and any(one["type"] == "Complete" for one in job["status"].get("conditions", ()))
        and job["status"]["succeeded"] == completions
        for job in jobs
    )


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.1)
