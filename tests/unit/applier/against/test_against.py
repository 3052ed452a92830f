"""Plans with no cluster: what is saved counts as a server would hold it."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings

from applier import offline_schemas, pipeline
from applier.against import Saved
from applier.change import Action, Plan, Rehearsed
from applier.guards.refusals import Allowed
from applier.pipeline import Prepared
from renderer.errors import DocumentErrors, ExitCode
from renderer.manifest.document import Policy
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.policyset import PolicySet
from tests.support.json_values import values
from tests.support.policies import (
    admission_policy,
    cluster_policy,
    desired,
    exception,
    identity_of,
    live_object,
    validating_policy,
)

SCHEMAS = offline_schemas.load()


def as_read(*bodies: JsonObject) -> list[Policy]:
    """The bodies as a dump's reader gives them."""
    return [Policy(identity=identity_of({**body, "metadata": _plain(body)}), body=body) for body in bodies]


def _plain(body: JsonObject) -> JsonObject:
    return {key: body["metadata"][key] for key in ("name", "namespace") if key in body["metadata"]}


def compared(wanted: PolicySet, *held: JsonObject) -> Prepared:
    saved = Saved.of(as_read(*held), SCHEMAS, wanted=wanted)
    return pipeline.compare(saved, wanted, allowed=Allowed(), notes=saved.notes)


def actions(of: Plan) -> dict[str, Action]:
    return {change.identity.name: change.action for change in of.changes}


def spec(body: JsonObject, **fields: Json) -> JsonObject:
    return {**body, "spec": {**body["spec"], **fields}}


SET = (cluster_policy("one"), validating_policy("two"), admission_policy("three"), exception("four"))


def test_a_snapshot_lacks_defaults_and_a_dump_has_them_and_neither_shows_as_drift() -> None:
    wanted = desired(*SET)
    saved = Saved.of(wanted, SCHEMAS, wanted=wanted)
    with_defaults = list(saved.live.objects.values())
    assert with_defaults[0]["spec"] != live_object(SET[2])["spec"]
    without = [live_object(body) for body in SET]
    for held in (with_defaults, without):
        prepared = compared(wanted, *held)
        assert set(actions(prepared.plan).values()) == {Action.UNCHANGED}
        assert not prepared.verdict.findings
    assert prepared.plan.notes == (
        "no cluster was asked: compared by the schemas of Kyverno 1.19.1 and Kubernetes 1.36.3, not dry-run",
    )
    assert {change.rehearsed for change in prepared.plan.changes} == {Rehearsed.OFFLINE}


def test_new_changed_withdrawn_foreign_generated_and_terminating() -> None:
    generated = live_object(cluster_policy("generated"), ownerReferences=[{"uid": "x"}])
    held = [
        live_object(cluster_policy("changed")),
        live_object(cluster_policy("withdrawn")),
        live_object(cluster_policy("foreign"), owned=False),
        live_object(cluster_policy("foreign-too"), owned=False),
        generated,
        live_object(cluster_policy("leaving"), deletionTimestamp="2026-01-01T00:00:00Z"),
    ]
    wanted = [cluster_policy(name, message="Other.") for name in ("changed", "new", "foreign", "leaving")]
    prepared = compared(desired(*wanted), *held)
    assert actions(prepared.plan) == {
        "changed": Action.UPDATE,
        "new": Action.CREATE,
        "withdrawn": Action.DELETE,
        "foreign": Action.REFUSED,
        "leaving": Action.REFUSED,
    }
    assert [refusal.code for refusal in prepared.plan.refusals] == [ExitCode.TERMINATING, ExitCode.NOT_OWNED]
    (changed,) = prepared.plan.of(Action.UPDATE)
    assert changed.patch == ({"op": "replace", "path": "/spec/rules/0/validate/message", "value": "Other."},)
    empty = compared(desired(), *held)
    assert [refusal.code for refusal in empty.plan.refusals] == [ExitCode.EMPTY_SET]


