"""What covers what: the pairs that are decided, and those that are left open."""

from __future__ import annotations

import itertools
import re
from typing import Final

import pytest

from renderer.manifest.effect import covering, matching
from renderer.manifest.effect.covering import Covers, UnreadableError
from renderer.manifest.jsontypes import Json, JsonObject

WIDER: Final = "wider"
SAME: Final = "same"
OPEN: Final = "open"


def relation(covers: Covers, one: Json, other: Json) -> str:
    wide, narrow = covers(one, other), covers(other, one)
    return SAME if wide and narrow else WIDER if wide else "narrower" if narrow else OPEN


KINDS = [
    (["*"], ["Pod"], WIDER),
    (["Pod"], ["v1/Pod"], WIDER),
    (["Deployment"], ["apps/v1/Deployment"], WIDER),
    (["apps/*/Deployment"], ["apps/v1/Deployment"], WIDER),
    (["*/*"], ["Pod/exec"], WIDER),
    (["*/*"], ["*"], WIDER),
    (["*/exec"], ["Pod/exec"], WIDER),
    (["Pod"], ["Pod/exec"], OPEN),
    (["*"], ["Pod/exec"], OPEN),
    (["Pod.exec"], ["Pod/exec"], SAME),
    (["v1/Pod/exec"], ["v1/Pod"], OPEN),
    (["Pod", "Service"], ["Service", "Pod"], SAME),
    (["Pod"], ["Service"], OPEN),
    (["Pod"], [], WIDER),
]
NAMES = [
    (["*"], ["a"], WIDER),
    (["a*"], ["ab*"], WIDER),
    (["a*c"], ["abc"], WIDER),
    (["?"], ["a"], WIDER),
    (["?"], ["*"], "narrower"),
    (["*?"], ["?*"], OPEN),
    (["a?"], ["a*"], "narrower"),
    (["a*"], ["*a"], OPEN),
    (["a.b"], ["axb"], OPEN),
    (["[a]"], ["a"], OPEN),
    (["a", "b"], ["b"], WIDER),
]


def labels(**values: str) -> JsonObject:
    return {"matchLabels": values}


def expression(operator: str, *values: str, key: str = "k") -> JsonObject:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


SELECTORS = [
    (None, labels(k="x"), WIDER),
    ({}, None, SAME),
    (labels(k="x"), labels(k="x", l="y"), WIDER),
    (labels(k="x"), labels(k="y"), OPEN),
    (expression("In", "x"), labels(k="x"), SAME),
    (expression("In", "x", "y"), expression("In", "x"), WIDER),
    (expression("NotIn", "x"), expression("NotIn", "x", "y"), WIDER),
    (expression("NotIn", "x"), expression("In", "y"), WIDER),
    (expression("NotIn", "x"), expression("In", "x"), OPEN),
    (expression("NotIn", "x"), expression("DoesNotExist"), WIDER),
    (expression("Exists"), labels(k="x"), WIDER),
    (expression("Exists"), expression("DoesNotExist"), OPEN),
    (expression("Exists"), expression("Exists", key="l"), OPEN),
    (labels(k="*"), labels(k="x"), OPEN),  # Kyverno's wildcards in labels: only sameness is seen
]
BLOCKS = [
    ({"any": [{"resources": {"kinds": ["*"]}}]}, {"resources": {"kinds": ["Pod"]}}, WIDER),
    (
        {"all": [{"resources": {"kinds": ["Pod"]}}]},
        {"all": [{"resources": {"kinds": ["Pod"]}}, {"resources": {"names": ["a"]}}]},
        WIDER,
    ),
    ({"resources": {"kinds": ["Pod"]}}, {"resources": {"kinds": ["Pod"]}, "roles": ["a:b"]}, WIDER),
    ({"resources": {"kinds": ["Pod"], "name": "a"}}, {"resources": {"kinds": ["Pod"], "names": ["a"]}}, SAME),
    ({"resources": {"kinds": ["Pod"]}}, {"resources": {}}, WIDER),
    (
        {"resources": {"kinds": ["Pod"]}},
        {"resources": {"kinds": ["Pod"], "namespaceSelector": {}}},  # never matches a Namespace
        WIDER,
    ),
    ({"resources": {"kinds": ["Pod"]}}, {"resources": {"kinds": ["Pod"], "annotations": {"a": "b"}}}, WIDER),
    (
        {"subjects": [{"kind": "User", "name": "a"}, {"kind": "User", "name": "b"}]},
        {"subjects": [{"kind": "User", "name": "a"}]},
        WIDER,
    ),
]
CONDITIONS = [
    (None, {"all": [{"key": "a"}]}, WIDER),
    ({"any": [{"key": "a"}, {"key": "b"}]}, {"any": [{"key": "a"}]}, WIDER),
    ({"any": [{"key": "a"}]}, {"all": [{"key": "a"}]}, SAME),
    ({"all": [{"key": "a"}]}, [{"key": "a"}], SAME),
    ([{"all": [{"key": "a"}]}], [{"all": [{"key": "a"}]}, {"any": [{"key": "b"}]}], WIDER),
    ({"all": [{"key": "a", "message": "x"}]}, {"all": [{"key": "a", "message": "y"}]}, SAME),
    ({"all": [{"key": "a", "value": 1}]}, {"all": [{"key": "a", "value": True}]}, OPEN),
]
TABLES: Final[list[tuple[Covers, list[tuple[Json, Json, str]]]]] = [
    (covering.kinds, KINDS),
    (covering.patterns, NAMES),
    (covering.selector, SELECTORS),
    (matching.match_block, BLOCKS),
    (matching.conditions, CONDITIONS),
]


@pytest.mark.parametrize(
    ("covers", "one", "other", "expected"),
    [(covers, *row) for covers, rows in TABLES for row in rows],
)
def test_relations(covers: Covers, one: Json, other: Json, expected: str) -> None:
    assert relation(covers, one, other) == expected


@pytest.mark.parametrize(
    ("covers", "value"),
    [
        (covering.kinds, ["a/b/c/d/e"]),
        (covering.kinds, [1]),
        (covering.patterns, "a"),
        (covering.selector, {"matchlabels": {}}),
        (covering.selector, {"matchLabels": {"a": 1}}),
        (covering.until, "tomorrow"),
        (covering.until, "2030-01-01T00:00:00"),  # in which time zone?
        (matching.match_block, {"any": [{"resource": {}}]}),
        (matching.match_block, {"resources": {"name": "a", "names": ["b"]}}),
        (matching.conditions, {"any": []}),
        (matching.constraints, {"resourceRules": [{"verbs": []}]}),
    ],
)
def test_what_the_api_does_not_know_is_not_judged(covers: Covers, value: Json) -> None:
    with pytest.raises(UnreadableError):
        covers(value, value)


def test_patterns_exhaustively() -> None:
    """Every pair of short patterns, and `?` both as one character and as one or none, as Kyverno had it once."""
    patterns = ["".join(part) for size in range(4) for part in itertools.product("a*?", repeat=size)]
    words = ["".join(part) for size in range(5) for part in itertools.product("ab", repeat=size)]
    for one in (".", ".?"):
        matched = {
            pattern: {word for word in words if re.fullmatch(pattern.replace("*", ".*").replace("?", one), word)}
            for pattern in patterns
        }
        for wide, narrow in itertools.product(patterns, repeat=2):
            if covering.patterns([wide], [narrow]):
                assert matched[narrow] <= matched[wide], (wide, narrow)
