"""Whatever is written is read back as it was, and whatever is read gives values or problems, nothing else."""

from __future__ import annotations

import json
import random
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from renderer.manifest.yamlio import Limits, dump, load, load_documents
from tests.support.json_values import normal, texts, values
from tests.support.yaml_traps import FRAGMENTS, REFUSED, STREAMS, VALUES

SMALL = Limits(bytes=2000, documents=8, depth=8, nodes_after_aliases=60)

soup = st.lists(st.sampled_from((*FRAGMENTS, *VALUES)), max_size=25).map("".join).map(str.encode)
real = st.sampled_from((*STREAMS, *(case.text for case in REFUSED)))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A stream of written documents in which some bytes were replaced."""
    data = bytearray("---\n".join(map(dump, draw(st.lists(values, max_size=3)))).encode())
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.one_of(st.binary(max_size=3), soup))
    return bytes(data)


def same(left: Any, right: Any) -> bool:
    """Equal, where 1, 1.0 and True are three values; the order of keys means nothing."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(values)
def test_what_is_written_is_read_back(value: Any) -> None:
    documents, problems = load_documents(dump(value).encode(), source="written")
    assert problems == []
    assert same([document.value for document in documents], [] if value is None else [normal(value)])


@given(values)
def test_a_reader_of_yaml_1_1_takes_it_for_the_same(value: Any) -> None:
    assert same(yaml.load(dump(value), Loader=yaml.CSafeLoader), normal(value))


@given(values, st.randoms(use_true_random=False))
def test_equal_values_give_equal_bytes(value: Any, order: random.Random) -> None:
    def shuffled(item: Any) -> Any:
        if isinstance(item, dict):
            pairs = [(key, shuffled(member)) for key, member in item.items()]
            order.shuffle(pairs)
            return dict(pairs)
        return [shuffled(member) for member in item] if isinstance(item, list) else item

    text = dump(value)
    assert dump(shuffled(value)) == text
    assert dump(normal(value)) == text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@given(st.lists(values, max_size=4))
def test_written_documents_can_be_joined(documents: list[Any]) -> None:
    data = "---\n".join(map(dump, documents)).encode()
    read = [document.value for document in load(data, source="joined")]
    assert same(read, [normal(value) for value in documents if value is not None])


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode(errors="surrogatepass")), soup, real, damaged()))
def test_reading_is_total(data: bytes) -> None:
    documents, problems = load_documents(data, source="any", limits=SMALL)
    lines = data.count(b"\n") + data.count(b"\r") + data.count(b"\xc2\x85") + data.count(b"\xe2\x80\xa8") + 2
    for problem in problems:
        assert problem.message
        assert 0 <= problem.line <= lines
    for document in documents:
        assert 1 <= document.line <= lines
        json.dumps(document.value, allow_nan=False, ensure_ascii=False).encode()
        assert same(load(dump(document.value).encode(), source="written")[0].value, document.value)


@given(st.one_of(soup, real, damaged()), st.lists(st.one_of(texts, st.integers(-1, 3)), max_size=4))
def test_every_path_has_a_line(data: bytes, path: list[str | int]) -> None:
    for document in load_documents(data, source="any", limits=SMALL)[0]:
        assert document.line_of() == document.line
        assert document.line_of(*path) >= document.line


#: A stream that starts as JSON is read by other rules than a later document.
yaml_only = st.sampled_from([case for case in REFUSED if not case.text.startswith(b'{"')])


@given(values, yaml_only, values)
def test_an_error_hides_no_other_document(before: Any, refused: Any, after: Any) -> None:
    text = f"{dump(before)}---\n".encode() + refused.text + f"\n---\n{dump(after)}".encode()
    documents, problems = load_documents(text, source="mixed")
    assert problems
    read = [document.value for document in documents]
    for value in (before, after):
        assert value is None or any(same(normal(value), other) for other in read)
