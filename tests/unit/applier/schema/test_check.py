"""What schemas have against policies, case by case; tests/e2e/test_schema.py holds it against a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from applier import offline_schemas
from applier.offline_schemas import SchemaSet
from applier.ports import Resource
from applier.schema import check
from applier.schema.json_schema import is_duration, json_schema
from applier.verdict import Layer, Verdict
from renderer.manifest import kinds, yamlio
from renderer.manifest.document import Policy, parse
from renderer.manifest.jsontypes import Json, JsonObject
from tests.support.policies import admission_policy, cluster_policy, validating_policy

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
EITHER = {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {}}}
KIND = next(kind for kind in kinds.KINDS if kind.name == "ClusterPolicy")


def checked(field_schema: JsonObject, value: Json, *, stored: JsonObject | None = None) -> Verdict:
    """A policy whose field `f` holds that value, by a schema of that field (and the one of the stored version)."""
    documents = {
        f"kyverno.io/{version}": {"kinds": {"ClusterPolicy": root(schema)}, "types": TYPES}
        for version, schema in (("v1", stored or field_schema), ("v2beta1", field_schema))
    }
    version = "v2beta1" if stored else "v1"
    body = {"apiVersion": f"kyverno.io/{version}", "kind": "ClusterPolicy", "metadata": {"name": "p"}, "f": value}
    resource = Resource(kind=KIND, version="v1", served=("v1", "v2beta1"))
    return check.check([policy_of(body)], {KIND: resource}, documents)


def root(field_schema: JsonObject) -> JsonObject:
    metadata = {"type": "object", "additionalProperties": STRING}
    return {
        "type": "object",
        "properties": {"apiVersion": STRING, "kind": STRING, "metadata": metadata, "f": field_schema},
    }


TYPES = {"Ref": {"type": "object", "required": ["key"], "properties": {"key": STRING, "names": {"type": "array"}}}}


def policy_of(body: JsonObject) -> Policy:
    (document,) = yamlio.load(yamlio.dump(body).encode(), source="p.yaml")
    policy, problems = parse(document)
    assert policy is not None, problems
    return policy


def said(verdict: Verdict) -> list[str]:
    assert {finding.layer for finding in verdict.findings} <= {Layer.SCHEMA}
    return [f"{finding.problem.field}: {finding.problem.message}" for finding in verdict.findings]


LIST_MAP = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {"type": "object", "properties": {"name": STRING}},
}


@pytest.mark.parametrize(
    ("field_schema", "value", "message"),
    [
        pytest.param(STRING, 1, "f: is a number, not text: put it in quotes", id="number-for-text"),
        pytest.param(STRING, True, "f: is a boolean, not text: put it in quotes", id="boolean-for-text"),
        pytest.param(STRING, {}, "f: is a map, not text", id="map-for-text"),
        pytest.param(INTEGER, "5", "f: is text, not a whole number: take the quotes away", id="quoted-number"),
        pytest.param(INTEGER, "five", "f: is text, not a whole number", id="text-for-number"),
        pytest.param(INTEGER, 1.5, "f: is a number, not a whole number", id="fraction"),
        pytest.param({"type": "boolean"}, "true", "f: is text, not true or false: take the quotes away", id="bool"),
        pytest.param({"type": "array", "items": STRING}, "a", "f: is text, not a list", id="text-for-list"),
        pytest.param({"type": "array", "items": STRING}, [None], "f[0]: is empty, not text", id="null-in-a-list"),
        pytest.param({"type": "array", "items": INTEGER}, [1, "x"], "f[1]: is text, not a whole number", id="item"),
        pytest.param(
            {"x-kubernetes-int-or-string": True}, [], "f: is a list, not a whole number or text", id="int-or-string"
        ),
        pytest.param(
            {"type": "object", "additionalProperties": INTEGER},
            {"a": "x"},
            "f.a: is text, not a whole number",
            id="map",
        ),
        pytest.param({"type": "object", "required": ["a"]}, {}, "f.a: is missing", id="required"),
        pytest.param(
            {**STRING, "enum": ["Audit", "Enforce"]},
            "enforced",
            'f: is "enforced", not Audit or Enforce; did you mean Enforce?',
            id="enum",
        ),
        pytest.param({**STRING, "enum": ["A"]}, "zzz", 'f: is "zzz", not A', id="enum-far"),
        pytest.param(
            {**STRING, "pattern": "^[a-z]+$"}, "A", 'f: is "A", which does not match the pattern ^[a-z]+$', id="pattern"
        ),
        pytest.param({**INTEGER, "minimum": 1}, 0, "f: is 0; it must be at least 1", id="minimum"),
        pytest.param({**INTEGER, "maximum": 5}, 6, "f: is 6; it must be at most 5", id="maximum"),
        pytest.param(
            {**INTEGER, "minimum": 1, "exclusiveMinimum": True}, 1, "f: is 1; it must be more than 1", id="exclusive"
        ),
        pytest.param(
            {**INTEGER, "format": "int32"}, 2**31, f"f: is {2**31}; it must be at most {2**31 - 1}", id="int32"
        ),
        pytest.param({**STRING, "maxLength": 2}, "abc", "f: has 3 characters; it must have at most 2", id="long"),
        pytest.param({**STRING, "minLength": 1}, "", "f: has 0 characters; it must have at least 1", id="short"),
        pytest.param({"type": "array", "minItems": 1}, [], "f: has 0 items; it must have at least 1", id="no-items"),
        pytest.param(
            {"type": "object", "maxProperties": 1, "additionalProperties": True},
            {"a": 1, "b": 2},
            "f: has 2 fields; it must have at most 1",
            id="fields",
        ),
        pytest.param(
            {**STRING, "format": "duration"},
            "soon",
            'f: is "soon", which is no duration (such as 30s, 10m or 1h30m)',
            id="duration",
        ),
        pytest.param(
            {"type": "array", "x-kubernetes-list-type": "set", "items": STRING},
            ["a", "a"],
            "f: holds the same item twice",
            id="set",
        ),
        pytest.param(
            LIST_MAP,
            [{"name": "a"}, {"name": "b"}, {"name": "a"}],
            "f[2]: has the same name as an item before it",
            id="list-map",
        ),
        pytest.param(EITHER, {}, "f: needs exactly one of a, b, and has none of them", id="none-of"),
        pytest.param(EITHER, {"a": 1, "b": 2}, "f: needs exactly one of a, b, and has a and b", id="both-of"),
        pytest.param(
            {"type": "object", "not": {"required": ["a", "b"]}, "properties": {"a": {}, "b": {}}},
            {"a": 1, "b": 2},
            "f: has a and b, which exclude each other",
            id="excluding",
        ),
        pytest.param(
            {"type": "object", "properties": {"message": STRING, "b": {}}},
            {"mesage": "x"},
            "f.mesage: is not a known field; did you mean message?",
            id="typo",
        ),
        pytest.param(
            {"type": "object", "properties": {"in": {"type": "array", "items": {"properties": {"deep": STRING}}}}},
            {"deep": "x"},
            "f.deep: is not a known field here; its place is f.in[].deep",
            id="misplaced",
        ),
        pytest.param(
            {"type": "object", "properties": {"b": {}, "a": {}}},
            {"zzzz": 1},
            "f.zzzz: is not a known field; known here: a, b",
            id="unknown",
        ),
        pytest.param({"allOf": [{"$ref": "#/components/schemas/Ref"}]}, {}, "f.key: is missing", id="reference"),
        pytest.param(
            {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
            {"apiVersion": "v1"},
            "f.kind: is missing",
            id="embedded",
        ),
    ],
)
def test_a_mistake_is_named_once_with_its_field(field_schema: JsonObject, value: Json, message: str) -> None:
    assert said(checked(field_schema, value)) == [message]


@pytest.mark.parametrize(
    ("field_schema", "value"),
    [
        pytest.param({**STRING, "nullable": True}, None, id="nullable"),
        pytest.param({**EITHER, "nullable": True}, None, id="nullable-joined"),
        pytest.param({"type": "array", "items": {**STRING, "nullable": True}}, [None], id="nullable-item"),
        pytest.param(STRING, None, id="null-is-dropped"),
        pytest.param({"type": "object", "required": ["a"], "properties": {"a": {"default": "x"}}}, {}, id="defaulted"),
        pytest.param({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"a": {"b": 1}}, id="preserved"),
        pytest.param({"x-kubernetes-preserve-unknown-fields": True}, [1, "a", None], id="anything"),
        pytest.param({"type": "object", "additionalProperties": True}, {"a": 1}, id="a-map-of-anything"),
        pytest.param({"x-kubernetes-int-or-string": True}, 5, id="an-int"),
        pytest.param({"x-kubernetes-int-or-string": True}, "5%", id="a-string"),
        pytest.param({**STRING, "format": "hostname"}, "not a host!", id="formats-left-to-the-server"),
        pytest.param({"type": "number"}, 1, id="a-whole-number-is-a-number"),
        pytest.param(LIST_MAP, [{}, {"name": "a"}], id="list-map-without-key"),
        pytest.param(
            {"allOf": [{"$ref": "#/components/schemas/Ref"}]}, {"key": "a", "names": ["b", "b"]}, id="a-go-type"
        ),
    ],
)
def test_what_the_server_takes_is_no_mistake(field_schema: JsonObject, value: Json) -> None:
    assert checked(field_schema, value) == Verdict()


def test_of_a_value_of_the_wrong_type_nothing_else_is_said() -> None:
    assert said(checked(EITHER, "text")) == ["f: is text, not a map"]


def test_values_are_cut_and_maps_are_not_shown() -> None:
    (message,) = said(checked({**STRING, "enum": ["a"]}, "x" * 500))
    assert len(message) < 120
    (message,) = said(checked({"anyOf": [STRING, INTEGER], "additionalProperties": True}, {"secret": "s3cret"}))
    assert "s3cret" not in message


def test_the_stored_version_may_say_no_where_the_documents_own_does_not() -> None:
    strict = {**STRING, "enum": ["a"]}
    (message,) = said(checked(STRING, "b", stored=strict))
    assert message == 'f: is "b", not a (in kyverno.io/v1, which the cluster stores)'
    assert said(checked(strict, "b", stored=strict)) == ['f: is "b", not a']


def test_a_schema_that_cannot_be_used_judges_nobody() -> None:
    verdict = checked({**STRING, "pattern": "(?=a"}, "a")
    assert verdict.findings == ()
    ((identity, reason),) = verdict.unjudged
    assert str(identity) == "ClusterPolicy/p"
    assert reason.startswith("its schema can't be used")


def test_all_mistakes_come_in_one_pass_in_the_order_of_lines() -> None:
    schemas = offline_schemas.load()
    bad = cluster_policy()
    bad["spec"] |= {"backgroud": True, "validationFailureAction": "enforced", "webhookTimeoutSeconds": "10"}
    bad["spec"]["rules"].append({"match": {"any": []}})
    verdict = check.check([policy_of(bad)], schemas.resources, schemas.documents)
    lines = [finding.problem.line for finding in verdict.findings]
    assert lines == sorted(lines)
    assert min(lines) > 0
    assert {finding.problem.field for finding in verdict.findings} == {
        "spec.backgroud",
        "spec.rules[1].name",
        "spec.validationFailureAction",
        "spec.webhookTimeoutSeconds",
    }


@pytest.mark.parametrize("body", [cluster_policy(), validating_policy(), admission_policy()])
def test_good_policies_have_no_mistakes(body: JsonObject, shipped: SchemaSet) -> None:
    assert check.check([policy_of(body)], shipped.resources, shipped.documents) == Verdict()


@pytest.fixture(scope="module")
def shipped() -> SchemaSet:
    return offline_schemas.load()


@pytest.mark.parametrize("value", ["0", "-0", "1h", "1.5h", "1h30m", "-2m", "10ns", "3 days", "5 Min", "1µs", "PT1H"])
def test_durations(value: str) -> None:
    assert is_duration(value)


@pytest.mark.parametrize("value", ["", "5", "soon", "h", "1x", "1 fortnight"])
def test_no_durations(value: str) -> None:
    assert not is_duration(value)


def test_names_of_fields_are_no_keywords() -> None:
    odd: dict[str, Any] = dict.fromkeys(("properties", "type", "$ref", "enum", "not", "format"), STRING)
    made = json_schema({"type": "object", "properties": odd}, {})
    assert made["properties"] == odd
