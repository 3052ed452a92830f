"""What the cluster's schemas have against policies: each error with its line and field, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from applier.ports import Resource
from applier.schema.defaults import Path, Schema
from applier.schema.json_schema import FORMATS, MAP_KEYS, json_schema
from applier.verdict import Finding, Layer, Verdict
from applier.wording import nearest, one_of, quoted
from renderer.manifest.document import Policy, type_name
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.normalize import content

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

_TYPES: Final = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "empty",
    "number": "a number",
    "object": "a map",
    "string": "text",
}
#: Named where a value has to be one of a format, so that people see what is meant.
_EXAMPLES: Final = {"duration": "such as 30s, 10m or 1h30m"}


def check(
    policies: Iterable[Policy], resources: Mapping[Kind, Resource], documents: Mapping[str, JsonObject]
) -> Verdict:
    """Check each policy by the schema of its own version, and of the one that the cluster stores.

    They are checked as the server does it: with its defaults. A policy of which no schema is to be had is passed over,
    and so are fields that no schema knows in a version other than the stored one: `schema.default` tells of both.
    """
    schemas = _Schemas(documents)
    findings: list[Finding] = []
    unjudged = []
    for policy in policies:
        resource = resources.get(policy.identity.kind)
        own = schemas.get(policy.api_version, policy.identity.kind) if resource else None
        stored = schemas.get(resource.api_version, policy.identity.kind) if resource else None
        if own is None or stored is None or resource is None:
            continue
        try:
            mistakes = list(_mistakes(policy, own, stored, resource.api_version))
        except _Unusable as error:
            unjudged.append((policy.identity, str(error)))
            continue
        problems = sorted({policy.problem(message, *path) for path, message in mistakes})
        findings += (Finding(policy=policy.identity, layer=Layer.SCHEMA, problem=problem) for problem in problems)
    return Verdict(findings=tuple(findings), unjudged=tuple(unjudged))


_Mistakes = Iterator[tuple[Path, str]]


def _mistakes(policy: Policy, own: _Checked, stored: _Checked, api_version: str) -> _Mistakes:
    kind = policy.identity.kind
    body = content(policy.body, kind)
    known, unknown = own.schema.prune(body)
    if own is stored:
        for path in unknown:
            yield path, own.schema.unknown_field(path)
    defaulted = own.schema.default(known)
    found = dict(own.mistakes(defaulted))
    yield from found.items()
    if own is not stored:
        converted = stored.schema.default({**stored.schema.prune(defaulted)[0], "apiVersion": api_version})
        for path, message in stored.mistakes(converted):
            if path not in found:
                yield path, f"{message} (in {api_version}, which the cluster stores)"


class _Unusable(Exception):
    """The library can't use a schema."""


@dataclass(slots=True)
class _Checked:
    """The schema of one kind in one version, and the library's validator of it once it is needed."""

    schema: Schema
    rules: JsonObject
    validator: Validator | None = None

    def mistakes(self, body: JsonObject) -> _Mistakes:
        """What is wrong in a body that has its defaults; of a value of the wrong type, nothing but that."""
        errors = list(self._validator().iter_errors(body))
        mistyped = {tuple(error.instance_path) for error in errors if error.kind.name == "type"}
        for error in errors:
            path = tuple(error.instance_path)
            if error.kind.name == "type" or path not in mistyped:
                yield _said(error, path, self.rules)

    def _validator(self) -> Validator:
        if self.validator is None:
            import jsonschema_rs

            try:
                self.validator = jsonschema_rs.Draft4Validator(
                    self.rules,
                    formats=dict(FORMATS),
                    validate_formats=True,
                    pattern_options=jsonschema_rs.RegexOptions(),  # the engine whose syntax is that of Go
                    keywords={MAP_KEYS: _MapKeys},
                    mask="the value",
                )
            except ValueError as error:
                raise _Unusable(f"its schema can't be used: {str(error).splitlines()[0]}") from error
        return self.validator


