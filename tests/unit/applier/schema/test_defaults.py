"""Structural defaults, case by case; tests/e2e/test_schema.py holds them against a real API server."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from applier.ports import Resource
from applier.schema import defaults
from applier.schema.defaults import Schema, trimmed
from applier.verdict import Layer
from renderer.manifest import kinds, yamlio
from renderer.manifest.document import Policy, parse
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import digest
from tests.support.policies import cluster_policy, desired

STRING = {"type": "string"}
ENABLED = {"type": "object", "properties": {"on": {"type": "boolean", "default": True}}}
OPEN = {"x-kubernetes-preserve-unknown-fields": True}
TYPES = {
    "io.k8s.api.admissionregistration.v1.MatchResources": {
        "type": "object",
        "properties": {
            "matchPolicy": STRING,
            "namespaceSelector": {"allOf": [{"$ref": "#/components/schemas/Selector"}]},
            "objectSelector": {"allOf": [{"$ref": "#/components/schemas/Selector"}]},
        },
    },
    "Selector": {
        "type": "object",
        "properties": {
            "labels": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
            "names": {"type": "array", "items": {"type": "string", "default": ""}},
            "hint": STRING,
            "key": {"type": "string", "default": ""},
            "inner": {"allOf": [{"$ref": "#/components/schemas/Selector"}]},
            "flag": {"type": "boolean"},
        },
        "required": ["key"],
    },
}
REFERENCE = {"allOf": [{"$ref": "#/components/schemas/Selector"}]}


def field(field_schema: JsonObject) -> Schema:
    return Schema({"type": "object", "properties": {"f": field_schema}}, TYPES)


@pytest.mark.parametrize(
    ("field_schema", "given", "expected"),
    [
        pytest.param({**STRING, "default": "x"}, {}, {"f": "x"}, id="missing"),
        pytest.param({**STRING, "default": "x"}, {"f": ""}, {"f": ""}, id="empty-is-not-missing"),
        pytest.param({"type": "boolean", "default": False}, {}, {"f": False}, id="false-is-a-default"),
        pytest.param({"type": "integer", "default": 0}, {}, {"f": 0}, id="zero-is-a-default"),
        pytest.param({**STRING, "default": None}, {}, {}, id="null-is-no-default"),
        pytest.param({"x-kubernetes-int-or-string": True, "default": "5%"}, {}, {"f": "5%"}, id="int-or-string"),
        pytest.param({"x-kubernetes-int-or-string": True, "default": "5%"}, {"f": 5}, {"f": 5}, id="an-int-stays"),
        pytest.param(ENABLED, {}, {}, id="no-parent-no-default"),
        pytest.param(ENABLED, {"f": {}}, {"f": {"on": True}}, id="parent"),
        pytest.param({**ENABLED, "default": {}}, {}, {"f": {"on": True}}, id="a-default-gets-defaults"),
        pytest.param({**ENABLED, "default": {"on": False}}, {}, {"f": {"on": False}}, id="a-default-says-more"),
        pytest.param({**ENABLED, "default": {"on": False}}, {"f": {}}, {"f": {"on": True}}, id="only-if-missing"),
        pytest.param({"items": ENABLED}, {"f": [{}, {"on": False}]}, {"f": [{"on": True}, {"on": False}]}, id="list"),
        pytest.param({"items": {"items": ENABLED}}, {"f": [[{}], []]}, {"f": [[{"on": True}], []]}, id="list-of-lists"),
        pytest.param({"additionalProperties": ENABLED}, {"f": {"a": {}}}, {"f": {"a": {"on": True}}}, id="map"),
        pytest.param({"additionalProperties": True}, {"f": {"a": None}}, {"f": {"a": None}}, id="a-map-of-anything"),
        pytest.param(STRING, {"f": None}, {}, id="null-is-dropped"),
        pytest.param({**STRING, "default": "x"}, {"f": None}, {"f": "x"}, id="null-gets-the-default"),
        pytest.param({**STRING, "nullable": True}, {"f": None}, {"f": None}, id="nullable"),
        pytest.param({**STRING, "nullable": True, "default": "x"}, {"f": None}, {"f": None}, id="nullable-default"),
        pytest.param({**ENABLED, "default": {}}, {"f": None}, {"f": {"on": True}}, id="null-for-an-object"),
        pytest.param({"items": STRING}, {"f": [None]}, {"f": [None]}, id="null-in-a-list-stays"),
        pytest.param({"items": {**STRING, "default": "x"}}, {"f": [None]}, {"f": ["x"]}, id="null-in-a-list-default"),
        pytest.param({"additionalProperties": STRING}, {"f": {"a": None}}, {"f": {}}, id="null-in-a-map"),
        pytest.param(OPEN, {"f": {"a": None, "b": {}}}, {"f": {"a": None, "b": {}}}, id="preserved-as-written"),
        pytest.param({**OPEN, **ENABLED}, {"f": {"a": None}}, {"f": {"a": None, "on": True}}, id="preserved-and-known"),
        pytest.param(ENABLED, {"f": {"unknown": None}}, {"f": {"unknown": None, "on": True}}, id="unknown-is-not-ours"),
        pytest.param(ENABLED, {"f": "text"}, {"f": "text"}, id="another-type-is-not-ours"),
        pytest.param(STRING, {"f": []}, {"f": []}, id="empty-stays-in-a-crd"),
        pytest.param({**STRING, "anyOf": [{"default": "y"}]}, {}, {}, id="a-junctor-has-no-default"),
        pytest.param({**STRING, "allOf": [{"default": "y"}]}, {}, {}, id="an-allof-without-reference-has-none"),
    ],
)
def test_a_crds_fields(field_schema: JsonObject, given: JsonObject, expected: JsonObject) -> None:
    before = copy.deepcopy(given)
    assert field(field_schema).default(given) == expected
    assert given == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"hint": "", "names": [], "labels": {}}, {}),
        ({"hint": "h", "names": [""], "labels": {"a": ""}}, {"hint": "h", "names": [""], "labels": {"a": ""}}),
        ({"hint": None, "names": None, "labels": None, "inner": None}, {}),
        ({"names": [None], "labels": {"a": None}}, {"names": [""], "labels": {"a": ""}}),
        ({"key": ""}, {}),
        ({"inner": {}}, {"inner": {"key": ""}}),
        ({"flag": False}, {"flag": False}),
    ],
)
def test_what_go_leaves_out(given: JsonObject, expected: JsonObject) -> None:
    assert field(REFERENCE).default({"f": given}) == {"f": {"key": "", **expected}}


def test_a_reference_keeps_what_stands_beside_it() -> None:
    assert field({**REFERENCE, "default": {"hint": "h"}}).default({}) == {"f": {"hint": "h", "key": ""}}
    assert field({"$ref": "#/components/schemas/Selector"}).default({"f": {}}) == {"f": {"key": ""}}


def test_defaults_of_the_servers_code() -> None:
    match = field({"$ref": "#/components/schemas/io.k8s.api.admissionregistration.v1.MatchResources"})
    selector = {"key": ""}
    assert match.default({"f": {"matchPolicy": "Exact", "objectSelector": {"hint": "h"}}}) == {
        "f": {"matchPolicy": "Exact", "namespaceSelector": selector, "objectSelector": {"hint": "h", "key": ""}}
    }
    assert match.default({}) == {}


def test_defaults_are_copied() -> None:
    one = field({"type": "object", "default": {"a": {"b": []}}, "properties": {"a": OPEN}})
    one.default({})["f"]["new"] = 1
    assert one.default({}) == {"f": {"a": {"b": []}}}


@pytest.mark.parametrize(
    ("field_schema", "value", "unknown"),
    [
        (ENABLED, {"on": True, "off": 1}, ["off"]),
        ({"items": ENABLED}, [{}, {"off": 1}], [1, "off"]),
        ({"additionalProperties": ENABLED}, {"a": {"off": 1}}, ["a", "off"]),
        ({"additionalProperties": True}, {"a": {"off": 1}}, None),
        (OPEN, {"a": 1}, None),
        ({**OPEN, "properties": {"known": ENABLED}}, {"known": {"off": 1}, "a": 1}, ["known", "off"]),
        ({**ENABLED, "x-kubernetes-embedded-resource": True}, {"kind": "K", "metadata": {}}, None),
    ],
)
def test_unknown_fields(field_schema: JsonObject, value: Any, unknown: list[str | int] | None) -> None:
    known, found = field(field_schema).prune({"f": value})
    assert found == (() if unknown is None else (("f", *unknown),))
    assert field(field_schema).prune(known) == (known, ())


def published(version: str, spec: JsonObject) -> JsonObject:
    """An OpenAPI document as the server publishes it, with one kind whose spec is this."""
    root = {
        "description": "A policy.",
        "type": "object",
        "properties": {
            "apiVersion": STRING,
            "kind": STRING,
            "metadata": {"allOf": [{"$ref": "#/components/schemas/Meta"}]},
            "spec": {"type": "object", "properties": spec},
            "status": {"type": "object", "default": {"ready": False}},
        },
        "x-kubernetes-group-version-kind": [{"group": kinds.KYVERNO, "version": version, "kind": "ClusterPolicy"}],
    }
    open_map = {"type": "object", "additionalProperties": {**STRING, "default": ""}}
    meta = {"type": "object", "properties": {"name": STRING, "labels": open_map, "annotations": open_map}}
    return {
        "openapi": "3.0.0",
        "paths": {},
        "components": {"schemas": {"Root": root, "Meta": meta, "Unused": STRING}},
    }


def test_trimming_keeps_fields_and_drops_texts() -> None:
    spec = {
        "description": {"type": "string", "description": "A field of that name.", "default": "d"},
        "properties": {"type": "object", "description": "Another.", "properties": {"example": ENABLED}},
        "default": {**OPEN, "default": {"description": "kept"}},
    }
    document = trimmed(published("v1", spec))
    assert document is not None
    assert document["types"].keys() == {"Meta"}
    fields = document["kinds"]["ClusterPolicy"]["properties"]
    assert "status" not in fields
    assert fields["spec"]["properties"] == {
        "description": {"type": "string", "default": "d"},
        "properties": {"type": "object", "properties": {"example": ENABLED}},
        "default": {**OPEN, "default": {"description": "kept"}},
    }
    # What older runs kept in the cache must not be read in another form: change defaults.FORM with this digest.
    assert (defaults.FORM, digest(json.loads(json.dumps(document)))[:12]) == ("1", "1cde13e93973")


@pytest.mark.parametrize("document", [None, [], {}, {"components": None}, {"components": {"schemas": {"A": 1}}}])
def test_what_is_no_openapi_is_no_schema(document: Any) -> None:
    assert trimmed(document) is None


SPEC_V1 = {"background": {"type": "boolean", "default": True}, "rules": {"items": OPEN}}
SPEC_OLD = {"rules": {"items": OPEN}, "old": {"type": "integer", "default": 1}, "gone": STRING}
DOCUMENTS = {
    "kyverno.io/v1": trimmed(published("v1", SPEC_V1)) or {},
    "kyverno.io/v2beta1": trimmed(published("v2beta1", SPEC_OLD)) or {},
}
(KIND,) = (kind for kind in kinds.KINDS if kind.name == "ClusterPolicy")
RESOURCES = {KIND: Resource(kind=KIND, version="v1", served=("v1", "v2beta1"))}
OLD = """\
apiVersion: kyverno.io/v2beta1
kind: ClusterPolicy
metadata:
  name: old
