"""The baseline of policies: complete, in plain English, proven by `kyverno test`, and obeyed by a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import pytest
import yaml

from renderer.manifest.effect import enforces
from renderer.render import Source, render
from tests.support.tools import tool

if TYPE_CHECKING:
    from renderer.manifest.document import Policy

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "policies" / "sources"
TESTS: Final = ROOT / "policies" / "tests"

SYSTEM: Final = frozenset({"insights-agent", "kube-node-lease", "kube-public", "kube-system", "kyverno"})
CATEGORIES: Final = frozenset(
    {"Access", "Clean-up", "Exceptions", "Images", "Namespaces", "Network", "Pod security", "Workloads"}
)
#: All that blocks; the first line of each source says why it may.
BLOCKING: Final = frozenset(
    {
        "namespace-deletion-guard",
        "pod-security-restricted",
        "rbac-anonymous-subjects",
        "service-external-ips",
        "service-external-names",
    }
)
#: Kinds that match nothing by themselves, or forbid nothing.
MATCHLESS: Final = frozenset(
    {
        "GlobalContextEntry",
        "MutatingAdmissionPolicyBinding",
        "PolicyException",
        "ValidatingAdmissionPolicyBinding",
    }
)
#: What `kyverno test` can't judge, by kind or by name; a cluster does, below.
NOT_FOR_THE_CLI: Final = {
    "GlobalContextEntry": "it takes made-up data in its place",
    "MutatingAdmissionPolicy": "it knows none of version v1",
    "MutatingAdmissionPolicyBinding": "it knows none of version v1",
    "ValidatingAdmissionPolicyBinding": "given one, it forgets what the policy itself matches",
    "namespace-deletion-guard": "it makes a CREATE of the DELETE",
}
#: What a case must show, by kind.
VERDICTS: Final = {
    "ClusterPolicy": {"pass", "fail"},
    "DeletingPolicy": {"pass", "fail"},
    "GeneratingPolicy": {"pass"},
    "ImageValidatingPolicy": {"pass"},
    "MutatingPolicy": {"pass"},
    "NamespacedDeletingPolicy": {"pass", "fail"},
    "NamespacedValidatingPolicy": {"pass", "fail"},
    "PolicyException": {"skip", "fail"},
    "ValidatingAdmissionPolicy": {"pass", "fail"},
    "ValidatingPolicy": {"pass", "fail"},
}
PATIENCE_S: Final = 60.0

Body: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One verdict that a case expects: of which policy, on which `[namespace/]name`."""

    policy: str
    name: str
    verdict: str

    def is_met_by(self, policy: str, resource: str) -> bool:
        """Whether that row of a report, on `group/version/Kind/namespace/name`, is this one."""
        return policy == self.policy and f"/{resource}".endswith(f"/{self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A directory of policies/tests, and what its kyverno-test.yaml says."""

    directory: Path
    body: Body

    def __str__(self) -> str:
        return self.directory.name

    @property
    def untouched(self) -> Path:
        """Objects that the policy leaves alone, where `kyverno test` has no word for that."""
        return self.directory / "untouched.yaml"

    @property
    def sources(self) -> list[Path]:
        """The policies and exceptions that it is about."""
        paths = [*self.body["policies"], *self.body.get("exceptions", [])]
        return [(self.directory / path).resolve() for path in paths]

    @property
    def expected(self) -> list[Expected]:
        """Its verdicts; one on what a policy generates is on the generated object."""
        return [
            Expected(policy=result["policy"], name=name, verdict=result["result"])
            for result in self.body["results"]
            for name in self._generated(result) or result["resources"]
        ]

    def _generated(self, result: Body) -> list[str]:
        files = [self.directory / file for file in result.get("generatedResources", [])]
        return [yaml.safe_load(file.read_text())["metadata"]["name"] for file in files]

    def objects(self) -> dict[str, Body]:
        """The objects that are judged, by `[namespace/]name`."""
        documents = yaml.safe_load_all((self.directory / "resources.yaml").read_text())
        return {_called(document): document for document in documents}


def _called(body: Body) -> str:
    metadata = body["metadata"]
    return "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)


FILES: Final = sorted(SOURCES.rglob("*.yaml"))
#: Read as the renderer reads them, which refuses what is no policy and an identity that is there twice.
BASELINE: Final = list(render(Source(name=str(path.relative_to(ROOT)), data=path.read_bytes()) for path in FILES))
CASES: Final = [
    Case(directory=path.parent, body=yaml.safe_load(path.read_text()))
    for path in sorted(TESTS.glob("*/kyverno-test.yaml"))
]
each_policy: Final = pytest.mark.parametrize("policy", BASELINE, ids=lambda policy: str(policy.identity))


def test_the_baseline_is_worth_having() -> None:
    assert len(BASELINE) == len(FILES), "one document a file"
    assert len(BASELINE) >= 25
    assert len({policy.identity.kind for policy in BASELINE}) >= 10


@each_policy
def test_a_policy_says_what_it_is_for(policy: Policy) -> None:
    written = yaml.safe_load((ROOT / policy.source).read_text())["metadata"]["annotations"]
    about = {key.removeprefix("policies.kyverno.io/"): text for key, text in written.items()}
    assert set(about) == {"title", "category", "severity", "description"}, "the renderer stamps the rest"
    assert about["category"] in CATEGORIES
    assert about["severity"] in {"low", "medium", "high"}
    assert 2 <= len(about["title"].split()) <= 8
    assert len(about["description"].split()) >= 10
    assert about["description"].endswith(".")


@each_policy
def test_its_messages_tell_a_developer_what_to_do(policy: Policy) -> None:
    spec = policy.body["spec"]
    for check in [*spec.get("validations", []), *(rule["validate"] for rule in spec.get("rules", []))]:
        message = check.get("message") or check["messageExpression"]
        assert len(message.split()) >= 8, message
        assert message.rstrip("'").endswith("."), message


def test_only_that_blocks_which_may() -> None:
    bindings = [policy.body for policy in BASELINE if policy.identity.kind.name == "ValidatingAdmissionPolicyBinding"]
    blocking = {
        policy.identity.name for policy in BASELINE if enforces(policy.body, policy.identity.kind, bindings=bindings)
    }
    assert blocking == BLOCKING


@pytest.mark.parametrize(
    "policy",
    [policy for policy in BASELINE if policy.identity.kind.name not in MATCHLESS],
    ids=lambda policy: str(policy.identity),
)
def test_system_namespaces_are_left_alone(policy: Policy) -> None:
    if policy.identity.kind.namespaced:
        assert policy.identity.namespace not in SYSTEM
    else:
        assert set(_spared(policy.body["spec"])) >= SYSTEM


def _spared(spec: Body) -> Iterator[str]:
    """The namespaces that every part of a cluster-wide policy leaves out."""
    for rule in spec.get("rules", []):
        for block in rule["exclude"]["any"]:
            yield from block["resources"]["namespaces"]
    selector = spec.get("matchConstraints", {}).get("namespaceSelector", {})
    for term in selector.get("matchExpressions", []):
        if (term["key"], term["operator"]) == ("kubernetes.io/metadata.name", "NotIn"):
            yield from term["values"]


@each_policy
def test_what_the_cli_can_judge_has_a_case(policy: Policy) -> None:
    kind = policy.identity.kind.name
    cases = [case for case in CASES if ROOT / policy.source in case.sources]
    if NOT_FOR_THE_CLI.keys() & {kind, policy.identity.name}:
        assert not cases, "there is a case, so it can"
    else:
        assert {expected.verdict for case in cases for expected in case.expected} >= VERDICTS[kind]


def _kyverno(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(tool("kyverno")), *map(str, arguments), "--remove-color"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    """What `kyverno test` reports, by the name of the case; as many rows as it counts itself."""
    done = _kyverno("test", TESTS, "--output-format", "json", "--detailed-results", "--require-tests")
    parts = re.split(r"(?m)^Loading test .*\( (.*) \) \.\.\.$", done.stdout)[1:]
    found = {}
    for path, text in zip(parts[::2], parts[1::2], strict=True):
        block = re.search(r"^\[$.*?^\]$", text, re.MULTILINE | re.DOTALL)
        assert block, f"no results of {path}: {text} {done.stderr}"
        found[Path(path).parent.name] = json.loads(block.group())
    summary = re.search(r"Test Summary: (\d+) tests passed and (\d+) tests failed", done.stdout)
    assert summary, done.stderr
    assert sum(map(int, summary.groups())) == sum(map(len, found.values())) > 0
    return found


@pytest.mark.tool
@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_policy_does_what_it_says(case: Case, rows: dict[str, list[Row]]) -> None:
    mine = rows[str(case)]
    assert not [row for row in mine if row["RESULT"] != "Pass"]
    assert not [row for row in mine if "failed to evaluate" in row["Message"]]
    # "Excluded" passes whatever the case expects, and so does "Invalid policy": only "Ok" is a verdict.
    assert {row["REASON"] for row in mine} <= {"Ok", "Excluded"}
    judged = [(row["POLICY"], row["RESOURCE"]) for row in mine if row["REASON"] == "Ok"]
    for expected in case.expected:
        if expected.verdict != "skip":
            assert any(expected.is_met_by(*row) for row in judged), f"no verdict: {expected}"


@pytest.mark.tool
@pytest.mark.parametrize("case", [case for case in CASES if case.untouched.exists()], ids=str)
def test_what_a_policy_leaves_alone_has_no_result(case: Case) -> None:
    documents = list(yaml.safe_load_all(case.untouched.read_text()))
    assert documents
    assert not {_called(document) for document in documents} & case.objects().keys()
    report = ("--policy-report", "--output-format", "json")
    done = _kyverno("apply", *case.sources, "--resource", case.untouched, *report)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"result":' not in done.stdout


class Plane(Protocol):
    """As much of a control plane as is used here."""

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """kubectl on one control plane."""

    plane: Plane

    def __call__(self, *arguments: str | Path, body: Body | None = None) -> subprocess.CompletedProcess[str]:
        """Run it, with an object on its standard input if there is one."""
        return subprocess.run(
            [str(tool("kubectl")), *map(str, arguments)],
            input=json.dumps(body) if body else "",
            env={**os.environ, "KUBECONFIG": str(self.plane.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def tries(self, body: Body) -> str:
        """What the server has against creating the object; nothing is created."""
        done = self("create", "--dry-run=server", "-f", "-", body=body)
        return done.stderr if done.returncode else ""

    def refuses(self, body: Body, *, by: str) -> bool:
        """Whether the server would not create the object, and says that this policy is why."""
        return by in self.tries(body)

    def does(self, *arguments: str | Path, body: Body | None = None) -> str:
        """Run it; it has to succeed."""
        done = self(*arguments, body=body)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def kubectl(kyverno_plane: Plane) -> Kubectl:
    return Kubectl(plane=kyverno_plane)


@pytest.fixture(scope="module")
def in_force(kubectl: Kubectl) -> Iterator[Kubectl]:
    """The cluster, with all that blocks or changes at admission, and the namespaces of the cases."""
    at_admission = re.compile("AdmissionPolicy|MutatingPolicy")
    files = [
        argument
        for policy in BASELINE
        if policy.identity.name in BLOCKING or at_admission.search(policy.identity.kind.name)
        for argument in ("-f", str(ROOT / policy.source))
    ]
    try:
        kubectl.does("create", "--validate=strict", *files)
        kubectl.does("create", "-f", "-", body=_namespace("shop"))
        restricted = {"policy-baseline/pod-security": "restricted"}
        kubectl.does("create", "-f", "-", body=_namespace("strict", **restricted))
        yield kubectl
    finally:
        kubectl.does("delete", "--ignore-not-found", *files)
        kubectl.does("delete", "namespace", "--ignore-not-found", "shop", "strict")


def _namespace(name: str, **labels: str) -> Body:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _until(holds: Callable[[], object], what: str) -> None:
    """Ask until it holds: a policy takes a moment to come into force."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.1)


@pytest.mark.kyverno
def test_a_cluster_takes_all_of_them(kubectl: Kubectl) -> None:
    answer = kubectl.does("create", "--dry-run=server", "--validate=strict", "-R", "-f", SOURCES)
    assert answer.count("created (server dry run)") == len(BASELINE) > 0


@pytest.mark.kyverno
def test_on_a_cluster_the_blocking_ones_block_and_no_more(in_force: Kubectl) -> None:
    cases = [case for case in CASES if str(case) in BLOCKING]
    assert {str(case) for case in cases} == BLOCKING - NOT_FOR_THE_CLI.keys()
    for case in cases:
        objects = case.objects()
        refused_first = sorted(case.expected, key=lambda expected: expected.verdict != "fail")
        for expected in refused_first:
            body = objects[expected.name]
            if expected.verdict == "fail":
                _until(partial(in_force.refuses, body, by=str(case)), f"{case} refuses {expected.name}")
            else:
                assert in_force.tries(body) == ""


@pytest.mark.kyverno
def test_on_a_cluster_a_marked_namespace_stays(in_force: Kubectl) -> None:
    refusal = "namespace-deletion-guard"
    in_force.does("label", "namespace", "shop", "policy-baseline/keep=true")
    delete = ("delete", "namespace", "shop", "--dry-run=server")
    _until(lambda: refusal in in_force(*delete).stderr, refusal)
    in_force.does("label", "namespace", "shop", "policy-baseline/keep-")
    in_force.does(*delete)


@pytest.mark.kyverno
def test_on_a_cluster_new_namespaces_are_prepared(in_force: Kubectl) -> None:
    def labels() -> str:
        return in_force.does("create", "--dry-run=server", "-o", "json", "-f", "-", body=_namespace("new"))

    _until(lambda: '"pod-security.kubernetes.io/warn": "baseline"' in labels(), "the labels of a new namespace")
    account = ("serviceaccount", "default", "--namespace", "shop")

    def without_token() -> bool:
        made = in_force("get", *account, "--output", "jsonpath={.automountServiceAccountToken}")
        if made.stdout == "false":
            return True
        in_force.does("delete", *account, "--ignore-not-found")  # made too early: it is made again
        return False

    _until(without_token, "the token of a new default account")
