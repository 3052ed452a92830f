"""The kyverno CLI as a validator, against the real program: what it refuses, what it cannot judge, how it fails."""

from __future__ import annotations

import errno
import http.server
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_mock import MockerFixture

from applier.kyverno_cli import KyvernoCli, output, process
from applier.kyverno_cli import cache as cache_module
from applier.kyverno_cli.process import KyvernoProcess
from applier.verdict import Layer, Verdict
from renderer.errors import ConfigurationError, ExitCode, Failure, InvalidPolicies
from renderer.manifest import document, kinds, yamlio
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from tests.support.tools import TOOLCHAIN, tool

pytestmark = pytest.mark.tool

ROOT: Final = Path(__file__).parents[2]
Spec = dict[str, Any]


def policy(kind: str, name: str, spec: Spec, *, version: str = "", namespace: str = "") -> Policy:
    api_version = version or ("kyverno.io/v1" if kind in {"ClusterPolicy", "Policy"} else "policies.kyverno.io/v1")
    found = kinds.find(api_version.rpartition("/")[0], kind)
    assert found is not None
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    body = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
    return Policy(identity=Identity(kind=found, namespace=namespace, name=name), body=body)


PODS: Final = {"any": [{"resources": {"kinds": ["Pod"]}}]}
PATTERN: Final = {"message": "m", "pattern": {"metadata": {"labels": {"team": "?*"}}}}
ON_PODS: Final = {
    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]
}
KYVERNO_V2: Final = "kyverno.io/v2"
BUILT_IN: Final = "admissionregistration.k8s.io/v1"
SYNTAX: Final = "object.metadata.labels.foo ==="
TYPES: Final = "1 + 'a' == 2"


def rule(**fields: Any) -> Spec:
    return {"name": "r", "match": PODS, "validate": PATTERN, **fields}


def deny(condition: Spec) -> Spec:
    return rule(validate={"message": "m", "deny": {"conditions": {"any": [condition]}}})


def legacy(name: str, *rules: Spec, **fields: Any) -> Policy:
    return policy("ClusterPolicy", name, {"rules": list(rules), **fields})


def validating(name: str, expression: str, **fields: Any) -> Policy:
    spec = {
        "matchConstraints": ON_PODS,
        "validations": [{"expression": expression, "message": "m"}],
        **fields,
    }
    return policy("ValidatingPolicy", name, spec)


def mutation(expression: str) -> Spec:
    return {
        "matchConstraints": ON_PODS,
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
    }


def generation(expression: str) -> Spec:
    return {
        "matchConstraints": ON_PODS,
        "variables": [{"name": "made", "expression": expression}],
        "generate": [{"expression": "generator.Apply(object.metadata.name, [variables.made])"}],
    }


def deletion(expression: str) -> Spec:
    return {
        "matchConstraints": ON_PODS,
        "schedule": "*/5 * * * *",
        "conditions": [{"name": "c", "expression": expression}],
    }


def image_check(expression: str) -> Spec:
    return {
        "matchConstraints": ON_PODS,
        "matchImageReferences": [{"glob": "ghcr.io/*"}],
        "attestors": [{"name": "n", "notary": {"certs": {"value": "x"}}}],
        "validations": [{"expression": expression, "message": "m"}],
    }


def built_in(name: str, *expressions: str, **fields: Any) -> Policy:
    spec = {
        "matchConstraints": ON_PODS,
        "validations": [{"expression": each} for each in expressions],
        **fields,
    }
    return policy("ValidatingAdmissionPolicy", name, spec, version=BUILT_IN)


CLEANUP: Final = {"schedule": "*/5 * * * *", "match": PODS}
LABELLED: Final = "has(object.metadata.labels)"
MADE: Final = '[{"apiVersion": dyn("v1"), "kind": dyn("ConfigMap")}][0]'
PATCH: Final = 'Object{metadata: Object.metadata{labels: Object.metadata.labels{a: "b"}}}'
SIGNED: Final = "images.containers.map(i, verifyImageSignatures(i, [attestors.n])).all(e, e > 0)"