spec:
  rules: []
"""


def policy(text: str) -> Policy:
    documents, problems = yamlio.load_documents(text.encode(), source="old.yaml")
    found, mistakes = parse(documents[0])
    assert found is not None
    assert not problems + mistakes
    return found


def test_another_version_is_defaulted_by_its_own_schema_and_then_by_the_stored_one() -> None:
    old = policy(OLD)
    assert defaults.needed([old], RESOURCES) == DOCUMENTS.keys()
    result = defaults.default([old], RESOURCES, DOCUMENTS)
    assert result.bodies[old.identity]["apiVersion"] == "kyverno.io/v1"
    assert result.bodies[old.identity]["spec"] == {"rules": [], "background": True}  # `old` is not kept: no mistake
    assert result.verdict.errors == ()
    assert result.notes == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  gone: x\n", "spec.gone: would be lost: the cluster stores kyverno.io/v1, which has no such field"),
        ("  wrong: x\n", "spec.wrong: is not a known field; known here: gone, old, rules"),
        (
            "  background: true\n",
            (
                "spec.background: is no field of kyverno.io/v2beta1, but one of kyverno.io/v1: "
                "write the policy in that version"
            ),
        ),
    ],
)
def test_fields_that_one_of_the_two_versions_lacks_are_errors(line: str, message: str) -> None:
    (finding,) = defaults.default([policy(OLD + line)], RESOURCES, DOCUMENTS).verdict.errors
    assert finding.layer is Layer.SCHEMA
    assert str(finding.problem) == f"old.yaml:7 (document 1): ClusterPolicy/old {message}"


def test_a_version_that_is_not_served_is_an_error_that_names_those_that_are() -> None:
    unserved = policy(OLD.replace("v2beta1", "v9"))
    assert defaults.needed([unserved], RESOURCES) == frozenset()
    (finding,) = defaults.default([unserved], RESOURCES, DOCUMENTS).verdict.errors
    assert str(finding.problem) == (
        "old.yaml:1 (document 1): ClusterPolicy/old apiVersion: kyverno.io/v9 is not a version that this cluster "
        "serves; it serves kyverno.io/v1, kyverno.io/v2beta1"
    )


@pytest.mark.parametrize("missing", sorted(DOCUMENTS))
def test_without_a_schema_the_policy_is_left_to_a_dry_run_and_a_note_says_so(missing: str) -> None:
    documents = {version: document for version, document in DOCUMENTS.items() if version != missing}
    result = defaults.default([policy(OLD)], RESOURCES, documents)
    assert result.bodies == {}
    assert result.notes == (
        f"no schema of {missing} is to be had; without a dry run its policies are compared as written",
    )


def test_a_kind_that_the_cluster_does_not_serve_is_somebody_elses_finding() -> None:
    wanted = desired(cluster_policy())
    assert defaults.needed(wanted, {}) == frozenset()
    assert defaults.default(wanted, {}, {}) == defaults.default([], RESOURCES, {})
