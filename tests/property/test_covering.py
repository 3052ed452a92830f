"""Whatever matches the narrow one matches the wide one that covers it, by evaluators of these tests' own."""

from __future__ import annotations

import fnmatch
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from renderer.manifest.effect import covering, matching
from renderer.manifest.jsontypes import Json, JsonObject

NAMES: Final = ("a", "ab", "b", "ba", "aab", "")
PATTERNS: Final = st.text("ab*?", max_size=4)
LABELS: Final = st.dictionaries(st.sampled_from("kl"), st.sampled_from("xyz"), max_size=2)


def matches(pattern: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern)


@given(pattern=PATTERNS)
def test_a_pattern_covers_itself_and_a_star_covers_all(pattern: str) -> None:
    assert covering.patterns([pattern], [pattern])
    assert covering.patterns(["*"], [pattern])
    assert covering.patterns(["*", "x"], [pattern, pattern])


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not covering.patterns(["*a" * 200 + "b"], ["a" * 5000])


# --- selectors -------------------------------------------------------------------------------------

EXPRESSIONS: Final = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from("kl"),
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(st.sampled_from("xyz"), min_size=1, max_size=2),
        }
    ),
    st.fixed_dictionaries({"key": st.sampled_from("kl"), "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
SELECTORS: Final = st.fixed_dictionaries(
    {}, optional={"matchLabels": LABELS, "matchExpressions": st.lists(EXPRESSIONS, max_size=2)}
)


def selects(selector: JsonObject, labels: JsonObject) -> bool:
    def holds(expression: JsonObject) -> bool:
        value = labels.get(expression["key"])
        return {
            "In": value in expression.get("values", []),
            "NotIn": value not in expression.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[expression["operator"]]

    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        map(holds, selector.get("matchExpressions", []))
    )


@settings(max_examples=500)
@given(wide=SELECTORS, narrow=SELECTORS, labels=LABELS)
def test_selectors(wide: JsonObject, narrow: JsonObject, labels: JsonObject) -> None:
    assert covering.selector(wide, wide)
    if covering.selector(wide, narrow) and selects(narrow, labels):
        assert selects(wide, labels)


# --- Kyverno's match blocks ------------------------------------------------------------------------

KINDS: Final = {
    "Pod": ("", "v1", "Pod", ""),
    "Exec": ("", "v1", "Pod", "exec"),
    "Deployment": ("apps", "v1", "Deployment", ""),
}
KIND_PATTERNS: Final = {
    "Pod": {"Pod"},
    "*": {"Pod", "Deployment"},
    "*/*": set(KINDS),
    "Pod/exec": {"Exec"},
    "Pod.exec": {"Exec"},
    "v1/Pod": {"Pod"},
    "apps/v1/Deployment": {"Deployment"},
    "apps/*/Deploy*": {"Deployment"},
    "apps/v2/Deployment": set(),
    "v1/Pod/exec": {"Exec"},
    "*/exec": {"Exec"},
}
RESOURCES: Final = st.fixed_dictionaries(
    {},
    optional={
        "kinds": st.lists(st.sampled_from(sorted(KIND_PATTERNS)), max_size=2),
        "names": st.lists(st.sampled_from(["a", "a*", "*"]), max_size=2),
        "namespaces": st.lists(st.sampled_from(["b", "?", "ab"]), max_size=2),
        "operations": st.lists(st.sampled_from(["CREATE", "UPDATE"]), max_size=2),
        "selector": SELECTORS,
    },
)
FILTERS: Final = st.fixed_dictionaries(
    {"resources": RESOURCES}, optional={"roles": st.lists(st.sampled_from("rs"), min_size=1, max_size=2)}
)
BLOCKS: Final[st.SearchStrategy[JsonObject]] = st.one_of(
    st.fixed_dictionaries({"any": st.lists(FILTERS, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"all": st.lists(FILTERS, min_size=1, max_size=2)}),
    FILTERS,
    st.just({}),
)
REQUESTS: Final = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(sorted(KINDS)),
        "name": st.sampled_from(NAMES),
        "namespace": st.sampled_from(NAMES),
        "operation": st.sampled_from(["CREATE", "UPDATE"]),
        "labels": LABELS,
        "role": st.sampled_from("rst"),
    }
)


def passes(one: JsonObject, request: JsonObject) -> bool:
    """Whether the request is in the filter; an empty filter has nothing in it."""
    resources = one["resources"]
    if not any(part or key == "selector" for key, part in resources.items()) and "roles" not in one:
        return False
    return all(
        (
            not resources.get("kinds") or any(request["kind"] in KIND_PATTERNS[it] for it in resources["kinds"]),
            not resources.get("names") or any(matches(it, request["name"]) for it in resources["names"]),
            not resources.get("namespaces") or any(matches(it, request["namespace"]) for it in resources["namespaces"]),
            not resources.get("operations") or request["operation"] in resources["operations"],
            "selector" not in resources or selects(resources["selector"], request["labels"]),
            "roles" not in one or request["role"] in one["roles"],
        )
    )


def in_block(block: JsonObject, request: JsonObject) -> bool:
    if "any" in block:
        return any(passes(one, request) for one in block["any"])
    if "all" in block:
        return all(passes(one, request) for one in block["all"])
    return bool(block) and passes(block, request)


@settings(max_examples=600)
@given(wide=BLOCKS, narrow=BLOCKS, request=REQUESTS)
def test_match_blocks(wide: JsonObject, narrow: JsonObject, request: JsonObject) -> None:
    assert matching.match_block(wide, wide)
    if matching.match_block(wide, narrow) and in_block(narrow, request):
        assert in_block(wide, request)


# --- conditions ------------------------------------------------------------------------------------

CONDITIONS: Final = st.lists(st.sampled_from("pqr").map(lambda key: {"key": key}), min_size=1, max_size=3)
ANY_ALL: Final = st.fixed_dictionaries({}, optional={"any": CONDITIONS, "all": CONDITIONS})
CONDITION_BLOCKS: Final = st.one_of(st.none(), ANY_ALL, CONDITIONS, st.lists(ANY_ALL, max_size=2))


def holds(conditions: Json, true: set[str]) -> bool:
    if not conditions:
        return True
    if isinstance(conditions, list):
        return all(holds(one, true) for one in conditions)
    if "key" in conditions:
        return conditions["key"] in true
    return all(one["key"] in true for one in conditions.get("all", [])) and (
        "any" not in conditions or any(one["key"] in true for one in conditions["any"])
    )


@settings(max_examples=500)
@given(wide=CONDITION_BLOCKS, narrow=CONDITION_BLOCKS, true=st.sets(st.sampled_from("pqr")))
def test_conditions(wide: Json, narrow: Json, true: set[str]) -> None:
    assert matching.conditions(wide, wide)
    if matching.conditions(wide, narrow) and holds(narrow, true):
        assert holds(wide, true)


# --- matchConstraints ------------------------------------------------------------------------------

RULES: Final = st.fixed_dictionaries(
    {
        "operations": st.lists(st.sampled_from(["CREATE", "UPDATE", "*"]), min_size=1, max_size=2),
        "apiGroups": st.sampled_from([["*"], [""], ["apps"]]),
        "apiVersions": st.just(["v1"]),
        "resources": st.lists(
            st.sampled_from(["*", "*/*", "pods", "pods/*", "pods/exec", "*/exec"]), min_size=1, max_size=2
        ),
    },
    optional={
        "scope": st.sampled_from(["*", "Cluster", "Namespaced"]),
        "resourceNames": st.lists(st.sampled_from(NAMES), max_size=2),
    },
)
CONSTRAINTS: Final = st.fixed_dictionaries(
    {"resourceRules": st.lists(RULES, min_size=1, max_size=2)},
    optional={"objectSelector": SELECTORS, "excludeResourceRules": st.lists(RULES, max_size=2)},
)
API_REQUESTS: Final = st.fixed_dictionaries(
    {
        "operation": st.sampled_from(["CREATE", "UPDATE", "DELETE"]),
        "group": st.sampled_from(["", "apps"]),
        "resource": st.sampled_from([("pods", ""), ("pods", "exec"), ("nodes", ""), ("nodes", "exec")]),
        "scope": st.sampled_from(["Cluster", "Namespaced"]),
        "name": st.sampled_from(NAMES),
        "labels": LABELS,
    }
)


def under(rule: JsonObject, request: JsonObject) -> bool:
    def resource(text: str) -> bool:
        name, _, sub = text.partition("/")
        return name in ("*", request["resource"][0]) and sub in ("*", request["resource"][1])

    return all(
        (
            not {"*", request["operation"]}.isdisjoint(rule["operations"]),
            not {"*", request["group"]}.isdisjoint(rule["apiGroups"]),
            any(map(resource, rule["resources"])),
            rule.get("scope", "*") in ("*", request["scope"]),
            not rule.get("resourceNames") or request["name"] in rule["resourceNames"],
        )
    )


@settings(max_examples=600)
@given(wide=CONSTRAINTS, narrow=CONSTRAINTS, request=API_REQUESTS)
def test_constraints(wide: JsonObject, narrow: JsonObject, request: JsonObject) -> None:
    def included(side: JsonObject) -> bool:
        return any(under(rule, request) for rule in side["resourceRules"]) and selects(
            side.get("objectSelector", {}), request["labels"]
        )

    def excluded(side: JsonObject) -> bool:
        return any(under(rule, request) for rule in side.get("excludeResourceRules", []))

    assert matching.constraints(wide, wide)
    assert matching.excluded(wide, wide)
    for covers in (matching.constraints, matching.binding_constraints):
        if covers(wide, narrow) and included(narrow):
            assert included(wide)
    if matching.excluded(wide, narrow) and excluded(narrow):
        assert excluded(wide)
