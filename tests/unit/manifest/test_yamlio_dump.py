"""Values are written in one form that is easy to review, and that every reader takes for the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from renderer.manifest.yamlio import dump, load

POLICY = {
    "status": {},
    "spec": {
        "rules": [
            {
                "validate": {"message": "No.\n", "pattern": {"=(a)": "?*", "b": [], "c": {}}},
                "match": {"any": [{"resources": {"kinds": ["Pod", "Job"], "namespaces": ["n", "prod"]}}]},
                "name": "first",
                "exclude": None,
            },
            {"name": "{{ x }}", "context": [[1, [2]], "two\nlines"], "match": [[]]},
        ],
        "background": True,
    },
    "metadata": {"annotations": {"b/c": "1.0", "a": "x: y"}, "labels": {"z": ""}, "namespace": "s", "name": "p"},
    "kind": "ClusterPolicy",
    "apiVersion": "kyverno.io/v1",
}

WRITTEN = """\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata:
  name: p
  namespace: s
  labels:
    z: ""
  annotations:
    a: "x: y"
    b/c: "1.0"
spec:
  background: true
  rules:
  - name: first
    match:
      any:
      - resources:
          kinds:
          - Pod
          - Job
          namespaces:
          - "n"
          - prod
    exclude: null
    validate:
      message: |
        No.
      pattern:
        =(a): "?*"
        b: []
        c: {}
  - name: "{{ x }}"
    match:
    - []
    context:
    - - 1
      - - 2
    - |-
      two
      lines
status: {}
"""


def test_writes_a_policy_as_people_expect_it() -> None:
    assert dump(POLICY) == WRITTEN


def test_the_order_of_keys_does_not_matter() -> None:
    turned = json.loads(json.dumps(POLICY), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert list(turned) != list(POLICY)
    assert dump(turned) == WRITTEN


@pytest.mark.parametrize(
    "text",
    ["Pod", "a b", "apps/v1", "-c", "--flag=x", "a:b", "http://x:80/y", "a#b", "it's", 'say "a"', "a\\b", "a, b",
     "x[0]", "^(a)", "=(a)", "<(a)", "(a)", "10.0.0.1", "1.2.3", "500m", "10Mi", "1h", "v1", "é", "😀", "<=5", "_a",
     "a  b", "yEs", "0x", "$x", "/a/", "a%", "a@b", "a~", "~a", ".a", "..", "+a", "=a", "1,000", "12:60:00"],
)  # fmt: skip
def test_plain_text_has_no_quotes(text: str) -> None:
    assert dump([text]) == f"- {text}\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        # Other types, for Kubernetes or for readers of YAML 1.1 or 1.2
        *((word, f'"{word}"') for word in ("y", "N", "yes", "No", "on", "OFF", "true", "False", "null", "~", "")),
        *((word, f'"{word}"') for word in ("1", "-1", "+1", "012", "0o7", "08", "0x1F", "0b1", "1_000", "1e3")),
        *((word, f'"{word}"') for word in ("1.0", ".5", "-.5", ".inf", ".NaN", "12:30", "190:20:30.15", "1.")),
        *((word, f'"{word}"') for word in ("2001-01-01", "2001-12-14t21:59:43.10-05:00", "=", "<<", "1e400")),
        *((word, f'"{word}"') for word in ("18446744073709551616", ".1_0", "0b+1", "1_0.5", "6.02e23")),
        # Syntax
        *((word, f'"{word}"') for word in (" a", "a ", "a: b", "a:", "a #b", "#a", "- a", "-", "--", "---", "--- a")),
        *((word, f'"{word}"') for word in ("...", "... a", "?", "? a", "?*", ": a", ":a", ", a", "[a", "]", "{a", "}")),
        *((word, f'"{word}"') for word in ("&a", "*", "!a", "|", ">", "%a", "@a", "`a", "'a'", "-[", "-é")),
        ('"a"', "'\"a\"'"),
        ("'a\"", "'''a\"'"),
        ("*\\d", "'*\\d'"),
        # Characters
        ("a\tb", r'"a\tb"'),
        ("\n", r'"\n"'),
        (" \n", r'" \n"'),
        ("a\n\n", r'"a\n\n"'),
        ("a\r\nb", r'"a\r\nb"'),
        ("a\0\x1b\x7f\x85\u2028\u2029\ufeff\ufffe", r'"a\u0000\u001b\u007f\u0085\u2028\u2029\ufeff\ufffe"'),
        ("access\u202e \u2066", r'"access\u202e \u2066"'),
        ('1\n\x07\\"', r'"1\n\u0007\\\""'),
    ],
)  # fmt: skip
def test_other_text_has_quotes(text: str, written: str) -> None:
    assert dump([text]) == f"- {written}\n"
    assert dump({text: text}) == f"{written}: {written}\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\n", "|\n  a"),
        ("a\nb", "|-\n  a\n  b"),
        ("a\n\n  b\n", "|\n  a\n\n    b"),
        ("a  \n\tb \n \nc\n", "|\n  a  \n  \tb \n   \n  c"),
        (" a\nb\n", "|2\n   a\n  b"),
        ("\n a\nb", "|2-\n\n   a\n  b"),
        ("\ta\nb\n", "|2\n  \ta\n  b"),
        ("\n\na\n", "|\n\n\n  a"),
        ("# a\n- b: c\n--- \n...\n", "|\n  # a\n  - b: c\n  --- \n  ..."),
        ("a\n ", "|-\n  a\n   "),
        ("é😀\nx" * 2, "|-\n  é😀\n  xé😀\n  x"),
    ],
)
def test_text_of_several_lines_is_a_block(text: str, written: str) -> None:
    assert dump({"k": text, "l": 1}) == f"k: {written}\nl: 1\n"
    assert dump([text]) == f"- {written}\n"
    (document,) = load(dump([[text], {"k": [text]}]).encode(), source="dumped")
    assert document.value == [[text], {"k": [text]}]


def test_long_lines_are_not_folded() -> None:
    line = "word " * 1000 + "end"
    assert dump({"k": line}) == f"k: {line}\n"


@pytest.mark.parametrize("length", [127, 999, 1001, 5000])
def test_long_keys_are_read_back(length: int) -> None:
    value = {"k" * length: {"a": 1}, "l" * length: ["b\n"], "é" * length: "c\n", "m": {"n" * length: 1}}
    text = dump(value)
    assert [document.value for document in load(text.encode(), source="dumped")] == [value]
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (1.5, "1.5"),
        (1e20, "100000000000000000000"),
        (1e21, "1.0e+21"),
        (-1.5e300, "-1.5e+300"),
        (1e-7, "1.0e-07"),
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
        ({}, "{}"),
        ([], "[]"),
        ("a\nb", r'"a\nb"'),
    ],
)
def test_writes_values_of_every_type(value: Any, written: str) -> None:
    assert dump(value) == f"{written}\n"


@pytest.mark.parametrize(
    "value", [float("nan"), float("-inf"), 2**64 - 1, -(2**63) - 1, 10**400, "a\ud800", {"\udfff": 1}]
)
def test_refuses_what_could_not_be_read_back(value: Any) -> None:
    with pytest.raises(ValueError, match=r"infinity|change the integer|too large|surrogate"):
        dump({"k": [value]})


@pytest.mark.parametrize("value", [("a",), {"a"}, b"a", object()])
def test_refuses_what_is_not_json(value: Any) -> None:
    with pytest.raises(TypeError, match="not a JSON value"):
        dump({"k": [value]})
