"""What a plan's changes do to what is there: Kyverno itself has the last word on what is said of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from applier.change import Action, Change, Plan
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.impact import versions
from applier.impact.assess import assess
from applier.impact.live import RunningResources
from applier.impact.model import Effect
from applier.kyverno_cli import KyvernoCli
from applier.ports import ServerRefused
from applier.verdict import Verdict
from ci.testbed import corpus
from ci.testbed.api import Api, message
from ci.testbed.controlplane import ControlPlane
from renderer import snapshot
from renderer.errors import ExitCode
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from tests.support.cluster import wipe
from tests.support.policies import cluster_policy, desired
from tests.support.programs import CLUSTER, Programs
from tests.support.proxy import Proxy
from tests.support.tools import tool
from tests.support.workloads import namespaces, workloads

_SECONDS: Final = 60
Key = tuple[str, str, str]


def key(body: JsonObject) -> Key:
    return body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]


def enforcing(policy: Policy) -> JsonObject:
    """The policy with every rule denying what violates it."""
    spec = {name: part for name, part in policy.body["spec"].items() if not name.startswith("validationFailure")}
    if policy.identity.kind.name != "ClusterPolicy":
        return {**policy.body, "spec": {**spec, "validationActions": ["Deny"]}}
    rules = [{**rule, "validate": {**rule["validate"], "failureAction": "Enforce"}} for rule in spec["rules"]]
    return {**policy.body, "spec": {**spec, "rules": rules}}


def real_policies(adapter: KubernetesCluster, kind: str, count: int) -> list[JsonObject]:
    """The first so many of Kyverno's own of that kind, denying, which can be evaluated and the server accepts."""
    chosen: dict[Identity, JsonObject] = {}
    for policy in corpus.candidates():
        spec = policy.body.get("spec") or {}
        if policy.identity.kind.name != kind or policy.identity in chosen or "policies/sources" in policy.source:
            continue
        if kind == "ClusterPolicy" and not all(rule.get("validate") for rule in spec.get("rules") or [{}]):
            continue
        body = enforcing(policy)
        made = Change(identity=policy.identity, action=Action.CREATE, after=body)
        if versions.of_plan(Plan(changes=(made,)), {}, Verdict()).not_evaluated:
            continue
        try:
            resource = adapter.resources()[policy.identity.kind]
            adapter.create(
                {**content(body, policy.identity.kind), "apiVersion": resource.api_version},
                policy.identity,
                dry_run=True,
            )
        except ServerRefused:
            continue
        chosen[policy.identity] = body
        if len(chosen) == count:
            break
    return list(chosen.values())


def exempting(bodies: Iterable[JsonObject], namespace: str) -> list[JsonObject]:
    """Exceptions from these policies for all that is in the namespace."""
    everything = {"any": [{"resources": {"kinds": ["*"], "namespaces": [namespace]}}]}
    found: list[JsonObject] = []
    for number, body in enumerate(bodies):
        name = body["metadata"]["name"]
        if body["kind"] == "ClusterPolicy":
            version = "kyverno.io/v2"
            spec: JsonObject = {"match": everything, "exceptions": [{"policyName": name, "ruleNames": ["*"]}]}
        else:
            version = "policies.kyverno.io/v1beta1"
            condition = {"name": "there", "expression": f"object.metadata.namespace == '{namespace}'"}
            spec = {"policyRefs": [{"name": name, "kind": body["kind"]}], "matchConditions": [condition]}
        metadata = {"name": f"exempt-{number}", "namespace": namespace}
        found.append({"apiVersion": version, "kind": "PolicyException", "metadata": metadata, "spec": spec})
    return found


def write(programs: Programs, bodies: Sequence[JsonObject]) -> str:
    files = snapshot.render_files(desired(*bodies), organization="acme", cluster=CLUSTER)
    snapshot.write(programs.directory / "snapshot", files)
    return "snapshot"


def impact(programs: Programs, *arguments: str, expect: int = ExitCode.CHANGES) -> JsonObject:
    done = programs.run("insights-applier", "plan", "snapshot", *arguments, "-o", "json")
    assert done.returncode == expect, done.stdout + done.stderr
    found: JsonObject = json.loads(done.stdout)["impact"]
    return found


def said(found: JsonObject, effect: str) -> set[Key]:
    """The resources of tests.support.workloads of which that is said."""
    resources = [one["resource"] for one in found["affected"] if one["effect"] == effect]
    ours = {key(body) for body in workloads()}
    return {(one["kind"], one["namespace"], one["name"]) for one in resources} & ours


def denied(api: Api) -> set[Key]:
    """Those that the server would not let in again: it asks admission before it says that they exist."""
    return {key(body) for body in workloads() if _answer(api, body) != 409}


def _answer(api: Api, body: JsonObject) -> int:
    path = api.path_of(body).rpartition("/")[0]
    answer = api.ask("POST", path, body, params={"dryRun": "All"})
    assert answer.status_code in (400, 409), message(answer)
    return answer.status_code


def settled(api: Api, expected: set[Key]) -> set[Key]:
    """What is denied once Kyverno, which takes up policies one after the other, has come to rest."""
    end, rounds, found = time.monotonic() + _SECONDS, 0, set[Key]()
    while rounds < 3 and time.monotonic() < end:
        found = denied(api)
        rounds = rounds + 1 if found == expected else 0
    return found


