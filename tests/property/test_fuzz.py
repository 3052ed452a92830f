"""Every reader of what others wrote gives values or its own failures; `ci/fuzz` asks the same for hours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from applier.kyverno_cli import output
from renderer.manifest.yamlio import Limits, load_documents
from tests.support import kyverno_words
from tests.support.fuzzing import Target, read_yaml, targets

TARGETS = {target.name: target for target in targets()}
SENTINEL = kyverno_words.sentinel(0).encode()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_reader_gives_values_or_its_own_failures(target: Target) -> None:
    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def check(data: Any) -> None:
        target.check(data)

    check()


@pytest.mark.parametrize("target", [target for target in TARGETS.values() if target.pieces], ids=lambda one: one.name)
def test_much_of_the_same_is_read_too(target: Target) -> None:
    @settings(max_examples=50, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(target.pieces), min_size=1, max_size=3).map(b"".join))
    def check(unit: bytes) -> None:
        target.check(target.grown(unit * (20_000 // len(unit))) if unit else target.grown(b""))

    check()


def _lock(path: str) -> bytes:
    """A lock of one policy, in which escapes stay as they are written."""
    return (
        '{"formatVersion": 1, "organization": "acme", "cluster": "prod", "count": 1, "digest": "d", "policies": ['
        f'{{"path": "{path}", "apiVersion": "v1", "kind": "A", "namespace": "", "name": "a", "sha256": "s"}}]}}'
    ).encode()


def _record(entry: bytes) -> bytes:
    """The record of one on-demand job, as somebody made it."""
    return (
        b'{"formatVersion": 1, "organization": "", "cluster": "", "leader": "", "renewed": "", "jobs": ['
        b'{"reportType": "trivy", "state": "waiting", ' + entry + b"}]}"
    )


#: What readers once got wrong, each by the reader's name.
FOUND: tuple[tuple[str, Any], ...] = (
    # An error in quotes that end nowhere, and escapes that Go does not make.
    ("cli", (b"", b'x > policy validation error error="\n')),
    ("cli", (b"", b'x Non-fatal parsing error error="\\ud800 \\x \\q \\U00110000"\n' + SENTINEL)),
    # Numbers that Python refuses to convert.
    ("cli", (b"Version: 1." + b"9" * 5000 + b".0\nApplying " + b"9" * 5000 + b" policy rule(s) to 1", SENTINEL)),
    ("cli", (b"", b"Error: spec.rules[" + b"9" * 5000 + b"]: bad")),
    # Reports whose rows are no rows.
    ("cli", (b'{"kind":"Report","results":null}{"kind":"Report","results":[null,{"resources":{}}]}', b"")),
    ("cli", (b'{"kind":"Report","results":[{"policy":"p0","message":"\\ud800","resources":[0]}]}', b"")),
    ("cli", (b'{"kind":"Report","results":' * 3000, b"")),
    # A lock that is nested too deep, or names a path that there can't be.
    ("snapshot", {"snapshot.lock": b"[" * 100_000}),
    ("snapshot", {"snapshot.lock": _lock("\\ud800.yaml")}),
    # Numbers that are none, in what is kept between runs.
    ("kept", (b'{"formatVersion": 1, "fencing": {"lease": "a", "transitions": 1e999}, "intents": 1e999}', b"")),
    ("kept", (_record(b'"id": 1e999'), b"")),
    ("kept", (_record(b'"id": 1, "claimedAt": 1' + b"0" * 400), b"")),
    ("kept", (b"[" * 100_000, b"")),
    # A time zone that is further away than any.
    ("insights", b"Mon, 01 Jan 2026 00:00:00 +99999999999999999"),
    # A plan with a key that is no text.
    ("plan", b'{"format": "insights-applier/plan", "formatVersion": 1, "\\ud800": 1}'),
)


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_stays_mended(name: str, data: Any) -> None:
    TARGETS[name].check(data)


def test_the_lines_of_many_mistakes_are_found_in_one_pass() -> None:
    # One pass for each would take the test's time limit several times over.
    wrong = b"".join(b"    k%d: 1\n" % number for number in range(20_000))
    read_yaml(b"apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: a\n  annotations:\n" + wrong)


def test_merging_costs_no_more_than_what_is_merged() -> None:
    keys = b"".join(b"k%d: 1\n" % number for number in range(150_000))
    documents, _ = load_documents(
        keys + b"<<: {}\n" * 300_000, source="merged", limits=Limits(nodes_after_aliases=1_000_000)
    )
    assert len(documents) == 1


@pytest.mark.parametrize("words", ["Invalid value: {", "failed to parse document ("])
def test_explaining_takes_no_longer_for_words_that_are_said_again(words: str) -> None:
    assert output.explain(words * 400_000)[0] == ()
