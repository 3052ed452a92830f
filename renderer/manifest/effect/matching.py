"""Which of two match blocks, conditions or matchConstraints covers the other (covering.py has the question).

The rules are Kyverno 1.19.1's (pkg/engine/utils/match.go) and those of admissionregistration.k8s.io/v1
(MatchResources, NamedRuleWithOperations).
"""

from __future__ import annotations

from typing import Final

from renderer.manifest.effect.covering import (
    Covers,
    UnreadableError,
    contains,
    items,
    kinds,
    ladder,
    mapping,
    patterns,
    same,
    selector,
    texts,
)
from renderer.manifest.jsontypes import Json, JsonObject

# --- Kyverno's match and exclude ------------------------------------------------------------------

_USER: Final = ("roles", "clusterRoles", "subjects")
_DIMENSIONS: Final[dict[str, Covers]] = {
    "kinds": kinds,
    "names": patterns,
    "namespaces": patterns,
    "operations": contains,
    "roles": contains,
    "clusterRoles": contains,
    "subjects": contains,
}
_SELECTORS: Final = ("selector", "namespaceSelector")
_FILTER: Final = frozenset({*_DIMENSIONS, *_SELECTORS, "annotations"})
_BLOCK: Final = frozenset({"any", "all", "resources", *_USER})


def match_block(wide: Json, narrow: Json) -> bool:
    """Whether Kyverno's MatchResources (`any`, `all`, or one filter) cover others; none matches nothing."""
    alternatives = _alternatives(wide)
    return all(any(_conjunction(one, other) for one in alternatives) for other in _alternatives(narrow))


def _alternatives(value: Json) -> list[list[JsonObject]]:
    """Read the block as "one of these, each of which is all of those"; an empty filter matches nothing."""
    block = mapping(value, known=_BLOCK)
    either, every = items(block.get("any")), items(block.get("all"))
    direct = {key: part for key, part in block.items() if key not in ("any", "all")}
    choices = [[item] for item in either] or [every or [direct]]
    filters = [[_filter(item) for item in choice] for choice in choices]
    return [choice for choice in filters if all(choice)]


def _filter(value: Json) -> JsonObject:
    """Read a ResourceFilter flat, without its empty parts, the deprecated `name` as one of `names`."""
    given = mapping(value, known=frozenset({"resources", *_USER}))
    flat: JsonObject = {
        **mapping(given.get("resources")),
        **{key: given[key] for key in _USER if key in given},
    }
    name = flat.pop("name", None)
    if name:
        if flat.get("names"):  # Kyverno's admission refuses both together
            raise UnreadableError
        flat["names"] = [name]
    checked = mapping(flat, known=_FILTER)
    return {key: part for key, part in checked.items() if part or (key in _SELECTORS and part is not None)}


def _conjunction(wide: list[JsonObject], narrow: list[JsonObject]) -> bool:
    return all(any(resource_filter(one, other) for other in narrow) for one in wide)


def resource_filter(wide: JsonObject, narrow: JsonObject) -> bool:
    """Whether one flat filter covers another; what is absent does not restrict."""
    for key, covers in _DIMENSIONS.items():
        one, other = (part if key == "subjects" else texts(part) for part in (wide.get(key), narrow.get(key)))
        if one and not (other and covers(one, other)):
            return False
    # A selector restricts even when empty: a namespaceSelector never matches a Namespace.
    for key in _SELECTORS:
        if wide.get(key) is not None and (narrow.get(key) is None or not selector(wide[key], narrow[key])):
            return False
    return mapping(wide.get("annotations")).items() <= mapping(narrow.get("annotations")).items()


# --- Kyverno's conditions -------------------------------------------------------------------------


def conditions(wide: Json, narrow: Json) -> bool:
    """Kyverno's `any`/`all` conditions, or a list of them; none is always true."""
    given = _clauses(narrow)
    return all(any(contains(one, other) for other in given) for one in _clauses(wide))


