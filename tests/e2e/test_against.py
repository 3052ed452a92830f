"""`plan --against` as a reviewer runs it: no cluster, no kubeconfig, no network; the dumps are real kubectl's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.kyverno_cli import KyvernoCli
from ci.testbed import corpus, drift
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS
from tests.support.insights import InsightsStandIn
from tests.support.policies import admission_policy, answer, cluster_policy, exception, validating_policy
from tests.support.programs import CLUSTER, Programs
from tests.support.repositories import State, begin, git
from tests.support.tools import tool

SET = (cluster_policy("one"), validating_policy("two"), admission_policy("three"), exception("four"))
OTHER = cluster_policy("one", message="Other.")
EVERY_KIND = ",".join(kind.resource for kind in KINDS)


@pytest.fixture
def laptop(offline: Programs) -> Programs:
    """Nothing but our programs: no PATH, a kubeconfig that nobody can read, a proxy that leads nowhere."""
    return offline.with_(PATH="", KUBECONFIG="/nonexistent/kubeconfig", HTTPS_PROXY="http://127.0.0.1:1").without(
        "FAIRWINDS_INSIGHTS_HOST", "FAIRWINDS_TOKEN", "FAIRWINDS_ORG", "FAIRWINDS_CLUSTER"
    )


def render(programs: Programs, insights: InsightsStandIn, *bodies: JsonObject, out: str = "snapshot") -> str:
    insights.publish(CLUSTER, answer(*bodies))
    done = programs.run("insights-renderer", "render", "--out", out, "--allow-empty")
    assert done.returncode == 0, done.stderr
    return out


def plan(programs: Programs, *arguments: str, expect: int = 0, stdin: str = "") -> str:
    done = programs.run("insights-applier", "plan", *arguments, stdin=stdin)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def kubectl(cluster: ControlPlane, *arguments: str) -> str:
    done = subprocess.run(
        [tool("kubectl"), "--kubeconfig", cluster.kubeconfig, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"HOME": "/nonexistent", "KUBECACHEDIR": "/dev/null"},
    )
    return done.stdout


def test_another_snapshot(offline: Programs, laptop: Programs, insights: InsightsStandIn) -> None:
    before = render(offline, insights, *SET, out="before")
    after = render(offline, insights, OTHER, *SET[1:3], cluster_policy("new"))
    shown = plan(laptop, before, "--against", before)
    assert shown.startswith(
        "No changes: 4 unchanged against before\nNote: no cluster was asked: compared by the schemas"
    )
    shown = plan(laptop, after, "--against", before, expect=ExitCode.CHANGES)
    assert shown.startswith("1 to create, 1 to update, 1 to delete, 2 unchanged against before")
    assert shown.count("@@") == 2
    assert shown.count("not dry-run") == 1
    assert "    +      message: Other." in shown
    by_variable = laptop.with_(INSIGHTS_AGAINST="before")
    assert plan(by_variable, after, "--exit-zero", "--prune=false").startswith("1 to create, 1 to update, 2 unchanged")
    shown = plan(by_variable, after, "--only", "ClusterPolicy/new", expect=ExitCode.CHANGES)
    assert shown.startswith("1 to create, 0 unchanged")
    document = laptop.run("insights-applier", "plan", after, "--against", before, "-o", "json")
    assert document.returncode == ExitCode.CHANGES
    assert json.loads(document.stdout)["summary"]["update"] == 1
    patches = laptop.run("insights-applier", "plan", after, "--against", before, "-o", "patch").stdout
    assert [json.loads(line)["resource"] for line in patches.splitlines()] == ["clusterpolicies.v1.kyverno.io/one"]
    nothing = render(offline, insights, out="nothing")
    assert "Refused: Insights wants no policy" in plan(laptop, nothing, "--against", before, expect=ExitCode.EMPTY_SET)


def test_a_git_revision_of_the_same_snapshot(offline: Programs, laptop: Programs, insights: InsightsStandIn) -> None:
    with_git = laptop.with_(PATH=str(Path(shutil.which("git") or "").parent))
    repository = begin(offline.directory / "repository")
    render(offline, insights, *SET, out="repository/policies/prod")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "First")
    git(repository, "tag", "v1")
    snapshot = render(
        offline, insights, cluster_policy("one", message="Other."), *SET[1:], out="repository/policies/prod"
    )
    state = State.of(repository)
    shown = plan(with_git, snapshot, "--against", "git:HEAD", expect=ExitCode.CHANGES)
    assert shown.startswith("1 to update, 3 unchanged against git:HEAD")
    git(repository, "commit", "-qam", "Second")
    committed = State.of(repository)
    assert plan(with_git, snapshot, "--against", "git:main").startswith("No changes: 4 unchanged")
    for revision in ("HEAD~1", "v1", git(repository, "rev-parse", "v1")[:12]):
        shown = plan(with_git, snapshot, "--against", f"git:{revision}", expect=ExitCode.CHANGES)
        assert shown.startswith("1 to update, 3 unchanged")
    shown = plan(with_git, snapshot, "--against", "git:HEAD~2", "--no-diff", expect=ExitCode.CHANGES)
    assert shown.startswith("4 to create, 0 unchanged")
    assert "was not there at HEAD~2: all of it is new" in shown
    assert State.of(repository) == committed
    assert state.files == committed.files

    for revision, says in (("nope", "no revision 'nope'"), ("", "no revision ''"), ("--all", "no revision '--all'")):
        shown = plan(with_git, snapshot, "--against", f"git:{revision}", expect=ExitCode.CONFIGURATION)
        assert says in shown
    outside = render(offline, insights, *SET, out="outside")
    assert "is in no git repository" in plan(with_git, outside, "--against", "git:HEAD", expect=ExitCode.CONFIGURATION)
    assert "git is needed" in plan(laptop, snapshot, "--against", "git:HEAD", expect=ExitCode.CONFIGURATION)


def test_a_revision_whose_snapshot_was_edited_is_refused(
    offline: Programs, laptop: Programs, insights: InsightsStandIn
) -> None:
    with_git = laptop.with_(PATH=str(Path(shutil.which("git") or "").parent))
    repository = begin(offline.directory / "repository")
    snapshot = render(offline, insights, *SET, out="repository")
    policy = repository / "clusterpolicies.kyverno.io/one.yaml"
    good = policy.read_text()
    policy.write_text(good.replace("Set the label", "Edit the label"))
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "Edited")
    policy.write_text(good)
    shown = plan(with_git, snapshot, "--against", "git:HEAD", expect=ExitCode.INPUT)
    assert "git:HEAD:repository is not the snapshot that its snapshot.lock describes" in shown
    assert "clusterpolicies.kyverno.io/one.yaml: was edited" in shown


def test_what_can_not_be_compared_with_is_one_clear_error(
    offline: Programs, laptop: Programs, insights: InsightsStandIn
) -> None:
    snapshot = render(offline, insights, *SET)
    (offline.directory / "folder").mkdir()
    (offline.directory / "live.yaml").write_text("apiVersion: v1\nitems: []\n")
    for other, says in (
        ("missing.yaml", "--against: missing.yaml can't be read: No such file or directory."),
        ("folder", "folder holds no snapshot.lock"),
        ("live.yaml", "it was cut off"),
        ("-", "standard input: is empty"),
    ):
        shown = plan(laptop, snapshot, "--against", other, expect=ExitCode.INPUT)
        assert says in shown
    shown = plan(laptop, snapshot, "--against", "", expect=ExitCode.USAGE)
    assert "--against is empty" in shown
    shown = plan(laptop, "missing", "--against", snapshot, expect=ExitCode.INPUT)
    assert "missing is no directory" in shown


@pytest.mark.cluster
def test_a_dump_of_every_kind_with_kyvernos_own_policies(
    programs: Programs, laptop: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    connection = Connection.open(kubeconfig=str(cluster.kubeconfig))
    adapter = KubernetesCluster(connection)
    chosen = corpus.choose(adapter, connection, KyvernoCli(tool("kyverno")), per_kind=2).policies
    assert {policy.identity.kind for policy in chosen} == set(KINDS)
    insights.publish(CLUSTER, corpus.answer(chosen))
    assert programs.run("insights-renderer", "render", "--out", "snapshot").returncode == 0
    unvalidated = programs.with_(VALIDATE_POLICIES="false")
    assert unvalidated.run("insights-applier", "apply", "snapshot").returncode == 0
    cluster.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other", "namespace": "default"}})
    file = programs.directory / "live.yaml"

    for form in ("yaml", "json"):
        file.write_text(kubectl(cluster, "get", f"{EVERY_KIND},configmaps", "-A", "-o", form))
        shown = plan(laptop, "snapshot", "--against", "live.yaml")
        assert shown.startswith(f"No changes: {len(chosen)} unchanged against live.yaml")
        assert "no policy, and ignored" in shown

    # Whatever version it was read in; where that lacks a field, the plan says so.
    for number in range(3):
        served = {kind: sorted(resource.served) for kind, resource in adapter.resources().items()}
        names = [f"{kind.plural}.{(versions * 3)[number]}.{kind.group}" for kind, versions in served.items()]
        dumped = kubectl(cluster, "get", ",".join(names), "-A", "-o", "json")
        shown = plan(laptop, "snapshot", "--against", "-", "--exit-zero", "--no-diff", stdin=dumped)
        hidden = shown.count("was saved in kyverno.io/v2beta1, which lacks ")
        assert shown.startswith(f"{hidden} to update, {len(chosen) - hidden} unchanged" if hidden else "No changes"), (
            shown
        )

    edited = {}
    for identity, body in adapter.observe().objects.items():
        if identity.kind not in edited and drift.change_a_leaf(connection, identity, body):
            edited[identity.kind] = identity
    dumped = kubectl(cluster, "get", EVERY_KIND, "-A", "-o", "yaml", "--show-managed-fields")
    shown = plan(laptop, "snapshot", "--against", "-", "--no-diff", expect=ExitCode.CHANGES, stdin=dumped)
    assert shown.startswith(f"{len(KINDS)} to update, {len(chosen) - len(KINDS)} unchanged against standard input")
    for identity in edited.values():
        assert f"~ update {identity}  (spec also written by {drift.HAND})" in shown
