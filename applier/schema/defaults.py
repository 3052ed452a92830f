"""Pure: the API server's structural defaults, applied to what is wanted by the schemas that the server publishes.

The rules are those of the server (measured; a server test holds them): a default fills a field that is missing where
its parent is present, and then gets defaults of its own; a null where none is allowed becomes the default, or is
dropped. A CRD's schema is written out in one piece, so whatever a `$ref` leads to is a Go type of the server: an empty
optional list, map or string is the same as none there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from applier import wording
from applier.ports import Resource
from applier.verdict import Finding, Layer, Verdict
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import KINDS, Kind
from renderer.manifest.normalize import content

#: Defaults that the server's own code sets and no schema shows, by the Go type whose field they fill.
CODE_DEFAULTS: Final[Mapping[str, JsonObject]] = {
    "ValidatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "MutatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "MatchResources": {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}},
    "NamedRuleWithOperations": {"scope": "*"},
}
#: The form of a `trimmed` document. One of another form is never read, so change the name when you change the form.
FORM: Final = "1"

_CODE: Final = "io.k8s.api.admissionregistration."

REFERENCE: Final = "#/components/schemas/"
_KINDS: Final = "x-kubernetes-group-version-kind"
#: For people, and by far the most of a published document.
_TEXT: Final = frozenset({"description", "example", "externalDocs"})
#: Keywords whose values are no schemas.
_VALUES: Final = frozenset({"default", "enum"})

#: How many levels of a schema are searched for the place of a field.
_DEEPEST: Final = 10

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What is wanted, as the server would store it.

    `bodies` holds the content of the policies that could be defaulted, in the storage version; `verdict` what the
    cluster's schemas have against some; `missing` the group versions of which no schema was to be had.
    """

    bodies: Mapping[Identity, JsonObject]
    verdict: Verdict
    missing: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of how it was found."""
        if not self.missing:
            return ()
        versions = ", ".join(self.missing)
        return (f"no schema of {versions} is to be had; without a dry run its policies are compared as written",)


def needed(policies: Iterable[Policy], resources: Mapping[Kind, Resource]) -> frozenset[str]:
    """The group versions whose schemas `default` needs for these policies: each one's own, and the stored one."""
    return frozenset(
        version
        for policy in policies
        if (resource := resources.get(policy.identity.kind)) and _is_served(policy, resource)
        for version in (policy.api_version, resource.api_version)
    )


def default(
    policies: Iterable[Policy], resources: Mapping[Kind, Resource], documents: Mapping[str, JsonObject]
) -> Desired:
    """Each policy with the server's defaults, by the `trimmed` documents of `needed` group versions.

    Policies of a kind that the cluster does not serve are left out.
    """
    schemas = {
        (version, name): Schema(schema, document["types"])
        for version, document in documents.items()
        for name, schema in document["kinds"].items()
    }
    bodies: dict[Identity, JsonObject] = {}
    findings: list[Finding] = []
    missing: set[str] = set()
    for policy in policies:
        kind = policy.identity.kind
        resource = resources.get(kind)
        if resource is None:
            continue
        if not _is_served(policy, resource):
            served = ", ".join(f"{kind.group}/{version}" for version in resource.served)
            message = f"{policy.api_version} is not a version that this cluster serves; it serves {served}"
            findings.append(_finding(policy, message))
            continue
        own, stored = (schemas.get((version, kind.name)) for version in (policy.api_version, resource.api_version))
        if own is None or stored is None:
            missing.update(v for v, s in ((policy.api_version, own), (resource.api_version, stored)) if s is None)
            continue
        bodies[policy.identity] = _as_stored(content(policy.body, kind), own, stored, resource.api_version)
        if own is not stored:
            findings += _unknown(policy, own, stored, resource.api_version)
    return Desired(bodies=bodies, verdict=Verdict(findings=tuple(findings)), missing=tuple(sorted(missing)))


def _is_served(policy: Policy, resource: Resource) -> bool:
    return policy.api_version.rpartition("/")[2] in resource.served


def _as_stored(body: JsonObject, own: Schema, stored: Schema, api_version: str) -> JsonObject:
    if own is stored:
        return own.default(body)
    # Kyverno's CRDs convert by replacing the version; what the stored one does not know is gone when it is next read.
    return stored.default({**stored.prune(own.default(body))[0], "apiVersion": api_version})