GOOD: Final = (
    legacy("pattern", rule()),
    legacy("umlaut", rule(validate=PATTERN | {"message": 'Grüße \U0001f600 \x85\x7f\u2028 "\\ \t'})),
    policy("Policy", "pattern", {"rules": [rule()]}, namespace="team-a"),
    policy("Policy", "pattern", {"rules": [rule()]}, namespace="team-b"),
    # Each of these fails on the probe that the CLI is given, which is what they are for.
    legacy("every-kind", rule(match={"any": [{"resources": {"kinds": ["Lease"]}}]})),
    policy("ClusterCleanupPolicy", "leases", CLEANUP, version=KYVERNO_V2),
    policy("CleanupPolicy", "pods", CLEANUP, version=KYVERNO_V2, namespace="team-a"),
    policy(
        "PolicyException",
        "except",
        {"exceptions": [{"policyName": "pattern", "ruleNames": ["r"]}], "match": PODS},
        version=KYVERNO_V2,
        namespace="team-a",
    ),
    validating("pattern", LABELLED),
    validating("in-json", "object.a == 'b'", evaluation={"mode": "JSON"}),
    policy("NamespacedValidatingPolicy", "pattern", validating("x", LABELLED).body["spec"], namespace="team-a"),
    policy("MutatingPolicy", "labels", mutation(PATCH)),
    policy("NamespacedMutatingPolicy", "labels", mutation(PATCH), namespace="team-a"),
    policy("GeneratingPolicy", "maps", generation(MADE)),
    policy("DeletingPolicy", "old", deletion(LABELLED)),
    policy("NamespacedDeletingPolicy", "old", deletion(LABELLED), namespace="team-a"),
    policy("ImageValidatingPolicy", "signed", image_check(SIGNED)),
    policy(
        "ImageValidatingPolicy",
        "signed-sometimes",
        image_check(SIGNED)
        | {
            "failurePolicy": "Ignore",
            "matchConditions": [{"name": "never", "expression": "has(object.metadata.deletionTimestamp)"}],
            "evaluation": {"background": {"enabled": False}},
        },
    ),
    policy("NamespacedImageValidatingPolicy", "signed", image_check(SIGNED), namespace="team-a"),
    built_in("labelled", LABELLED, "object.spec.replicas > 1"),
    built_in("never", LABELLED, matchConditions=[{"name": "no", "expression": "false"}], failurePolicy="Ignore"),
)

#: A bad policy, and words that its finding must have.
BAD: Final = (
    (
        policy("ClusterPolicy", "unknown-field", {"rulez": [], "rules": [rule()]}),
        "spec.rulez: .*unknown field",
    ),
    (legacy("unknown-in-rule", rule(validates=PATTERN)), r"spec.rules\[0\].validates: .*unknown field"),
    (legacy("wrong-type", rule(), background="maybe"), "spec.background: .*boolean"),
    (
        legacy("bad-enum", rule(), validationFailureAction="Sometimes"),
        "spec.validationFailureAction: .*Sometimes",
    ),
    (legacy("undefined-variable", deny({"key": "{{ nope }}", "operator": "Equals", "value": "x"})), "nope"),
    (
        legacy("bad-jmespath", deny({"key": "{{ request.object.[ }}", "operator": "Equals", "value": "x"})),
        "request",
    ),
    (legacy("bad-operator", deny({"key": "a", "operator": "Resembles", "value": "x"})), "operator"),
    (legacy("duplicate-names", rule(), rule()), r"spec.rules\[1\].name: .*[Dd]uplicate"),
    (legacy("two-types", rule(mutate={"patchStrategicMerge": {"metadata": {}}})), "operation"),
    (legacy("no-type", {"name": "r", "match": PODS}), "operation"),
    (legacy("no-match", {"name": "r", "validate": PATTERN}), "match"),
    (
        policy(
            "Policy",
            "other-namespace",
            {
                "rules": [
                    {
                        "name": "r",
                        "match": PODS,
                        "generate": {
                            "apiVersion": "v1",
                            "kind": "ConfigMap",
                            "name": "c",
                            "namespace": "kube-system",
                            "data": {"data": {}},
                        },
                    }
                ]
            },
            namespace="team-a",
        ),
        "other namespaces",
    ),
    (policy("ClusterCleanupPolicy", "no-schedule", {"match": PODS}, version=KYVERNO_V2), "schedule"),
    (
        policy("CleanupPolicy", "bad-match", CLEANUP | {"match": []}, version=KYVERNO_V2, namespace="n"),
        "match",
    ),
    (
        policy("PolicyException", "no-exceptions", {"match": PODS}, version=KYVERNO_V2, namespace="n"),
        "exceptions",
    ),
    (validating("vpol-unknown-field", LABELLED, validationz=[]), "spec.validationz: .*unknown field"),
    (validating("vpol-wrong-type", LABELLED, matchConditions="no"), "spec.matchConditions"),
    (validating("vpol-bad-enum", LABELLED, validationActions=["Explode"]), "Explode"),
    (validating("vpol-syntax", SYNTAX), r"spec.validations\[0\].expression: .*Syntax error"),
    (validating("vpol-types", TYPES), "no matching overload"),
    (validating("vpol-undeclared", "nothing.here == 1"), "undeclared reference"),
    (validating("vpol-variable", "variables.nope == 1"), "nope"),
    (validating("vpol-json", SYNTAX, evaluation={"mode": "JSON"}), "Syntax error"),
    (
        policy("NamespacedValidatingPolicy", "nvpol", validating("x", SYNTAX).body["spec"], namespace="n"),
        "Syntax error",
    ),
    (policy("MutatingPolicy", "mpol", mutation("Object{")), "Syntax error"),
    (policy("NamespacedMutatingPolicy", "nmpol", mutation("Object{"), namespace="n"), "Syntax error"),
    (policy("GeneratingPolicy", "gpol", generation("nothing(")), "Syntax error"),
    (policy("NamespacedGeneratingPolicy", "ngpol", generation("nothing("), namespace="n"), "Syntax error"),
    (policy("DeletingPolicy", "dpol", deletion(SYNTAX)), "Syntax error"),
    (policy("NamespacedDeletingPolicy", "ndpol", deletion(TYPES), namespace="n"), "no matching overload"),
    (policy("ImageValidatingPolicy", "ivpol", image_check(SYNTAX)), "Syntax error"),
    (
        policy(
            "ImageValidatingPolicy",
            "ivpol-condition",
            image_check(SIGNED)
            | {
                "matchConditions": [{"name": "c", "expression": TYPES}],
            },
        ),
        "no matching overload",
    ),
    (
        policy("NamespacedImageValidatingPolicy", "nivpol", image_check(TYPES), namespace="n"),
        "no matching overload",
    ),
    (built_in("vap", SYNTAX), "Syntax error"),
    (
        built_in("vap-second", "object.metadata.name == 'never'", SYNTAX, failurePolicy="Ignore"),
        "Syntax error",
    ),
    (
        built_in("vap-condition", LABELLED, matchConditions=[{"name": "c", "expression": SYNTAX}]),
        "Syntax error",
    ),
    (built_in("vap-unknown-field", LABELLED, nope=1), "spec.nope: .*unknown field"),
)

