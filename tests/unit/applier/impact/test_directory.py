"""Manifests in a directory, whatever people or machines left there: each is read, passed over or named as wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from applier.impact.directory import Manifests
from applier.impact.workloads import Crowd
from renderer.errors import DocumentErrors
from renderer.manifest.jsontypes import JsonObject


def looked_at(directory: Path, *bodies: Any) -> list[str]:
    """Everything that an impact asks of the manifests, by the names that reports show."""
    (directory / "a.yaml").write_text("\n---\n".join(map(json.dumps, bodies)))
    found = Manifests(directory)
    found.namespaces()
    crowds = [(Crowd(), found.pages(kind)) for kind in found.kinds()]
    return [
        one.resource(crowd.alike(one.key)).full_name
        for crowd, pages in crowds
        for page in pages
        for one in crowd.take(page)
    ]


def pod(**metadata: Any) -> JsonObject:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", **metadata}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (pod(name=["a"]), "metadata.name"),
        (pod(namespace=5), "metadata.namespace"),
        (pod(labels=["a"]), "metadata.labels"),
        (pod(labels={"a": 1}), "metadata.labels.a"),
        (pod(annotations={"a": None}), "metadata.annotations.a"),
        (pod(ownerReferences={"a": "b"}), "metadata.ownerReferences"),
        (pod(ownerReferences=[{}, "b"]), "metadata.ownerReferences[1]"),
        ({**pod(), "status": "Failed"}, "status"),
        ({**pod(), "kind": "ReplicaSet", "spec": [1]}, "spec"),
        ({"apiVersion": "v1", "kind": "List", "items": [pod(), pod(name=1)]}, "items[1].metadata.name"),
    ],
)
def test_what_no_server_would_take_is_named_by_its_field(tmp_path: Path, body: JsonObject, field: str) -> None:
    with pytest.raises(DocumentErrors) as caught:
        looked_at(tmp_path, pod(), body)
    (problem,) = caught.value.problems
    assert (problem.document, problem.field) == (2, field)


def test_what_is_no_object_of_kubernetes_is_passed_over(tmp_path: Path) -> None:
    assert looked_at(tmp_path, pod(), {"replicas": 3}, [pod(name="b")], "text", None, {**pod(), "metadata": "c"}) == [
        "Pod/a"
    ]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "controller", "uid", "phase", "replicas"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["Pod", "ReplicaSet", "Namespace", "PodList", ""]),
    st.dictionaries(
        st.sampled_from(["name", "generateName", "namespace", "labels", "annotations", "ownerReferences"]), _JSON
    ),
    st.dictionaries(st.sampled_from(["spec", "status", "items"]), _JSON),
)
def test_whatever_a_manifest_holds_is_read_or_named(
    tmp_path: Path, kind: str, metadata: dict[str, Any], others: dict[str, Any]
) -> None:
    body = {"apiVersion": "v1", "kind": kind, "metadata": metadata, **others}
    named = True
    try:
        looked_at(tmp_path, body)
    except DocumentErrors as error:
        named = all(problem.field for problem in error.problems)
    assert named
