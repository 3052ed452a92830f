"""What Insights owns of an object, and the patches that follow."""

from __future__ import annotations

import copy
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


@pytest.mark.parametrize(("now", "then"), [(1, True), (0, False), (1, 1.0), ([1], [True]), ({"a": 0}, {"a": False})])
def test_what_only_python_takes_for_equal_is_a_difference(now: Any, then: Any) -> None:
    assert diff.patch({"spec": now, "kind": "K"}, {"kind": "K", "spec": then})
    assert diff.patch({"spec": now, "kind": "K"}, {"kind": "K", "spec": now}) == ()


def test_a_moved_rule_is_one_operation() -> None:
    rules = [{"name": f"r{number}", "match": {}, "validate": {"message": f"m{number}"}} for number in range(20)]
    live = live_object(cluster_policy())
    live["spec"]["rules"] = [*rules[1:5], rules[0], *rules[5:]]
    body = cluster_policy()
    body["spec"]["rules"] = rules
    assert [op["op"] for op in diff.patch(content(live, KIND), wanted(body, live))] == ["move"]


def thirty_rules() -> list[JsonObject]:
    return [
        {
            "name": f"rule-{number}",
            "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
            "validate": {"message": f"Message {number}.", "pattern": {"spec": {"hostNetwork": f"?*{number}"}}},
        }
        for number in range(30)
    ]


@pytest.mark.parametrize("place", [0, 13, 29])
@pytest.mark.parametrize(
    ("edit", "operations"),
    [
        (
            lambda rules, n: rules[n]["validate"].update(message="Other."),
            [("replace", "/spec/rules/{}/validate/message")],
        ),
        (lambda rules, n: rules.insert(n, {"name": "new", "match": {}}), [("add", "/spec/rules/{}")]),
        (lambda rules, n: rules.pop(n), [("remove", "/spec/rules/{}")]),
        (lambda rules, n: rules.insert(20, rules.pop(n)), [("move", "/spec/rules/20")]),
        (lambda rules, n: rules[n].update(name="renamed"), [("replace", "/spec/rules/{}/name")]),
    ],
)
def test_one_change_in_thirty_rules_is_one_operation(edit: Any, operations: list[tuple[str, str]], place: int) -> None:
    before = {"spec": {"rules": thirty_rules()}}
    after = {"spec": {"rules": thirty_rules()}}
    edit(after["spec"]["rules"], place)
    found = diff.patch(before, after)
    assert [(op["op"], op["path"]) for op in found] == [(op, path.format(place)) for op, path in operations]
    assert jsonpatch.apply_patch(before, list(found)) == after


def test_more_operations_than_the_server_takes_become_whole_sections() -> None:
    live = live_object(labelled(tier="one"), finalizers=["example.com/f"])
    live["spec"]["rules"][0]["validate"]["pattern"] = {f"k{number}": "before" for number in range(10_001)}
    body = labelled(stage="a/b~c")
    body["spec"]["rules"][0]["validate"]["pattern"] = {f"k{number}": "after" for number in range(10_001)}
    target = wanted(body, live)
    operations = diff.patch(content(live, KIND), target)
    assert {operation["path"] for operation in operations} == {"/spec", "/metadata/labels", "/metadata/annotations"}
    patched = jsonpatch.apply_patch(live, diff.guarded(live, operations))
    assert content(patched, KIND) == target
    assert patched["metadata"]["uid"] == live["metadata"]["uid"]


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


def test_a_patch_that_is_written_out_tests_each_place_that_it_takes_from() -> None:
    before = live_object(cluster_policy(labels={"tier": "gold"}))
    after = wanted(cluster_policy(message="Other."), before)
    found = diff.with_tests(before, diff.patch(content(before, KIND), after), KIND)
    tests = [operation for operation in found if operation["op"] == "test"]
    assert tests[0] == {"op": "test", "path": "/metadata/uid", "value": before["metadata"]["uid"]}
    message = "/spec/rules/0/validate/message"
    assert {"op": "test", "path": message, "value": "Set the label team."} in tests
    assert found[found.index(tests[-1]) + 1]["op"] in ("replace", "remove")
    patched = jsonpatch.apply_patch(before, found)
    assert content(patched, KIND) == after
    for operation in tests:
        changed = jsonpatch.apply_patch(before, [{**operation, "op": "replace", "value": "by hand"}])
        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            jsonpatch.apply_patch(changed, found)


def test_tests_are_about_what_the_operations_before_them_left() -> None:
    rules = [{"name": name} for name in "abcdef"]
    before = live_object(cluster_policy())
    before["spec"]["rules"] = rules
    after = content(before, KIND)
    after["spec"] = {**after["spec"], "rules": [rules[5], rules[0], {"name": "new"}, rules[2]]}
    operations = diff.patch(content(before, KIND), after)
    found = diff.with_tests(before, operations, KIND)
    assert [operation for operation in found if operation["op"] != "test"] == list(operations)
    assert content(jsonpatch.apply_patch(before, found), KIND) == after


def test_a_patch_with_its_tests_stays_within_what_the_server_takes() -> None:
    before = live_object(cluster_policy())
    before["spec"]["rules"] = [{"name": f"rule-{number}", "message": "old"} for number in range(6_000)]
    after = content(before, KIND)
    after["spec"] = {**after["spec"], "rules": [{**rule, "message": "new"} for rule in before["spec"]["rules"]]}
    operations = diff.patch(content(before, KIND), after)
    assert len(operations) == 6_000
    found = diff.with_tests(before, operations, KIND)
    assert [(operation["op"], operation["path"]) for operation in found] == [
        ("test", "/metadata/uid"), ("test", "/spec"), ("replace", "/spec"),
    ]  # fmt: skip
    assert content(jsonpatch.apply_patch(before, found), KIND) == after