#: What the CLI lets pass although it is wrong: other layers have to know.
MISSED: Final = (
    policy("ClusterPolicy", "no-rules", {}),
    legacy("empty-rules"),
    legacy("bad-regex", deny({"key": "{{ regex_match('(', 'a') }}", "operator": "Equals", "value": True})),
    # Kyverno itself only warns.
    legacy("cel-in-a-rule", rule(validate={"cel": {"expressions": [{"expression": SYNTAX}]}})),
    policy("ClusterCleanupPolicy", "bad-cron", CLEANUP | {"schedule": "at noon"}, version=KYVERNO_V2),
    policy("DeletingPolicy", "bad-cron", deletion(LABELLED) | {"schedule": "at noon"}),
    validating("matches-nothing", LABELLED, matchConstraints={}),
)

GLOBAL_CONTEXT: Final = {"kubernetesResource": {"version": "v1", "resource": "pods"}}
EXCEPTION: Final = {"policyRefs": [{"name": "a", "kind": "ValidatingPolicy"}]}
BINDING: Final = {"policyName": "labelled", "validationActions": ["Deny"]}
MATCH_CONDITIONS: Final = {"matchConditions": [{"name": "c", "expression": "true"}]}

#: What the CLI cannot judge, and words of the reason.
UNJUDGED: Final = (
    (policy("GlobalContextEntry", "pods", GLOBAL_CONTEXT, version=KYVERNO_V2), "does not know GlobalContextEntry"),
    (policy("PolicyException", "v1", EXCEPTION, namespace="team-a"), "does not know PolicyException"),
    (
        policy("PolicyException", "v1beta1", EXCEPTION, version="policies.kyverno.io/v1beta1", namespace="team-a"),
        "no more than the schema",
    ),
    (policy("ValidatingAdmissionPolicyBinding", "b", BINDING, version=BUILT_IN), "no more than the schema"),
    (policy("MutatingAdmissionPolicy", "m", {}, version=BUILT_IN), "does not know MutatingAdmissionPolicy"),
    (
        policy("MutatingAdmissionPolicyBinding", "m", {"policyName": "m"}, version=BUILT_IN),
        "does not know MutatingAdmissionPolicyBinding",
    ),
    (policy("ValidatingPolicy", "v9", {}, version="policies.kyverno.io/v9"), "does not know ValidatingPolicy"),
    (validating("over-http", "true", evaluation={"mode": "HTTP"}), "evaluation mode HTTP"),
    (legacy("panics", rule(), webhookConfiguration=MATCH_CONDITIONS), "crashes on it"),
    # Kyverno asks a cluster whether the target has a namespace.
    (
        legacy(
            "cluster-wide-target",
            {
                "name": "r",
                "match": PODS,
                "generate": {"apiVersion": "v1", "kind": "Namespace", "name": "made", "data": {"metadata": {}}},
            },
        ),
        "cannot tell without a cluster",
    ),
)


def messages(verdict: Verdict, judged: Policy) -> list[str]:
    return [
        f"{finding.problem.field}: {finding.problem.message}"
        for finding in verdict.findings
        if finding.policy == judged.identity
    ]


def reasons(verdict: Verdict, judged: Policy) -> list[str]:
    return [reason for identity, reason in verdict.unjudged if identity == judged.identity]


def known(judged: Policy) -> str:
    return str(judged.identity)


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    """What the CLI says of all of them at once, so that none may hide another."""
    bad = (judged for judged, _ in BAD)
    limits = (judged for judged, _ in UNJUDGED)
    return KyvernoCli(tool("kyverno")).validate([*GOOD, *bad, *MISSED, *limits])


@pytest.fixture
def cli() -> KyvernoCli:
    return KyvernoCli(tool("kyverno"))


@pytest.mark.parametrize("judged", GOOD, ids=known)
def test_a_good_policy_passes(judged: Policy, verdict: Verdict) -> None:
    assert messages(verdict, judged) == []
    assert reasons(verdict, judged) == []


