"""The text of `kyverno apply`, as version 1.19.1 printed it, and what is read from it."""

from __future__ import annotations

from applier.kyverno_cli import output
from applier.kyverno_cli.output import Refusal, Result

LOG = "2026-11-24T18:05:22Z -2 github.com/kyverno/kyverno@v1.19.1/cmd/cli/kubectl-kyverno/commands/apply/x.go"
ERROR = LOG.replace(" -2 ", " ERR ")


def skipped(path: str, error: str) -> str:
    return f'{LOG}:1188 > skipping invalid YAML file error="{error}" logger=kubectl-kyverno path={path} v=3\n'


def sentinel(number: int) -> str:
    return skipped(f"::{number}", f"stat ::{number}: no such file or directory")


def dropped(error: str) -> str:
    return f'{ERROR}:1184 > Non-fatal parsing error for single document error="{error}" logger=kubectl-kyverno\n'


UNKNOWN_FIELD = skipped(
    "p1.yaml",
    "failed to load file p1.yaml: failed to parse document "
    "(spec.rulez: Invalid value: value provided for unknown field)",
)
WRONG_TYPE = dropped(
    r"failed to validate resource (ClusterPolicy.kyverno.io \"wrongtype\" is invalid: spec.background: "
    r"Invalid value: \"string\": spec.background in body must be of type boolean: \"string\")"
)
CLOSING = "\npass: 0, fail: 1, warn: 0, error: 2, skip: 0 \n"
DIVIDER = "-" * 70
SKIPPED = f"""\

Applying 16 policy rule(s) to 1 resource(s)...
{DIVIDER}
Policies Skipped:
1. dup: spec.rules[1].name: Invalid value: {{"name":"r","match":{{"any":[]}}}}: Duplicate rule name: 'r'
2. undef: policy contains invalid variables: variable substitution failed for rule r: variable foo.bar must
{DIVIDER}
policy cl -> resource default/Lease/probe failed:
1 - cl resource did not match
{CLOSING}"""
NOT_COMPILED = """\
Error: failed to apply policies on resource probe (failed to compile policy bad-vpol ([<nil>: Internal \
error: validating policy compiler 1.0 error: failed to compile policy, spec.validations[0].expression: Invalid \
value: "object.metadata.labels.foo ===": ERROR: <input>:1:30: Syntax error: token recognition error at: '='
 | object.metadata.labels.foo ===
 | .............................^
ERROR: <input>:1:31: Syntax error: mismatched input '<EOF>'
 | object.metadata.labels.foo ===
 | ..............................^]))
"""
NOT_COMPILED_ON_ITS_OWN = """\
Error: failed to compile policy bad-dpol ([<nil>: Internal error: deleting policy compiler 1.18 error: \
failed to compile policy, spec.conditions[0].expression: Invalid value: "1 + 'a'": ERROR: <input>:1:3: found no \
matching overload for '_+_' applied to '(int, string)'
 | 1 + 'a'
 | ..^])
"""
PANIC = """\
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x50 pc=0x40d2e64]

goroutine 1 [running]:
github.com/kyverno/kyverno/pkg/validation/policy.Validate({0xc92d020, 0x1802fdc31d48}, {0x0, 0x0})
"""
REPORT = (
    '{"kind":"ClusterReport","apiVersion":"openreports.io/v1alpha1","metadata":{"name":"merged"},"source":"",'
    '"summary":{"pass":0,"fail":0,"warn":0,"error":1,"skip":0},"results":[{"source":"ValidatingAdmissionPolicy",'
    '"policy":"p0","rule":"p0","result":"error","message":"compilation error: compilation failed: ERROR: '
    "\\u003cinput\\u003e:1:30: Syntax error: token recognition error at: '='\\n | object ===\"}]}\n"
)
NAMESPACED_REPORT = (
    '---\n{"kind":"PolicyReport","apiVersion":"openreports.io/v1alpha1","metadata":{"name":"p1","namespace":'
    '"team-a"},"source":"","results":[{"source":"KyvernoImageValidatingPolicy","policy":"team-a/p1",'
    '"rule":"p1","result":"pass","message":"success"}]}\n'
)
MUTATED = "\npolicy p2 applied to default/Pod/probe:\nkind: Pod\n---\n\n\nMutation:\nMutation has been applied."


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
    reading = output.read(SKIPPED, "")
    assert [refusal.name for refusal in reading.skipped] == ["dup", "undef"]
    assert reading.skipped[0].reason.endswith("Duplicate rule name: 'r'")
    assert reading.rules == 16
    assert reading.finished


def test_invalid_policies_are_listed_apart_and_a_reason_may_have_many_lines() -> None:
    entries = "1. each: variable 'element.name'\n3. is no entry\n2. bare"
    assert output.read(f"{DIVIDER}\nInvalid Policies:\n{entries}\n{DIVIDER}\n", "").skipped == (
        Refusal(name="each", reason="variable 'element.name'\n3. is no entry"),
        Refusal(name="bare", reason="refused without a reason"),
    )


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
    reading = output.read(SKIPPED, UNKNOWN_FIELD + sentinel(1) + WRONG_TYPE + sentinel(3))
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
