"""Which of two values covers the other: lists, ladders, patterns, kinds and label selectors.

Every function here answers one question, `covers(wide, narrow)`: is it certain that `wide` holds for
everything that `narrow` holds for? No is not the opposite, it is "not certain"; so a caller who asks both
ways learns wider, narrower, the same, or undecided, and never mistakes the last one for harmless. A value of
a shape that the API does not know raises `UnreadableError`, which a caller takes as undecided too.

The rules are Kyverno 1.19.1's (ext/wildcard, pkg/utils/match, ParseKindSelector) and those of Kubernetes'
LabelSelector.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeAlias

from renderer.manifest.jsontypes import Json, JsonObject

Covers: TypeAlias = Callable[[Json, Json], bool]


class UnreadableError(ValueError):
    """A field holds something that the API's own type does not allow, so nothing can be said about it."""


def mapping(value: Json, *, known: frozenset[str] | None = None) -> JsonObject:
    """Give the map, {} for none; raise UnreadableError for anything else or a key that is not `known`."""
    if value is None:
        return {}
    if not isinstance(value, dict) or (known is not None and not known.issuperset(value)):
        raise UnreadableError
    return value


def items(value: Json) -> list[Json]:
    """Give the list, [] for none; raise UnreadableError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnreadableError
    return value


def texts(value: Json) -> list[str]:
    """Give the list of texts, [] for none; raise UnreadableError for anything else."""
    found = items(value)
    if not all(isinstance(item, str) for item in found):
        raise UnreadableError
    return found


# --- plain values ---------------------------------------------------------------------------------


def same(one: Json, other: Json) -> bool:
    """Whether two values are the same JSON (for Python, `true` is 1)."""
    return one is other or json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def undecided(wide: Json, narrow: Json) -> bool:
    """Nothing but sameness can be seen here: two expressions, say."""
    return same(wide, narrow)


def ladder(*steps: Json) -> Covers:
    """Values in order; a later one covers an earlier one."""

    def covers(wide: Json, narrow: Json) -> bool:
        if wide not in steps or narrow not in steps:
            raise UnreadableError
        return steps.index(wide) >= steps.index(narrow)

    return covers


def both(covers: Covers) -> Covers:
    """Ask `covers` only where both are there: to lack the field is another thing than to have less of it."""

    def covers_both(wide: Json, narrow: Json) -> bool:
        return wide is not None and narrow is not None and covers(wide, narrow)

    return covers_both


def contains(wide: Json, narrow: Json) -> bool:
    """Whether a list of alternatives or demands has all that the other has."""
    return all(any(same(one, other) for one in items(wide)) for other in items(narrow))


def expressions(wide: Json, narrow: Json) -> bool:
    """Whether a list of CEL demands (Validation, Mutation) has all of the other's, texts for people aside."""
    return contains(_expressions(wide), _expressions(narrow))


def sequence(wide: Json, narrow: Json) -> bool:
    """Whether a list of CEL steps has all of the other's, in the same order."""
    steps = iter(_expressions(wide))
    return all(any(same(step, other) for step in steps) for other in _expressions(narrow))


def match_conditions(wide: Json, narrow: Json) -> bool:
    """Whether a list of CEL MatchCondition, which must all be true, has nothing that the other lacks.

    An expression that fails (rather than answers) is left out of account: it is a mistake, not a policy.
    """
    return expressions(narrow, wide)


_FOR_PEOPLE: Final = frozenset({"name", "message", "messageExpression", "reason"})


def _expressions(value: Json) -> list[Json]:
    return [
        {key: _trimmed(part) for key, part in mapping(item).items() if key not in _FOR_PEOPLE} for item in items(value)
    ]


def _trimmed(value: Json) -> Json:
    return value.strip() if isinstance(value, str) else value


def until(wide: Json, narrow: Json) -> bool:
    """Whether one end is not before the other; no end is for ever."""
    if wide is None or narrow is None:
        return wide is None
    return _time(wide) >= _time(narrow)