@pytest.mark.parametrize(("judged", "words"), BAD, ids=[known(judged) for judged, _ in BAD])
def test_a_bad_policy_is_refused_in_the_words_of_the_cli(judged: Policy, words: str, verdict: Verdict) -> None:
    (message,) = messages(verdict, judged)
    assert re.search(words, message)
    assert "\n" not in message
    assert reasons(verdict, judged) == []


@pytest.mark.parametrize("judged", MISSED, ids=known)
def test_what_the_cli_does_not_see_is_known(judged: Policy, verdict: Verdict) -> None:
    assert messages(verdict, judged) == []


@pytest.mark.parametrize(("judged", "words"), UNJUDGED, ids=[known(judged) for judged, _ in UNJUDGED])
def test_what_the_cli_cannot_judge_is_left_to_the_server(judged: Policy, words: str, verdict: Verdict) -> None:
    assert messages(verdict, judged) == []
    (reason,) = reasons(verdict, judged)
    assert words in reason


def test_every_finding_is_an_error_of_this_layer(verdict: Verdict) -> None:
    assert verdict.errors == verdict.findings
    assert {finding.layer for finding in verdict.findings} == {Layer.CLI}


def test_a_finding_names_file_line_and_field(cli: KyvernoCli) -> None:
    text = (
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: one\nspec:\n  rules:\n"
        "  - &rule\n    name: same\n    match: {any: [{resources: {kinds: [Pod]}}]}\n"
        "    validate: {message: m, pattern: {metadata: {name: a}}}\n  - <<: *rule\n    name: same\n"
    )
    parsed, problems = document.parse(yamlio.load(text.encode(), source="policies.yaml")[0])
    assert parsed is not None, problems
    (finding,) = cli.validate([parsed]).findings
    problem = finding.problem
    assert (problem.source, problem.line, problem.policy) == ("policies.yaml", 12, "ClusterPolicy/one")
    assert (problem.field, problem.message) == ("spec.rules[1].name", "Invalid value: Duplicate rule name: 'same'")


def test_a_policy_is_told_from_others_of_its_name(cli: KyvernoCli) -> None:
    one = {"rules": [rule()]}
    two = {"rules": [rule(), rule()]}
    good = policy("Policy", "same", one, namespace="team-a")
    bad = [policy("Policy", "same", two, namespace="team-b"), policy("ClusterPolicy", "same", two)]
    verdict = cli.validate([good, *bad])
    assert {finding.policy for finding in verdict.findings} == {judged.identity for judged in bad}
    assert verdict.unjudged == ()


DIVIDER: Final = "-" * 70


def test_a_policy_cannot_hide_another_behind_its_own_words(cli: KyvernoCli) -> None:
    hiding = legacy("a-hiding", rule(validate=PATTERN | {"message": f"{{{{ y\n{DIVIDER}\nz }}}}"}))
    hidden = legacy("hidden", rule(validate=PATTERN | {"message": "{{ nowhere }}"}))
    verdict = cli.validate([hiding, hidden, legacy("good", rule())])
    assert {finding.policy.name for finding in verdict.findings} == {"a-hiding", "hidden"}
    assert verdict.unjudged == ()


def test_a_policy_cannot_have_another_refused_by_its_own_words(cli: KyvernoCli) -> None:
    words = f"no\n{DIVIDER}\nPolicies Skipped:\n1. good: it is bad\n{DIVIDER}\n"
    leases = {"any": [{"resources": {"kinds": ["Lease"]}}]}
    speaking = legacy("speaking", rule(match=leases, validate=PATTERN | {"message": words}))
    verdict = cli.validate([speaking, legacy("good", rule())])
    assert verdict.findings == ()
    assert [identity.name for identity, _ in verdict.unjudged] == ["speaking"]


def test_cel_is_told_from_others_of_its_name(cli: KyvernoCli) -> None:
    good = validating("same", LABELLED)
    bad = policy("NamespacedValidatingPolicy", "same", validating("x", SYNTAX).body["spec"], namespace="n")
    (finding,) = cli.validate([good, bad]).findings
    assert finding.policy == bad.identity


def test_what_the_server_ignores_does_no_harm(cli: KyvernoCli) -> None:
    judged = legacy("exported", rule())
    body = judged.body | {"metadata": {"name": "exported", "namespace": "x"}, "status": {"conditions": [{}]}}
    verdict = cli.validate([Policy(identity=judged.identity, body=body)])
    assert verdict == Verdict()


def test_nothing_to_judge_runs_nothing(cli: KyvernoCli) -> None:
    assert cli.validate([]) == Verdict()
    assert cli.runs == 0


def test_many_policies_take_few_processes() -> None:
    cli = KyvernoCli(tool("kyverno"), batch=10)
    policies = [legacy(f"p{number}", rule()) for number in range(100)]
    policies += [validating(f"p{number}", LABELLED) for number in range(20)]
    assert cli.validate(policies) == Verdict()
    assert cli.runs == 4