def _clauses(value: Json) -> list[list[Json]]:
    """Read the conditions as "all of these, each of which is one of those"."""
    clauses: list[list[Json]] = []
    for block in value if isinstance(value, list) else [mapping(value)]:
        if {"any", "all"}.isdisjoint(mapping(block)):
            clauses += [[_condition(block)]] if block else []
            continue
        for key, part in mapping(block, known=frozenset({"any", "all"})).items():
            if not items(part):
                raise UnreadableError
            listed = [_condition(item) for item in part]
            clauses += [listed] if key == "any" else [[item] for item in listed]
    return clauses


def _condition(value: Json) -> Json:
    return {key: part for key, part in mapping(value).items() if key != "message"}


# --- admissionregistration's matchConstraints -----------------------------------------------------

_CONSTRAINTS: Final = frozenset(
    {
        "namespaceSelector",
        "objectSelector",
        "resourceRules",
        "excludeResourceRules",
        "matchPolicy",
        "expression",
    }
)
_RULE: Final = frozenset({"operations", "apiGroups", "apiVersions", "resources", "scope", "resourceNames"})


def constraints(wide: Json, narrow: Json) -> bool:
    """Whether matchConstraints of a policy include all that others do; undecided if only one has rules."""
    one, other = mapping(wide, known=_CONSTRAINTS), mapping(narrow, known=_CONSTRAINTS)
    rules, others = items(one.get("resourceRules")), items(other.get("resourceRules"))
    return bool(rules) == bool(others) and _rules(rules, others) and _around(one, other)


def binding_constraints(wide: Json, narrow: Json) -> bool:
    """Whether matchResources of a binding include all that others do; no rule means all of the policy's."""
    one, other = mapping(wide, known=_CONSTRAINTS), mapping(narrow, known=_CONSTRAINTS)
    rules, others = items(one.get("resourceRules")), items(other.get("resourceRules"))
    return (not rules or (bool(others) and _rules(rules, others))) and _around(one, other)


def excluded(wide: Json, narrow: Json) -> bool:
    """Whether matchConstraints exclude all that others do."""
    one, other = mapping(wide, known=_CONSTRAINTS), mapping(narrow, known=_CONSTRAINTS)
    rules, others = items(one.get("excludeResourceRules")), items(other.get("excludeResourceRules"))
    return not others or (_rules(rules, others) and _equivalent(one, other))


def _around(wide: JsonObject, narrow: JsonObject) -> bool:
    return (
        all(selector(wide.get(key), narrow.get(key)) for key in ("namespaceSelector", "objectSelector"))
        and _equivalent(wide, narrow)
        and same(wide.get("expression"), narrow.get("expression"))
    )


def _equivalent(wide: JsonObject, narrow: JsonObject) -> bool:
    """`Equivalent`, the default, also matches the other versions of a resource; `Exact` does not."""
    one, other = (side.get("matchPolicy") or "Equivalent" for side in (wide, narrow))
    return ladder("Exact", "Equivalent")(one, other)


def _rules(wide: list[Json], narrow: list[Json]) -> bool:
    return all(any(_rule(one, other) for one in wide) for other in narrow)


def _rule(wide: Json, narrow: Json) -> bool:
    one, other = mapping(wide, known=_RULE), mapping(narrow, known=_RULE)
    for key in ("operations", "apiGroups", "apiVersions", "resources"):
        mine, theirs = texts(one.get(key)), texts(other.get(key))
        if bool(mine) != bool(theirs) or not all(any(_resource(a, b) for a in mine) for b in theirs):
            return False
    names, others = texts(one.get("resourceNames")), texts(other.get("resourceNames"))
    if names and not (others and contains(names, others)):
        return False
    scope = one.get("scope") or "*"
    return bool(scope in ("*", other.get("scope") or "*"))


def _resource(wide: str, narrow: str) -> bool:
    """`*`, `pods`, `pods/*`, `*/scale`, `*/*`: a star stands for a whole part, before or after the slash."""
    (one, _, sub), (other, _, other_sub) = wide.partition("/"), narrow.partition("/")
    return one in ("*", other) and sub in ("*", other_sub)
