"""The server's defaults, foretold from its own schemas: no difference to what a real server stores, and no request."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from applier import diff, pipeline
from applier.change import Action, Plan
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.guards.refusals import Allowed
from applier.ports import ServerRefused, Status
from applier.schema import check, defaults
from applier.schema.defaults import CODE_DEFAULTS, Schema
from applier.verdict import Verdict
from ci.testbed import corpus, toolchain
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.document import Policy, field_path
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import ADMISSION, KINDS
from renderer.manifest.normalize import content
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render
from tests.support.cluster import allowed
from tests.support.insights import InsightsStandIn
from tests.support.policies import (
    admission_binding,
    admission_policy,
    answer,
    cluster_policy,
    desired,
    identity_of,
    validating_policy,
)
from tests.support.programs import CLUSTER, Programs

pytestmark = pytest.mark.cluster

THREADS = 4
PER_KIND = 130
# Admission policies are in force at once, so only a few of them.
PER_ADMISSION_KIND = 2
RBAC = "rbac.authorization.k8s.io"


class CountingConnection(Connection):
    """A connection that remembers what was asked."""

    sent: list[tuple[str, str]]

    def send(self, method: str, path: str, *arguments: Any, **options: Any) -> Json:
        self.sent.append((method, path))
        return super().send(method, path, *arguments, **options)


@pytest.fixture
def connection(cluster: ControlPlane) -> CountingConnection:
    found = CountingConnection.open(kubeconfig=str(cluster.kubeconfig))
    assert isinstance(found, CountingConnection)
    found.sent = []
    return found


@pytest.fixture
def adapter(connection: CountingConnection, tmp_path: Path) -> KubernetesCluster:
    return KubernetesCluster(connection, cache=tmp_path / "cache")


def everywhere(policy: Policy) -> Policy:
    """The policy with its namespace written out, as the renderer does."""
    if not policy.identity.namespace:
        return policy
    metadata = {**policy.body["metadata"], "namespace": policy.identity.namespace}
    return replace(policy, body={**policy.body, "metadata": metadata})


def all_schemas(adapter: KubernetesCluster) -> Mapping[str, JsonObject]:
    resources = adapter.resources().values()
    wanted = {f"{found.kind.group}/{version}" for found in resources for version in found.served}
    documents = adapter.schemas(wanted)
    assert documents.keys() == wanted
    return documents


def asked(adapter: KubernetesCluster, policy: Policy) -> JsonObject | Status:
    """What the server would store, or why it would not."""
    kind = policy.identity.kind
    body = {**content(policy.body, kind), "apiVersion": adapter.resources()[kind].api_version}
    try:
        return adapter.create(body, policy.identity, dry_run=True)
    except ServerRefused as error:
        return error.status


def ensure_namespaces(connection: Connection, identities: Iterable[Identity]) -> None:
    for namespace in {identity.namespace for identity in identities if identity.namespace}:
        corpus.ensure_namespace(connection, namespace)


def test_every_real_policy_is_judged_and_defaulted_as_the_server_does(
    connection: CountingConnection, adapter: KubernetesCluster
) -> None:
    resources, documents = adapter.resources(), all_schemas(adapter)
    policies = [
        everywhere(policy)
        for policy in corpus.policies(toolchain.kyverno_source())
        if policy.api_version.rpartition("/")[2] in resources[policy.identity.kind].served
    ]
    ensure_namespaces(connection, [policy.identity for policy in policies])
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda policy: asked(adapter, policy), policies))

    counts: Counter[str] = Counter()
    different = []
    unnamed = []
    seconds = 0.0
    for policy, stored in zip(policies, answers, strict=True):
        kind = policy.identity.kind
        version = resources[kind].api_version
        unknown = Schema(documents[version]["kinds"][kind.name], documents[version]["types"]).prune(
            content(policy.body, kind)
        )[1]
        judged = check.check([policy], resources, documents)
        if isinstance(stored, Status):
            if not judged.errors:
                unnamed.append(stored.message)
            named = set(re.findall(r'unknown field "([^"]+)"', stored.message))
            assert not named or {field_path(path) for path in unknown} == named, policy
            counts["refused for an unknown field" if named else "refused otherwise"] += 1
            continue
        assert (unknown, judged) == ((), Verdict()), policy
        started = time.perf_counter()
        foretold = defaults.default([policy], resources, documents)
        seconds += time.perf_counter() - started
        assert foretold.verdict.errors == ()
        counts[kind.resource] += 1
        if patch := diff.patch(foretold.bodies[policy.identity], content(stored, kind)):
            different.append((policy.source, policy.identity, patch))
    accepted = sum(counts[kind.resource] for kind in KINDS)
    print(f"{len(different)} of {accepted} differ, defaulted in {seconds:.2f} s: {dict(counts)}")
    assert different == []
    assert accepted > 1500
    # What the server's own code checks of its own kinds no schema shows.
    assert all("operations: Required value" in message for message in unnamed), unnamed
    assert len(unnamed) <= 1
    assert {kind for kind in KINDS if not counts[kind.resource]} == set()
    assert counts["refused for an unknown field"]


RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
MATCH: JsonObject = {"resourceRules": [RULE], "excludeResourceRules": [{**RULE, "resourceNames": []}]}
EMPTY_MATCH: JsonObject = {
    **MATCH,
    "matchPolicy": None,
    "namespaceSelector": {"matchLabels": {}, "matchExpressions": []},
    "objectSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]},
}
NAMED: list[JsonObject] = [{"name": "a", "expression": "true"}]
PARAMETERS = {"apiVersion": "v1", "kind": "ConfigMap"}
POLICY = admission_policy()
BINDING = admission_binding()
MUTATIONS = [
    {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/spec'}]"}},
    {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}, "jsonPatch": None},
]
VALIDATIONS = [{"expression": "true"}, {"expression": "true", "message": "", "messageExpression": "", "reason": None}]
#: Each with no optional field, and with each optional field as empty as the server takes it.
BUILT_IN: Mapping[str, tuple[JsonObject, ...]] = {
    "ValidatingAdmissionPolicy": (
        {"matchConstraints": MATCH, "validations": VALIDATIONS},
        {
            "failurePolicy": None,
            "paramKind": PARAMETERS,
            "matchConstraints": EMPTY_MATCH,
            "validations": [],
            "auditAnnotations": [{"key": "k", "valueExpression": "'v'"}],
            "matchConditions": NAMED,
            "variables": NAMED,
        },
        {
            "matchConstraints": {"resourceRules": [RULE], "excludeResourceRules": []},
            "validations": VALIDATIONS,
            "auditAnnotations": [],
            "matchConditions": None,
            "variables": [],
        },
    ),
    "ValidatingAdmissionPolicyBinding": (
        {"policyName": "p", "validationActions": ["Warn", "Audit"]},
        {"policyName": "p", "validationActions": ["Deny"], "matchResources": {}, "paramRef": None},
        {
            "policyName": "p",
            "validationActions": ["Deny"],
            "matchResources": EMPTY_MATCH,
            "paramRef": {"name": "", "namespace": "", "selector": {}, "parameterNotFoundAction": "Allow"},
        },
    ),
    "MutatingAdmissionPolicy": (
        {"matchConstraints": MATCH, "mutations": MUTATIONS, "reinvocationPolicy": "Never"},
        {
            "failurePolicy": "Ignore",
            "paramKind": PARAMETERS,
            "matchConstraints": EMPTY_MATCH,
            "mutations": MUTATIONS[:1],
            "reinvocationPolicy": "IfNeeded",
            "variables": NAMED,
            "matchConditions": NAMED,
        },
    ),
    "MutatingAdmissionPolicyBinding": (
        {"policyName": "p"},
        {"policyName": "p", "matchResources": {}},
        {"policyName": "p", "matchResources": MATCH, "paramRef": {"name": "n", "parameterNotFoundAction": "Deny"}},
    ),
}
METADATA: JsonObject = {
    "name": "a",
    "labels": {},
    "annotations": {"a": None},
    "finalizers": [],
    "ownerReferences": None,
}


def built_in() -> list[Policy]:
    bodies = [
        {"apiVersion": f"{ADMISSION}/v1", "kind": kind, "metadata": METADATA, "spec": spec}
        for kind, specs in BUILT_IN.items()
        for spec in specs
    ]
    return [policy for body in bodies for policy in desired_as_written(body)]


def desired_as_written(body: JsonObject) -> Iterator[Policy]:
    (policy,) = desired({**body, "metadata": {"name": body["metadata"]["name"]}})
    yield replace(policy, body=body)


def differing(
    adapter: KubernetesCluster, answers: Mapping[int, JsonObject], policies: list[Policy]
) -> list[JsonObject]:
    documents = all_schemas(adapter)
    bodies = [defaults.default([policy], adapter.resources(), documents).bodies[policy.identity] for policy in policies]
    patches = [diff.patch(body, content(answers[n], policies[n].identity.kind)) for n, body in enumerate(bodies)]
    return [operation for patch in patches for operation in patch]


def test_no_default_of_the_servers_code_is_missing_from_the_table_and_each_is_needed(
    adapter: KubernetesCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {kind.name for kind in KINDS if kind.group == ADMISSION} == BUILT_IN.keys()
    policies = built_in()
    answers = {}
    for number, policy in enumerate(policies):
        stored = asked(adapter, policy)
        assert not isinstance(stored, Status), (policy.body, stored)
        answers[number] = stored
    assert differing(adapter, answers, policies) == []
    for name, assumed in CODE_DEFAULTS.items():
        for key in assumed:
            fewer = {**CODE_DEFAULTS, name: {other: value for other, value in assumed.items() if other != key}}
            with monkeypatch.context() as patched:
                patched.setattr(defaults, "CODE_DEFAULTS", fewer)
                assert any(operation["path"].endswith(f"/{key}") for operation in differing(adapter, answers, policies))


def real_set(connection: Connection, adapter: KubernetesCluster) -> PolicySet:
    """Policies of every kind, all in the cluster just as Insights wants them."""
    chosen: dict[Identity, Policy] = {}
    counts: Counter[str] = Counter()
    for policy in corpus.candidates():
        kind = policy.identity.kind
        limit = PER_ADMISSION_KIND if kind.group == ADMISSION else PER_KIND
        served = policy.api_version.rpartition("/")[2] in adapter.resources()[kind].served
        if served and policy.identity not in chosen and counts[kind.resource] < limit:
            chosen[policy.identity] = policy
            counts[kind.resource] += 1
    rendered = render([Source(name="Insights", data=corpus.answer(chosen.values()).encode())])
    ensure_namespaces(connection, chosen)

    def created(policy: Policy) -> bool:
        body = {**policy.body, "apiVersion": adapter.resources()[policy.identity.kind].api_version}
        try:
            adapter.create(body, policy.identity)
        except ServerRefused:
            return False
        return True

    # Those that are in force at once come last.
    ordered = sorted(rendered, key=lambda policy: policy.identity.kind.group == ADMISSION)
    with ThreadPoolExecutor(THREADS) as pool:
        stored = list(pool.map(created, ordered))
    return PolicySet(policy for policy, done in zip(ordered, stored, strict=True) if done)


def planned(adapter: KubernetesCluster, wanted: PolicySet) -> Plan:
    return pipeline.prepare(adapter, wanted, allowed=Allowed()).plan


def test_what_is_in_sync_costs_no_request_and_what_is_not_costs_one(
    connection: CountingConnection, adapter: KubernetesCluster, tmp_path: Path
) -> None:
    wanted = real_set(connection, adapter)
    assert len(wanted) >= 500
    assert {policy.identity.kind for policy in wanted} == set(KINDS)

    connection.sent.clear()
    fresh = KubernetesCluster(connection, cache=tmp_path / "cache")
    plan = planned(fresh, wanted)
    assert [change for change in plan.changes if change.action is not Action.UNCHANGED] == []
    assert len(plan.changes) == len(wanted)
    assert plan.notes == ()
    counted = Counter(kind_of_request(method, path) for method, path in connection.sent)
    print(f"{len(wanted)} policies in sync: {dict(counted)}")
    assert counted["list"] == len(KINDS)
    assert counted.keys() <= {"discovery", "list", "schema index", "schema"}
    assert counted["schema index"] == 1

    connection.sent.clear()
    planned(KubernetesCluster(connection, cache=tmp_path / "cache"), wanted)
    again = Counter(kind_of_request(method, path) for method, path in connection.sent)
    assert again == Counter({key: count for key, count in counted.items() if key != "schema"})

    first = next(policy for policy in wanted if policy.identity.kind.name == "ClusterPolicy")
    adapter.patch(first.identity, [{"op": "add", "path": "/spec/webhookTimeoutSeconds", "value": 29}])
    connection.sent.clear()
    (changed,) = planned(adapter, wanted).effective
    assert changed.identity == first.identity
    assert [path for method, path in connection.sent if method != "GET"] == [
        f"/apis/kyverno.io/v1/clusterpolicies/{first.identity.name}"
    ]


def kind_of_request(method: str, path: str) -> str:
    resources = "|".join(kind.plural for kind in KINDS)
    for name, pattern in (
        ("schema index", r"/openapi/v3"),
        ("schema", r"/openapi/v3/.*"),
        ("list", rf"/apis/[^/]+/[^/]+/({resources})"),
        ("discovery", r"/apis(/[^/]+/[^/]+)?"),
    ):
        if method == "GET" and re.fullmatch(pattern, path):
            return name
    return f"{method} {path}"


def test_schemas_are_read_from_the_cache_unless_something_is_wrong_with_it(
    connection: CountingConnection, tmp_path: Path
) -> None:
    def fetched(cache: Path) -> tuple[Mapping[str, JsonObject], int]:
        connection.sent.clear()
        found = KubernetesCluster(connection, cache=cache).schemas({"kyverno.io/v1", "example.com/v1"})
        return found, len(connection.sent) - 1

    cache = tmp_path / "cache"
    first, requests = fetched(cache)
    assert (set(first), requests) == ({"kyverno.io/v1"}, 1)
    assert fetched(cache) == (first, 0)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert fetched(cache) == (first, 1)
    assert fetched(cache) == (first, 0)
    (tmp_path / "file").touch()
    for _ in range(2):
        assert fetched(tmp_path / "file") == (first, 1)
    connection.sent.clear()
    assert KubernetesCluster(connection, cache=cache).schemas(()) == {}
    assert connection.sent == []


@pytest.fixture
def no_schemas(cluster: ControlPlane) -> Iterator[str]:
    """A kubeconfig of an account that may do everything with policies, on a cluster that shows it no schema."""
    api = cluster.api
    path = f"/apis/{RBAC}/v1/clusterroles/system:discovery"
    before = api.call("GET", path)
    rules = [
        {**rule, "nonResourceURLs": [url for url in rule["nonResourceURLs"] if not url.startswith("/openapi")]}
        for rule in before["rules"]
    ]
    policies = {"apiGroups": sorted({kind.group for kind in KINDS}), "resources": ["*"], "verbs": ["*"]}
    merge = "application/merge-patch+json"
    with allowed(cluster, "worker", policies):
        api.call("PATCH", path, {"rules": rules}, content_type=merge)
        try:
            yield str(Path(cluster.kubeconfig).with_name("worker.kubeconfig"))
        finally:
            api.call("PATCH", path, {"rules": before["rules"]}, content_type=merge)


def test_without_a_schema_dry_runs_take_its_place_and_the_plan_says_so(
    programs: Programs, insights: InsightsStandIn, no_schemas: str
) -> None:
    blind = programs.with_(KUBECONFIG=no_schemas)
    wait_until_refused(no_schemas)
    snapshot = render_snapshot(programs, insights, cluster_policy("one"), validating_policy("two"), admission_policy())
    unvalidated = programs.with_(VALIDATE_POLICIES="false")
    assert unvalidated.run("insights-applier", "apply", snapshot).returncode == 0
    shown = blind.run("insights-applier", "plan", snapshot)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.startswith("No changes: 3 unchanged")
    assert (
        "Note: no schema of admissionregistration.k8s.io/v1, kyverno.io/v1, policies.kyverno.io/v1beta1 is to be had; "
        "without a dry run its policies are compared as written." in shown.stdout
    )
    assert "no schema" not in programs.run("insights-applier", "plan", snapshot).stdout


def wait_until_refused(kubeconfig: str) -> None:
    """RBAC takes a moment to forget a right."""
    connection = Connection.open(kubeconfig=kubeconfig)
    end = time.monotonic() + 30
    while KubernetesCluster(connection, cache=Path("unused")).schemas({"kyverno.io/v1"}):
        assert time.monotonic() < end, "the right to read schemas was never taken away"


def render_snapshot(programs: Programs, insights: InsightsStandIn, *bodies: JsonObject) -> str:
    insights.publish(CLUSTER, answer(*bodies))
    done = programs.run("insights-renderer", "render", "--out", "snapshot")
    assert done.returncode == 0, done.stderr
    return "snapshot"


def in_version(body: JsonObject, version: str) -> JsonObject:
    return {**body, "apiVersion": f"{body['apiVersion'].rpartition('/')[0]}/{version}"}


def test_policies_in_other_versions_than_the_stored_one(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    programs = programs.with_(VALIDATE_POLICIES="false")
    old = in_version(cluster_policy("old"), "v2beta1")
    kept = cluster_policy("kept")
    kept["spec"]["rules"][0]["validate"]["allowExistingViolations"] = False
    others = [in_version(validating_policy(name), name) for name in ("v1alpha1", "v1", "v1beta1")]
    snapshot = render_snapshot(programs, insights, old, kept, *others)
    done = programs.run("insights-applier", "apply", snapshot)
    assert "Applied 5, Updated 0, Removed 0, Failed 0" in done.stdout, done.stdout + done.stderr
    assert programs.run("insights-applier", "plan", snapshot).stdout.startswith("No changes: 5 unchanged")

    # A field that the document's version does not know: its drift is seen, and only it is put back.
    pointer = "/spec/rules/0/validate/allowExistingViolations"
    adapter.patch(identity_of(old), [{"op": "replace", "path": pointer, "value": False}])
    shown = programs.run("insights-applier", "plan", snapshot)
    assert shown.returncode == ExitCode.CHANGES
    assert "1 to update, 4 unchanged" in shown.stdout
    assert "+  allowExistingViolations: true" in re.sub(r"\+ +", "+  ", shown.stdout)
    assert "Updated 1" in programs.run("insights-applier", "apply", snapshot).stdout
    assert validate_of(adapter, old)["allowExistingViolations"] is True

    # A write for a document in the other version resets nothing of what the stored version holds.
    snapshot = render_snapshot(
        programs, insights, old, in_version(kept, "v1") | {"spec": {**kept["spec"], "background": False}}, *others
    )
    assert "Updated 1" in programs.run("insights-applier", "apply", snapshot).stdout
    assert validate_of(adapter, kept)["allowExistingViolations"] is False
    assert programs.run("insights-applier", "plan", snapshot).stdout.startswith("No changes: 5 unchanged")


def validate_of(adapter: KubernetesCluster, body: JsonObject) -> JsonObject:
    found = adapter.read(identity_of(body))
    assert found is not None
    rule: JsonObject = found["spec"]["rules"][0]["validate"]
    return rule


def test_a_field_or_version_that_does_not_exist_is_named_with_its_line(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    hidden = in_version(cluster_policy("hidden"), "v2beta1")
    hidden["spec"]["rules"][0]["validate"]["allowExistingViolations"] = False
    lost = in_version(validating_policy("lost"), "v1alpha1")
    lost["spec"]["nonsense"] = 1
    unserved = in_version(cluster_policy("unserved"), "v9")
    snapshot = render_snapshot(programs, insights, hidden, lost, unserved)
    done = programs.with_(VALIDATE_POLICIES="false").run("insights-applier", "apply", snapshot)
    assert done.returncode == ExitCode.INVALID_POLICY
    shown = done.stdout + done.stderr
    assert "3 policies are not valid; nothing was written" in shown
    for policy, field, message in (
        ("hidden", "spec.rules[0].validate.allowExistingViolations", "is no field of kyverno.io/v2beta1"),
        ("lost", "spec.nonsense", "is not a known field; known here: auditAnnotations, autogen, "),
        ("unserved", "apiVersion", "kyverno.io/v9 is not a version that this cluster serves; it serves kyverno.io/v1"),
    ):
        expected = rf"\[schema\] \S+/{policy}\.yaml:\d+ .*\w+/{policy} {re.escape(field)}: {re.escape(message)}"
        assert re.search(expected, shown), (expected, shown)
    assert KubernetesCluster(Connection.open(kubeconfig=str(cluster.kubeconfig))).observe().objects == {}