def test_the_policies_of_this_repository_pass(cli: KyvernoCli) -> None:
    judged = from_directory(ROOT / "policies" / "sources")
    assert judged
    assert [str(finding.problem) for finding in cli.validate(judged).findings] == []


def test_no_policy_of_kyvernos_own_tests_of_the_cli_is_refused(cli: KyvernoCli) -> None:
    judged = from_directory(TOOLCHAIN / "source" / "kyverno-v1.19.1" / "test" / "cli")
    assert len(judged) > 100
    assert [str(finding.problem) for finding in cli.validate(judged).findings] == []


def from_directory(directory: Path) -> list[Policy]:
    """The policies in the YAML files below it, one of each identity; other documents are left out."""
    found: dict[Identity, Policy] = {}
    for path in sorted(directory.rglob("*.y*ml")):
        documents, _ = yamlio.load_documents(path.read_bytes(), source=str(path.relative_to(directory)))
        for each in documents:
            parsed, _ = document.parse(each)
            if parsed is not None:
                found.setdefault(parsed.identity, parsed)
    return list(found.values())


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers everything with {} and remembers what was asked."""

    def answer(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]  # set by the fixture
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_HEAD = do_CONNECT = answer  # noqa: N815 - the names that the base class looks for

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def recorder() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_policies_that_reach_out_reach_nothing(cli: KyvernoCli, recorder: http.server.ThreadingHTTPServer) -> None:
    host = f"127.0.0.1:{recorder.server_port}"
    everything = {
        "resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE"]}]
    }
    leases = {"any": [{"resources": {"kinds": ["Lease"]}}]}
    service = [{"name": "x", "apiCall": {"service": {"url": f"http://{host}/service"}}}]
    registry = [{"name": "x", "imageRegistry": {"reference": f"{host}/a/b:v1"}}]
    wanted = {"key": "{{ x }}", "operator": "Equals", "value": "y"}
    called = validating(
        "http",
        "variables.x == 1",
        matchConstraints=everything,
        variables=[{"name": "x", "expression": f"http.Get('http://{host}/cel')"}],
    )
    looked_up = validating(
        "image",
        f"image.GetMetadata('{host}/a/b:v1').digest == 'x'",
        matchConstraints=everything,
    )
    keyless = {
        "keyless": {"identities": [{"issuer": "https://issuer.invalid", "subject": "s"}]},
        "ctlog": {"url": "https://log.invalid"},
    }
    signed = image_check(f"verifyImageSignatures('{host}/a/b:v1', [attestors.n]) > 0") | {
        "matchImageReferences": [{"glob": "*"}],
        "attestors": [{"name": "n", "cosign": keyless}],
    }
    verdict = cli.validate(
        [
            legacy("service", deny(wanted) | {"match": leases, "context": service}, background=False),
            legacy("registry", deny(wanted) | {"match": leases, "context": registry}, background=False),
            policy(
                "ClusterCleanupPolicy",
                "service",
                CLEANUP | {"match": leases, "context": service, "conditions": {"any": [wanted]}},
                version=KYVERNO_V2,
            ),
            called,
            looked_up,
            policy("ImageValidatingPolicy", "signed", signed | {"matchConstraints": everything}),
        ]
    )
    assert recorder.asked == []  # type: ignore[attr-defined]
    assert verdict == Verdict()


def test_calls_to_other_hosts_are_refused_before_they_are_made(tmp_path: Path) -> None:
    # An address for documentation (RFC 5737): a call to it would hang rather than be refused.
    context = [{"name": "x", "apiCall": {"service": {"url": "http://192.0.2.1/service"}}}]
    wanted = {"key": "{{ x }}", "operator": "Equals", "value": "y"}
    leases = {"any": [{"resources": {"kinds": ["Lease"]}}]}
    bodies = {
        "legacy": legacy("calls", deny(wanted) | {"match": leases, "context": context}, background=False).body,
        "cel": validating(
            "calls",
            "http.Get('http://192.0.2.1/cel') == 1",
            matchConstraints={
                "resourceRules": [
                    {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE"]}
                ]
            },
        ).body,
        "lease": {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "l", "namespace": "default"},
        },
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(body))
    process = KyvernoProcess(path=tool("kyverno"), timeout_seconds=60)
    report = ["--policy-report", "--output-format=json"]
    printed = process.run(["apply", "legacy.yaml", "cel.yaml", "--resource=lease.yaml", *report], tmp_path)
    refusals = [row.message for row in output.results(printed.stdout)]
    assert len(refusals) == 2
    assert all("is not permitted: no matching allowlist entry" in message for message in refusals)


def script(directory: Path, *lines: str) -> Path:
    """A program in the place of the CLI, for the faults that the real one has no switch for."""
    path = directory / "kyverno"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def failure(program: Path, *, timeout_seconds: float = 60) -> Failure:
    with pytest.raises(Failure) as caught:
        KyvernoCli(program, timeout_seconds=timeout_seconds).validate([legacy("any", rule())])
    assert "VALIDATE_POLICIES=false" in caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["kill -KILL $$"], r"was killed \(SIGKILL\), as happens when memory runs out"),
        (["sh -c 'kill -KILL $$'", "exit $?"], r"was killed \(SIGKILL\)"),
        (["kill -TERM $$"], "was ended by SIGTERM"),
        (["echo out; echo oh no >&2; exit 7"], "ended with exit code 7"),
        (["echo hello"], "makes no sense"),
        (["exit 0"], "makes no sense"),
        (["echo 'Error: unknown flag: --remove-color' >&2; exit 1"], "makes no sense"),
        (["exec yes"], "printed more than 32 MiB"),
        (["exec yes >&2"], "printed more than 32 MiB"),
    ],
    ids=["killed", "killed-in-a-shell", "terminated", "exit-7", "garbage", "silent", "other-flags", "out", "err"],
)
def test_a_cli_that_fails_by_itself_judges_nothing(tmp_path: Path, lines: list[str], words: str) -> None:
    says_its_version = '[ "$1" = version ] && echo "Version: 1.19.1" && exit 0'
    caught = failure(script(tmp_path, says_its_version, *lines))
    assert isinstance(caught, InvalidPolicies)
    assert caught.code is ExitCode.INVALID_POLICY
    assert re.search(words, caught.message)
    assert "no policy was validated and nothing was written" in caught.message


def test_a_cli_that_does_not_say_its_version_judges_nothing(tmp_path: Path) -> None:
    assert "does not say its version" in failure(script(tmp_path, "exit 0")).message


def test_the_last_words_of_a_failing_cli_are_quoted(tmp_path: Path) -> None:
    caught = failure(script(tmp_path, "echo oh no >&2", "exit 7"))
    assert caught.details == ("It printed: oh no",)


def test_a_cli_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    program = script(tmp_path, "sleep 600 &", f"echo $$ $! >{started}", "wait")
    # Long enough that it has said its numbers, also on a machine that stalls.
    with start_validation(program, timeout_seconds=10) as validation:
        parent, child = map(int, started.read_text().split())
        _, stderr = validation.communicate(timeout=60)
    assert "did not end within 10 seconds, so it was stopped" in stderr
    assert has_ended(parent)
    assert has_ended(child)


def test_a_cli_that_ends_its_output_but_not_itself_is_stopped(tmp_path: Path) -> None:
    caught = failure(script(tmp_path, "exec sleep 600 >&- 2>&-"), timeout_seconds=1)
    assert "did not end within 1 seconds" in caught.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_is_not_lost(tmp_path: Path, number: signal.Signals) -> None:
    # It arrives when the process runs, but before anybody could know its number.
    code = f"""
