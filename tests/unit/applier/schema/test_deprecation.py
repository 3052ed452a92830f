"""What is deprecated, held against Kyverno's own CRDs, and said once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pytest

from applier.schema import deprecation
from applier.verdict import Finding, Layer, Verdict
from ci.testbed.kyverno import crd_files, load
from ci.testbed.toolchain import kyverno_source
from renderer.errors import Problem
from renderer.manifest import kinds
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import cluster_policy, desired, exception, live, validating_policy


@pytest.fixture(scope="module")
def crds() -> list[JsonObject]:
    """Kyverno's own, of the kinds that we manage."""
    found = [load(path.read_text()) for path in crd_files(kyverno_source())]
    return [crd for crd in found if kinds.find(crd["spec"]["group"], crd["spec"]["names"]["kind"])]


def policy(api_version: str, kind: str, spec: JsonObject | None = None) -> Policy:
    found = kinds.find(api_version.rpartition("/")[0], kind)
    assert found is not None
    identity = Identity(kind=found, namespace="team-a" if found.namespaced else "", name="one")
    return Policy(
        identity=identity,
        body={"apiVersion": api_version, "kind": kind, "metadata": {"name": "one"}, "spec": spec or {}},
    )


@pytest.mark.tool
def test_every_version_that_kyverno_deprecates_is_known_in_its_own_words(crds: list[JsonObject]) -> None:
    assert len(crds) == 17
    for crd in crds:
        group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
        for version in crd["spec"]["versions"]:
            api_version = f"{group}/{version['name']}"
            # The API server makes this text where a CRD has none.
            own = version.get("deprecationWarning") or f"{api_version} {kind} is deprecated"
            assert deprecation.of_version(api_version, kind) == (own if version.get("deprecated") else "")


#: Said to be deprecated "in the next major release", so not yet.
LATER = re.compile(r"\.(preconditions|conditions)$")


@pytest.mark.tool
def test_every_field_that_kyverno_deprecates_is_known(crds: list[JsonObject]) -> None:
    said: dict[str, set[str]] = defaultdict(set)
    for crd in crds:
        kind = crd["spec"]["names"]["kind"]
        for version in crd["spec"]["versions"]:
            spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
            said[f"{crd['spec']['group']} {kind}"].update(deprecated(spec, "spec"))
    for crd in crds:
        group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
        known = set(deprecation.fields(policy(f"{group}/v1", kind)))
        if kind == "PolicyException" and group == kinds.KYVERNO:
            known = {field for field in known if not field.startswith("spec.exclude")}  # it has no such field
        assert {field for field in said[f"{group} {kind}"] if not LATER.search(field)} == known, kind


def deprecated(schema: JsonObject, path: str) -> Iterator[str]:
    if re.search(r"\bdeprecated\b", schema.get("description", ""), re.IGNORECASE):
        yield path
    for name, inner in schema.get("properties", {}).items():
        yield from deprecated(inner, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from deprecated(schema["items"], f"{path}[]")


def test_a_field_is_found_wherever_it_stands() -> None:
    match = {"any": [{"resources": {"names": ["a"]}}, {"resources": {"name": "b"}}]}
    spec = {
        "validationFailureAction": "Audit",
        "failurePolicy": None,
        "rules": [{"name": "r"}, {"match": match, "exclude": {"resources": {"kinds": ["Pod"]}}}, "nonsense"],
    }
    found = deprecation.judge([policy("kyverno.io/v1", "ClusterPolicy", spec)])
    assert {finding.problem.field for finding in found.warnings} == {
        "apiVersion",
        "spec.validationFailureAction",
        "spec.rules[1].exclude.resources",
        "spec.rules[1].match.any[1].resources.name",
    }
    assert found.errors == ()


@pytest.mark.parametrize("spec", [None, [], "text", {"rules": None}, {"rules": {"match": []}}])
def test_what_has_another_form_is_left_to_the_schema(spec: JsonObject) -> None:
    judged = policy("policies.kyverno.io/v1", "ValidatingPolicy")
    body = {**policy("kyverno.io/v1", "ClusterPolicy").body, "spec": spec}
    legacy = Policy(identity=policy("kyverno.io/v1", "ClusterPolicy").identity, body=body)
    assert [f.problem.field for f in deprecation.judge([judged, legacy]).warnings] == ["apiVersion"]


def test_the_clusters_own_words_count_for_the_version_that_it_stores() -> None:
    (wanted,) = desired(cluster_policy())
    cluster = live()
    assert deprecation.judge([wanted], cluster).warnings == deprecation.judge([wanted]).warnings[1:]
    kind = wanted.identity.kind
    words = "kyverno.io/v1 ClusterPolicy is deprecated and goes with 1.21"
    heard = replace(cluster, warnings={kind: (words,)})
    assert deprecation.judge([wanted], heard).warnings[0].problem.message == words


def test_what_is_not_deprecated_is_no_finding() -> None:
    assert deprecation.judge(desired(validating_policy(), exception())) == Verdict()


def warning(name: str, message: str, *, layer: Layer = Layer.DEPRECATION, field: str = "spec.x") -> Finding:
    (wanted,) = desired(validating_policy(name))
    body = {"source": f"{name}.yaml", "field": field, "policy": str(wanted.identity), "message": message}
    return Finding(policy=wanted.identity, layer=layer, problem=Problem(**body), warning=True)  # type: ignore[arg-type]  # all are text


def test_each_warning_is_said_once_with_those_that_it_is_about() -> None:
    many = [warning(f"p{number}", "is old", field=f"spec.rules[{number}].x") for number in range(7)]
    found = Verdict(findings=(*many, warning("other", "is odd")))
    assert [str(notice) for notice in found.notices] == [
        f"spec.rules[].x: is old (7 times: {', '.join(f'ValidatingPolicy/p{n}' for n in range(5))} and 2 more)",
        "other.yaml: ValidatingPolicy/other spec.x: is odd",
    ]


def test_a_warning_that_two_layers_give_of_a_policy_is_one() -> None:
    ours = warning("one", "kyverno.io/v2 X is old", field="apiVersion")
    # Kyverno's webhook names the version in which it was asked.
    servers = warning("one", "kyverno.io/v2beta1 X is old", layer=Layer.SERVER, field="")
    elsewhere = warning("two", "is old", layer=Layer.SERVER)
    joined = Verdict.together([Verdict(findings=(ours,)), Verdict(findings=(servers, elsewhere))])
    assert joined.findings == (ours, elsewhere)


def test_errors_are_never_dropped_as_said_before() -> None:
    one = Finding(policy=warning("a", "m").policy, layer=Layer.CLI, problem=warning("a", "m").problem)
    assert Verdict.together([Verdict(findings=(one, one))]).findings == (one, one)


def test_strict_makes_errors_of_warnings() -> None:
    found = Verdict(findings=(warning("one", "is old"),)).strict()
    assert (len(found.errors), found.warnings) == (1, ())