@pytest.mark.parametrize("key", ["uid", "resourceVersion", "creationTimestamp", "generation"])
def test_what_only_the_server_knows_may_be_missing(key: str) -> None:
    held = live_object(cluster_policy("one"))
    del held["metadata"][key]
    assert actions(compared(desired(cluster_policy("one")), held).plan) == {"one": Action.UNCHANGED}


def test_another_version_than_the_stored_one_is_converted_on_either_side() -> None:
    old = {**validating_policy("one"), "apiVersion": "policies.kyverno.io/v1alpha1"}
    new = validating_policy("one")
    for wanted, held in ((old, new), (new, old)):
        prepared = compared(desired(wanted), live_object(held))
        assert actions(prepared.plan) == {"one": Action.UNCHANGED}
        assert not prepared.verdict.findings
        assert len(prepared.plan.notes) == 1
    changed = compared(desired(validating_policy("one", expression="true")), live_object(old))
    (change,) = changed.plan.changes
    assert [operation["path"] for operation in change.patch] == ["/spec/validations/0/expression"]
    assert change.before is not None
    assert change.before["apiVersion"] == "policies.kyverno.io/v1beta1"


def test_a_version_that_is_not_known_is_compared_as_written_and_noted_once() -> None:
    future = {**cluster_policy("one"), "apiVersion": "kyverno.io/v9"}
    for wanted, held in ((future, future), (future, cluster_policy("one")), (cluster_policy("one"), future)):
        prepared = compared(desired(wanted), live_object(held))
        assert not prepared.verdict.errors
        (note,) = prepared.plan.notes[1:]
        assert note.startswith("no schema of kyverno.io/v9 is to be had")
    same = compared(desired(future), live_object(future))
    assert actions(same.plan) == {"one": Action.UNCHANGED}


def test_a_field_that_no_version_knows_is_an_error_of_what_is_wanted_and_none_of_what_is_there() -> None:
    held = live_object(spec(validating_policy("one"), newer=True))
    prepared = compared(desired(validating_policy("one")), held)
    assert actions(prepared.plan) == {"one": Action.UPDATE}
    assert not prepared.verdict.findings


def test_a_field_that_the_saved_version_hides_is_told() -> None:
    wanted = cluster_policy("one")
    wanted["spec"]["rules"][0]["match"] = {"resources": {"kinds": ["Namespace"]}}
    held = live_object({**cluster_policy("one"), "apiVersion": "kyverno.io/v2beta1"})
    held["spec"]["rules"][0]["match"] = {}
    prepared = compared(desired(wanted), held)
    assert actions(prepared.plan) == {"one": Action.UPDATE}
    (note,) = prepared.plan.notes[1:]
    assert note.startswith(
        "ClusterPolicy/one was saved in kyverno.io/v2beta1, which lacks spec.rules[0].match.resources"
    )
    assert len(compared(desired(cluster_policy("one")), {**held, "apiVersion": "kyverno.io/v1"}).plan.notes) == 1


def test_one_object_read_in_two_versions_counts_once_in_the_stored_one() -> None:
    stored = live_object(spec(validating_policy("one"), failurePolicy="Ignore"))
    hidden = copy.deepcopy(stored)
    hidden["apiVersion"] = "policies.kyverno.io/v1alpha1"
    del hidden["spec"]["failurePolicy"]
    wanted = desired(spec(validating_policy("one"), failurePolicy="Ignore"))
    for held in ((stored, hidden), (hidden, stored), (stored, stored)):
        assert actions(compared(wanted, *held).plan) == {"one": Action.UNCHANGED}
    with pytest.raises(DocumentErrors, match="1 error") as caught:
        compared(wanted, stored, live_object(validating_policy("one")))
    assert "ValidatingPolicy/one" in str(caught.value)
    assert "is there twice" in str(caught.value)


@settings(max_examples=30)
@given(values)
def test_whatever_a_field_of_a_live_spec_is_it_is_compared(value: Json) -> None:
    for body in SET:
        wanted = desired(body)
        for field in body["spec"]:
            held = live_object(spec(body, **{field: value}))
            assert set(actions(compared(wanted, held).plan).values()) <= {Action.UPDATE, Action.UNCHANGED}