@pytest.fixture
def populated(kyverno_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The plane with workloads and no policy; both go again."""
    wipe(kyverno_plane)
    bodies = [*namespaces(), *workloads()]
    for body in bodies:
        kyverno_plane.api.apply(body)
    try:
        yield kyverno_plane
    finally:
        wipe(kyverno_plane)
        for body in reversed(bodies):
            kyverno_plane.api.ask("DELETE", kyverno_plane.api.path_of(body))


@pytest.mark.kyverno
@pytest.mark.timeout(600)
def test_what_impact_says_is_blocked_or_let_through_kyverno_blocks_or_lets_through(
    offline: Programs, populated: ControlPlane
) -> None:
    programs = offline.with_(
        KUBECONFIG=str(populated.kubeconfig),
        INSIGHTS_LOCK_FILE=str(offline.directory / "sync.lock"),
        INSIGHTS_MAX_DELETE="99",
        # A write may take a third of it: with so many policies in its way, Kyverno is slow on a busy machine.
        INSIGHTS_LEASE_DURATION="60s",
        VALIDATE_POLICIES="false",
    )
    adapter = KubernetesCluster(Connection.open(kubeconfig=str(populated.kubeconfig)))
    legacy, cel = real_policies(adapter, "ClusterPolicy", 10), real_policies(adapter, "ValidatingPolicy", 2)
    assert denied(populated.api) == set()

    write(programs, [*legacy, *cel])
    found = impact(programs, "--impact")
    blocked = said(found, "blocked")
    assert found["policies"] == len([*legacy, *cel])
    assert said(found, "letThrough") == set()
    done = programs.run("insights-applier", "apply", "snapshot", "--allow-self-block")
    assert done.returncode == 0, done.stdout + done.stderr
    assert settled(populated.api, blocked) == blocked
    assert blocked
    assert blocked != {key(body) for body in workloads()}

    # Some go, and from the others one namespace is exempt.
    kept = [*legacy[1::2], *cel[1::2]]
    write(programs, [*kept, *exempting(kept, "lab")])
    found = impact(programs, "--impact")
    through = said(found, "letThrough")
    assert said(found, "blocked") == set()
    done = programs.run("insights-applier", "apply", "snapshot", "--allow-self-block", "--allow-weaken")
    assert done.returncode == 0, done.stdout + done.stderr
    assert settled(populated.api, blocked - through) == blocked - through
    assert through
    assert blocked - through
    assert impact(programs, "--impact", expect=ExitCode.OK)["affected"] == []


@pytest.mark.cluster
def test_it_only_reads_no_secret_and_tells_what_the_account_may_not_list(
    cluster: ControlPlane, chart_account: str, tmp_path: Path
) -> None:
    body = cluster_policy("named")
    body["spec"]["rules"][0]["match"] = {"any": [{"resources": {"kinds": ["ConfigMap", "Secret", "Service"]}}]}
    (policy,) = desired(body)
    made = Change(identity=policy.identity, action=Action.CREATE, after=policy.body)
    found = versions.of_plan(Plan(changes=(made,)), {}, Verdict())
    with Proxy(cluster) as proxy:
        kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig", token=chart_account)
        source = RunningResources(Connection.open(kubeconfig=str(kubeconfig)))
        assessed = assess(found, source, KyvernoCli(tool("kyverno")), seconds=100)
        asked = proxy.requests(lambda _: True)
    assert {request.method for request in asked} == {"GET"}
    assert not [request for request in asked if request.resource == "secrets"]
    assert {(one.effect, one.resource.kind) for one in assessed.affected} == {(Effect.REPORTED, "ConfigMap")}
    reasons = {subject: entry.reason for entry in assessed.not_evaluated for subject in entry.subjects}
    assert reasons["secrets"] == "secrets are never fetched"
    assert reasons["services"] == "this account may not list them"


@pytest.mark.cluster
def test_what_is_not_evaluated_in_time_is_told(cluster: ControlPlane) -> None:
    (policy,) = desired(cluster_policy("late"))
    made = Change(identity=policy.identity, action=Action.CREATE, after=policy.body)
    found = versions.of_plan(Plan(changes=(made,)), {}, Verdict())
    source = RunningResources(Connection.open(kubeconfig=str(cluster.kubeconfig)))
    # The clock is read when it begins and before the first page is asked for, and then shows that the time is over.
    times = iter([0.0, 0.0])
    assessed = assess(found, source, KyvernoCli(tool("kyverno")), seconds=60, monotonic=lambda: next(times, 61.0))
    assert assessed.affected == ()
    reasons = {subject: entry.reason for entry in assessed.not_evaluated for subject in entry.subjects}
    assert "--impact-timeout" in reasons["namespaces"]


@pytest.mark.cluster
def test_nothing_is_listed_when_the_time_is_over(cluster: ControlPlane, tmp_path: Path) -> None:
    (policy,) = desired(cluster_policy("late"))
    made = Change(identity=policy.identity, action=Action.CREATE, after=policy.body)
    found = versions.of_plan(Plan(changes=(made,)), {}, Verdict())
    times = iter([0.0])
    with Proxy(cluster) as proxy:
        kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig")
        source = RunningResources(Connection.open(kubeconfig=str(kubeconfig)))
        assessed = assess(found, source, KyvernoCli(tool("kyverno")), seconds=60, monotonic=lambda: next(times, 61.0))
        listed = [one.path for one in proxy.requests(lambda _: True) if one.query.get("limit")]
    # Once, for what is known of each; not for the policy, which matches namespaces.
    assert listed == ["/api/v1/namespaces"]
    assert [one.subjects for one in assessed.not_evaluated if "--impact-timeout" in one.reason] == [("namespaces",)]
