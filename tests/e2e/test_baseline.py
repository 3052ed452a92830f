"""The baseline of policies: complete, in plain English, proven by `kyverno test`, and accepted and obeyed by a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from renderer.manifest.document import Policy
from renderer.manifest.effect import enforces
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render
from tests.support.tools import tool

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "policies" / "sources"
CASES: Final = ROOT / "policies" / "tests"
SYSTEM: Final = frozenset({"insights-agent", "kube-node-lease", "kube-public", "kube-system", "kyverno"})
# What blocks, and why it may: each comment in its source says it.
BLOCKING: Final = {
    "namespace-deletion-guard",
    "pod-security-restricted",
    "rbac-anonymous-subjects",
    "service-external-ips",
    "service-external-names",
}
# `kyverno test` has no result for these; the tests on a cluster below have.
NOT_JUDGED_BY_THE_CLI: Final = {
    "GlobalContextEntry": "only as data that a test makes up",
    "MutatingAdmissionPolicy": "v1 is unknown to it",
    "MutatingAdmissionPolicyBinding": "v1 is unknown to it",
    "ValidatingAdmissionPolicyBinding": "with a binding it ignores what the policy matches",
}
NOT_JUDGED_ALTHOUGH_OF_A_JUDGED_KIND: Final = {"namespace-deletion-guard"}  # of a DELETE it makes a CREATE
WITH_TWO_VERDICTS: Final = {
    "ClusterPolicy",
    "DeletingPolicy",
    "NamespacedDeletingPolicy",
    "NamespacedValidatingPolicy",
    "ValidatingAdmissionPolicy",
    "ValidatingPolicy",
}
PATIENCE_S: Final = 30


def _files() -> list[Path]:
    return sorted(SOURCES.rglob("*.yaml"))


def _baseline() -> PolicySet:
    """Every source, read as the renderer reads it: that alone refuses a file that is none, and identities held twice."""
    return render(Source(name=str(path.relative_to(ROOT)), data=path.read_bytes()) for path in _files())


def _each(policies: PolicySet) -> Any:
    return pytest.mark.parametrize("policy", [pytest.param(each, id=str(each.identity)) for each in policies])


BASELINE: Final = _baseline()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One directory of policies/tests: what its kyverno-test.yaml says."""

    directory: Path
    body: dict[str, Any]

    @property
    def sources(self) -> list[Path]:
        """The policies and exceptions that it is about."""
        paths = [*self.body["policies"], *self.body.get("exceptions", [])]
        return [(self.directory / path).resolve() for path in paths]

    @property
    def expected(self) -> list[tuple[str, str, str]]:
        """Policy, object (`[namespace/]name`) and verdict, for each object."""
        return [(r["policy"], name, r["result"]) for r in self.body["results"] for name in r["resources"]]


def _cases() -> list[Case]:
    paths = sorted(CASES.glob("*/kyverno-test.yaml"))
    return [Case(directory=path.parent, body=yaml.safe_load(path.read_text())) for path in paths]


def _case_of(source: Path) -> list[Case]:
    return [case for case in _cases() if source in case.sources]


def test_the_baseline_is_worth_having() -> None:
    assert len(BASELINE) == len(_files()), "one document a file"
    assert len(BASELINE) >= 25
    assert len({policy.identity.kind for policy in BASELINE}) >= 10


@_each(BASELINE)
def test_a_policy_says_what_it_is_for(policy: Policy) -> None:
    annotations = policy.body["metadata"]["annotations"]
    about = {key: annotations[f"policies.kyverno.io/{key}"] for key in ("title", "category", "severity", "description")}
    assert about["severity"] in {"low", "medium", "high"}
    assert 5 < len(about["title"]) < 60
    assert about["category"] in {"Access", "Clean-up", "Exceptions", "Images", "Namespaces", "Network", "Pod security", "Workloads"}
    assert about["description"].endswith(".")
    assert len(about["description"].split()) >= 10
    assert set(annotations) == {f"policies.kyverno.io/{key}" for key in about}, "the renderer stamps the rest"


@_each(BASELINE)
def test_a_validation_tells_the_developer_what_to_do(policy: Policy) -> None:
    spec = policy.body["spec"]
    checks = [*spec.get("validations", []), *(rule["validate"] for rule in spec.get("rules", []))]
    for check in checks:
        message = check.get("message") or check["messageExpression"]
        assert "\n" not in message
        assert len(message.split()) >= 8
        assert re.search(r"[.]'?$", message), message


def test_only_what_is_safe_to_block_is_blocked() -> None:
    bindings = [p.body for p in BASELINE if p.identity.kind.name == "ValidatingAdmissionPolicyBinding"]
    blocking = {p.identity.name for p in BASELINE if enforces(p.body, p.identity.kind, bindings=bindings)}
    assert blocking == BLOCKING


