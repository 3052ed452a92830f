"""Many policies on many objects with the real kyverno CLI: its words and its quirks; and impact with no cluster."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from applier.kyverno_cli.bulk import Bulk, Failed, OutOfTimeError, Said
from applier.kyverno_cli.process import KyvernoProcess
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.insights import InsightsStandIn
from tests.support.policies import admission_policy, cluster_policy, exception, validating_policy
from tests.support.programs import Programs
from tests.support.tools import tool
from tests.support.workflow import render, until

pytestmark = pytest.mark.tool

PRODUCTION: Final = {"matchLabels": {"env": "prod"}}
NAMESPACES: Final[list[JsonObject]] = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"env": env}}}
    for name, env in (("shop", "prod"), ("lab", "dev"))
]


def config_map(namespace: str) -> JsonObject:
    metadata = {"name": "same", "namespace": namespace, "uid": f"of-{namespace}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}


def pod(namespace: str) -> JsonObject:
    metadata = {"name": "same", "namespace": namespace, "uid": f"pod-of-{namespace}"}
    spec = {"containers": [{"name": "a", "image": "b"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def on_config_maps(name: str, **resources: Any) -> JsonObject:
    body = cluster_policy(name)
    body["spec"]["rules"][0]["match"] = {"any": [{"resources": {"kinds": ["ConfigMap"], **resources}}]}
    return body


def evaluated(
    policies: Mapping[int, JsonObject],
    objects: list[JsonObject],
    exceptions: Mapping[int, list[JsonObject]] | None = None,
) -> tuple[list[Said], list[Failed]]:
    bulk = Bulk(process=KyvernoProcess(path=tool("kyverno"), timeout_seconds=110), seconds_left=lambda: 100)
    given = {number: (exceptions or {}).get(number, []) for number in policies}
    return bulk.evaluate(policies, given, objects, NAMESPACES)


def rows(said: list[Said]) -> set[tuple[int, str, str, str]]:
    return {(one.number, one.result.rule, one.result.outcome, one.result.uid) for one in said}


def test_each_row_is_of_one_policy_one_rule_and_one_object() -> None:
    selecting = validating_policy("p2", expression="has(object.data.a)")
    selecting["spec"]["matchConstraints"]["namespaceSelector"] = PRODUCTION
    by_server = admission_policy("p3")
    by_server["spec"]["matchConstraints"]["namespaceSelector"] = PRODUCTION
    of_shop = {
        **validating_policy("p4"),
        "kind": "NamespacedValidatingPolicy",
        "metadata": {"name": "p4", "namespace": "shop"},
    }
    said, failed = evaluated(
        {
            0: on_config_maps("p0"),
            1: on_config_maps("p1", namespaceSelector=PRODUCTION),
            2: selecting,
            3: by_server,
            4: of_shop,
        },
        [config_map("shop"), config_map("lab"), pod("shop"), pod("lab")],
    )
    assert failed == []
    assert rows(said) == {
        (0, "team", "fail", "of-shop"),
        (0, "team", "fail", "of-lab"),
        (1, "team", "fail", "of-shop"),
        (2, "", "fail", "of-shop"),
        (3, "p3", "fail", "pod-of-shop"),
        (4, "", "fail", "of-shop"),
        # The CLI knows nothing of the namespace that such a policy is for: impact does.
        (4, "", "fail", "of-lab"),
    }
    assert {one.result.message for one in said if one.number == 4} == {"It needs labels."}


def test_an_exception_is_that_of_its_policy() -> None:
    exempting = exception("x", namespace="shop")
    exempting["spec"] = {
        "policyRefs": [{"name": "p1", "kind": "ValidatingPolicy"}],
        "matchConditions": [{"name": "lab", "expression": "object.metadata.namespace == 'lab'"}],
    }
    said, _ = evaluated(
        {number: validating_policy(f"p{number}") for number in (0, 1)},
        [config_map("shop"), config_map("lab")],
        {1: [exempting]},
    )
    assert {(one.number, one.result.outcome, one.result.uid) for one in said} == {
        (0, "fail", "of-shop"),
        (0, "fail", "of-lab"),
        (1, "fail", "of-shop"),
        (1, "skip", "of-lab"),
    }


def test_what_fails_is_narrowed_down_and_the_rest_is_evaluated() -> None:
    refused = on_config_maps("p1")
    refused["spec"]["rules"][0]["validate"]["message"] = "{{ nonsense( }}"
    uncompiled = validating_policy("p2", expression="object.metadata ===")
    crashing = on_config_maps("p3")
    crashing["spec"]["webhookConfiguration"] = {"matchConditions": [{"name": "a", "expression": "true"}]}
    policies = {0: on_config_maps("p0"), 1: refused, 2: uncompiled, 3: crashing}
    said, failed = evaluated(policies, [config_map("shop")])
    assert rows(said) == {(0, "team", "fail", "of-shop")}
    assert {one.number: one.objects for one in failed} == {1: 1, 2: 1, 3: 1}
    assert all(one.reason.startswith("the kyverno CLI") for one in failed)


def test_no_run_begins_when_the_time_is_over() -> None:
    bulk = Bulk(process=KyvernoProcess(path=Path("/nonexistent"), timeout_seconds=1), seconds_left=lambda: 0)
    with pytest.raises(OutOfTimeError):
        bulk.evaluate({0: cluster_policy("p0")}, {0: []}, [config_map("shop")], NAMESPACES)


# --- plan --impact=DIR, which needs no cluster --------------------------------------------------------


@pytest.fixture
def reviewed(offline: Programs, insights: InsightsStandIn) -> Programs:
    """Two snapshots: `old` reports what `snapshot` denies."""
    audits, denies = on_config_maps("require-team"), on_config_maps("require-team")
    denies["spec"]["rules"][0]["validate"]["failureAction"] = "Enforce"
    render(offline, insights, audits)
    (offline.directory / "snapshot").rename(offline.directory / "old")
    render(offline, insights, denies)
    manifests = offline.directory / "manifests" / "deeper"
    manifests.mkdir(parents=True)
    listed = {"apiVersion": "v1", "kind": "List", "items": [config_map("shop"), config_map("lab")]}
    (manifests / "list.json").write_text(json.dumps(listed))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}
    (manifests / "secret.yml").write_text(json.dumps(secret))
    (manifests / "values.yaml").write_text("replicas: 3\n")
    return offline


def planned(programs: Programs, *arguments: str, expect: int) -> str:
    done = programs.run("insights-applier", "plan", "snapshot", "--against", "old", *arguments)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_manifests_are_evaluated_as_a_cluster_is(reviewed: Programs) -> None:
    (reviewed.directory / "manifests" / "loop").symlink_to(reviewed.directory / "manifests")
    shown = planned(reviewed, "--impact=manifests", expect=ExitCode.CHANGES)
    assert "Impact on manifests: 2 newly blocked, 0 newly reported, 0 newly let through" in shown
    assert "ClusterPolicy/require-team rule team: validation error: Set the label team." in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--impact=nowhere"], ExitCode.INPUT, "nowhere does not exist"),
        (["--impact=snapshot/snapshot.lock"], ExitCode.INPUT, "is no directory"),
        (["--impact=empty"], ExitCode.INPUT, "empty holds no manifest"),
        (["--impact=broken"], ExitCode.INPUT, "broken/a.yaml:2"),
        (["--impact=binary"], ExitCode.INPUT, "binary/a.yaml"),
        (["--impact=piped"], ExitCode.INPUT, "piped/a.yaml: can't be read: it is no regular file"),
        (["--impact=looped"], ExitCode.INPUT, "looped/a.yaml: can't be read: Too many levels of symbolic links"),
        (["--impact=wrong"], ExitCode.INPUT, "wrong/a.yaml:3 (document 1): metadata.ownerReferences[0]: has a type"),
        (["--impact=dangling"], ExitCode.INPUT, "dangling/a.yaml: can't be read: No such file or directory"),
        (["--impact"], ExitCode.USAGE, "--impact=DIR"),
        (["--impact=manifests", "--kyverno", "nowhere"], ExitCode.CONFIGURATION, "--kyverno"),
    ],
)
def test_what_can_not_be_used_gets_one_clear_message(
    reviewed: Programs, arguments: list[str], code: int, words: str
) -> None:
    for name in ("empty", "broken", "dangling", "binary", "piped", "looped", "wrong"):
        (reviewed.directory / name).mkdir()
    (reviewed.directory / "binary" / "a.yaml").write_bytes(bytes(range(256)) * 100)
    os.mkfifo(reviewed.directory / "piped" / "a.yaml")
    (reviewed.directory / "looped" / "a.yaml").symlink_to("a.yaml")
    (reviewed.directory / "wrong" / "a.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, ownerReferences: [b]}\n"
    )
    (reviewed.directory / "broken" / "a.yaml").write_text("a: [")
    (reviewed.directory / "dangling" / "a.yaml").symlink_to("gone")
    assert words in planned(reviewed, *arguments, expect=code)


def wrapped(programs: Programs, script: str) -> str:
    """Something in the place of the kyverno CLI that does this."""
    file = programs.directory / "wrapper"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_a_cli_that_is_killed_leaves_what_it_was_asked_uncounted_and_says_so(reviewed: Programs) -> None:
    kyverno = wrapped(reviewed, "kill -KILL $$")
    shown = planned(reviewed, "--impact=manifests", f"--kyverno={kyverno}", expect=ExitCode.CHANGES)
    assert "0 newly blocked" in shown
    assert f"not evaluated ClusterPolicy/require-team: The kyverno CLI ({kyverno}) was killed (SIGKILL)" in shown


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_a_signal_ends_it_with_all_that_it_started(reviewed: Programs, number: signal.Signals, code: int) -> None:
    kyverno = wrapped(reviewed, f"echo $$ >{reviewed.directory}/began\nexec sleep 1000")
    command = ["plan", "snapshot", "--against", "old", "--impact=manifests", f"--kyverno={kyverno}"]
    began = reviewed.directory / "began"
    with reviewed.start("insights-applier", *command, "--report", "json=plan.json") as process:
        until(lambda: began.exists() and began.read_text().endswith("\n"))
        process.send_signal(number)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == code, shown
    assert len([line for line in shown.splitlines() if line.startswith("Error: ")]) == 1, shown
    assert "Traceback" not in shown
    assert not Path(f"/proc/{int(began.read_text())}").exists()
    assert not (reviewed.directory / "plan.json").exists()