def _unknown(policy: Policy, own: Schema, stored: Schema, api_version: str) -> Iterator[Finding]:
    """The fields that the document's version lacks, and those that the storage version would lose."""
    body = content(policy.body, policy.identity.kind)
    lost, unknown = stored.prune(body)[1], own.prune(body)[1]
    for path in lost:
        message = f"would be lost: the cluster stores {api_version}, which has no such field"
        yield _finding(policy, own.unknown_field(path) if path in unknown else message, *path)
    for path in unknown:
        if path not in lost:
            message = f"is no field of {policy.api_version}, but one of {api_version}: write the policy in that version"
            yield _finding(policy, message, *path)


def _finding(policy: Policy, message: str, *path: str | int) -> Finding:
    problem = policy.problem(message, *(path or ("apiVersion",)))
    return Finding(policy=policy.identity, layer=Layer.SCHEMA, problem=problem)


def trimmed(document: Json) -> JsonObject | None:
    """What of a published document we need, or None when it is none: managed kinds, and the types they refer to.

    The result is `{"kinds": {<kind>: <schema>}, "types": {<name>: <schema>}}`, without descriptions and status.
    """
    try:
        published: JsonObject = document["components"]["schemas"]
        kinds: JsonObject = {}
        for schema in published.values():
            for entry in schema.get(_KINDS, ()):
                if (entry["group"], entry["kind"]) in _MANAGED:
                    properties = {key: value for key, value in schema["properties"].items() if key != "status"}
                    kinds[entry["kind"]] = _without_text({**schema, "properties": properties})
        types: JsonObject = {}
        waiting = set(_references(kinds))
        while waiting:
            name = waiting.pop()
            types[name] = _without_text(published[name])
            waiting |= set(_references(types[name])) - types.keys()
    except (KeyError, TypeError, AttributeError):
        return None
    return {"kinds": kinds, "types": types}


_MANAGED: Final = frozenset((kind.group, kind.name) for kind in KINDS)


def _without_text(schema: Json, *, names: bool = False) -> Json:
    """The schema without texts; with `names`, its keys are the names of fields and all stay."""
    if isinstance(schema, dict):
        return {
            key: value
            if key in _VALUES and not names
            else _without_text(value, names=key == "properties" and not names)
            for key, value in schema.items()
            if names or key not in _TEXT
        }
    return [_without_text(item) for item in schema] if isinstance(schema, list) else schema


def _references(schema: Json) -> Iterator[str]:
    if isinstance(schema, dict):
        target = schema.get("$ref")
        if isinstance(target, str):
            yield target.removeprefix(REFERENCE)
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """One place of a schema: what may lie there, its references followed."""

    properties: Mapping[str, JsonObject]
    defaults: tuple[tuple[str, Json], ...]
    additional: JsonObject | None
    items: JsonObject | None
    default: Json
    nullable: bool
    open: bool  # may hold fields that the schema does not name
    embedded: bool  # holds an object with metadata of its own
    go_type: bool
    required: Collection[str]


