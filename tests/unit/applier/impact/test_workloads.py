"""What of a resource is evaluated, which Pods are alike, and what Kyverno's settings exclude."""

from __future__ import annotations

import json
from typing import Any

import pytest

from applier.impact.exclusions import Exclusions
from applier.impact.model import Resource
from applier.impact.workloads import Crowd
from renderer.manifest.jsontypes import JsonObject


def pod(name: str, *, image: str = "a:1", owner: str = "rs", **metadata: Any) -> JsonObject:
    owners = [{"uid": owner, "controller": True}] if owner else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "ownerReferences": owners, "managedFields": [{}], **metadata},
        "spec": {
            "nodeName": f"node-of-{name}",
            "containers": [{"image": image, "volumeMounts": [{"name": f"kube-api-access-{name:0>5}"}]}],
        },
        "status": {"phase": "Running"},
    }


def test_pods_of_one_owner_are_evaluated_once_and_counted() -> None:
    crowd = Crowd()
    first, *others = crowd.take(
        [pod("a"), pod("b"), pod("c", image="b:1"), pod("d", owner="other"), pod("e", owner="")]
    )
    (late,) = crowd.take([pod("f", labels={"x": "y"}), pod("g")])
    assert [one.body["metadata"]["name"] for one in (first, *others, late)] == ["a", "c", "d", "e", "f"]
    assert first.resource(crowd.alike(first.key)) == Resource(
        kind="Pod", namespace="shop", name="a", api_version="v1", alike=2
    )
    assert [crowd.alike(one.key) for one in (*others, late)] == [0, 0, 0, 0]
    assert crowd.count == 7


def test_a_resource_is_evaluated_as_it_would_be_sent() -> None:
    (one,) = Crowd().take([pod("a", uid="u", resourceVersion="1", labels={"x": "y"})])
    assert one.body.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert one.body["metadata"].keys() == {"name", "namespace", "ownerReferences", "labels", "uid"}
    assert one.body["metadata"]["uid"] == one.uid


def test_what_runs_no_more_is_counted_only() -> None:
    ended = {**pod("a"), "status": {"phase": "Succeeded"}}
    replaced = {**pod("b"), "apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"replicas": 0}}
    scaled_down = {**replaced, "metadata": {"name": "c", "namespace": "shop"}}
    crowd = Crowd()
    assert [one.body["metadata"]["name"] for one in crowd.take([ended, replaced, scaled_down])] == ["c"]
    assert (crowd.count, crowd.over) == (1, 2)


SETTINGS = Exclusions.of(
    {
        "data": {
            "resourceFilters": "[*/*,kyverno,*] [Event,*,*]\n[Pod/binding,*,*] [ClusterRole,*,kyverno:*] [Node]",
            "webhooks": json.dumps(
                {
                    "namespaceSelector": {
                        "matchExpressions": [
                            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}
                        ]
                    }
                }
            ),
        }
    }
)


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "excluded"),
    [
        ("Pod", "kyverno", "a", True),
        ("Pod", "shop", "a", False),
        ("Event", "shop", "a", True),
        ("Node", "", "a", True),
        ("ClusterRole", "", "kyverno:x", True),
        ("ClusterRole", "", "view", False),
        ("Namespace", "", "kyverno", True),
        ("Namespace", "", "shop", False),
        ("Pod", "kube-system", "a", True),
    ],
)
def test_kyvernos_settings_exclude(kind: str, namespace: str, name: str, excluded: bool) -> None:
    labels = {"kubernetes.io/metadata.name": namespace or name}
    assert SETTINGS.leave_out(Resource(kind=kind, namespace=namespace, name=name), labels) is excluded


def test_kinds_that_are_excluded_altogether_need_not_be_listed() -> None:
    assert [kind for kind in ("Event", "Node", "Pod", "ClusterRole") if SETTINGS.leave_out_kind(kind)] == [
        "Event",
        "Node",
    ]


@pytest.mark.parametrize("data", [None, {}, {"webhooks": "no JSON"}, {"webhooks": "[]", "resourceFilters": "[]"}])
def test_settings_that_say_nothing_exclude_nothing(data: Any) -> None:
    assert not Exclusions.of({"data": data}).leave_out(Resource(kind="Pod", namespace="shop", name="a"), {})