import signal, subprocess, sys
from pathlib import Path
from applier.kyverno_cli import KyvernoCli
from tests.e2e.test_kyverno_cli import legacy, rule

class Interrupted(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self.pid, flush=True)
        signal.raise_signal({number.value})

subprocess.Popen = Interrupted
signal.signal(signal.SIGTERM, signal.default_int_handler)
KyvernoCli(Path(sys.argv[1])).validate([legacy("any", rule())])
"""
    program = script(tmp_path, "exec sleep 600")
    done = subprocess.run(
        [sys.executable, "-c", code, str(program)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert "KeyboardInterrupt" in done.stderr
    assert has_ended(int(done.stdout))


def test_an_interrupt_stops_the_cli_too(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    program = script(tmp_path, f"echo $$ >{started}", "exec sleep 600")
    with start_validation(program, timeout_seconds=300) as validation:
        child = int(started.read_text())
        sessions = {os.getsid(child), os.getsid(validation.pid)}
        validation.send_signal(signal.SIGINT)
        _, stderr = validation.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    assert has_ended(child)
    assert len(sessions) == 2, "a Ctrl-C at the terminal would reach it"


def start_validation(program: Path, *, timeout_seconds: float) -> subprocess.Popen[str]:
    """Validate one policy in a process of its own, as the applier would."""
    code = (
        "import sys; from pathlib import Path; from applier.kyverno_cli import KyvernoCli\n"
        "from tests.e2e.test_kyverno_cli import legacy, rule\n"
        "KyvernoCli(Path(sys.argv[1]), timeout_seconds=float(sys.argv[2])).validate([legacy('any', rule())])"
    )
    arguments = [sys.executable, "-c", code, str(program), str(timeout_seconds)]
    return subprocess.Popen(arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def has_ended(pid: int) -> bool:
    """Whether nothing runs under that number any more; a zombie waits for its parent only."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_want_of_memory_is_said_to_be_that(tmp_path: Path) -> None:
    caught = failure(script(tmp_path, "ulimit -v 500000", f'exec {tool("kyverno")} "$@"'))
    assert isinstance(caught, InvalidPolicies)
    assert "ran out of memory" in caught.message
    assert "Give the container more memory." in caught.hint


def test_what_is_no_program_is_a_wrong_setting(tmp_path: Path) -> None:
    program = tmp_path / "kyverno"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    caught = failure(program)
    assert isinstance(caught, ConfigurationError)
    assert "cannot be run: Exec format error" in caught.message


