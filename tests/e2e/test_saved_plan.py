"""Plans that are saved, and applied later by another process, perhaps elsewhere, against a real API server."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from applier import lock
from ci.testbed.api import Api
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.cluster import allowed
from tests.support.insights import InsightsStandIn
from tests.support.policies import admission_policy, cluster_policy, exception, validating_policy
from tests.support.programs import Programs
from tests.support.repositories import begin, git
from tests.support.tools import tool
from tests.support.workflow import applier, render

pytestmark = pytest.mark.cluster

SET = (cluster_policy("one"), validating_policy("two"), admission_policy("three"), exception("four"))
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/insights-agent/leases/{lock.LEASE}"
NAMESPACE = "/api/v1/namespaces/kube-system"
CONFIG_MAP = f"{NAMESPACE}/configmaps/extension-apiserver-authentication"
READING = {
    "apiGroups": ["kyverno.io", "policies.kyverno.io", "admissionregistration.k8s.io"],
    "resources": ["*"],
    "verbs": ["get", "list"],
}
NAMESPACE_RIGHT = {
    "apiGroups": [""],
    "resources": ["namespaces"],
    "resourceNames": ["kube-system"],
    "verbs": ["get"],
}
CONFIG_MAP_RIGHT = {
    "apiGroups": [""],
    "resources": ["configmaps"],
    "resourceNames": ["extension-apiserver-authentication"],
    "verbs": ["get"],
}


@pytest.fixture
def stage(programs: Programs) -> Programs:
    """The programs without the kyverno CLI, which has no part in this."""
    return programs.with_(VALIDATE_POLICIES="false")


@pytest.fixture
def later(stage: Programs, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Another machine: another directory, home and kubeconfig, for the same cluster."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    kubeconfig = shutil.copy(stage.environment["KUBECONFIG"], elsewhere / "config")
    there = replace(stage, directory=elsewhere)
    return there.with_(KUBECONFIG=str(kubeconfig), HOME=str(elsewhere), INSIGHTS_LOCK_FILE=str(elsewhere / "lock"))


def save(programs: Programs, snapshot: str, *flags: str, expect: int = ExitCode.CHANGES) -> str:
    """Plan into a file."""
    file = str(programs.directory / "plan.json")
    applier(programs, "plan", snapshot, "--out", file, *flags, expect=expect)
    return file


def loaded(file: str) -> JsonObject:
    document: JsonObject = json.loads(Path(file).read_text())
    return document


def edit(api: Api, body: JsonObject, *operations: JsonObject) -> None:
    """What somebody does by hand."""
    path = f"{api.path_of(body)}?fieldManager=kubectl-edit"
    api.call("PATCH", path, list(operations), content_type="application/json-patch+json")


def set_message(body: JsonObject, message: str) -> JsonObject:
    assert body["kind"] == "ClusterPolicy"
    return {"op": "replace", "path": "/spec/rules/0/validate/message", "value": message}


def live(api: Api, body: JsonObject) -> JsonObject:
    return api.call("GET", api.path_of(body))


def recreate(api: Api, body: JsonObject) -> None:
    """Replace it by another object of that content."""
    found = live(api, body)
    for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        found["metadata"].pop(key, None)
    path = api.path_of(body)
    api.call("DELETE", path)
    api.call("POST", path.rpartition("/")[0], found)


def as_user(programs: Programs, plane: ControlPlane, user: str) -> Programs:
    return programs.with_(KUBECONFIG=str(Path(plane.kubeconfig).with_name(f"{user}.kubeconfig")))


def test_a_plan_is_applied_elsewhere_after_all_that_does_not_matter(
    stage: Programs, later: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    api = cluster.api
    applier(stage, "apply", render(stage, insights, *SET))
    changed = cluster_policy("one", message="Other.", labels={"tier": "gold"})
    snapshot = render(stage, insights, changed, *SET[1:3], validating_policy("new"))
    file = save(stage, snapshot)
    assert loaded(file)["summary"] == {
        "create": 1, "update": 1, "adopt": 0, "replace": 0, "delete": 1, "unchanged": 2, "refused": 0,
    }  # fmt: skip
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    assert [path.name for path in Path(file).parent.glob(".plan*")] == []

    # Status writes, other people's metadata (also where there was none), and what `kyverno migrate` does.
    api.call(
        "PATCH",
        f"{api.path_of(SET[0])}/status",
        {"status": {"autogen": {}, "rulecount": {"generate": 0, "mutate": 0, "validate": 1, "verifyimages": 0}}},
        content_type="application/merge-patch+json",
    )  # fmt: skip
    for body in (SET[0], SET[1], SET[3]):
        edit(api, body, {"op": "add", "path": "/metadata/labels", "value": {"team": "platform"}})
        edit(api, body, {"op": "add", "path": "/metadata/annotations/example.com~1seen", "value": "yes"})
    migrated = subprocess.run(
        [tool("kyverno"), "migrate", "--kubeconfig", cluster.kubeconfig, "--resource", "clusterpolicies.kyverno.io"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr

    copy = shutil.copytree(snapshot, later.directory / "checkout")
    assert "2 unchanged" in applier(later, "apply", str(copy), "--plan", file, "--dry-run")
    assert "Applied 1, Updated 1, Removed 1, Failed 0" in applier(later, "apply", str(copy), "--plan", file)
    assert live(api, changed)["metadata"]["labels"] == {"team": "platform", "tier": "gold"}
    # It was carried out: a second time it is stale.
    shown = applier(later, "apply", str(copy), "--plan", file, expect=ExitCode.STALE_PLAN)
    assert "ValidatingPolicy/new: exists now, and the plan creates it" in shown
    assert "ClusterPolicy/one: is already as it should be" in shown
    assert "four: is gone" in shown


def test_everything_that_really_changed_is_named_in_one_message_and_nothing_is_written(
    stage: Programs, later: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    api = cluster.api
    names = ("edited", "replaced", "withdrawn", "gone", "same")
    applier(stage, "apply", render(stage, insights, *map(cluster_policy, names)))
    other = [cluster_policy(name, message="Other.") for name in names if name not in ("withdrawn", "same")]
    snapshot = render(stage, insights, *other, cluster_policy("same"), validating_policy("new"))
    file = save(stage, snapshot)

    edit(api, cluster_policy("edited"), {"op": "replace", "path": "/spec/background", "value": False})
    edit(api, cluster_policy("withdrawn"), set_message(cluster_policy("withdrawn"), "By hand."))
    edit(api, cluster_policy("same"), set_message(cluster_policy("same"), "By hand."))
    recreate(api, cluster_policy("replaced"))
    api.call("DELETE", api.path_of(cluster_policy("gone")))
    by_hand = validating_policy("new")
    api.call("POST", api.path_of(by_hand).rpartition("/")[0], by_hand)
    before = {name: live(api, cluster_policy(name)) for name in names if name != "gone"}

    shown = applier(later, "apply", snapshot, "--plan", file, "--dry-run", expect=ExitCode.STALE_PLAN)
    assert applier(later, "apply", snapshot, "--plan", file, expect=ExitCode.STALE_PLAN) == shown
    lines = {line.strip() for line in shown.splitlines()}
    assert "ClusterPolicy/edited: was changed by somebody; it now differs at /spec/background too" in lines
    assert "ClusterPolicy/withdrawn: was changed by somebody" in lines
    assert any(line.startswith("ClusterPolicy/same: was changed by somebody; it now differs at") for line in lines)
    assert any(line.startswith("ClusterPolicy/replaced: was replaced by another object") for line in lines)
    assert "ClusterPolicy/gone: is gone; it would be created now" in lines
    assert "ValidatingPolicy/new: exists now, and the plan creates it" in lines
    assert "Make a new plan" in shown
    assert {name: live(api, cluster_policy(name)) for name in before} == before


def test_another_snapshot_is_not_what_was_approved(
    stage: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    file = save(stage, render(stage, insights, *SET[:1]))
    snapshot = render(stage, insights, cluster_policy("one", message="Other."))
    shown = applier(stage, "apply", snapshot, "--plan", file, expect=ExitCode.STALE_PLAN)
    assert f"and {loaded(file)['snapshot']['digest']} in the plan" in shown
    assert cluster.api.ask("GET", cluster.api.path_of(SET[0])).status_code == 404


def test_another_cluster_is_refused_before_its_lock_is_touched(
    stage: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    snapshot = render(stage, insights, *SET[:1])
    file = save(stage, snapshot)
    # What tells clusters apart is the objects' UIDs, so with one of them new this is another cluster.
    found = cluster.api.call("GET", CONFIG_MAP)
    cluster.api.call("DELETE", CONFIG_MAP)
    fresh = {**found, "metadata": {"name": found["metadata"]["name"], "namespace": "kube-system"}}
    cluster.api.ask("POST", CONFIG_MAP.rpartition("/")[0], fresh)  # the server may have been faster, as it keeps it
    shown = applier(stage, "apply", snapshot, "--plan", file, expect=ExitCode.WRONG_CLUSTER)
    assert found["metadata"]["uid"] in shown
    assert cluster.api.call("GET", CONFIG_MAP)["metadata"]["uid"] in shown
    assert applier(stage, "apply", snapshot, "--plan", file, "--dry-run", expect=ExitCode.WRONG_CLUSTER)
    assert cluster.api.ask("GET", LEASE).status_code == 404


def test_accounts_need_one_uid_in_common_and_a_plan_no_right_to_write(
    stage: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    applier(stage, "apply", render(stage, insights, *SET))
    snapshot = render(stage, insights, cluster_policy("one", message="Other."), *SET[1:3], validating_policy("new"))
    viewer, worker = (as_user(stage, cluster, user) for user in ("viewer", "worker"))
    with allowed(cluster, "viewer", READING):
        unknown = save(viewer, snapshot)
        assert loaded(unknown)["cluster"]["identity"] == {}
        assert "a saved plan can't be applied" in " ".join(loaded(unknown)["notes"])
        assert applier(stage, "apply", snapshot, "--plan", unknown, expect=ExitCode.WRONG_CLUSTER)
    with allowed(cluster, "viewer", READING, NAMESPACE_RIGHT), allowed(cluster, "worker", READING, CONFIG_MAP_RIGHT):
        file = save(viewer, snapshot)
        assert list(loaded(file)["cluster"]["identity"]) == ["namespace/kube-system"]
        asked = {(change["action"], change["dryRun"]) for change in loaded(file)["changes"]}
        assert asked == {("create", "not asked"), ("update", "not asked"), ("delete", "not asked"), ("unchanged", None)}
        shown = applier(worker, "apply", snapshot, "--plan", file, expect=ExitCode.WRONG_CLUSTER)
        assert "The plan knows the UID of namespace/kube-system." in shown
        assert "This account may read the UID of configmap/kube-system/extension-apiserver-authentication." in shown
        # The account that writes may read both.
        assert "Applied 1, Updated 1, Removed 1" in applier(stage, "apply", snapshot, "--plan", file)


def test_the_plans_own_flags_count(stage: Programs, insights: InsightsStandIn, cluster: ControlPlane) -> None:
    by_hand = cluster_policy("one", message="Ours.")
    cluster.api.call("POST", cluster.api.path_of(by_hand).rpartition("/")[0], by_hand)
    snapshot = render(stage, insights, *SET[:1])
    file = save(stage, snapshot, "--adopt", "--max-delete", "3")
    assert loaded(file)["flags"]["adopt"] is True
    shown = applier(stage, "apply", snapshot, "--plan", file, "--max-delete", "4", expect=ExitCode.USAGE)
    assert "--max-delete is 4 here, and 3 in the plan in" in shown
    assert applier(stage, "apply", snapshot, "--plan", file, "--allow-empty", expect=ExitCode.USAGE)
    shown = applier(
        stage.with_(INSIGHTS_MAX_DELETE="0"), "apply", snapshot, "--plan", file, "--adopt", "--max-delete", "3"
    )
    assert "Applied 1" in shown


def test_a_plan_with_a_refusal_is_saved_and_never_applied(
    stage: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    by_hand = cluster_policy("one", message="Ours.")
    cluster.api.call("POST", cluster.api.path_of(by_hand).rpartition("/")[0], by_hand)
    snapshot = render(stage, insights, *SET[:2])
    file = save(stage, snapshot, expect=ExitCode.NOT_OWNED)
    assert [refusal["exitCode"] for refusal in loaded(file)["refusals"]] == [ExitCode.NOT_OWNED]
    cluster.api.call("DELETE", cluster.api.path_of(by_hand))
    shown = applier(stage, "apply", snapshot, "--plan", file, expect=ExitCode.NOT_OWNED)
    assert "was refused when it was made" in shown


def test_a_plan_of_what_is_not_valid_is_never_applied(stage: Programs, insights: InsightsStandIn) -> None:
    bad = cluster_policy("bad")
    bad["spec"]["rules"][0]["match"] = "everything"
    snapshot = render(stage, insights, bad, *SET[1:2])
    file = save(stage, snapshot, expect=ExitCode.INVALID_POLICY)
    assert "error" in {finding["severity"] for finding in loaded(file)["findings"]}
    shown = applier(stage, "apply", snapshot, "--plan", file, expect=ExitCode.INVALID_POLICY)
    assert "ClusterPolicy/bad" in shown


def test_a_refusal_that_only_the_new_plan_has_is_told_as_such(
    stage: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    applier(stage, "apply", render(stage, insights, *SET[:1]))
    snapshot = render(stage, insights, cluster_policy("one", message="Other."))
    held = {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/held"]}
    file = save(stage, snapshot)
    edit(cluster.api, SET[0], held)
    cluster.api.call("DELETE", cluster.api.path_of(SET[0]))
    shown = applier(stage, "apply", snapshot, "--plan", file, expect=ExitCode.TERMINATING)
    assert "wait for their finalizers" in shown


def test_the_three_formats_say_the_same_with_the_same_exit_code(stage: Programs, insights: InsightsStandIn) -> None:
    applier(stage, "apply", render(stage, insights, *SET[:3]))
    snapshot = render(stage, insights, cluster_policy("one", message="Für alle → 😀"), *SET[1:2], SET[3])
    file = save(stage, snapshot)
    plain = stage.with_(PYTHONIOENCODING="latin-1").run("insights-applier", "plan", snapshot, "-o", "json")
    assert (plain.returncode, json.loads(plain.stdout)) == (ExitCode.CHANGES, loaded(file))
    done = stage.run("insights-applier", "plan", snapshot, "-o", "patch")
    assert done.returncode == ExitCode.CHANGES
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["resource"] == "clusterpolicies.v1.kyverno.io/one"
    assert "No patch can show these: 1 to create, 1 to delete." in done.stderr
    done = stage.run("insights-applier", "plan", snapshot, "-o", "json", "--exit-zero")
    assert (done.returncode, done.stdout) == (0, Path(file).read_text())


def test_a_patch_works_once_and_only_on_what_it_was_made_for(
    stage: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    def lines() -> list[JsonObject]:
        done = stage.run("insights-applier", "plan", snapshot, "-o", "patch")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def kubectl(entry: JsonObject) -> subprocess.CompletedProcess[str]:
        scope = ["-n", entry["namespace"]] if entry["namespace"] else []
        patch = ["--type=json", "-p", json.dumps(entry["patch"])]
        return subprocess.run(
            [tool("kubectl"), "--kubeconfig", cluster.kubeconfig, *scope, "patch", entry["resource"], *patch],
            env=stage.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    api = cluster.api
    edited, namespaced = cluster_policy("edited"), exception("scoped")
    applier(stage, "apply", render(stage, insights, edited, namespaced))
    wanted = cluster_policy("edited", message="Other.", labels={"tier": "gold"})
    other = exception("scoped")
    other["spec"]["policyRefs"].insert(0, {"name": "another", "kind": "ValidatingPolicy"})
    snapshot = render(stage, insights, wanted, other)

    made = lines()
    assert len(made) == 2
    edit(api, edited, set_message(edited, "By hand."))
    refused = next(entry for entry in made if entry["resource"].endswith("/edited"))
    assert kubectl(refused).returncode != 0
    assert live(api, edited)["spec"]["rules"][0]["validate"]["message"] == "By hand."
    edit(api, edited, set_message(edited, "Set the label team."))
    recreate(api, edited)
    assert kubectl(refused).returncode != 0

    for entry in lines():
        done = kubectl(entry)
        assert done.returncode == 0, done.stderr
    assert applier(stage, "plan", snapshot).startswith("No changes: 2 unchanged")


def test_with_no_cluster_there_is_a_document_and_nothing_to_save(
    offline: Programs, insights: InsightsStandIn, tmp_path: Path
) -> None:
    before = shutil.copytree(render(offline, insights, *SET[:2]), tmp_path / "before")
    snapshot = render(offline, insights, cluster_policy("one", message="Other."), *SET[1:3])
    done = offline.run("insights-applier", "plan", snapshot, "--against", str(before), "-o", "json")
    assert done.returncode == ExitCode.CHANGES, done.stderr
    found = json.loads(done.stdout)
    assert found["cluster"] == {"server": None, "identity": {}}
    assert [(change["action"], change["dryRun"]) for change in found["changes"]] == [
        ("create", "offline"), ("update", "offline"), ("unchanged", None),
    ]  # fmt: skip
    applier(offline, "plan", snapshot, "--against", str(before), "--out", "plan.json", expect=ExitCode.USAGE)


def test_where_a_plan_cannot_be_saved(stage: Programs, insights: InsightsStandIn) -> None:
    snapshot = render(stage, insights, *SET[:1])
    shown = applier(stage, "plan", snapshot, "--out", f"{snapshot}/plan.json", expect=ExitCode.USAGE)
    assert "in the snapshot" in shown
    for place in ("/proc/plan.json", str(stage.directory), "missing/plan.json"):
        shown = applier(stage, "plan", snapshot, "--out", place, expect=ExitCode.CONFIGURATION)
        assert f"--out: {place} can't be written" in shown


def test_what_is_no_plan_is_no_approval(stage: Programs, insights: InsightsStandIn) -> None:
    snapshot = render(stage, insights, *SET[:1])
    file = Path(save(stage, snapshot))
    whole = file.read_text()
    file.write_text(whole[:-200])
    assert "is truncated" in applier(stage, "apply", snapshot, "--plan", str(file), expect=ExitCode.INPUT)
    file.write_text(whole.replace('"adopt": false', '"conquer": true'))
    assert "--conquer" in applier(stage, "apply", snapshot, "--plan", str(file), expect=ExitCode.INPUT)


def test_a_plan_names_the_commit_that_holds_the_snapshot(stage: Programs, insights: InsightsStandIn) -> None:
    repository = begin(stage.directory / "repository")
    stage = replace(stage, directory=repository)
    snapshot = render(stage, insights, *SET[:1])
    outside = Path(shutil.copytree(snapshot, stage.directory.parent / "outside"))

    def commit(directory: str) -> object:
        done = stage.run("insights-applier", "plan", directory, "-o", "json")
        return json.loads(done.stdout)["snapshot"]["commit"]

    assert commit(snapshot) is None  # not committed yet
    git(repository, "add", "snapshot")
    git(repository, "commit", "-q", "-m", "policies")
    assert commit(snapshot) == git(repository, "rev-parse", "HEAD")
    assert commit(str(outside)) is None
    render(stage, insights, cluster_policy("one", message="Other."))
    assert commit(snapshot) is None
