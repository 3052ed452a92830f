"""The kyverno CLI as a validator, against the real program: what it refuses, and what it cannot judge."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from applier.kyverno_cli import KyvernoCli, output
from applier.kyverno_cli.process import KyvernoProcess
from applier.verdict import Layer, Verdict
from renderer.manifest import document, yamlio
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from tests.support.cli_policies import (
    BAD,
    CLEANUP,
    GOOD,
    KYVERNO_V2,
    LABELLED,
    MISSED,
    PATTERN,
    SYNTAX,
    UNJUDGED,
    deny,
    image_check,
    legacy,
    policy,
    rule,
    validating,
)
from tests.support.tools import TOOLCHAIN, tool

pytestmark = pytest.mark.tool

ROOT: Final = Path(__file__).parents[2]


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
