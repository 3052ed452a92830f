"""What Insights owns of an object, and the patches that follow."""

from __future__ import annotations

from typing import Any

import jsonpatch
import pytest

from applier import diff
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.ownership import LAST_APPLIED, MANAGED_KEYS, OWNED_BY
from tests.support.policies import cluster_policy, desired, identity_of, live_object

KIND = identity_of(cluster_policy()).kind


def wanted(body: JsonObject, live: JsonObject | None) -> JsonObject:
    (policy,) = desired(body)
    return diff.wanted(policy.body, live, kind=KIND, api_version="kyverno.io/v1")


def labelled(**labels: str) -> JsonObject:
    return cluster_policy(labels=labels)


def test_the_spec_is_insights_whole() -> None:
    live = live_object(cluster_policy())
    live["spec"]["failurePolicy"] = "Ignore"
    assert wanted(cluster_policy(), live)["spec"] == cluster_policy()["spec"]


def test_labels_and_annotations_of_others_stay() -> None:
    live = live_object(cluster_policy(), finalizers=["example.com/f"])
    live["metadata"]["labels"] = {"team": "platform"}
    live["metadata"]["annotations"]["example.com/note"] = "kept"
    metadata = wanted(labelled(tier="one"), live)["metadata"]
    assert metadata["labels"] == {"team": "platform", "tier": "one"}
    assert metadata["annotations"]["example.com/note"] == "kept"
    assert metadata["finalizers"] == ["example.com/f"]


def test_a_label_that_insights_set_before_goes_when_it_is_withdrawn() -> None:
    live = live_object(labelled(tier="one", stage="old"))
    live["metadata"]["labels"]["team"] = "platform"
    assert wanted(labelled(tier="one"), live)["metadata"]["labels"] == {"tier": "one", "team": "platform"}
    assert wanted(cluster_policy(), live)["metadata"]["labels"] == {"team": "platform"}


def test_without_a_record_kubectls_last_applied_tells_what_was_set() -> None:
    live = live_object(labelled(tier="one", mine="x"))
    del live["metadata"]["annotations"][MANAGED_KEYS]
    live["metadata"]["annotations"][LAST_APPLIED] = '{"metadata":{"labels":{"tier":"one"}}}'
    assert wanted(cluster_policy(), live)["metadata"]["labels"] == {"mine": "x"}


@pytest.mark.parametrize("record", ["", "no json", "[]", '{"labels":"tier"}', '{"labels":[1]}', "null"])
def test_a_record_that_cannot_be_read_removes_nothing(record: str) -> None:
    live = live_object(labelled(tier="one"))
    live["metadata"]["annotations"][MANAGED_KEYS] = record
    assert wanted(cluster_policy(), live)["metadata"]["labels"] == {"tier": "one"}


def test_status_and_server_metadata_are_no_difference() -> None:
    live = live_object(cluster_policy(), managedFields=[{"manager": "kyverno"}], selfLink="/x")
    assert diff.patch(content(live, KIND), wanted(cluster_policy(), live)) == ()


@pytest.mark.parametrize(
    "edit",
    [
        lambda spec: spec.pop("background"),
        lambda spec: spec["rules"][0].update(name="other"),
        lambda spec: spec["rules"].append({"name": "second", "match": {}, "validate": {}}),
        lambda spec: spec.update(rules=[]),
        lambda spec: spec.update({"odd/key~name": 1}),
    ],
)
def test_the_patch_leads_from_live_to_desired_exactly(edit: Any) -> None:
    live = live_object(cluster_policy())
    edit(live["spec"])
    target = wanted(cluster_policy(), live)
    operations = diff.patch(content(live, KIND), target)
    patched = jsonpatch.apply_patch(live, diff.guarded(live, operations))
    assert content(patched, KIND) == target
    assert patched["status"] == live["status"]


def test_a_moved_rule_is_one_operation() -> None:
    rules = [{"name": f"r{number}", "match": {}, "validate": {"message": f"m{number}"}} for number in range(20)]
    live = live_object(cluster_policy())
    live["spec"]["rules"] = [*rules[1:5], rules[0], *rules[5:]]
    body = cluster_policy()
    body["spec"]["rules"] = rules
    assert [op["op"] for op in diff.patch(content(live, KIND), wanted(body, live))] == ["move"]


def test_preconditions_come_first() -> None:
    live = live_object(cluster_policy())
    operations = diff.guarded(live, [{"op": "remove", "path": "/spec/background"}])
    assert [(op["op"], op["path"]) for op in operations] == [
        ("test", "/metadata/uid"),
        ("replace", "/metadata/resourceVersion"),
        ("remove", "/spec/background"),
    ]


def test_other_managers_are_those_of_the_spec() -> None:
    live = live_object(
        cluster_policy(),
        managedFields=[
            {"manager": diff.FIELD_MANAGER, "fieldsV1": {"f:spec": {}}},
            {"manager": "kubectl-edit", "fieldsV1": {"f:spec": {}}},
            {"manager": "kyverno", "fieldsV1": {"f:status": {}}},
        ],
    )
    assert diff.other_managers(live) == ("kubectl-edit",)


def test_every_policy_is_stamped_as_owned() -> None:
    assert wanted(cluster_policy(), None)["metadata"]["annotations"][OWNED_BY] == "Fairwinds Insights"
