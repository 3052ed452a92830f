"""What `kyverno apply` prints, in the words of version 1.19.1."""

from __future__ import annotations

import json

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


def refused(*reasons: str) -> str:
    """The log of Kyverno's own checks; its quoting and JSON's are the same for what is used here."""
    return "".join(
        f"{ERROR}:567 > policy validation error error={json.dumps(reason)} logger=kubectl-kyverno\n"
        for reason in reasons
    )


def listed(title: str, *entries: str) -> str:
    return "\n".join((DIVIDER, f"{title}:", *entries, DIVIDER, ""))


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
SKIPPED_REASONS = (
    'spec.rules[1].name: Invalid value: {"name":"r","match":{"any":[]}}: Duplicate rule name: \'r\'',
    "policy contains invalid variables: variable substitution failed for rule r: variable foo.bar must",
)
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
