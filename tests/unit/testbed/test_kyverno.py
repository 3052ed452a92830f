"""Taking Kyverno's release manifest apart."""

from __future__ import annotations

from ci.testbed import kyverno

_MANIFEST = """\
# a comment before all
---
apiVersion: v1
kind: Namespace
metadata: {name: kyverno}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kyverno-admission-controller}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: x}
spec: {names: {kind: X}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kyverno}
data:
  kind: Deployment
"""


def test_neither_crds_nor_deployments_are_installed() -> None:
    assert [document["kind"] for document in kyverno.installation(_MANIFEST)] == ["Namespace", "ConfigMap"]