class Schema:
    """The schema of one kind in one version."""

    def __init__(self, root: JsonObject, types: Mapping[str, JsonObject]) -> None:
        """Take the parts of a `trimmed` document."""
        self._root = root
        self._types = types
        self._nodes: dict[tuple[int, bool], _Node] = {}

    def default(self, body: JsonObject) -> JsonObject:
        """A copy of the object with every default that the server would add, and without what it would drop."""
        defaulted: JsonObject = self._default(body, self._node(self._root))
        return defaulted

    def prune(self, body: JsonObject) -> tuple[JsonObject, tuple[Path, ...]]:
        """A copy without the fields that this schema does not know, and their paths."""
        unknown: list[Path] = []
        known: JsonObject = self._prune(body, self._node(self._root), (), unknown)
        return known, tuple(unknown)

    def unknown_field(self, path: Path) -> str:
        """What to say of a field that `prune` does not know."""
        node, name = self._at(path[:-1]), str(path[-1])
        return wording.unknown_field(name, node.properties if node else (), self._places_of(name))

    def _at(self, path: Path) -> _Node | None:
        node: _Node | None = self._node(self._root)
        for step in path:
            if node is None:
                break
            if isinstance(step, str):
                node = self._field(step, node)
            else:
                node = self._node(node.items, go_type=node.go_type) if node.items is not None else None
        return node

    def _places_of(self, name: str) -> list[str]:
        """Where a field of that name is known, as far up as there is one."""
        level = [("", self._node(self._root))]
        for _ in range(_DEEPEST):
            if found := [f"{place}{name}" for place, node in level if name in node.properties]:
                return found
            level = [inner for place, node in level for inner in self._within(place, node)]
        return []

    def _within(self, place: str, node: _Node) -> Iterator[tuple[str, _Node]]:
        for name in node.properties:
            inner, suffix = self._field(name, node), ""
            while inner is not None and inner.items is not None:
                inner, suffix = self._node(inner.items, go_type=inner.go_type), f"{suffix}[]"
            if inner is not None:
                yield f"{place}{name}{suffix}.", inner

    def _node(self, schema: JsonObject, *, go_type: bool = False) -> _Node:
        key = (id(schema), go_type)
        if key not in self._nodes:
            self._nodes[key] = self._resolve(schema, go_type=go_type)
        return self._nodes[key]

    def _resolve(self, schema: JsonObject, *, go_type: bool) -> _Node:
        # The parts of an allOf that are no references only validate: they can hold no default.
        references = [part["$ref"] for part in (schema, *schema.get("allOf", ())) if "$ref" in part]
        in_code: JsonObject = {}
        for reference in references:
            name = reference.removeprefix(REFERENCE)
            schema = {**self._types[name], **{key: value for key, value in schema.items() if key != "$ref"}}
            if name.startswith(_CODE):
                in_code = CODE_DEFAULTS.get(name.rpartition(".")[2], {})
        properties: Mapping[str, JsonObject] = schema.get("properties", {})
        published = {name: field["default"] for name, field in properties.items() if field.get("default") is not None}
        additional, free = _additional(schema)
        return _Node(
            properties=properties,
            defaults=tuple({**published, **in_code}.items()),
            additional=additional,
            items=schema.get("items"),
            default=schema.get("default"),
            nullable=bool(schema.get("nullable")),
            open=free or bool(schema.get("x-kubernetes-preserve-unknown-fields")),
            embedded=bool(schema.get("x-kubernetes-embedded-resource")),
            go_type=go_type or bool(references),
            required=frozenset(schema.get("required", ())),
        )

    def _default(self, value: Json, node: _Node) -> Json:
        if isinstance(value, dict):
            return self._default_object(value, node)
        if isinstance(value, list) and node.items is not None:
            inner = self._node(node.items, go_type=node.go_type)
            return [self._default(_filled(item, inner), inner) for item in value]
        return value

    def _default_object(self, value: JsonObject, node: _Node) -> JsonObject:
        result: JsonObject = {}
        for key, item in value.items():
            inner = self._field(key, node)
            if inner is None:
                result[key] = item
                continue
            filled = self._default(_filled(item, inner), inner)
            if not (filled is None and not inner.nullable) and not _same_as_none(key, filled, inner, node):
                result[key] = filled
        for key, filler in node.defaults:
            if key not in result:
                result[key] = self._default(filler, self._node(node.properties[key], go_type=node.go_type))
        return result

    def _field(self, key: str, node: _Node) -> _Node | None:
        schema = node.properties.get(key, node.additional)
        return None if schema is None else self._node(schema, go_type=node.go_type)

    def _prune(self, value: Json, node: _Node, path: Path, unknown: list[Path]) -> Json:
        if isinstance(value, list):
            if node.items is None:
                return value
            inner = self._node(node.items, go_type=node.go_type)
            return [self._prune(item, inner, (*path, index), unknown) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        result: JsonObject = {}
        for key, item in value.items():
            field = self._field(key, node)
            if field is not None:
                result[key] = self._prune(item, field, (*path, key), unknown)
            elif node.open or (node.embedded and key in ("apiVersion", "kind", "metadata")):
                result[key] = item
            else:
                unknown.append((*path, key))
        return result


def _additional(schema: JsonObject) -> tuple[JsonObject | None, bool]:
    """The schema of fields that are not named, and whether they may be anything."""
    additional: Any = schema.get("additionalProperties")
    if isinstance(additional, dict):
        return additional, False
    return None, additional is True


def _filled(value: Json, node: _Node) -> Json:
    """The default in the place of a null that may not be."""
    return node.default if value is None and not node.nullable else value


def _same_as_none(key: str, value: Json, inner: _Node, node: _Node) -> bool:
    """Whether Go leaves the field out: it is optional and empty (a struct is never empty)."""
    if not node.go_type or key in node.required or key not in node.properties:
        return False
    return value in ("", []) or (value == {} and not inner.properties)
