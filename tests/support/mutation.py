"""Changes JSON values by chance, as people and programs change live policies."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from renderer.manifest.jsontypes import Json, JsonObject

#: What a value may become.
_RETYPED: tuple[Json, ...] = (None, True, 0, -1.5, 2**53, "", "Enforce", "{{ x }}", "1", [], {}, [{}], {"a": [1]})


def _containers(value: Json) -> list[Any]:
    """Every map and list in the value, itself included, in one order."""
    found = [value] if isinstance(value, dict | list) else []
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found += _containers(item)
    return found


def mutate(chance: Random, spec: JsonObject) -> None:
    """Add, remove, retype, reorder or rename something, anywhere."""
    target = chance.choice(_containers(spec))
    keys = list(target) if isinstance(target, dict) else list(range(len(target)))
    value = copy.deepcopy(chance.choice(_RETYPED))
    what = chance.choice(["add", "remove", "retype", "reorder", "rename"])
    if what == "add" or not keys:
        if isinstance(target, dict):
            target[chance.choice(["name", "added", "a/b~c", "", "0"])] = value
        else:
            target.insert(chance.randint(0, len(target)), value)
        return
    key = chance.choice(keys)
    if what == "remove":
        del target[key]
    elif what == "reorder" and isinstance(target, list):
        target.insert(chance.randrange(len(target)), target.pop(key))
    elif what == "rename" and isinstance(target, dict):
        target[chance.choice(["renamed", "name", "a/b~c"])] = target.pop(key)
    else:
        target[key] = value
