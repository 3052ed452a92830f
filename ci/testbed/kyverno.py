"""Kyverno's own source as the test bed uses it: its CRDs and its release manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from ci.testbed.api import Api, message
from renderer.errors import RemoteError
from renderer.manifest.jsontypes import JsonObject

ACCOUNT: Final = "kyverno-admission-controller"
NAMESPACE: Final = "kyverno"
_CRD_DIRECTORIES: Final = ("kyverno", "policies.kyverno.io", "policyreport", "reports")
#: What the controller must be allowed before it starts, or it gives up. Its role is filled by aggregation.
_NEEDED_RIGHTS: Final = (
    ("get", "apiextensions.k8s.io", "customresourcedefinitions"),
    ("create", "admissionregistration.k8s.io", "validatingwebhookconfigurations"),
)
_NOT_INSTALLED: Final = {"CustomResourceDefinition", "Deployment"}
_DENIED: Final = 'webhook "validate-policy.kyverno.svc" denied'
#: Only the admission controller's webhook finds fault with this: the CRD's schema allows it.
_BROKEN_POLICY: Final[JsonObject] = {
    "apiVersion": "kyverno.io/v1",
    "kind": "ClusterPolicy",
    "metadata": {"name": "probe-two-rule-types"},
    "spec": {
        "rules": [
            {
                "name": "both",
                "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
                "validate": {"message": "never", "pattern": {"metadata": {"name": "?*"}}},
                "mutate": {"patchStrategicMerge": {"metadata": {"labels": {"a": "b"}}}},
            }
        ]
    },
}


def load(text: str) -> JsonObject:
    """One YAML document, by the fast parser where PyYAML has it: the CRDs are megabytes."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: JsonObject = yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders
    return document


def crd_files(source: Path) -> list[Path]:
    """The CRDs' files, in a fixed order; RemoteError when the source holds none."""
    files = [
        file
        for directory in _CRD_DIRECTORIES
        for file in sorted((source / "config" / "crds" / directory).glob("*.yaml"))
    ]
    if not files:
        raise RemoteError(f"{source}: Kyverno's CRDs are not there.", hint="Run `ci/tools` again.")
    return files


def kind_of(document: str) -> str:
    """The kind of a YAML document, found without parsing it."""
    found = re.search(r"(?m)^kind: *(\S+)", document)
    return found.group(1) if found else ""


def installation(manifest: str) -> Iterator[JsonObject]:
    """The release manifest's objects, but for CRDs and Deployments: the binary runs out of the cluster."""
    for document in re.split(r"(?m)^---\s*$", manifest):
        if kind_of(document) not in _NOT_INSTALLED | {""}:
            yield load(document)


def install(api: Api, source: Path) -> None:
    """Make Kyverno's namespace, accounts, rights and settings."""
    manifest = source / "config" / "install-latest-testing.yaml"
    for document in installation(manifest.read_text()):
        api.apply(document)


def token(api: Api) -> str:
    """A token of the controller's own account, so that its rights and exclusions are the real ones."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 24 * 3600},
    }
    issued: str = api.call("POST", path, body)["status"]["token"]
    return issued


def has_its_rights(api: Api) -> bool:
    """True once controller-manager has aggregated the controller's ClusterRole."""
    return all(_may(api, *right) for right in _NEEDED_RIGHTS)


def _may(api: Api, verb: str, group: str, resource: str) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
            "resourceAttributes": {"verb": verb, "group": group, "resource": resource},
        },
    }
    answer = api.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def denies(api: Api) -> bool:
    """True when the webhook itself refuses a broken policy, the only proof that it sees each write."""
    answer = api.ask("POST", "/apis/kyverno.io/v1/clusterpolicies", _BROKEN_POLICY, params={"dryRun": "All"})
    return not answer.ok and _DENIED in message(answer)