def _time(value: Json) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise UnreadableError from error
    if time.tzinfo is None:
        raise UnreadableError
    return time


# --- patterns and kinds ---------------------------------------------------------------------------


def patterns(wide: Json, narrow: Json) -> bool:
    """Whether a list of names with `*` and `?`, any of which may match, covers another."""
    return all(any(_pattern(one, other) for one in texts(wide)) for other in texts(narrow))


def _pattern(wide: str, narrow: str) -> bool:
    """Whether `wide` matches all that `narrow` matches.

    `narrow` is read as text in which a wildcard is one more character: `*` covers any text, and `?` any
    character but `*`, which may stand for several.
    """
    return wide == narrow or _compiled(wide).fullmatch(narrow) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *rest = ["".join("[^*]" if c == "?" else re.escape(c) for c in part) for part in pattern.split("*")]
    if not rest:
        return re.compile(first, re.DOTALL)
    *middle, last = rest
    # Atomic groups: a pattern of many stars must not take exponential time.
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last, re.DOTALL)


_VERSION: Final = re.compile(r"v\d((alpha|beta)\d)?|\*")


def _kind_selector(kind: str) -> tuple[str, str, str, str]:  # noqa: PLR0911 - one line for each form that Kyverno reads
    """Group, version, kind and subresource, each a pattern, as ParseKindSelector reads them."""
    *head, last = kind.split("/")
    match [*head, *last.split(".")]:
        case [name]:
            return "*", "*", name, ""
        case ["*", "*"]:
            return "*", "*", "*", "*"
        case ["*", sub] if sub == sub.lower():
            return "*", "*", "*", sub
        case [version, name] if _VERSION.fullmatch(version):
            return "*", version, name, ""
        case [name, sub]:
            return "*", "*", name, sub
        case [version, name, sub] if _VERSION.fullmatch(version):
            return "*", version, name, sub
        case [group, version, name]:
            return group, version, name, ""
        case [group, version, name, sub]:
            return group, version, name, sub
    raise UnreadableError


def kinds(wide: Json, narrow: Json) -> bool:
    """Whether kinds as Kyverno writes them (`Pod`, `apps/v1/Deployment`, `Pod/exec`, `*`) cover others."""
    alternatives = [_kind_selector(kind) for kind in texts(wide)]
    return all(any(all(map(_pattern, one, _kind_selector(other))) for one in alternatives) for other in texts(narrow))


# --- label selectors ------------------------------------------------------------------------------

_Requirement: TypeAlias = tuple[str, str, frozenset[str]]
_SELECTOR: Final = frozenset({"matchLabels", "matchExpressions"})


def selector(wide: Json, narrow: Json) -> bool:
    """Kubernetes label selectors; none, like an empty one, selects everything."""
    given = _requirements(narrow)
    return all(any(_implies(other, one) for other in given) for one in _requirements(wide))


def _requirements(value: Json) -> list[_Requirement]:
    found = mapping(value, known=_SELECTOR)
    labels = mapping(found.get("matchLabels"))
    texts(list(labels.values()))
    return [
        *((key, "Like" if set("*?") & set(key + value) else "In", frozenset({value})) for key, value in labels.items()),
        *(
            (str(item.get("key")), str(item.get("operator")), frozenset(texts(item.get("values"))))
            for item in map(mapping, items(found.get("matchExpressions")))
        ),
    ]


def _implies(given: _Requirement, wanted: _Requirement) -> bool:  # noqa: PLR0911 - one line for each pair
    """Whether labels that meet `given` always meet `wanted`. `Like` is Kyverno's wildcard label."""
    if given == wanted:
        return True
    if given[0] != wanted[0]:
        return False
    match wanted[1], given[1]:
        case "In", "In":
            return given[2] <= wanted[2]
        case "NotIn", "NotIn":
            return wanted[2] <= given[2]
        case "NotIn", "In":
            return wanted[2].isdisjoint(given[2])
        case ("NotIn", "DoesNotExist") | ("Exists", "In"):
            return True
    return False