def test_a_section_of_which_nothing_is_left_goes() -> None:
    live = live_object(labelled(tier="one"))
    assert "labels" not in wanted(cluster_policy(), live)["metadata"]


def many(count: int, value: str) -> JsonObject:
    return {f"k{number}": value for number in range(count)}


@pytest.mark.parametrize(("count", "whole"), [(diff.MOST_OPERATIONS, False), (diff.MOST_OPERATIONS + 1, True)])
def test_whole_sections_are_for_more_than_the_server_takes_only(count: int, whole: bool) -> None:
    found = diff.patch({"spec": many(count, "before")}, {"spec": many(count, "after")})
    assert (len(found) == 1) == whole


def test_sections_that_come_and_go_are_added_and_removed() -> None:
    before = {"a/b~c": 1, "metadata": {"labels": {"tier": "one"}}, "same": 1, "spec": many(10_001, "before")}
    after = {"data": [1], "metadata": {"annotations": {"seen": "yes"}}, "same": 1, "spec": many(10_001, "after")}
    assert diff.patch(before, after) == (
        {"op": "remove", "path": "/a~1b~0c"},
        {"op": "add", "path": "/data", "value": [1]},
        {"op": "add", "path": "/metadata/annotations", "value": {"seen": "yes"}},
        {"op": "remove", "path": "/metadata/labels"},
        {"op": "replace", "path": "/spec", "value": after["spec"]},
    )


def test_metadata_within_a_section_is_replaced_with_it() -> None:
    before = {"spec": {"metadata": {"a": 1}, **many(10_001, "before")}}
    after = {"spec": {"metadata": {"a": 2}, **many(10_001, "after")}}
    assert [operation["path"] for operation in diff.patch(before, after)] == ["/spec"]


def test_a_write_is_for_the_version_that_was_read() -> None:
    live = live_object(cluster_policy())
    assert diff.guarded(live, [])[1] == {
        "op": "replace",
        "path": "/metadata/resourceVersion",
        "value": live["metadata"]["resourceVersion"],
    }


def test_what_moves_is_tested_where_it_was_and_as_it_was() -> None:
    before = live_object(cluster_policy())
    del before["metadata"]["uid"]
    before["spec"]["rules"] = [{"name": "a"}, {"name": "b", "match": {"any": [1]}}]
    operations: list[JsonObject] = [
        {"op": "move", "from": "/spec/rules/1", "path": "/spec/rules/0"},
        {"op": "replace", "path": "/spec/rules/0/match/any/0", "value": 2},
        {"op": "add", "path": "/spec/rules/2", "value": {"name": "c", "match": {"any": []}}},
        {"op": "add", "path": "/spec/rules/2/match/any/0", "value": 3},
        {"op": "remove", "path": "/spec/rules/1"},
    ]
    given = copy.deepcopy(operations)
    assert diff.with_tests(before, operations, KIND) == [
        {"op": "test", "path": "/spec/rules/1", "value": {"name": "b", "match": {"any": [1]}}},
        given[0],
        {"op": "test", "path": "/spec/rules/0/match/any/0", "value": 1},
        given[1],
        given[2],
        given[3],
        {"op": "test", "path": "/spec/rules/1", "value": {"name": "a"}},
        given[4],
    ]
    assert operations == given
    assert before["spec"]["rules"] == [{"name": "a"}, {"name": "b", "match": {"any": [1]}}]


@pytest.mark.parametrize(("count", "whole"), [(4_950, False), (4_951, True)])
def test_tests_count_among_what_the_server_takes(count: int, whole: bool) -> None:
    before = live_object(cluster_policy())
    before["spec"] = many(count, "before")
    operations = diff.patch(content(before, KIND), {**content(before, KIND), "spec": many(count, "after")})
    assert (len(diff.with_tests(before, operations, KIND)) == 3) == whole


def test_insights_business_is_all_but_the_metadata_and_what_others_keep_there() -> None:
    body = live_object(cluster_policy(labels={"tier": "one", "team": "platform"}))
    keys = {"labels": {"tier"}, "annotations": {"seen"}}
    assert diff.managed(body, keys, KIND) == {
        "kind": "ClusterPolicy",
        "metadata": {"labels": {"tier": "one"}, "annotations": {}},
        "spec": body["spec"],
    }


def test_the_keys_in_question_are_those_of_every_state() -> None:
    (before,), (after,) = desired(labelled(tier="one")), desired(cluster_policy(annotations={"note": "x"}))
    keys = diff.keys_in_question(before.body, None, after.body)
    assert keys["labels"] == {"tier"}
    assert "note" in keys["annotations"]
    assert diff.keys_in_question(None) == {"labels": set(), "annotations": set()}


@pytest.mark.parametrize(
    "entries",
    [
        None,
        [{"manager": "kubectl"}],
        [{"manager": "kubectl", "fieldsV1": None}],
        [{"fieldsV1": {"f:spec": {}}}],
    ],
)
def test_a_record_of_managers_that_names_none_of_the_spec_names_none(entries: Any) -> None:
    assert diff.other_managers(live_object(cluster_policy(), managedFields=entries)) == ()
