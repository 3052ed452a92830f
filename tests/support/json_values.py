"""Hypothesis strategies for JSON values as policies hold them, with the texts that YAML readers stumble on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.support.yaml_traps import VALUES

#: What is often significant to YAML, so that it meets more often than chance would have it.
_PIECES = (
    *("\n", "\n\n", " ", "  ", "\t", ": ", " #", "- ", "---", "...", "? ", "a", "b", "é", "😀", "\u2028", "\x85"),
    *("'", '"', "\\", "|", ">", "&", "*", "!", "%", "@", "`", "{", "}", "[", "]", ",", ":", "#"),
    *("\r", "\x00", "\ufeff"),
    *("1", "0", "e", ".", "_", "+", "-", "x", "<<", "=", "{{ x }}", "$(y)"),
)  # fmt: skip

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.sampled_from(_PIECES), max_size=8).map("".join),
    st.sampled_from([text for text in VALUES if "\n" not in text]),
)
#: Integers beyond 64 bits are left out, since Kubernetes changes them; a float of a whole number is one.
numbers = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1e20, 1e21, 1e-7, 1.5e300, 5e-324]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)


def _collections(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4))


values: st.SearchStrategy[Any] = st.recursive(scalars, _collections, max_leaves=20)


def normal(value: Any) -> Any:
    """The value as JSON readers give it: a float that encoding/json writes without a point is an integer."""
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(Decimal(repr(value)))
    return value