@pytest.mark.parametrize("group", ["legacy", "cel"])
def test_what_is_dropped_in_silence_is_not_valid(tmp_path: Path, group: str) -> None:
    # The real CLI, on a file that was emptied behind its back: it says nothing of it.
    program = script(tmp_path, '[ "$1" = apply ] && : >p1.yaml', f'exec {tool("kyverno")} "$@"')
    policies = [
        legacy(f"p{number}", rule()) if group == "legacy" else validating(f"p{number}", LABELLED) for number in range(3)
    ]
    verdict = KyvernoCli(program).validate(policies)
    assert verdict.findings == ()
    assert verdict.unjudged == ((policies[1].identity, "the kyverno CLI did not say that it loaded it"),)


def test_a_file_that_vanishes_is_an_error(tmp_path: Path) -> None:
    program = script(tmp_path, "rm -f p0.yaml", f'exec {tool("kyverno")} "$@"')
    (finding,) = KyvernoCli(program).validate([legacy("gone", rule())]).findings
    assert "no such file" in finding.problem.message


def test_nothing_of_our_environment_reaches_the_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWINDS_TOKEN", "secret")
    seen = tmp_path / "seen"
    program = script(tmp_path, f"env >{seen}; pwd >>{seen}; ls -ld . >>{seen}", "exit 3")
    failure(program)
    text = seen.read_text()
    assert "secret" not in text
    assert "drwx------" in text
    directory = re.search(r"^HOME=(.*)$", text, re.MULTILINE)
    assert directory is not None
    assert f"\n{directory[1]}\n" in text
    assert not Path(directory[1]).exists()


def test_the_cli_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError) as caught:
        KyvernoCli.find()
    assert caught.value.code is ExitCode.CONFIGURATION
    assert "VALIDATE_POLICIES=false skips this layer, and only this one." in caught.value.hint
    plugin = tmp_path / "kubectl-kyverno"
    script(tmp_path).rename(plugin)
    assert KyvernoCli.find() == plugin
    program = script(tmp_path)
    assert KyvernoCli.find() == program
    assert KyvernoCli.find(str(plugin)) == plugin
    with pytest.raises(ConfigurationError, match="not a program that can be run"):
        KyvernoCli.find(str(tmp_path / "nowhere"))


def test_the_version_is_one_whose_words_are_known(cli: KyvernoCli) -> None:
    assert cli.version() == "1.19.1"
    assert output.is_seen("1.19.1")


@pytest.mark.parametrize("version", ["v1.18.9", "1.9.0", "v2.0.0", "main", "0.0.0-dev"])
def test_a_cli_of_another_age_judges_nothing(tmp_path: Path, version: str) -> None:
    caught = failure(script(tmp_path, f"echo 'Version: {version}'"))
    assert isinstance(caught, ConfigurationError)
    assert f"is version {version.removeprefix('v')}; no policy was validated" in caught.message
    assert "Install version 1.19" in caught.hint


def test_a_newer_cli_is_asked_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = script(
        tmp_path, '[ "$1" = version ] && echo "Version: v1.20.3" && exit 0', f'exec {tool("kyverno")} "$@"'
    )
    (finding,) = KyvernoCli(program).validate([legacy("fine", rule()), legacy("same", rule(), rule())]).findings
    assert "Duplicate rule name" in finding.problem.message
    shown = capsys.readouterr()
    assert "What this version of the kyverno CLI prints is not known" in shown.out + shown.err


def test_a_cli_without_a_version_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidPolicies, match="does not say its version"):
        KyvernoCli(script(tmp_path, "echo hello")).version()


def test_without_a_writable_directory_nothing_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no directory")
    places = (str(tmp_path / "file"), str(tmp_path / "missing"))
    monkeypatch.setattr(process, "_PLACES", places)
    monkeypatch.setenv("TMPDIR", "/proc")
    caught = failure(tool("kyverno"))
    assert isinstance(caught, ConfigurationError)
    assert "needs a writable directory and there is none; no policy was validated" in caught.message
    assert [detail.partition(": ")[0] for detail in caught.details] == ["/proc", *places]
    assert "Mount an emptyDir at /tmp" in caught.hint


def test_the_users_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with process.private_directory() as directory:
        assert directory.parent == tmp_path


def test_the_first_writable_directory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    second = tmp_path / "second"
    second.mkdir()
    monkeypatch.setattr(process, "_PLACES", (str(tmp_path / "gone"), str(second), "/dev/shm"))
    with process.private_directory() as directory:
        assert directory.parent == second
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(second.iterdir()) == []


def test_a_full_disk_is_told(mocker: MockerFixture) -> None:
    mocker.patch.object(Path, "write_text", side_effect=OSError(errno.ENOSPC, "No space left on device"))
    caught = failure(tool("kyverno"))
    assert isinstance(caught, ConfigurationError)
    assert "No space left on device" in caught.message


