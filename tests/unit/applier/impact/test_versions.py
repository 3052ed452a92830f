"""Which versions of policies are evaluated, and what of them is not."""

from __future__ import annotations

from typing import Any

import pytest

from applier.change import Action, Change, Plan
from applier.impact.versions import Side, Version, Versions, of_plan
from applier.verdict import Finding, Layer, Verdict
from renderer.errors import Problem
from renderer.manifest import kinds
from renderer.manifest.effect.enforcement import Level
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import admission_binding, admission_policy, cluster_policy, exception, validating_policy


def identity(body: JsonObject) -> Identity:
    kind = kinds.find(body["apiVersion"].rpartition("/")[0], body["kind"])
    assert kind is not None
    return Identity(kind=kind, namespace=body["metadata"].get("namespace", ""), name=body["metadata"]["name"])


def evaluated(before: list[JsonObject], after: list[JsonObject], verdict: Verdict | None = None) -> Versions:
    """The versions of a plan that leads from the one to the other."""
    old, new = ({identity(body): body for body in bodies} for bodies in (before, after))
    changes = [
        Change(
            identity=one,
            action=Action.UNCHANGED if old.get(one) == new.get(one) else Action.UPDATE if one in new else Action.DELETE,
            before=old.get(one),
            after=new.get(one),
        )
        for one in sorted(old.keys() | new.keys())
    ]
    return of_plan(Plan(changes=tuple(changes)), old, verdict or Verdict())


def enforcing(**changes: Any) -> JsonObject:
    body = cluster_policy()
    body["spec"]["rules"][0] |= changes
    body["spec"]["rules"][0]["validate"] = {**body["spec"]["rules"][0]["validate"], "failureAction": "Enforce"}
    return body


def sides(versions: Versions) -> list[set[Side]]:
    return [set(version.levels) for version in versions.changed]


def reasons(versions: Versions) -> dict[str, str]:
    return {subject: entry.reason for entry in versions.not_evaluated for subject in entry.subjects}


def test_a_change_of_the_action_alone_is_evaluated_once() -> None:
    versions = evaluated([cluster_policy()], [enforcing()])
    (version,) = versions.changed
    assert {side: levels["team"].level for side, levels in version.levels.items()} == {
        Side.BEFORE: Level.AUDIT,
        Side.AFTER: Level.DENY,
    }


def test_a_change_of_what_is_checked_is_evaluated_twice_and_a_new_or_deleted_policy_once() -> None:
    other = cluster_policy(message="Other.")
    assert sides(evaluated([cluster_policy()], [other])) == [{Side.BEFORE}, {Side.AFTER}]
    assert sides(evaluated([], [other])) == [{Side.AFTER}]
    assert sides(evaluated([other], [])) == [{Side.BEFORE}]


def test_what_does_not_change_is_evaluated_only_if_it_denies() -> None:
    versions = evaluated(
        [enforcing(), cluster_policy("audits"), validating_policy()],
        [enforcing(), cluster_policy("audits"), validating_policy()],
    )
    assert versions.changed == ()
    assert [version.policy.name for version in versions.steady] == ["require-team"]


def test_a_changed_exception_changes_the_policy_that_it_names() -> None:
    policy = validating_policy("require-owner")
    (before, after) = evaluated([policy], [policy, exception()]).changed
    assert (len(before.exceptions), set(before.levels)) == (0, {Side.BEFORE})
    assert set(after.levels) == {Side.AFTER}
    (exempting,) = after.exceptions
    assert exempting["spec"]["policyRefs"] == [{"name": f"p{after.number}", "kind": "ValidatingPolicy"}]
    assert after.body["metadata"]["name"] == f"p{after.number}"


@pytest.mark.parametrize(
    ("warning", "spared"),
    [
        ("PolicyException resources would not be processed until it is enabled.", False),
        ("PolicyException resource namespace must match the defined namespace.", False),
        ("PolicyException is deprecated", True),
    ],
)
def test_an_exception_that_kyverno_does_not_process_counts_for_nothing(warning: str, spared: bool) -> None:
    policy, body = validating_policy("require-owner"), exception()
    told = Finding(policy=identity(body), layer=Layer.SERVER, problem=Problem(source="", message=warning), warning=True)
    versions = evaluated([policy], [policy, body], Verdict(findings=(told,)))
    assert bool(versions.changed) is spared
    assert (str(identity(body)) in reasons(versions)) is not spared


def test_a_binding_decides_what_its_policy_does() -> None:
    policy, denying = admission_policy(), admission_binding()
    denying["spec"] = {**denying["spec"], "validationActions": ["Deny"]}
    (version,) = evaluated([policy, admission_binding()], [policy, denying]).changed
    assert (version.policy.kind.name, version.asked_by_server) == ("ValidatingAdmissionPolicy", True)
    assert version.levels[Side.BEFORE][""].level is Level.WARN
    assert version.levels[Side.AFTER][""].level is Level.DENY
    assert evaluated([], [policy]).changed == ()