@_each(BASELINE)
def test_system_namespaces_are_left_alone(policy: Policy) -> None:
    spec = policy.body["spec"]
    if policy.identity.kind.name == "GlobalContextEntry" or policy.identity.kind.name.endswith("Binding"):
        pytest.skip("matches nothing itself")
    if policy.identity.kind.name == "PolicyException":
        pytest.skip("forbids nothing")
    if policy.identity.kind.namespaced:
        assert policy.identity.namespace not in SYSTEM
        return
    assert SYSTEM <= set(_spared(spec))


def _spared(spec: dict[str, Any]) -> Iterator[str]:
    """The namespaces that a cluster-wide policy leaves out."""
    for rule in spec.get("rules", []):
        for block in rule["exclude"]["any"]:
            yield from block["resources"]["namespaces"]
    selector = spec.get("matchConstraints", {}).get("namespaceSelector", {})
    for requirement in selector.get("matchExpressions", []):
        if requirement["key"] == "kubernetes.io/metadata.name" and requirement["operator"] == "NotIn":
            yield from requirement["values"]


@pytest.mark.parametrize("path", _files(), ids=lambda path: path.stem)
def test_a_policy_that_the_cli_can_judge_has_a_case(path: Path) -> None:
    (policy,) = render([Source(name=path.name, data=path.read_bytes())])
    kind, name = policy.identity.kind.name, policy.identity.name
    cases = _case_of(path)
    if kind in NOT_JUDGED_BY_THE_CLI or name in NOT_JUDGED_ALTHOUGH_OF_A_JUDGED_KIND:
        assert not cases, "the list of what the CLI can't judge is out of date"
        return
    verdicts = {verdict for case in cases for _, _, verdict in case.expected}
    if kind in WITH_TWO_VERDICTS:
        assert verdicts >= {"pass", "fail"}
    elif kind == "PolicyException":
        assert verdicts >= {"skip", "fail"}
    else:
        assert "pass" in verdicts


def _kyverno(*arguments: str | Path) -> str:
    """What the CLI prints. Raises CalledProcessError with its own words when it fails."""
    command = [str(tool("kyverno")), *map(str, arguments), "--remove-color"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, Any]]]:
    """What `kyverno test` reports, by the name of the case's directory."""
    answer = _kyverno("test", CASES, "--output-format", "json", "--detailed-results", "--require-tests")
    parts = re.split(r"(?m)^Loading test .*\( (.*) \) \.\.\.$", answer)[1:]
    found = {}
    for path, text in zip(parts[::2], parts[1::2], strict=True):
        block = re.search(r"^\[$.*?^\]$", text, re.MULTILINE | re.DOTALL)
        assert block, f"no results of {path}"
        found[Path(path).parent.name] = json.loads(block.group())
    summary = re.search(r"Test Summary: (\d+) tests passed and 0 tests failed", answer)
    assert summary
    assert int(summary.group(1)) == sum(map(len, found.values())) > 0
    return found


@pytest.mark.tool
@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.directory.name)
def test_each_policy_does_what_it_says(case: Case, rows: dict[str, list[dict[str, Any]]]) -> None:
    mine = rows[case.directory.name]
    assert not [row for row in mine if row["RESULT"] != "Pass"]
    assert not [row for row in mine if "failed to evaluate" in row["Message"] or "Invalid" in row["REASON"]]
    # A row "Excluded" passes whatever the case expects: only "Ok" is a verdict.
    judged = {(row["POLICY"], row["RESOURCE"]) for row in mine if row["REASON"] == "Ok"}
    for policy, name, verdict in case.expected:
        seen = [resource for by, resource in judged if by == policy and _is(resource, name)]
        if verdict == "skip" or "generatedResources" in case.body["results"][0]:
            continue  # what is generated is listed by its own name
        assert seen, f"{policy} gave no verdict on {name}"
    generated = [row for row in mine if row["POLICY"] in {p for p, _, _ in case.expected} and row["REASON"] == "Ok"]
    assert generated or {verdict for _, _, verdict in case.expected} == {"skip"}


def _is(resource: str, name: str) -> bool:
    """Whether `group/version/Kind/namespace/name` of a report is the `[namespace/]name` of a case."""
    return resource.endswith(f"/{name}")


@pytest.mark.tool
@pytest.mark.parametrize("case", [c for c in _cases() if (c.directory / "untouched.yaml").exists()], ids=lambda c: c.directory.name)
def test_what_a_policy_leaves_alone_has_no_result(case: Case) -> None:
    def results(file: str) -> int:
        answer = _kyverno(
            "apply", *case.sources, "--resource", case.directory / file, "--policy-report", "--output-format", "json"
        )
        return answer.count('"result":')

    assert results("resources.yaml") > 0
    assert results("untouched.yaml") == 0
