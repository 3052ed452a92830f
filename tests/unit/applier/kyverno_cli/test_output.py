"""The text of `kyverno apply`, as version 1.19.1 printed it, and what is read from it."""

from __future__ import annotations

from applier.kyverno_cli import output
from applier.kyverno_cli.output import Refusal, Result
from tests.support.kyverno_words import (
    CLOSING,
    DIVIDER,
    MUTATED,
    NAMESPACED_REPORT,
    NOT_COMPILED,
    NOT_COMPILED_ON_ITS_OWN,
    PANIC,
    REPORT,
    SKIPPED,
    SKIPPED_REASONS,
    UNKNOWN_FIELD,
    WRONG_TYPE,
    dropped,
    listed,
    refused,
    sentinel,
)


def test_a_complaint_belongs_to_the_file_before_the_next_sentinel() -> None:
    log = sentinel(0) + UNKNOWN_FIELD + sentinel(1) + sentinel(2) + WRONG_TYPE + sentinel(3)
    reading = output.read("", log)
    assert reading.visited == {0, 1, 2, 3}
    assert set(reading.dropped) == {1, 3}
    assert "spec.rulez" in reading.dropped[1]
    assert '"wrongtype" is invalid: spec.background' in reading.dropped[3]


def test_the_complaints_about_one_file_are_kept_together() -> None:
    reading = output.read("", WRONG_TYPE + UNKNOWN_FIELD + sentinel(7))
    assert "spec.background" in reading.dropped[7]
    assert "spec.rulez" in reading.dropped[7]


def test_a_file_whose_sentinel_was_not_reached_is_not_visited() -> None:
    reading = output.read("", sentinel(0) + UNKNOWN_FIELD)
    assert reading.visited == {0}
    assert not reading.dropped


def test_gos_escapes_are_undone() -> None:
    reading = output.read("", dropped(r"a \"b\"\n\tc \x7f \u00e9") + sentinel(0))
    assert reading.dropped[0] == 'a "b"\n\tc \x7f é'


def test_deprecated_kinds_are_named_when_they_are_loaded() -> None:
    text = "kyverno.io/v1 ClusterPolicy is deprecated and will be removed in a future release"
    assert output.read(f"Warning: p0.yaml: {text}\nWarning: p12.yaml: {text}\n", "").announced == {0, 12}


def test_what_kyverno_skips_has_a_name_and_a_reason() -> None:
    reading = output.read(SKIPPED, refused(*SKIPPED_REASONS))
    assert [refusal.name for refusal in reading.skipped] == ["dup", "undef"]
    assert reading.skipped[0].reason.endswith("Duplicate rule name: 'r'")
    assert reading.rules == 16
    assert reading.finished


def test_invalid_policies_are_listed_apart_and_a_reason_may_have_many_lines() -> None:
    reasons = ("variable 'element.name'\n3. is no entry", "bad")
    lists = f"{listed('Policies Skipped', '1. bare: bad')}{listed('Invalid Policies', f'1. each: {reasons[0]}')}"
    assert output.read(lists, refused(*reasons)).skipped == (
        Refusal(name="bare", reason="bad"),
        Refusal(name="each", reason="variable 'element.name'\n3. is no entry"),
    )


def test_a_reason_that_ends_the_list_hides_nobody() -> None:
    reasons = (f"not found: y\n{DIVIDER}\nz", "bad")
    lists = listed("Policies Skipped", f"1. a: {reasons[0]}", f"2. b: {reasons[1]}")
    assert [refusal.name for refusal in output.read(lists, refused(*reasons)).skipped] == ["a", "b"]


def test_names_that_may_be_a_policys_own_words_count_for_nothing() -> None:
    lists = listed("Policies Skipped", "1. a: bad") + listed("Policies Skipped", "1. b: bad")
    assert output.read(lists, refused("bad")).skipped == (Refusal(name="", reason="bad"),)
    assert output.read(listed("Policies Skipped", "1. a: bad"), "").skipped == (Refusal(name="", reason=""),)
    assert output.read("", refused("bad")).skipped == (Refusal(name="", reason="bad"),)


def test_a_name_in_a_policys_own_words_is_not_announced() -> None:
    text = "Warning: p1.yaml: kyverno.io/v1 ClusterPolicy is deprecated\n"
    assert output.read(
        f"{text}\nApplying 2 policy rule(s) to 1 resource(s)...\n{text.replace('1', '2')}", ""
    ).announced == {1}


def test_a_sentinel_in_a_policys_own_words_ends_nothing() -> None:
    error = r"spec.> skipping invalid YAML file error=\"stat ::3: x\" path=::3 v=3: unknown field"
    reading = output.read("", dropped(error) + sentinel(0))
    assert reading.visited == {0}
    assert set(reading.dropped) == {0}


def test_a_failing_evaluation_is_no_refusal() -> None:
    reading = output.read("policy cl -> resource default/Lease/probe failed:\n1 - cl did not match\n" + CLOSING, "")
    assert not reading.skipped
    assert reading.finished


