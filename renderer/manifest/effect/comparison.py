"""How the parts of two versions of a policy differ, in the words of facets.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from renderer.manifest.effect.covering import UnreadableError, items, mapping, same
from renderer.manifest.effect.enforcement import OFF, Enforcement, Level
from renderer.manifest.effect.facets import Direction, EffectChange, Facet, Phrase, What
from renderer.manifest.effect.units import Act, Unit, quoted
from renderer.manifest.jsontypes import Json, JsonObject


def _change(what: What, direction: Direction, path: str, sentence: str, *, enforced: bool = False) -> EffectChange:
    return EffectChange(what=what, direction=direction, enforced=enforced, path=path, sentence=sentence)


def changes(before: list[Unit], after: list[Unit], *, removed: bool) -> Iterator[EffectChange]:
    """Compare the parts of two versions; `removed` is True when the whole policy goes, not only a rule."""
    old, new = ({(unit.key, unit.act): unit for unit in side} for side in (before, after))
    denied = any(unit.enforcement.denies for unit in before)
    for key in {**old, **new}:
        one, other = old.get(key), new.get(key)
        whole = {**old, **new}[key].part_of
        if whole and not ((whole, Act.CHECK) in old and (whole, Act.CHECK) in new):
            continue  # the rule that it belongs to comes or goes, which says it all
        if one and other:
            yield from _altered(one, other, enforced=_enforced(one, denied=denied))
        elif other:
            yield from _started(other)
        elif one:
            yield from _stopped(one, certain=removed)
    if old and new:
        yield from _reordered(before, after, enforced=denied)


def _enforced(unit: Unit, *, denied: bool) -> bool:
    """Whether what this part says may have decided about a request before."""
    if unit.act is Act.SETTINGS:
        return denied
    return unit.act in (Act.EXCEPT, Act.FEED) or unit.enforcement.denies


# --- parts that come and go ------------------------------------------------------------------------

_STARTS: Final[dict[Act, Phrase]] = {
    Act.MUTATE: (What.MUTATES, "now mutates resources"),
    Act.GENERATE: (What.GENERATES, "now generates resources"),
    Act.DELETE: (What.DELETES, "now deletes resources, on a schedule"),
    Act.EXCEPT: (What.EXCEPTION_ADDED, "now exempts resources from {policies}"),
    Act.FEED: (What.SHARED_DATA_CHANGED, "is new: what policies that read it decide may change"),
    Act.IMAGES: (What.ENFORCES_MORE, "is new: more is verified"),
}
_STOPS: Final[dict[Act, Phrase]] = {
    Act.MUTATE: (What.NO_LONGER_MUTATES, "no longer mutates resources: it is removed"),
    Act.GENERATE: (What.NO_LONGER_GENERATES, "no longer generates resources: it is removed"),
    Act.DELETE: (What.NO_LONGER_DELETES, "no longer deletes resources: it is removed"),
    Act.EXCEPT: (What.EXCEPTION_REMOVED, "no longer exempts resources from {policies}: it is removed"),
    Act.FEED: (What.SHARED_DATA_CHANGED, "is removed: policies that read it can no longer be evaluated"),
    Act.IMAGES: (What.ENFORCES_LESS, "is removed: less is verified"),
}
_COMING: Final = {Act.EXCEPT: Direction.LOOSENS, Act.FEED: Direction.UNKNOWN}


def _started(unit: Unit) -> Iterator[EffectChange]:
    if unit.act is Act.CHECK:
        yield from _enforcement(unit, OFF, unit.enforcement, "")
    elif unit.act in _STARTS:
        what, says = _STARTS[unit.act]
        direction = _COMING.get(unit.act, Direction.TIGHTENS)
        sentence = f"{unit.subject} {says.format(policies=_excepted(unit))}"
        yield _change(what, direction, unit.path, sentence, enforced=unit.act is Act.EXCEPT)


def _stopped(unit: Unit, *, certain: bool) -> Iterator[EffectChange]:
    """`certain` is True when the whole policy goes, and with it what it generated."""
    if unit.act is Act.CHECK:
        yield from _enforcement(unit, unit.enforcement, OFF, ": it is removed")
    elif unit.act in _STOPS:
        what, says = _STOPS[unit.act]
        direction = _COMING.get(unit.act, Direction.TIGHTENS).opposite
        sentence = f"{unit.subject} {says.format(policies=_excepted(unit))}"
        yield _change(what, direction, unit.path, sentence, enforced=_enforced(unit, denied=False))
    if unit.downstream:
        sentence = f"what {unit.subject} generated {'is' if certain else 'may be'} deleted with it"
        yield _change(What.DELETES_DOWNSTREAM, Direction.NEUTRAL, unit.path, sentence)


def _excepted(unit: Unit) -> str:
    """Name the policies that an exception is for, three at most."""
    if unit.act is not Act.EXCEPT:
        return ""
    names = [
        quoted(str(mapping(item).get(key)))
        for field, key in (("exceptions", "policyName"), ("policyRefs", "name"))
        for item in items(unit.body.get(field))
    ]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "no policy"


# --- parts that both versions have -----------------------------------------------------------------

_OTHERWISE: Final = {
    Act.MUTATE: What.MUTATES_OTHERWISE,
    Act.GENERATE: What.GENERATES_OTHERWISE,
    Act.DELETE: What.DELETES_OTHERWISE,
    Act.EXCEPT: What.EXCEPTION_CHANGED,
    Act.FEED: What.SHARED_DATA_CHANGED,
}


def _altered(before: Unit, after: Unit, *, enforced: bool) -> Iterator[EffectChange]:
    if before.act is Act.CHECK:
        yield from _enforcement(after, before.enforcement, after.enforcement, "")
    for facet in after.facets:
        yield from _facet(facet, before, after, enforced=enforced and facet.denies)
    handled = [(*facet.path[:-1], key) for facet in after.facets for key in (facet.path[-1], *facet.together)]
    old, new = (_rest(unit.body, handled) for unit in (before, after))
    for field in _differences(old, new):
        what = _OTHERWISE.get(after.act, What.ENFORCES_OTHERWISE)
        sentence = f"{after.subject} changes {field}, direction unknown"
        yield _change(what, Direction.UNKNOWN, f"{after.path}.{field}", sentence, enforced=enforced)


def _enforcement(unit: Unit, before: Enforcement, after: Enforcement, why: str) -> Iterator[EffectChange]:
    """Compare what two versions of a part do with violations."""
    phrase = _enforcement_phrase(before, after)
    if phrase is None:
        return
    what, says, direction = phrase
    yield _change(what, direction, unit.path, f"{unit.subject} {says}{why}", enforced=before.denies)


def _enforcement_phrase(before: Enforcement, after: Enforcement) -> _Outcome | None:
    step = f" ({before.highest.name.title()} → {after.highest.name.title()})"
    if not before.denies and after.denies:
        where = "" if after.denies_everywhere else " in some namespaces"
        return What.ENFORCES, f"now denies requests{where}{step}", Direction.TIGHTENS
    if before.denies and not after.denies:
        return What.NO_LONGER_ENFORCES, f"no longer denies requests{step}", Direction.LOOSENS
    if not before.denies:
        return _reporting_phrase(before.highest, after.highest, step)
    return _SPREAD[after.covers(before), before.covers(after)]


_Outcome: TypeAlias = tuple[What, str, Direction]
#: By "denies wherever it did" and "denied wherever it does".
_SPREAD: Final[dict[tuple[bool, bool], _Outcome | None]] = {
    (True, True): None,
    (True, False): (What.ENFORCES_MORE, "denies requests in more namespaces", Direction.TIGHTENS),
    (False, True): (What.ENFORCES_LESS, "denies requests in fewer namespaces", Direction.LOOSENS),
    (False, False): (
        What.ENFORCES_OTHERWISE,
        "denies requests in other namespaces, perhaps fewer",
        Direction.UNKNOWN,
    ),
}


def _reporting_phrase(before: Level, after: Level, step: str) -> _Outcome | None:
    if before is after:
        return None
    if after > before:
        return What.REPORTS_MORE, f"reports violations, and denies nothing{step}", Direction.TIGHTENS
    return What.REPORTS_LESS, f"reports violations less, and denies nothing{step}", Direction.LOOSENS


def _facet(facet: Facet, before: Unit, after: Unit, *, enforced: bool) -> Iterator[EffectChange]:
    old, new = (_value(facet, unit.body) for unit in (before, after))
    if same(old, new):
        return
    try:
        wider, narrower = facet.covers(new, old), facet.covers(old, new)
    except UnreadableError:
        wider = narrower = False
    if wider and narrower:
        return
    undecided = not wider and not narrower
    what, says = facet.more if wider else facet.less if narrower else facet.otherwise
    direction = facet.sense if wider else facet.sense.opposite
    if undecided and facet.sense is not Direction.NEUTRAL:
        direction = Direction.UNKNOWN
    path = ".".join((after.path, *facet.path))
    yield _change(what, direction, path, f"{after.subject} {says}{_step(old, new)}", enforced=enforced)


def _value(facet: Facet, body: JsonObject) -> Json:
    value: Json = body
    for key in facet.path[:-1]:
        value = mapping(mapping(value).get(key))
    if facet.together:
        return {key: value.get(key) for key in (facet.path[-1], *facet.together)}
    found = mapping(value).get(facet.path[-1])
    return facet.default if found is None else found


def _step(before: Json, after: Json) -> str:
    """Show what was and what is, where that is one short word each."""
    if not all(isinstance(value, str | bool | int) and len(str(value)) <= 30 for value in (before, after)):
        return ""
    old, new = (str(value).lower() if isinstance(value, bool) else quoted(str(value)) for value in (before, after))
    return f" ({old} → {new})"


# --- what no table knows ---------------------------------------------------------------------------


def _rest(body: JsonObject, handled: list[tuple[str, ...]]) -> JsonObject:
    """Give the body without the fields of the tables, and without maps that hold nothing else."""
    rest: JsonObject = {}
    for key, value in body.items():
        below = [path[1:] for path in handled if path[0] == key]
        if () in below or value is None:
            continue
        kept = _rest(value, below) if below and isinstance(value, dict) else value
        if kept != {} or not below:
            rest[key] = kept
    return rest


_DEPTH: Final = 2


def _differences(before: Json, after: Json, depth: int = _DEPTH) -> Iterator[str]:
    """List the fields that differ, as deep as helps a reader."""
    if same(before, after):
        return
    for key in sorted({**before, **after}):
        old, new = before.get(key), after.get(key)
        if same(old, new):
            continue
        name = quoted(str(key))
        if depth > 1 and isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{name}.{inner}" for inner in _differences(old, new, depth - 1))
        else:
            yield name


def _reordered(before: list[Unit], after: list[Unit], *, enforced: bool) -> Iterator[EffectChange]:
    """Tell of rules in another order, where it matters: rules that stop the others, rules that mutate."""
    old, new = ([unit for unit in side if unit.act in _RULES] for side in (before, after))
    one = any(unit.act is Act.SETTINGS and unit.body.get("applyRules") == "One" for unit in (*before, *after))
    if not one:
        common = set.intersection(*({unit.key for unit in side if unit.act is Act.MUTATE} for side in (old, new)))
        old, new = ([unit for unit in side if unit.key in common] for side in (old, new))
    if [unit.key for unit in old] == [unit.key for unit in new]:
        return
    what = What.ENFORCES_OTHERWISE if one else What.MUTATES_OTHERWISE
    sentence = "the policy has its rules in another order, direction unknown"
    yield _change(what, Direction.UNKNOWN, "spec.rules", sentence, enforced=enforced and one)


_RULES: Final = (Act.CHECK, Act.MUTATE, Act.GENERATE)
