"""Which policies may see what the program writes: never no where that can't be told."""

from __future__ import annotations

from typing import Any

import pytest

from applier.guards import own_writes
from applier.guards.own_writes import Namespaces, OwnWrite
from renderer.manifest.jsontypes import Json, JsonObject

ALL = frozenset({"CREATE", "UPDATE", "DELETE"})
NONE: frozenset[str] = frozenset()
UNKNOWN = Namespaces(labels={})
KNOWN = Namespaces(labels={"agent": {"team": "ops"}})


def written(
    kind: str = "Lease",
    *,
    namespace: str = "agent",
    labels: dict[str, str] | None = None,
    operations: frozenset[str] = ALL,
    group: str = "coordination.k8s.io",
    plural: str = "leases",
) -> OwnWrite:
    metadata: JsonObject = {"name": "ours", **({"namespace": namespace} if namespace else {})}
    if labels is not None:
        metadata["labels"] = labels
    body = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
    return OwnWrite(group=group, plural=plural, operations=operations, body=body)


LEASE = written()
POLICY = written("ClusterPolicy", namespace="", group="kyverno.io", plural="clusterpolicies")


def ruled(**different: Any) -> JsonObject:
    """A rule of MatchResources that is about Leases."""
    whole = {"apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"], "resources": ["leases"], "operations": ["*"]}
    return {**whole, **different}


def test_a_write_is_named_by_its_kind_and_place() -> None:
    assert str(LEASE) == "Lease/agent/ours"
    assert str(POLICY) == "ClusterPolicy/ours"
    assert (POLICY.namespace, POLICY.name) == ("", "ours")


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        (ruled(), ALL),
        (ruled(operations=["UPDATE", "CONNECT"]), {"UPDATE"}),
        (ruled(operations=["CREATE", "*"]), ALL),
        (ruled(operations=[]), NONE),
        (ruled(operations=None), NONE),
        (ruled(apiGroups=["*"]), ALL),
        (ruled(apiGroups=["", "apps"]), NONE),
        (ruled(apiGroups=None), NONE),
        (ruled(resources=["pods", "leases"]), ALL),
        (ruled(resources=["*"]), ALL),
        (ruled(resources=["*/*"]), ALL),
        (ruled(resources=["leases/status", "pods"]), NONE),
        (ruled(resourceNames=["ours", "other"]), ALL),
        (ruled(resourceNames=["other"]), NONE),
        (ruled(resourceNames=[]), ALL),
        (ruled(scope="*"), ALL),
        (ruled(scope="Namespaced"), ALL),
        (ruled(scope="Cluster"), NONE),
        ("no rule", ALL),
    ],
)
def test_a_rule_sees_what_it_names(rule: Json, seen: frozenset[str]) -> None:
    assert own_writes.seen_operations({"resourceRules": [rule]}, LEASE, UNKNOWN) == seen


def test_what_a_rule_sees_is_no_more_than_what_is_done() -> None:
    renewed = written(operations=frozenset({"UPDATE"}))
    for rules in ([ruled()], ["no rule"], []):
        assert own_writes.seen_operations({"resourceRules": rules}, renewed, UNKNOWN) == {"UPDATE"}
    assert own_writes.seen_operations(None, renewed, UNKNOWN) == {"UPDATE"}


def test_rules_add_up_and_a_scope_is_that_of_the_kind() -> None:
    both = {"resourceRules": [ruled(operations=["CREATE"]), ruled(operations=["DELETE"]), ruled(resources=["pods"])]}
    assert own_writes.seen_operations(both, LEASE, UNKNOWN) == {"CREATE", "DELETE"}
    for scope, seen in (("Cluster", ALL), ("Namespaced", NONE)):
        rule = ruled(apiGroups=["kyverno.io"], resources=["clusterpolicies"], scope=scope)
        assert own_writes.seen_operations({"resourceRules": [rule]}, POLICY, UNKNOWN) == seen


@pytest.mark.parametrize(
    ("excluded", "seen"),
    [
        (ruled(apiVersions=["*"]), NONE),
        (ruled(apiVersions=["v1beta1", "*"], operations=["DELETE"]), {"CREATE", "UPDATE"}),
        # The server may see the write in another version than the one that is left out.
        (ruled(apiVersions=["v1"]), ALL),
        (ruled(apiVersions=["*"], resources=["pods"]), ALL),
    ],
)
def test_only_what_is_left_out_in_every_version_is_not_seen(excluded: JsonObject, seen: frozenset[str]) -> None:
    whole = {"resourceRules": [ruled()], "excludeResourceRules": [excluded]}
    assert own_writes.seen_operations(whole, LEASE, UNKNOWN) == seen
    assert own_writes.seen_operations({"excludeResourceRules": [excluded]}, LEASE, UNKNOWN) == seen


def selecting(labels: dict[str, str] | None = None, *expressions: JsonObject) -> JsonObject:
    return {"matchLabels": labels, "matchExpressions": list(expressions)}