class _Schemas:
    """The schemas of the kinds and versions that are asked for, each made once."""

    def __init__(self, documents: Mapping[str, JsonObject]) -> None:
        self._documents = documents
        self._made: dict[tuple[str, str], _Checked] = {}

    def get(self, api_version: str, kind: Kind) -> _Checked | None:
        key = (api_version, kind.name)
        document = self._documents.get(api_version)
        if document is None or kind.name not in document["kinds"]:
            return None
        if key not in self._made:
            root, types = document["kinds"][kind.name], document["types"]
            self._made[key] = _Checked(schema=Schema(root, types), rules=json_schema(root, types))
        return self._made[key]


class _MapKeys:
    """The keyword for lists whose items are told apart by some fields; its error is the place of the second."""

    def __init__(self, _parent: JsonObject, keys: Any, _path: list[str | int]) -> None:
        self._keys = tuple(keys)

    def validate(self, items: Any) -> None:
        """Raise ValueError with the index of the first item that repeats another's keys."""
        seen = set()
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict):
                keys = repr([item.get(key) for key in self._keys])
                if keys in seen:
                    raise ValueError(index)
                seen.add(keys)


def _said(error: ValidationError, path: Path, rules: JsonObject) -> tuple[Path, str]:
    """Where the mistake is, and what to say of it."""
    name, kind = error.kind.name, error.kind.as_dict()
    if name == "required":
        return (*path, kind["property"]), "is missing"
    if name == MAP_KEYS:
        keys = " and ".join(_node(error.schema_path, rules))
        return (*path, int(kind["message"])), f"has the same {keys} as an item before it"
    if name in ("oneOf", "not"):
        return path, _joined(error, rules)
    return path, _worded(name, kind, error.instance) or error.message


def _worded(name: str, kind: JsonObject, value: Json) -> str:
    """What to say of a value that breaks the rule of that name."""
    text = ""
    if name == "type":
        text = _mistyped(value, kind["types"])
    elif name == "enum":
        options = [str(option) for option in kind["options"]]
        text = f"is {quoted(value)}, not {one_of(options)}{nearest(str(value), options)}"
    elif name == "pattern":
        text = f"is {quoted(value)}, which does not match the pattern {kind['pattern']}"
    elif name == "format":
        text = f"is {quoted(value)}, which is no {kind['format']} ({_EXAMPLES[kind['format']]})"
    elif name == "uniqueItems":
        text = "holds the same item twice"
    elif name in _BOUNDS:
        text = f"is {value}; it must be {_BOUNDS[name]} {kind['limit']}"
    elif name[3:] in _COUNTED:
        bound = "at least" if name.startswith("min") else "at most"
        text = f"has {len(value)} {_COUNTED[name[3:]]}; it must have {bound} {kind['limit']}"
    return text


_BOUNDS: Final = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
_COUNTED: Final = {"Length": "characters", "Items": "items", "Properties": "fields"}


def _mistyped(value: Json, types: list[str]) -> str:
    wanted = one_of([_TYPES[name] for name in types])
    text = f"is {type_name(value)}, not {wanted}"
    if "string" in types and isinstance(value, bool | int | float):
        return f"{text}: put it in quotes"
    bare = isinstance(value, str) and (
        (value in ("true", "false") and "boolean" in types) or (value.isdecimal() and "integer" in types)
    )
    return f"{text}: take the quotes away" if bare else text


def _joined(error: ValidationError, rules: JsonObject) -> str:
    """What to say where fields exclude each other, which is all that Kyverno's schemas join schemas for."""
    node, value = _node(error.schema_path, rules), error.instance
    parts = [node] if error.kind.name == "not" else node
    if not isinstance(value, dict) or any(part.keys() != {"required"} for part in parts):
        return error.message
    if error.kind.name == "not":
        return f"has {' and '.join(node['required'])}, which exclude each other"
    names = [" with ".join(part["required"]) for part in node]
    given = [name for name, part in zip(names, node, strict=True) if value.keys() >= set(part["required"])]
    has = f"has {' and '.join(given)}" if given else "has none of them"
    return f"needs exactly one of {', '.join(names)}, and {has}"


def _node(path: Iterable[str | int], rules: Json) -> Any:
    for step in path:
        rules = rules[step]
    return rules
