"""Small policies of several kinds, as Insights would send them and as a server would hold them."""

from __future__ import annotations

import uuid
from typing import Any

from applier.ports import Live, Resource
from renderer.manifest import kinds, yamlio
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render

VERSIONS = {kinds.KYVERNO: "v1", kinds.POLICIES: "v1beta1", kinds.ADMISSION: "v1"}


def cluster_policy(name: str = "require-team", *, message: str = "Set the label team.", **metadata: Any) -> JsonObject:
    """A ClusterPolicy that every part of Kyverno accepts."""
    return {
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {"name": name, **metadata},
        "spec": {
            "validationFailureAction": "Audit",
            "background": True,
            "rules": [
                {
                    "name": "team",
                    "match": {"any": [{"resources": {"kinds": ["Namespace"]}}]},
                    "validate": {"message": message, "pattern": {"metadata": {"labels": {"team": "?*"}}}},
                }
            ],
        },
    }


def generating_rule(name: str = "defaults", *, selects: str = "team-*") -> JsonObject:
    """A ClusterPolicy that generates a ConfigMap in some new namespaces; Kyverno forbids to change which."""
    rule = {
        "name": "config",
        "match": {"any": [{"resources": {"kinds": ["Namespace"], "names": [selects]}}]},
        "generate": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "defaults",
            "namespace": "{{request.object.metadata.name}}",
            "synchronize": True,
            "data": {"data": {"tier": "one"}},
        },
    }
    return {**cluster_policy(name), "spec": {"rules": [rule]}}


def namespaced_policy(name: str = "require-team", *, message: str = "Set the label team.") -> JsonObject:
    """A Policy, which is a ClusterPolicy of one namespace."""
    body = cluster_policy(name, message=message, namespace="default")
    body["spec"]["rules"][0]["match"] = {"any": [{"resources": {"kinds": ["ConfigMap"]}}]}
    return {**body, "kind": "Policy"}


def validating_policy(name: str = "require-owner", *, expression: str = "has(object.metadata.labels)") -> JsonObject:
    """A ValidatingPolicy, in the version that the cluster stores."""
    return {
        "apiVersion": "policies.kyverno.io/v1beta1",
        "kind": "ValidatingPolicy",
        "metadata": {"name": name},
        "spec": {
            "validationActions": ["Audit"],
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
                ]
            },
            "validations": [{"expression": expression, "message": "It needs labels."}],
        },
    }


def admission_policy(name: str = "no-bare-pods") -> JsonObject:
    """A ValidatingAdmissionPolicy, whose defaults no schema shows."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "validations": [{"expression": "has(object.metadata.ownerReferences)"}],
        },
    }


def admission_binding(name: str = "no-bare-pods", *, policy: str = "no-bare-pods") -> JsonObject:
    """Its binding, which warns only."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": policy, "validationActions": ["Warn"]},
    }


def exception(name: str = "legacy", *, namespace: str = "default") -> JsonObject:
    """A PolicyException of the CEL kinds."""
    return {
        "apiVersion": "policies.kyverno.io/v1beta1",
        "kind": "PolicyException",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"policyRefs": [{"name": "require-owner", "kind": "ValidatingPolicy"}]},
    }


def context(name: str = "namespaces") -> JsonObject:
    """A GlobalContextEntry, which policies read."""
    return {
        "apiVersion": "kyverno.io/v2beta1",
        "kind": "GlobalContextEntry",
        "metadata": {"name": name},
        "spec": {"kubernetesResource": {"version": "v1", "resource": "namespaces"}},
    }


def answer(*bodies: JsonObject) -> str:
    """These policies as one answer of Insights."""
    return "---\n".join(yamlio.dump(body) for body in bodies)


def desired(*bodies: JsonObject) -> PolicySet:
    """These policies as the renderer makes them of such an answer."""
    return render([Source(name="Insights", data=answer(*bodies).encode())])


def identity_of(body: JsonObject) -> Identity:
    """The identity of one policy."""
    (policy,) = desired(body)
    return policy.identity


def live_object(body: JsonObject, *, owned: bool = True, **metadata: Any) -> JsonObject:
    """The object as a server would hold it."""
    (policy,) = desired(body)
    held = policy.body if owned else body
    server = {
        "uid": str(uuid.uuid4()),
        "resourceVersion": "7",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {**held, "metadata": {**held["metadata"], **server, **metadata}, "status": {"ready": True}}


def live(*objects: JsonObject, unreadable: dict[Kind, str] | None = None, missing: tuple[Kind, ...] = ()) -> Live:
    """A cluster that holds these objects and serves every kind but the `missing` ones."""
    resources = {
        kind: Resource(kind=kind, version=VERSIONS[kind.group], served=(VERSIONS[kind.group],))
        for kind in kinds.KINDS
        if kind not in missing
    }
    held = {}
    for body in objects:
        kind = kinds.find(body["apiVersion"].rpartition("/")[0], body["kind"])
        assert kind is not None
        identity = Identity(kind=kind, namespace=body["metadata"].get("namespace", ""), name=body["metadata"]["name"])
        held[identity] = body
    return Live(resources=resources, objects=held, unreadable=unreadable or {})