def wants(key: str, operator: str, *values: str) -> JsonObject:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("selector", "complete", "partial"),
    [
        (None, True, True),
        ({}, True, True),
        (selecting({"team": "ops"}), True, True),
        (selecting({"team": "web"}), False, False),
        (selecting({"team": "ops", "tier": "one"}), False, True),
        (selecting({"tier": "one"}), False, True),
        (selecting(None, wants("team", "In", "web", "ops")), True, True),
        (selecting(None, wants("team", "In", "web")), False, False),
        (selecting(None, wants("team", "NotIn", "ops")), False, False),
        (selecting(None, wants("team", "NotIn", "web")), True, True),
        (selecting(None, wants("tier", "NotIn", "one")), True, True),
        (selecting(None, wants("tier", "In", "one")), False, True),
        (selecting(None, wants("team", "Exists")), True, True),
        (selecting(None, wants("tier", "Exists")), False, True),
        (selecting(None, wants("team", "DoesNotExist")), False, False),
        (selecting(None, wants("tier", "DoesNotExist")), True, True),
        (selecting(None, wants("team", "Gt", "5")), True, True),
        (selecting(None, {"key": "team"}), True, True),
        (selecting(None, {"operator": "Exists"}), False, True),
        (selecting(None, wants("team", "Exists"), wants("tier", "Exists")), False, True),
        (selecting({"team": "ops"}, wants("team", "NotIn", "ops")), False, False),
    ],
)
def test_a_selector_says_no_only_by_labels_that_are_known(selector: Json, complete: bool, partial: bool) -> None:
    assert own_writes.selects(selector, {"team": "ops"}, complete=True) is complete
    assert own_writes.selects(selector, {"team": "ops"}, complete=False) is partial


@pytest.mark.parametrize(
    ("selector", "unknown", "known"),
    [
        (selecting({"kubernetes.io/metadata.name": "agent"}), True, True),
        (selecting({"kubernetes.io/metadata.name": "other"}), False, False),
        (selecting({"team": "ops"}), True, True),
        (selecting({"team": "web"}), True, False),
        (selecting(None, wants("team", "DoesNotExist")), True, False),
    ],
)
def test_of_a_namespace_that_cannot_be_read_only_the_name_is_known(
    selector: JsonObject, unknown: bool, known: bool
) -> None:
    for namespaces, matches in ((UNKNOWN, unknown), (KNOWN, known)):
        assert namespaces.may_match(selector, "agent") is matches
        assert bool(own_writes.seen_operations({"namespaceSelector": selector}, LEASE, namespaces)) is matches
        # What is in no namespace can't be left out by one.
        assert own_writes.seen_operations({"namespaceSelector": selector}, POLICY, namespaces) == ALL


def test_the_labels_of_our_own_objects_are_known() -> None:
    selector = {"objectSelector": selecting({"app": "x"})}
    assert own_writes.seen_operations(selector, LEASE, UNKNOWN) == NONE
    assert own_writes.seen_operations(selector, written(labels={"app": "x"}), UNKNOWN) == ALL


def resources(**filters: Any) -> JsonObject:
    return {"match": {"any": [{"resources": filters}]}}


@pytest.mark.parametrize(
    ("rule", "sees"),
    [
        ({}, True),
        ({"match": "all"}, True),
        ({"match": {}}, True),
        ({"match": {"any": [{"subjects": [{"kind": "User", "name": "a"}]}]}}, True),
        ({"match": {"any": [{"resources": {}}]}}, True),
        ({"match": {"any": ["all", None]}}, True),
        ({"match": {"resources": "all"}}, True),
        (resources(kinds=["Lease"]), True),
        (resources(kinds=["Pod"]), False),
        (resources(kinds=["Pod", "L*"]), True),
        (resources(kinds=["*"]), True),
        (resources(kinds=["coordination.k8s.io/v1/Lease"]), True),
        (resources(kinds=["Lease/status"]), True),
        (resources(kinds=["Lease.status"]), True),
        (resources(kinds=["v1/Pod"]), False),
        (resources(kinds=[]), True),
        (resources(operations=["UPDATE"]), True),
        (resources(operations=["CONNECT"]), False),
        (resources(operations=[]), True),
        (resources(namespaces=["agent"]), True),
        (resources(namespaces=["prod", "age*"]), True),
        (resources(namespaces=["prod"]), False),
        (resources(namespaces=[]), True),
        (resources(namespaceSelector=selecting({"team": "web"})), True),
        (resources(namespaceSelector=selecting({"kubernetes.io/metadata.name": "prod"})), False),
        (resources(namespaceSelector=selecting({"kubernetes.io/metadata.name": "agent"})), True),
        (resources(kinds=["Lease"], namespaces=["prod"]), False),
        ({"match": {"resources": {"kinds": ["Pod"]}}}, False),
        ({"match": {"resources": {"kinds": ["Lease"]}}}, True),
        ({"match": {"all": [{"resources": {"kinds": ["Pod"]}}]}}, False),
        ({"match": {"any": [{"resources": {"kinds": ["Pod"]}}, {"resources": {"kinds": ["Lease"]}}]}}, True),
    ],
)
def test_a_rule_of_kyverno_may_see_what_its_match_does_not_rule_out(rule: JsonObject, sees: bool) -> None:
    assert own_writes.rule_may_see(rule, LEASE, UNKNOWN) is sees


