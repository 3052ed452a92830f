"""Pure: a Kubernetes schema as JSON Schema (draft 4, whose numbers OpenAPI has), for a library to check policies by.

It says what the API server checks of an object that has its defaults: unknown fields are `Schema.prune`'s business,
rules in CEL the server's. Where a rule has no counterpart the result is laxer, never stricter, than the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from applier.schema.defaults import REFERENCE
from renderer.manifest.jsontypes import Json, JsonObject

#: The keyword for lists whose items are told apart by some fields; its value is the names of these.
MAP_KEYS: Final = "x-kubernetes-list-map-keys"

_DEFINITIONS: Final = "#/definitions/"
#: Keywords that mean the same in both.
_PLAIN: Final = (
    *("type", "enum", "required", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("pattern", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)
_JUNCTORS: Final = ("allOf", "anyOf", "oneOf")
#: Of the formats that the server knows (formats.go in apiextensions-apiserver), policies use these and `duration`; the
#: others are left to it.
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
_DURATION: Final = re.compile(r"\d+\s*([A-Za-zµμ]+)")
_UNIT: Final = re.compile(
    r"ns|us|µs|μs|ms|s|m|h|d|w|hr|wk|(nano|micro|milli|sec|min|hour|day|week).*", re.IGNORECASE | re.DOTALL
)


def is_duration(value: str) -> bool:
    """Whether the API server takes it for a duration: Go's syntax, or numbers with units in words."""
    return value.lstrip("+-") == "0" or any(_UNIT.fullmatch(unit) for unit in _DURATION.findall(value))


#: The formats of text that are checked.
FORMATS: Final[Mapping[str, Callable[[str], bool]]] = {"duration": is_duration}


def json_schema(root: JsonObject, types: Mapping[str, JsonObject]) -> JsonObject:
    """The JSON Schema of a kind, from the parts of a `schema.trimmed` document."""
    definitions = {name: _converted(schema, in_go=True) for name, schema in types.items()}
    return {**_converted(root, in_go=False), "definitions": definitions}


def _converted(schema: JsonObject, *, in_go: bool) -> JsonObject:
    """One schema and those within it; `in_go` where the server's own types stand for what is published."""
    if "$ref" in schema:
        return {"$ref": _DEFINITIONS + schema["$ref"].removeprefix(REFERENCE)}
    result: JsonObject = {key: schema[key] for key in _PLAIN if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if "properties" in schema:
        result["properties"] = {k: _converted(v, in_go=in_go) for k, v in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = _converted(schema[key], in_go=in_go)
    if not in_go:
        result |= _list_rules(schema)
    if schema.get("x-kubernetes-embedded-resource"):
        result["required"] = sorted({*result.get("required", ()), "apiVersion", "kind"})
    result |= _format_rules(schema)
    return _nullable(result) if schema.get("nullable") else result | _junctors(schema, in_go=in_go)


def _junctors(schema: JsonObject, *, in_go: bool) -> JsonObject:
    found: JsonObject = {
        key: [_converted(part, in_go=in_go) for part in schema[key]] for key in _JUNCTORS if key in schema
    }
    if "not" in schema:
        found["not"] = _converted(schema["not"], in_go=in_go)
    return found


def _nullable(result: JsonObject) -> JsonObject:
    """The same for null too. Of a null the server checks type and enum only, so what joins schemas is left out."""
    types: Json = result.get("type")
    if types is None:
        return result
    return {**result, "type": [*([types] if isinstance(types, str) else types), "null"]}


def _list_rules(schema: JsonObject) -> JsonObject:
    """That a list holds nothing twice. For the server's own types it is only a hint how to merge."""
    if schema.get("x-kubernetes-list-type") == "set":
        return {"uniqueItems": True}
    if schema.get("x-kubernetes-list-type") == "map":
        return {MAP_KEYS: schema.get(MAP_KEYS, [])}
    return {}


def _format_rules(schema: JsonObject) -> JsonObject:
    format_, type_ = schema.get("format"), schema.get("type")
    if type_ == "integer" and isinstance(format_, str) and format_ in _RANGES:
        low, high = _RANGES[format_]
        return {"minimum": max(low, schema.get("minimum", low)), "maximum": min(high, schema.get("maximum", high))}
    return {"format": format_} if type_ == "string" and format_ in FORMATS else {}
