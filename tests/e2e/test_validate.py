"""`validate` as a pull request runs it: what it prints, in which form, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from renderer import snapshot
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.insights import InsightsStandIn
from tests.support.policies import admission_policy, answer, cluster_policy, desired, validating_policy
from tests.support.programs import CLUSTER, Programs

pytestmark = pytest.mark.cluster

DEPRECATED = "kyverno.io/v1 ClusterPolicy is deprecated"


def written(programs: Programs, *bodies: JsonObject) -> str:
    """A snapshot of these policies, in the working directory of the programs."""
    files = snapshot.render_files(desired(*bodies), organization="acme", cluster=CLUSTER)
    snapshot.write(programs.directory / "policies", files)
    return "policies"


def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def modern_cluster_policy(name: str, **metadata: Any) -> JsonObject:
    body = cluster_policy(name, **metadata)
    del body["spec"]["validationFailureAction"]
    return body


def test_everything_that_is_wrong_is_in_one_document(programs: Programs) -> None:
    twice = modern_cluster_policy("twice")
    twice["spec"]["rules"] *= 2
    bad_cel = validating_policy("syntax", expression="object.metadata.labels ===")
    unknown = modern_cluster_policy("unknown")
    unknown["spec"]["nope"] = 1
    directory = written(programs, twice, bad_cel, unknown, validating_policy("fine"))
    done = programs.run("insights-applier", "validate", directory, "-o", "json")
    found = document(done.stdout)
    assert done.returncode == ExitCode.INVALID_POLICY == found["exitCode"], done.stderr
    assert found["formatVersion"] == 1
    assert found["valid"] is False
    assert found["kyvernoCli"] == "asked"
    assert found["counts"] == {
        "policies": 4,
        "valid": 1,
        "invalid": 3,
        "unchecked": 0,
        "errors": sum(finding["severity"] == "error" for finding in found["findings"]),
        "warnings": 2,
    }
    by_cli = {f["policy"]: f for f in found["findings"] if f["layer"] == "kyverno CLI"}
    assert by_cli["ClusterPolicy/twice"] | {"message": ""} == {
        "policy": "ClusterPolicy/twice",
        "layer": "kyverno CLI",
        "severity": "error",
        "file": "policies/clusterpolicies.kyverno.io/twice.yaml",
        "line": by_cli["ClusterPolicy/twice"]["line"],
        "column": 0,
        "field": "spec.rules[1].name",
        "message": "",
    }
    text = (programs.directory / by_cli["ClusterPolicy/twice"]["file"]).read_text().splitlines()
    assert "name: team" in text[by_cli["ClusterPolicy/twice"]["line"] - 1]
    assert by_cli.keys() == {"ClusterPolicy/twice", "ValidatingPolicy/syntax"}
    errors = [(f["policy"], f["layer"], f["field"]) for f in found["findings"] if f["severity"] == "error"]
    assert [error for error in errors if error[0] == "ClusterPolicy/unknown"] == [
        ("ClusterPolicy/unknown", "schema", "spec.nope")
    ]


def test_the_document_is_the_same_whether_verdicts_are_kept_or_not(programs: Programs) -> None:
    directory = written(programs, modern_cluster_policy("one"), validating_policy("two"), admission_policy("three"))
    command = ("insights-applier", "validate", directory, "-o", "json")
    first, second = programs.run(*command), programs.run(*command)
    without = programs.run(*command, "--no-validation-cache")
    assert (first.returncode, first.stdout) == (0, second.stdout)
    assert without.stdout == first.stdout
    kept = [path.name for path in programs.directory.rglob("validation/*.json")]
    assert len(kept) == 2


def test_without_the_cache_nothing_is_kept(programs: Programs) -> None:
    directory = written(programs, validating_policy("one"))
    programs.run("insights-applier", "validate", directory, "--no-validation-cache")
    assert list(programs.directory.rglob("validation")) == []


def test_a_warning_is_said_once_with_all_that_it_is_about(programs: Programs) -> None:
    directory = written(programs, *(cluster_policy(f"p{number}") for number in range(7)))
    done = programs.run("insights-applier", "validate", directory)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(DEPRECATED) == 1
    assert "ClusterPolicy/p4 and 2 more)" in done.stdout
    assert done.stdout.count("spec.validationFailureAction: is deprecated: use failureAction") == 1
    assert "ClusterPolicy" not in done.stderr
    assert done.stdout.splitlines()[-1] == "7 of 7 policies are valid."


def test_no_warning_is_on_the_output_of_a_machine_but_in_its_document(programs: Programs) -> None:
    directory = written(programs, modern_cluster_policy("one"))
    done = programs.run("insights-applier", "validate", directory, "-o", "json")
    (finding,) = document(done.stdout)["findings"]
    assert (finding["layer"], finding["severity"], finding["field"]) == ("deprecation", "warning", "apiVersion")
    assert DEPRECATED in finding["message"]


@pytest.mark.parametrize("command", ["validate", "plan", "apply"])
def test_warnings_as_errors_refuse(programs: Programs, command: str) -> None:
    directory = written(programs, modern_cluster_policy("one"), validating_policy("two"))
    done = programs.run("insights-applier", command, directory, "--warnings-as-errors")
    assert done.returncode == ExitCode.INVALID_POLICY, done.stdout
    assert DEPRECATED in done.stdout + done.stderr
    assert programs.run("insights-applier", "plan", directory).stdout.startswith("2 to create")


def test_warnings_as_errors_fail_a_sync_before_it_writes(programs: Programs, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(modern_cluster_policy("one"), validating_policy("two")))
    strict = programs.with_(INSIGHTS_WARNINGS_AS_ERRORS="true")
    done = strict.run("insights-applier", "sync")
    line = document(done.stdout.splitlines()[-1])
    assert (done.returncode, line["failed"]) == (ExitCode.INVALID_POLICY, ["one"])
    assert programs.run("insights-applier", "sync").returncode == 0


def test_a_sync_logs_what_the_server_warns_of_once(programs: Programs, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(modern_cluster_policy("one"), modern_cluster_policy("two")))
    done = programs.run("insights-applier", "sync")
    assert done.returncode == 0
    assert (done.stdout + done.stderr).count(DEPRECATED) == 1


def test_an_unused_kind_that_is_deprecated_is_no_warning(programs: Programs) -> None:
    directory = written(programs, validating_policy("one"))
    done = programs.run("insights-applier", "apply", directory)
    assert done.returncode == 0
    assert "deprecated" not in done.stdout + done.stderr


def test_a_run_without_the_cli_says_so(programs: Programs, insights: InsightsStandIn) -> None:
    twice = modern_cluster_policy("twice")
    twice["spec"]["rules"] *= 2
    directory = written(programs, twice)
    skipping = programs.with_(VALIDATE_POLICIES="false")
    said = "The kyverno CLI was not asked (VALIDATE_POLICIES=false)"
    validated = skipping.run("insights-applier", "validate", directory)
    assert (validated.returncode, said in validated.stdout.splitlines()[-1]) == (0, True)
    as_json = skipping.run("insights-applier", "validate", directory, "-o", "json")
    assert document(as_json.stdout)["kyvernoCli"] == "skipped"
    rehearsed = skipping.run("insights-applier", "apply", directory, "--dry-run")
    assert said in rehearsed.stdout.splitlines()[-1]
    applied = skipping.run("insights-applier", "apply", directory)
    assert (applied.returncode, said in applied.stdout.splitlines()[-1]) == (0, True)
    insights.publish(CLUSTER, answer(twice))
    synced = skipping.run("insights-applier", "sync")
    assert said in document(synced.stdout.splitlines()[-1])["summary"]


def test_without_the_cli_the_schema_and_the_server_still_refuse(programs: Programs) -> None:
    unknown = modern_cluster_policy("unknown")
    unknown["spec"]["nope"] = 1
    skipping = programs.with_(VALIDATE_POLICIES="false")
    directory = written(programs, unknown, admission_policy("syntax"))
    done = skipping.run("insights-applier", "validate", directory, "-o", "json")
    found = document(done.stdout)
    assert done.returncode == ExitCode.INVALID_POLICY
    assert {f["layer"] for f in found["findings"] if f["severity"] == "error"} <= {"schema", "server"}
    assert found["counts"]["invalid"] == 1


def test_a_kind_of_which_kyverno_is_not_asked_is_named(programs: Programs) -> None:
    spec = {
        "schedule": "*/5 * * * *",
        "matchConstraints": validating_policy()["spec"]["matchConstraints"],
        "conditions": [{"name": "c", "expression": "has(object.metadata.labels)"}],
    }
    body = {
        "apiVersion": "policies.kyverno.io/v1",
        "kind": "NamespacedDeletingPolicy",
        "metadata": {"name": "old", "namespace": "default"},
        "spec": spec,
    }
    done = programs.run("insights-applier", "plan", written(programs, body))
    said = "Kyverno's admission controller does not check NamespacedDeletingPolicy/default/old: "
    assert said in done.stdout, done.stdout + done.stderr
    programs.run("insights-applier", "apply", "policies")
    assert said not in programs.run("insights-applier", "plan", "policies").stdout


@pytest.mark.parametrize("missing", [("--kyverno", "/nowhere/kyverno"), ()])
def test_without_the_cli_nothing_is_validated_nor_written(programs: Programs, missing: tuple[str, ...]) -> None:
    directory = written(programs, validating_policy("one"))
    empty = Path(programs.directory) / "no-programs"
    empty.mkdir()
    without = programs.with_(PATH=str(empty))
    for command in ("validate", "apply"):
        done = without.run("insights-applier", command, directory, *missing)
        assert done.returncode == ExitCode.CONFIGURATION
        assert "VALIDATE_POLICIES=false skips this layer, and only this one." in done.stderr
        assert done.stdout == ""
    assert programs.run("insights-applier", "plan", directory).stdout.startswith("1 to create")
