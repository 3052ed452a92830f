"""The values of the in-cluster manifests: a closed set, each with its type, its default and what it is for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from renderer.durations import parse_duration
from renderer.errors import ConfigurationError
from renderer.insights import config
from renderer.logs import LEVELS
from renderer.manifest.jsontypes import Json


class Part(Enum):
    """What can be deployed."""

    SYNC = "sync"
    RUNNER = "runner"
    FLEET = "fleet"


class _NotAcceptedError(Exception):
    """A text is no such value; says what is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value: how its text is read, its default as text, and the parts that have it.

    A default of None means that it must be set where one of its parts is rendered; no parts means every one.
    """

    key: str
    read: Callable[[str], Json]
    about: str
    default: str | None = None
    parts: frozenset[Part] = frozenset(Part)

    @property
    def name(self) -> str:
        """What templates call it."""
        return self.key.replace("-", "_")


def _matching(pattern: str, takes: str, *, longest: int) -> Callable[[str], str]:
    shape = re.compile(pattern, re.ASCII)

    def read(text: str) -> str:
        if not shape.fullmatch(text) or len(text) > longest:
            raise _NotAcceptedError(takes)
        return text

    return read


def _or_nothing(read: Callable[[str], Json]) -> Callable[[str], Json]:
    return lambda text: read(text) if text else ""


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise _NotAcceptedError(f"one of {', '.join(choices)}")
        return text

    return read


def _boolean(text: str) -> bool:
    return _one_of("true", "false")(text) == "true"


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", text, re.ASCII) or not least <= int(text) <= most:
            raise _NotAcceptedError(f"a whole number from {least} to {most}")
        return int(text)

    return read


def _duration(text: str) -> float:
    """Seconds; the text itself stays what programs are told."""
    try:
        seconds = parse_duration(text, setting="")
    except ConfigurationError:
        seconds = 0.0
    if seconds < 1:
        raise _NotAcceptedError("a duration of at least a second, such as 90s, 15m or 1h30m")
    return seconds


def _parts(text: str) -> list[str]:
    known = [part.value for part in Part]
    chosen = text.split(",")
    if len(set(chosen)) != len(chosen) or not set(chosen) <= set(known):
        raise _NotAcceptedError(f"one or more of {', '.join(known)}, each once, with commas between")
    return [part for part in known if part in chosen]


def _insights_name(text: str) -> str:
    if config.name_problem(text):
        raise _NotAcceptedError("the name as Insights shows it")
    return text


def _host(text: str) -> str:
    try:
        return config.account(host=text, token="-").host  # noqa: S106 - any: only the host is checked
    except ConfigurationError:
        raise _NotAcceptedError(f"a URL such as {config.DEFAULT_HOST}, without a password") from None


_label = _matching(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "a name of lower-case letters, digits and -", longest=63)
_object_name = _matching(
    r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", "the name of an object", longest=253
)
_key = _matching(r"[A-Za-z0-9._-]+", "a key of letters, digits, - . and _", longest=253)
_image = _matching(
    r"[A-Za-z0-9][A-Za-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})",
    "an image with its tag or, better, its digest, such as registry.example/runner@sha256:…",
    longest=512,
)
_repository = _matching(
    r"(https|ssh)://[A-Za-z0-9._~-]+(@[A-Za-z0-9._-]+)?(:[0-9]+)?/[A-Za-z0-9._~/%+-]+",
    "a URL that begins with https:// or ssh://, without a password",
    longest=2048,
)
_branch = _matching(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*", "the name of a branch", longest=200)
_deletions = _matching(r"[0-9]{1,6}|[0-9]{1,3}%", "a number or a percentage, such as 20 or 30%", longest=6)

_SYNC: Final = frozenset({Part.SYNC})
_RUNNER: Final = frozenset({Part.RUNNER})
_FLEET: Final = frozenset({Part.FLEET})

VALUES: Final[tuple[Value, ...]] = (
    Value(key="parts", read=_parts, default="sync,runner", about="what to deploy: sync, runner, fleet"),
    Value(key="image", read=_image, about="the image made from ci/Dockerfile; for the fleet, from its target fleet"),
    Value(key="image-pull-secret", read=_or_nothing(_object_name), default="", about="Secret for a private registry"),
    Value(key="namespace", read=_label, default="insights-agent", about="where everything runs"),
    Value(key="create-namespace", read=_boolean, default="false", about="make it, for restricted pods only"),
    Value(key="host", read=_host, default=config.DEFAULT_HOST, about="base URL of Insights"),
    Value(
        key="organization",
        read=_insights_name,
        about="the organization, as Insights names it",
        parts=_SYNC | _RUNNER,
    ),
    Value(key="cluster", read=_insights_name, about="the cluster, as Insights names it", parts=_SYNC | _RUNNER),
    Value(key="token-secret", read=_object_name, default="insights-token", about="Secret that holds the token"),
    Value(key="token-key", read=_key, default="token", about="the token's key in it"),
    Value(key="log-level", read=_one_of(*LEVELS), default="info", about="how much to log"),
    Value(
        key="sync-interval",
        read=_duration,
        default="15m",
        about="how often to sync; what cron can't say (7m, 90m) is a Deployment that waits itself",
        parts=_SYNC | _FLEET,
    ),
    Value(key="dry-run", read=_boolean, default="false", about="only say what would be done", parts=_SYNC),
    Value(key="validate-policies", read=_boolean, default="true", about="ask the kyverno CLI too", parts=_SYNC),
    Value(
        key="on-failure",
        read=_one_of("rollback", "continue", "stop"),
        default="rollback",
        about="when a write fails",
        parts=_SYNC,
    ),
    Value(key="lock-timeout", read=_duration, default="30m", about="how long a sync may take", parts=_SYNC),
    Value(
        key="max-delete",
        read=_or_nothing(_deletions),
        default="",
        about="how many deletions are ordinary",
        parts=_SYNC,
    ),
    Value(key="poll-interval", read=_duration, default="15s", about="how often to ask for jobs", parts=_RUNNER),
    Value(key="max-concurrent-jobs", read=_number(1, 1000), default="10", about="jobs at a time", parts=_RUNNER),
    Value(
        key="fleet-clusters",
        read=_object_name,
        default="insights-fleet",
        about="ConfigMap whose clusters.yaml lists the clusters",
        parts=_FLEET,
    ),
    Value(key="fleet-shards", read=_number(1, 1000), default="4", about="how many pods share them", parts=_FLEET),
    Value(key="fleet-repository", read=_repository, about="git repository of the snapshots", parts=_FLEET),
    Value(key="fleet-branch", read=_branch, default="main", about="its branch", parts=_FLEET),
    Value(
        key="fleet-git-secret",
        read=_object_name,
        default="insights-fleet-git",
        about="Secret with the files of git's home: .gitconfig, .git-credentials",
        parts=_FLEET,
    ),
    Value(key="api-server-port", read=_number(1, 65535), default="6443", about="port of the API server itself"),
    Value(
        key="metrics-namespace",
        read=_or_nothing(_label),
        default="",
        about="namespace that may connect to metrics-port; without one, nobody",
    ),
    Value(key="metrics-port", read=_number(1, 65535), default="9090", about="port of the metrics"),
)
_BY_KEY: Final = {value.key: value for value in VALUES}


def read(settings: Iterable[str]) -> Mapping[str, Json]:
    """Every value by its template's name, from KEY=VALUE texts of which the last counts; `<duration>_s` are seconds.

    A value of parts that are not rendered is checked too, and "" if it is not set and has no default. Raises
    ConfigurationError that names each mistake.
    """
    given, problems = _given(settings)
    found: dict[str, Json] = {}
    for value in VALUES:
        text = given.get(value.key, value.default)
        try:
            found |= _read_one(value, text or "") if text is not None else {value.name: ""}
        except _NotAcceptedError as error:
            problems.append(f"{value.key}: {_shown(text or '')} is not accepted; it takes {error}.")
    chosen = {Part(name) for name in found.get("parts") or ()}
    problems += [
        f"{value.key} is not set: {value.about}."
        for value in VALUES
        if value.default is None and value.key not in given and value.parts & chosen
    ]
    if problems:
        raise ConfigurationError(
            "--set: " + (problems[0] if len(problems) == 1 else f"{len(problems)} values are missing or wrong."),
            details=problems if len(problems) > 1 else (),
            hint="Give it as --set KEY=VALUE; `insights-renderer deploy --help` lists all of them.",
        )
    return found


def _read_one(value: Value, text: str) -> dict[str, Json]:
    found = value.read(text)
    if value.read is _duration:
        return {value.name: text, f"{value.name}_s": found}
    return {value.name: found}


def _given(settings: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    given: dict[str, str] = {}
    problems = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            problems.append(f"{_shown(setting)} is not accepted; it takes KEY=VALUE.")
        elif key not in _BY_KEY:
            near = difflib.get_close_matches(key, _BY_KEY, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            problems.append(f"{_shown(key)} is no value of these manifests.{meant} Known: {', '.join(_BY_KEY)}.")
        else:
            given[key] = text
    return given, problems


def _shown(text: str) -> str:
    if "://" in text and set("@?#") & set(text):
        return "its value (not shown, as it may hold a secret)"
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


def described() -> list[tuple[str, str]]:
    """Key and meaning of every value, for --help."""
    return [(value.key, f"{value.about}  [{_default(value)}]") for value in VALUES]


def _default(value: Value) -> str:
    if value.default is None:
        return "required" if value.parts == frozenset(Part) else f"required for {_named(value.parts)}"
    return f"default: {value.default}" if value.default else "default: none"


def _named(parts: frozenset[Part]) -> str:
    return " and ".join(part.value for part in Part if part in parts)