def test_cel_that_does_not_compile_names_its_policy() -> None:
    reading = output.read("", sentinel(0) + NOT_COMPILED)
    assert reading.compile_error is not None
    assert reading.compile_error.name == "bad-vpol"
    path, message = output.explain(reading.compile_error.reason)
    assert path == ("spec", "validations", 0, "expression")
    assert message == (
        'Invalid value: "object.metadata.labels.foo ===": ERROR: <input>:1:30: Syntax error: '
        "token recognition error at: '='; ERROR: <input>:1:31: Syntax error: mismatched input '<EOF>'"
    )


def test_some_kinds_fail_to_compile_without_the_probe_being_named() -> None:
    reading = output.read("", NOT_COMPILED_ON_ITS_OWN)
    assert reading.compile_error is not None
    assert reading.compile_error.name == "bad-dpol"
    path, message = output.explain(reading.compile_error.reason)
    assert path == ("spec", "conditions", 0, "expression")
    assert message.endswith("ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'")


def test_an_end_that_names_no_policy_is_kept_apart() -> None:
    reading = output.read("", sentinel(0) + "Error: failed to apply policies on resource probe (no such kind)\n")
    assert reading.other_error == "no such kind"
    assert reading.compile_error is None
    assert reading.makes_sense


def test_a_panic_is_told_by_its_first_line() -> None:
    reading = output.read("", sentinel(0) + PANIC)
    assert reading.crash == "panic: runtime error: invalid memory address or nil pointer dereference"
    assert not output.out_of_memory(PANIC)


def test_want_of_memory_is_told_from_a_panic() -> None:
    assert output.out_of_memory(
        "runtime: out of memory: cannot allocate 4194304-byte block\nfatal error: out of memory\n"
    )
    assert output.out_of_memory("fatal error: failed to reserve page summary memory\n\nruntime stack:\n")


def test_nothing_and_a_refused_flag_make_no_sense() -> None:
    assert not output.read("", "").makes_sense
    assert not output.read("hello\n", "").makes_sense
    assert not output.read("", "Error: unknown flag: --remove-color\n").makes_sense


def test_rows_are_found_in_every_report_and_behind_other_text() -> None:
    rows = output.results(MUTATED + REPORT + NAMESPACED_REPORT)
    assert [(row.policy, row.outcome) for row in rows] == [("p0", "error"), ("team-a/p1", "pass")]


def test_a_cut_report_has_no_rows() -> None:
    assert output.results(REPORT[:200]) == ()


def test_only_compile_errors_of_the_probe_count() -> None:
    def row(outcome: str, message: str) -> str:
        return Result(policy="p0", outcome=outcome, message=message).compile_error

    assert output.results(REPORT)[0].compile_error.startswith("compilation failed: ERROR: <input>:1:30")
    assert row("error", "failed to compile policy: spec.validations[0].expression: x").startswith("spec.")
    assert not row("error", "failed to evaluate policy: no such key: notThere")
    assert not row("fail", "failed to compile policy: a message of the policy's own")


def test_kinds_that_the_cli_does_not_know() -> None:
    assert output.unknown_kind(
        "failed to load file p9.yaml: policy type not supported policies.kyverno.io/v1, Kind=PolicyException"
    )
    assert output.unknown_kind(
        "failed to parse document (failed to retrieve validator: kind GlobalContextEntry not found in "
        "kyverno.io/v2 groupversion)"
    )
    assert not output.unknown_kind("spec.rulez: Invalid value: value provided for unknown field")


def test_a_reason_loses_its_wrapping_and_whole_rules() -> None:
    reading = output.read(SKIPPED, UNKNOWN_FIELD + sentinel(1) + WRONG_TYPE + sentinel(3) + refused(*SKIPPED_REASONS))
    assert output.explain(reading.dropped[1]) == (
        ("spec", "rulez"),
        "Invalid value: value provided for unknown field",
    )
    assert output.explain(reading.dropped[3]) == (
        ("spec", "background"),
        'Invalid value: "string": spec.background in body must be of type boolean: "string"',
    )
    assert output.explain(reading.skipped[0].reason) == (
        ("spec", "rules", 1, "name"),
        "Invalid value: Duplicate rule name: 'r'",
    )


def test_choices_are_in_one_order() -> None:
    one, other = (f"invalid. valid values: [{choices}]: spec" for choices in ('"In" "Equals"', '"Equals" "In"'))
    assert output.explain(one) == output.explain(other)


def test_a_long_reason_is_cut() -> None:
    path, message = output.explain("spec.a: " + "x" * 5000)
    assert path == ("spec", "a")
    assert len(message) < 700


def test_the_version() -> None:
    assert output.version("Version: v1.19.1\nTime: ---\nGit commit ID: ---\n") == "1.19.1"
    assert output.version("usage: something else\n") == ""
