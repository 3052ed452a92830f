"""Documents are read as Kubernetes reads them, and whatever can't be is a problem with its place."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import pytest

from renderer.errors import DocumentErrors
from renderer.manifest.yamlio import Document, Limits, load, load_documents
from tests.support.yaml_traps import REFUSED, STREAMS, VALUES, Refused

TWICE = "appears twice in one mapping, and Kubernetes would keep the last only"


def read(data: bytes | str, **limits: int) -> tuple[list[Any], list[str]]:
    data = data.encode() if isinstance(data, str) else data
    documents, problems = load_documents(data, source="in.yaml", limits=Limits(**limits))
    return [document.value for document in documents], [str(problem) for problem in problems]


def only(data: bytes | str) -> Document:
    (document,) = load(data.encode() if isinstance(data, str) else data, source="in.yaml")
    return document


def same(left: Any, right: Any) -> bool:
    """Equal, where 1, 1.0 and True are three values."""
    return bool(left == right) and repr(left) == repr(right)


@pytest.mark.parametrize(("text", "value"), VALUES.items(), ids=repr)
def test_reads_a_value_as_kubernetes_does(text: str, value: Any) -> None:
    assert same(only(f"value: {text}").value, {"value": value})


@pytest.mark.parametrize(("data", "values"), STREAMS.items(), ids=repr)
def test_reads_a_stream_as_kubernetes_does(data: bytes, values: list[Any]) -> None:
    assert same(read(data), (values, []))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: repr(case.text))
def test_refuses_what_kubernetes_refuses_or_changes(case: Refused) -> None:
    _, problems = load_documents(case.text, source="in.yaml")
    first = problems[0]
    assert (first.source, first.line, first.column) == ("in.yaml", case.line, case.column)
    assert case.message in first.message


def test_numbers_documents_as_kubernetes_splits_them() -> None:
    documents = load(b"---\na: 1\n---\n\n---\n# c\n---\n---\n\n  b: 2\n", source="-")
    assert [(document.number, document.line, document.source) for document in documents] == [
        (1, 2, "-"),
        (4, 10, "-"),
    ]


def test_an_error_hides_none_in_other_documents() -> None:
    values, problems = read("a: [\n---\nb: 1\n--- c\nd: .inf\ne: *x\n---\nf: 1\nf: 2\nf: 3\n---\ng: 1\n")
    assert values == [{"b": 1}, {"g": 1}]
    assert [problem.split(": ", 2)[:2] for problem in problems] == [
        ["in.yaml:2:1 (document 1)", "not YAML"],
        ["in.yaml:4:4", "only a comment may follow `---` on its line, not 'c'"],
        ["in.yaml:5:4 (document 3)", "infinity and not-a-number can't be held; quote it if it is meant as text"],
        ["in.yaml:6:4 (document 3)", "there is no anchor &x above this alias"],
        ["in.yaml:9:1 (document 4)", f"the key 'f' {TWICE}"],
        ["in.yaml:10:1 (document 4)", f"the key 'f' {TWICE}"],
    ]


def test_load_raises_all_problems_together() -> None:
    with pytest.raises(DocumentErrors) as caught:
        load(b"a: .inf\n---\nb: .nan\n", source="Insights")
    assert [(problem.document, problem.line) for problem in caught.value.problems] == [(1, 1), (2, 3)]
    assert "Insights:3:4 (document 2)" in str(caught.value)


def test_an_alias_gives_a_value_of_its_own() -> None:
    value = only("a: &x {b: [1]}\nc: *x\nd: {<<: *x}\n").value
    value["a"]["b"].append(2)
    assert value == {"a": {"b": [1, 2]}, "c": {"b": [1]}, "d": {"b": [1]}}


POLICY = """\
# a comment
kind: ClusterPolicy
metadata:
  name: x
  1.0: y
spec:
  rules:
  - name: first
    match: {any: [{resources: {kinds: [Pod,
      Job]}}]}
  -
    name: second
    message: |
      line

      line
    last: &z
      deep: 1
    again: *z
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 5),
        (("kind",), 5),
        (("metadata", "name"), 7),
        (("metadata", "1"), 8),
        (("metadata", "missing"), 6),
        (("metadata", "name", "deeper"), 7),
        (("spec", "rules"), 10),
        (("spec", "rules", 0), 11),
        (("spec", "rules", 0, "match", "any", 0, "resources", "kinds", 1), 13),
        (("spec", "rules", 1), 15),
        (("spec", "rules", 1, "message"), 16),
        (("spec", "rules", 1, "last", "deep"), 21),
        (("spec", "rules", 1, "again", "deep"), 22),
        (("spec", "rules", 2), 10),
        (("spec", "rules", -1), 10),
        (("spec", "rules", "name"), 10),
        (("spec", 0), 9),
        (("nothing",), 5),
    ],
)
def test_knows_the_line_of_a_field(path: tuple[str | int, ...], line: int) -> None:
    _, document = load(f"a: 1\nb: 2\n---\n{POLICY}".encode(), source="in.yaml")
    assert document.line_of(*path) == line