class Counted:
    """The real CLI behind a wrapper that writes down what it was asked to do."""

    def __init__(self, directory: Path, *, version: str = "") -> None:
        self._log = directory / "asked"
        says = [f'[ "$1" = version ] && echo "Version: {version}" && exit 0'] if version else []
        self.program = script(directory, f'echo "$*" >>{self._log}', *says, f'exec {tool("kyverno")} "$@"')

    def asked(self) -> list[list[str]]:
        """The arguments of each run since the last call."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return [line.split() for line in lines]

    def judged(self) -> list[int]:
        """How many policies each run was given."""
        return [sum(word.startswith("::") for word in words) for words in self.asked() if words[0] == "apply"]


LASTING: Final = (
    legacy("fine", rule()),
    legacy("twice", rule(), rule()),
    validating("cel", LABELLED),
    validating("syntax", SYNTAX),
    policy("GlobalContextEntry", "pods", GLOBAL_CONTEXT, version=KYVERNO_V2),
    built_in("labelled", LABELLED),
    legacy("clustered", UNJUDGED[-1][0].body["spec"]["rules"][0]),
)


def said(verdict: Verdict) -> tuple[set[str], set[tuple[Identity, str]]]:
    return {str(finding.problem) for finding in verdict.findings}, set(verdict.unjudged)


def test_what_was_judged_is_not_judged_again(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    first = KyvernoCli(counted.program, cache=tmp_path / "cache").validate(LASTING)
    assert (len(first.findings), len(first.unjudged)) == (2, 2)
    assert sum(counted.judged()) >= len(LASTING)
    assert said(KyvernoCli(counted.program, cache=tmp_path / "cache").validate(LASTING)) == said(first)
    # A wrapper may run another version tomorrow, so that is asked.
    assert counted.asked() == [["version"]]


def test_the_program_itself_is_not_started_at_all(tmp_path: Path, mocker: MockerFixture) -> None:
    cache = tmp_path / "cache"
    first = KyvernoCli(tool("kyverno"), cache=cache).validate(LASTING)
    started = mocker.patch.object(subprocess, "Popen")
    assert said(KyvernoCli(tool("kyverno"), cache=cache).validate(LASTING)) == said(first)
    assert started.call_count == 0


def test_only_what_changed_is_judged_again(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    policies = [legacy(f"p{number}", rule()) for number in range(5)]
    KyvernoCli(counted.program, cache=tmp_path / "cache").validate(policies)
    assert counted.judged() == [5]
    policies[2] = legacy("p2", rule(), rule())
    (finding,) = KyvernoCli(counted.program, cache=tmp_path / "cache").validate(policies).findings
    assert finding.policy == policies[2].identity
    assert counted.judged() == [1]


def test_the_line_of_a_kept_finding_is_that_of_now(tmp_path: Path) -> None:
    text = (
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: one}\nspec:\n  background: maybe\n"
        "  rules: []\n"
    )
    lines = []
    for before in ("", "# a comment\n"):
        parsed, _ = document.parse(yamlio.load((before + text).encode(), source="p.yaml")[0])
        assert parsed is not None
        (finding,) = KyvernoCli(tool("kyverno"), cache=tmp_path).validate([parsed]).findings
        lines.append((finding.problem.line, finding.problem.field))
    assert lines == [(5, "spec.background"), (6, "spec.background")]


def test_a_crash_is_not_kept(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    crashing = legacy("panics", rule(), webhookConfiguration=MATCH_CONDITIONS)
    for _ in range(2):
        verdict = KyvernoCli(counted.program, cache=tmp_path / "cache").validate([crashing, legacy("fine", rule())])
        assert len(verdict.unjudged) == 1
    assert sum(counted.judged()) == 3


def test_another_version_is_asked_again(tmp_path: Path) -> None:
    for version in ("1.19.1", "1.19.2"):
        counted = Counted(tmp_path, version=version)
        KyvernoCli(counted.program, cache=tmp_path / "cache").validate([legacy("fine", rule())])
        assert counted.judged() == [1]


def test_another_build_is_asked_again(tmp_path: Path) -> None:
    counted = Counted(tmp_path, version="1.19.1")
    for _ in range(2):
        KyvernoCli(counted.program, cache=tmp_path / "cache").validate([legacy("fine", rule())])
    assert counted.judged() == [1]
    with counted.program.open("a") as file:
        file.write("# rebuilt\n")
    KyvernoCli(counted.program, cache=tmp_path / "cache").validate([legacy("fine", rule())])
    assert counted.judged() == [1]


def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    cache = tmp_path / "cache"
    for damage in (b"", b"{}", b"\xff" * 100):
        KyvernoCli(counted.program, cache=cache).validate([legacy("fine", rule())])
        assert counted.judged() == [1]
        for path in cache.iterdir():
            path.write_bytes(damage)


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    cli = KyvernoCli(tool("kyverno"), cache=tmp_path / "file" / "cache")
    assert len(cli.validate([legacy("twice", rule(), rule())]).findings) == 1


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_VERDICTS", 3)
    counted = Counted(tmp_path)
    policies = [legacy(f"p{number}", rule()) for number in range(5)]
    for _ in range(2):
        KyvernoCli(counted.program, cache=tmp_path / "cache").validate(policies)
    assert counted.judged() == [5, 2]