def test_what_is_in_no_namespace_has_the_labels_of_none() -> None:
    assert not own_writes.rule_may_see(resources(namespaceSelector=selecting({"team": "ops"})), POLICY, KNOWN)
    assert own_writes.rule_may_see(resources(namespaceSelector=selecting({})), POLICY, KNOWN)
    assert not own_writes.rule_may_see(resources(namespaces=["agent"]), POLICY, KNOWN)


def ruling(**mutate: Any) -> JsonObject:
    """A policy with rules, the first of which has nothing to do with it."""
    return {"spec": {"rules": ["no rule", {"validate": {}}, {"mutate": mutate}]}}


def applying(expression: Any) -> JsonObject:
    return {"spec": {"mutations": [{"patchType": "X", "applyConfiguration": {"expression": expression}}]}}


def patching(expression: str) -> JsonObject:
    return {"spec": {"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]}}


LABEL = {"metadata": {"labels": {"a": "b"}}}
AT_LABEL = '- op: add\n  path: /metadata/labels/team\n  value: x\n- {"op": "add", "path": "/metadata/annotations/a"}'
OTHER_PATHS = ("/spec/a", "/metadata/name", "/metadata/labelsmore", "/x/metadata/labels")


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"spec": None},
        {"spec": {"rules": "none", "mutations": None}},
        ruling(),
        ruling(patchStrategicMerge=LABEL),
        ruling(patchStrategicMerge={"+(metadata)": {}, "(metadata)": {}, "<(metadata)": {}, "^(metadata)": {}}),
        ruling(patchesJson6902=AT_LABEL),
        ruling(foreach=[{"list": "a", "patchStrategicMerge": LABEL}, {"list": "b", "patchesJson6902": AT_LABEL}]),
        ruling(foreach=[{"foreach": [{"patchStrategicMerge": LABEL}]}]),
        ruling(foreach=["no map, which the schemas refuse"]),
        ruling(targets=[{"kind": "Pod"}], patchStrategicMerge={"spec": {}}),
        applying('Object{metadata: Object.metadata{labels: {"a": "b"}}}'),
        applying("has(object.a) ? Object{} : Object{metadata : Object.metadata{}}"),
        patching('[JSONPatch{op: "add", path: "/metadata/labels/a", value: "b"}]'),
        patching("[]"),
    ],
)
def test_labels_and_annotations_may_be_set_on_our_writes(policy: JsonObject) -> None:
    assert not own_writes.mutates_more_than_metadata(policy)


@pytest.mark.parametrize(
    "policy",
    [
        ruling(patchStrategicMerge={"spec": {}}),
        ruling(patchStrategicMerge={**LABEL, "+(data)": {}}),
        ruling(patchStrategicMerge="{{ text }}"),
        ruling(patchStrategicMerge={"XmetadataX": {}}),
        *(ruling(patchesJson6902=AT_LABEL.replace("/metadata/labels/team", path)) for path in OTHER_PATHS),
        ruling(patchesJson6902="- op: add\n- op: add\n  path: /metadata/labels/a"),
        ruling(patchesJson6902="op: remove"),
        ruling(foreach=[{"patchStrategicMerge": LABEL}, {"patchStrategicMerge": {"data": {}}}]),
        ruling(foreach=[{"patchesJson6902": "- op: add\n  path: /data/a"}]),
        ruling(foreach=[{"foreach": [{"patchStrategicMerge": {"spec": {}}}]}]),
        ruling(unheardOf={}),
        {
            "spec": {
                "rules": [{"mutate": {"patchStrategicMerge": LABEL}}, {"mutate": {"patchStrategicMerge": {"a": 1}}}]
            }
        },
        applying("Object{spec: Object.spec{a: 1}}"),
        applying("Object{metadata: Object.metadata{}, spec: Object.spec{a: 1}}"),
        applying("Object{metadata: m, data: d}"),
        applying("Object{metadata: m, binaryData: d}"),
        applying("Object{metadata: m, immutable: true}"),
        applying("true ? Object{metadata: m} : Object{other: 1}"),
        applying("variables.whole"),
        applying(""),
        {"spec": {"mutations": [{"applyConfiguration": "Object{}"}]}},
        *(patching(f'[JSONPatch{{op: "add", path: "{path}", value: "b"}}]') for path in OTHER_PATHS),
        patching('[JSONPatch{op: "add", path: "/metadata/labels/" + name, value: "b"}, JSONPatch{op: "add"}]'),
        {"spec": {"mutations": [{"unheardOf": {}}]}},
    ],
)
def test_more_than_that_and_what_cannot_be_told_counts(policy: JsonObject) -> None:
    assert own_writes.mutates_more_than_metadata(policy)


def test_a_list_is_its_items_and_anything_else_has_none() -> None:
    assert own_writes.items(["a"]) == ["a"]
    assert own_writes.items("a") == own_writes.items(None) == []
