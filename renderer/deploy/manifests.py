"""Pure: the files of what runs in the cluster, made of their values by the templates of `renderer/templates`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from renderer.deploy.schedule import cron
from renderer.deploy.values import Part
from renderer.errors import ConfigurationError
from renderer.manifest import kinds, yamlio
from renderer.manifest.jsontypes import Json

if TYPE_CHECKING:
    import jinja2

KUSTOMIZATION: Final = "kustomization.yaml"
MARK: Final = (
    "# Rendered by `insights-renderer deploy`; its next run replaces it. Change a value, or patch it by an overlay."
)
#: The files of each part; `network-policies.yaml` is for all of them.
_FILES: Final[Mapping[Part, tuple[str, ...]]] = {
    Part.SYNC: ("sync-rbac.yaml", "sync.yaml"),
    Part.RUNNER: ("runner-rbac.yaml", "runner.yaml"),
    Part.FLEET: ("fleet.yaml",),
}
_NAMESPACE: Final = "namespace.yaml"
_NETWORK: Final = "network-policies.yaml"
#: Every file that there may be.
NAMES: Final = frozenset({KUSTOMIZATION, _NAMESPACE, _NETWORK, *(name for names in _FILES.values() for name in names)})


def render(values: Mapping[str, Json]) -> dict[str, bytes]:
    """The file at each path, `kustomization.yaml` last: the same values give the same bytes.

    Raises ConfigurationError for an interval at which a fleet can't be rendered.
    """
    parts = [Part(name) for name in values["parts"]]
    schedule = cron(values["sync_interval_s"])
    if Part.FLEET in parts and not schedule:
        raise ConfigurationError(
            f"--set: sync-interval: cron can't say every {values['sync_interval']}, and a fleet has no other way.",
            hint="Take minutes that divide an hour, or hours that divide a day, such as 15m or 6h.",
        )
    context = {
        **values,
        "schedule": schedule,
        "kinds": [
            (group, [kind.plural for kind in members])
            for group, members in groupby(sorted(kinds.KINDS), key=lambda kind: kind.group)
        ],
        "pods": list(_pods(parts, values)),
    }
    names = [_NAMESPACE] if values["create_namespace"] else []
    names += [name for part in parts for name in _FILES[part]]
    names.append(_NETWORK)
    templates = _templates()
    paths = {"paths": names}
    return {
        name: f"{MARK}\n{templates.get_template(f'{name}.j2').render(context | paths)}".encode()
        for name in (*names, KUSTOMIZATION)
    }


def _pods(parts: list[Part], values: Mapping[str, Json]) -> Iterator[tuple[str, bool, bool, bool]]:
    """Of each kind of pod: its name, and whether it asks the API server, git over SSH, and serves metrics."""
    if Part.SYNC in parts:
        yield "kyverno-policy-sync", True, False, not cron(values["sync_interval_s"])
    if Part.RUNNER in parts:
        yield "on-demand-job-runner", True, False, True
    if Part.FLEET in parts:
        yield "insights-fleet", False, str(values["fleet_repository"]).startswith("ssh:"), False


@cache
def _templates() -> jinja2.Environment:
    from jinja2 import PackageLoader

    from renderer.templating import environment

    templates = environment(
        loader=PackageLoader("renderer", "templates"), trim_blocks=True, lstrip_blocks=True, finalize=_scalar
    )
    templates.filters["text"] = _text
    return templates


def _scalar(value: Any) -> str:
    """A value as YAML on one line, quoted where it has to be: whatever it holds, it stays one value."""
    return yamlio.dump(value).removesuffix("\n")


def _text(value: Json) -> str:
    """A boolean or a number as the text that an environment variable takes."""
    return str(value).lower() if isinstance(value, bool) else str(value)