def test_knows_the_line_of_a_field_in_json() -> None:
    assert only('\n{"kind": "A",\n "b": {"c": "/",\n "d": 1}}').line_of("b", "d") == 4
    # What YAML can't parse has the document's own line.
    assert only('\n{"kind": "A",\n "b": "\\ud83d\\ude00", "c": 1}').line_of("c") == 2


def test_a_document_that_was_not_read_has_one_line() -> None:
    assert Document(value={"a": 1}, source="made", number=1, line=7).line_of("a") == 7


# Limits


def test_limits_bytes() -> None:
    assert read("a: 12", bytes=5) == ([{"a": 12}], [])
    assert read("a: 123", bytes=5) == ([], ["in.yaml: 6 bytes are more than the limit of 5"])


def test_limits_documents() -> None:
    assert read("a: 1\n---\nb: 1\n", documents=2) == ([{"a": 1}, {"b": 1}], [])
    assert read("a: 1\n---\nb: 1\n---\nc: 1\n", documents=2) == (
        [{"a": 1}, {"b": 1}],
        ["in.yaml:5: there are more than 2 documents"],
    )
    assert len(read("---x\n" * 1000, documents=2)[1]) == 3


@pytest.mark.parametrize("text", ["[[[{}]]]", "- - - {}", '{"a": {"b": {"c": []}}}'])
def test_limits_depth(text: str) -> None:
    assert read(text, depth=4)[1] == []
    (problem,) = read(text, depth=3)[1]
    assert problem.endswith("nested more than 3 deep")


@pytest.mark.parametrize("opening", ["[", "{a: ", '{"a":[', "- ", "? ", "&a [", "!x ["])
def test_a_deep_document_is_an_error(opening: str) -> None:
    values, problems = read(opening * 100_000)
    assert values == []
    assert len(problems) == 1


@pytest.mark.parametrize("text", ["[a, b, c, {d: e}]", '{"a": [1, 2, 3, 4]}', "a: &x [b, c]\nd: *x"])
def test_limits_nodes(text: str) -> None:
    assert read(text, nodes_after_aliases=10)[1] == []
    (problem,) = read(text, nodes_after_aliases=4)[1]
    assert "more than 4 " in problem


def test_limits_problems_with_nodes() -> None:
    assert len(read("a: 1\n" * 1000, nodes_after_aliases=10)[1]) == 4


def bomb(first: str, item: str, levels: int = 30) -> str:
    """Each level holds ten of the one before it."""
    lines = [f"v{level}: &v{level} {item.replace('@', f'*v{level - 1}')}" for level in range(1, levels)]
    return "\n".join([f"v0: &v0 {first}", *lines])


BOMBS = [
    bomb("[x, x]", "[@, @, @, @, @, @, @, @, @, @]"),
    bomb("{a: x}", "{a: @, b: @, c: @, d: @, e: @, f: @, g: @, h: @, i: @, j: @}"),
    bomb("{a: x}", "{<<: [@, @, @, @], a: @, b: @, c: @}"),
    # Mostly not aliases, so that Kubernetes' own rule does not help.
    "\n".join(f"p{number}: x" for number in range(50_000)) + "\n" + bomb("[x]", "[@, @, @, @]"),
]


@pytest.mark.parametrize("text", BOMBS, ids=["lists", "mappings", "merges", "padded"])
def test_aliases_that_expand_without_end_are_an_error(text: str) -> None:
    tracemalloc.start()
    try:
        values, problems = read(text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert values == []
    assert "aliases" in problems[0]
    assert peak_bytes < 100_000_000


def test_aliases_of_long_texts_are_an_error() -> None:
    text = f"a: &a {'x' * 1_000_000}\nb: &b [*a, *a]\nc: [{', '.join(['*b'] * 6)}]\n"
    assert read(text)[1] == []
    assert read(text.replace("]\n", ", *b]\n").replace("*a, *b", "*a"))[1] == [
        "in.yaml:3:29 (document 1): aliases make this document more than 15000000 characters longer"
    ]


def test_few_aliases_of_a_large_value_are_fine() -> None:
    (value,), problems = read(f"a: &a [{', '.join(['x'] * 1000)}]\nb: [*a, *a]\n")
    assert problems == []
    assert len(value["b"][1]) == 1000


def test_large_numbers_cost_no_time() -> None:
    digits = "9" * 100_000
    values, problems = read(f"a: {digits}\nb: 0x{digits}\nc: 1e{digits}\nd: 0{'7' * 100_000}\n")
    assert problems == []
    assert values == [{"a": digits, "b": f"0x{digits}", "c": f"1e{digits}", "d": f"0{'7' * 100_000}"}]
    assert math.isfinite(only(f"0.{digits}").value)