def test_a_policy_is_evaluated_where_its_binding_chooses() -> None:
    policy, binding = admission_policy(), admission_binding()
    prod, web = {"matchLabels": {"env": "prod"}}, {"matchExpressions": [{"key": "app", "operator": "Exists"}]}
    policy["spec"]["matchConstraints"]["namespaceSelector"] = prod
    binding["spec"]["matchResources"] = {"namespaceSelector": web, "objectSelector": {}}
    (version,) = evaluated([], [policy, binding]).changed
    constraints = version.body["spec"]["matchConstraints"]
    assert constraints["namespaceSelector"] == {
        "matchExpressions": [{"key": "env", "operator": "In", "values": ["prod"]}, *web["matchExpressions"]]
    }
    assert constraints["resourceRules"] == policy["spec"]["matchConstraints"]["resourceRules"]
    unusable: JsonObject
    for unusable in ({"paramRef": {"name": "a"}}, {"matchResources": {"resourceRules": [{}]}}):
        bound = {**binding, "spec": {**binding["spec"], **unusable}}
        versions = evaluated([], [policy, bound])
        assert versions.changed == ()
        assert list(reasons(versions)) == ["ValidatingAdmissionPolicyBinding/no-bare-pods"]


def test_a_policy_that_is_not_valid_is_not_evaluated() -> None:
    body = enforcing()
    wrong = Finding(policy=identity(body), layer=Layer.CLI, problem=Problem(source="", message="no"))
    versions = evaluated([], [body], Verdict(findings=(wrong,)))
    assert (versions.changed, reasons(versions)) == ((), {"ClusterPolicy/require-team": "it is not valid"})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mutate": {"patchStrategicMerge": {}}, "validate": {}}, "it mutates"),
        ({"generate": {"kind": "ConfigMap"}, "validate": {}}, "it generates"),
        ({"verifyImages": [{"imageReferences": ["*"]}], "validate": {}}, "it verifies images"),
        ({"context": [{"name": "a", "apiCall": {"urlPath": "/api"}}]}, "it reads other objects"),
        ({"context": [{"name": "a", "imageRegistry": {"reference": "b"}}]}, "it asks an image registry"),
        ({"match": {"any": [{"resources": {"kinds": ["Pod"]}, "clusterRoles": ["a"]}]}}, "it depends on who"),
        ({"exclude": {"any": [{"clusterRoles": ["cluster-admin"]}]}}, "it depends on who"),
        ({"preconditions": {"all": [{"key": "{{request.userInfo.username}}"}]}}, "it depends on who"),
        ({"match": {"any": [{"resources": {"kinds": ["Pod"], "operations": ["UPDATE"]}}]}}, "it acts on updates"),
        ({"match": {"any": [{"resources": {"kinds": ["Pod/exec"]}}]}}, "it matches subresources"),
    ],
)  # fmt: skip
def test_rules_that_need_more_than_the_resource_are_told_with_the_reason(changes: JsonObject, reason: str) -> None:
    body = cluster_policy()
    body["spec"]["rules"].append({**body["spec"]["rules"][0], "name": "other", **changes})
    versions = evaluated([], [body])
    assert list(reasons(versions)) == ["ClusterPolicy/require-team rule other"]
    assert reasons(versions)["ClusterPolicy/require-team rule other"].startswith(reason)
    (version,) = versions.changed
    assert [rule["name"] for rule in version.body["spec"]["rules"]] == ["team"]


def test_a_configmap_in_a_pattern_is_no_context() -> None:
    body = cluster_policy()
    body["spec"]["rules"][0]["validate"]["pattern"] = {"spec": {"volumes": [{"configMap": {"name": "?*"}}]}}
    assert reasons(evaluated([], [body])) == {}


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("request.userInfo.username != 'a'", "it depends on who"),
        ("authorizer.group('').resource('pods').check('get').allowed()", "it depends on who"),
        ("resource.Get('v1', 'configmaps', 'a', 'b').data.c == 'd'", "it reads other objects"),
        ("resource.get('v1', 'configmaps', 'a', 'b').data.c == 'd'", "it reads other objects"),
        ("image.GetMetadata(object.spec.a).b == 'c'", "it asks an image registry"),
        ("http.Get('http://a').b == 'c'", "it reads other objects"),
    ],
)
def test_expressions_that_need_more_than_the_resource_are_told(expression: str, reason: str) -> None:
    versions = evaluated([], [validating_policy(expression=expression)])
    assert versions.changed == ()
    assert reasons(versions)["ValidatingPolicy/require-owner"].startswith(reason)


def test_labels_of_namespaces_are_needed_where_they_are_asked_for() -> None:
    plain, selecting = validating_policy(), validating_policy("other")
    selecting["spec"]["matchConstraints"]["namespaceSelector"] = {"matchLabels": {"env": "prod"}}
    found: dict[str, Version] = {version.policy.name: version for version in evaluated([], [plain, selecting]).changed}
    assert {name: version.needs_namespaces for name, version in found.items()} == {
        "require-owner": False,
        "other": True,
    }
