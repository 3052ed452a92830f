"""Which resources a policy matches."""

from __future__ import annotations

import pytest

from applier.impact.patterns import Served, chosen, of_constraints, of_rule, operations_of_rule
from renderer.manifest.jsontypes import JsonObject

POD = Served(group="", version="v1", kind="Pod", plural="pods")
DEPLOYMENT = Served(group="apps", version="v1", kind="Deployment", plural="deployments")
OLD = Served(group="apps", version="v1beta1", kind="Deployment", plural="deployments", preferred=False)
INGRESS = Served(group="networking.k8s.io", version="v1", kind="Ingress", plural="ingresses")
SERVED = (POD, OLD, DEPLOYMENT, INGRESS)


def rule(*kinds: str, **resources: list[str]) -> JsonObject:
    return {"match": {"any": [{"resources": {"kinds": list(kinds), **resources}}]}}


def constraints(
    *resources: str, groups: tuple[str, ...] = ("",), operations: tuple[str, ...] = ("CREATE",)
) -> JsonObject:
    entry = {
        "apiGroups": list(groups),
        "apiVersions": ["v1"],
        "operations": list(operations),
        "resources": list(resources),
    }
    return {"resourceRules": [entry]}


@pytest.mark.parametrize(
    ("selector", "matched"),
    [
        ("Ingress", {INGRESS}),
        ("networking.k8s.io/v1/Ingress", {INGRESS}),
        ("v1/Ingress", {INGRESS}),
        ("*/Ingress", {INGRESS}),
        ("networking.k8s.io/*/Ingress", {INGRESS}),
        ("extensions/v1beta1/Ingress", set()),
        ("Ing*", {INGRESS}),
        ("*", {POD, DEPLOYMENT, INGRESS}),
        ("*/*", {POD, DEPLOYMENT, INGRESS}),
        ("apps/v1beta1/Deployment", {OLD}),
        ("Deployment", {DEPLOYMENT}),
        ("Pod/exec", set()),
        ("Pod.status", set()),
        ("v1/Pod.status", set()),
        ("*/scale", set()),
        ("apps/v1/Deployment/scale", set()),
    ],
)
def test_a_kind_selector_matches(selector: str, matched: set[Served]) -> None:
    assert chosen(of_rule(rule(selector), {}), SERVED) == matched


def test_a_rule_for_pods_matches_their_controllers_too_unless_it_is_told_not_to() -> None:
    assert chosen(of_rule(rule("Pod"), {}), SERVED) == {POD, DEPLOYMENT}
    none = {"pod-policies.kyverno.io/autogen-controllers": "none"}
    assert chosen(of_rule(rule("Pod"), none), SERVED) == {POD}


def test_operations_restrict_a_rule_only_where_every_filter_has_some() -> None:
    assert operations_of_rule(rule("Pod", operations=["UPDATE", "DELETE"])) == {"UPDATE", "DELETE"}
    either = {"match": {"any": [*rule("Pod", operations=["UPDATE"])["match"]["any"], *rule("Pod")["match"]["any"]]}}
    assert operations_of_rule(either) == set()


@pytest.mark.parametrize(
    ("given", "matched"),
    [
        (constraints("pods"), {POD}),
        (constraints("*"), {POD}),
        (constraints("*/*", groups=("*",)), {POD, DEPLOYMENT, INGRESS}),
        (constraints("pods/exec"), set()),
        (constraints("pods", "pods/status"), {POD}),
        (constraints("deployments", groups=("apps",)), {DEPLOYMENT}),
        (constraints("pods", operations=("DELETE",)), set()),
        (constraints("pods", operations=("*",)), {POD}),
    ],
)
def test_match_constraints_match(given: JsonObject, matched: set[Served]) -> None:
    assert chosen(of_constraints(given), SERVED) == matched


def test_a_validating_policy_for_pods_alone_matches_controllers_as_its_autogen_says() -> None:
    assert chosen(of_constraints(constraints("pods"), {}), SERVED) == {POD, DEPLOYMENT}
    no_controllers: JsonObject = {"podControllers": {"controllers": []}}
    assert chosen(of_constraints(constraints("pods"), no_controllers), SERVED) == {POD}
    own = {"podControllers": {"controllers": ["ingresses.v1.networking.k8s.io"]}}
    assert chosen(of_constraints(constraints("pods"), own), SERVED) == {POD, INGRESS}
    assert chosen(of_constraints(constraints("pods", "services"), {}), SERVED) == {POD}


@pytest.mark.parametrize(
    ("kind", "plural"),
    [("Pod", "pods"), ("NetworkPolicy", "networkpolicies"), ("Ingress", "ingresses"), ("Endpoints", "endpoints")],
)
def test_the_plural_of_a_manifest_is_guessed_as_the_cli_does(kind: str, plural: str) -> None:
    assert Served.of_manifest({"apiVersion": "v1", "kind": kind}).plural == plural
