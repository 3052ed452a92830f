"""Reads a document that is JSON: Kubernetes then uses its JSON decoder, whose strings know more escapes."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Final, NoReturn

from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.yamlio import scalars
from renderer.manifest.yamlio.construct import Built, Finding

#: How much of a stream Kubernetes looks at to see whether it is JSON.
_LOOK_AHEAD: Final = 4096
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class _Twice(ValueError):
    """One key twice in an object."""


def build(text: bytes, *, depth: int, nodes: int) -> Built | None:
    """The value of the first document of a stream; None when that isn't one JSON object, but YAML.

    The findings have no exact place, since Python's decoder knows none.
    """
    content = text.lstrip()
    start = len(text) - len(content)
    if not content.startswith(b"{") or start >= _LOOK_AHEAD:
        return None
    line = text.count(b"\n", 0, start)
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_object,
            parse_int=scalars.json_integer,
            parse_float=lambda digits: scalars.to_json(float(digits)),
            parse_constant=_constant,
        )
        _measure(value, depth=depth, nodes=nodes)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "half of a surrogate pair stands alone, and Kubernetes would replace it"
    except (_Twice, scalars.ScalarError) as error:
        message = str(error)
    except (ValueError, RecursionError):
        return None
    else:
        return Built(value=value, line=line)
    return Built(line=line, findings=(Finding(line=line, column=0, message=message),))


def _object(pairs: list[tuple[str, Json]]) -> JsonObject:
    result = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise _Twice(f"the key {twice!r} appears twice in one object, and Kubernetes would keep the last only")
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(name)


def _measure(value: Json, *, depth: int, nodes: int) -> None:
    """Apply the limits; raises ScalarError like the other checks of a value's content."""
    level, count = [value], 1
    for _ in range(depth):
        items = [
            item
            for collection in level
            for item in (collection.values() if isinstance(collection, dict) else collection)
        ]
        count += len(items)
        level = [item for item in items if isinstance(item, dict | list)]
    if level:
        raise scalars.ScalarError(f"nested more than {depth} deep")
    if count > nodes:
        raise scalars.ScalarError(f"the document has more than {nodes} values")
