"""Policies from a local directory: plain YAML as it stands, and `*.yaml.j2` through Jinja2.

Kyverno's own `{{ … }}` must reach the cluster untouched, so the templates have delimiters of their own: `[[ value ]]`,
`[% statement %]` and `[# comment #]`. They run in Jinja2's sandbox, and a name without a value is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from renderer.errors import ConfigurationError, DocumentErrors, InputError, Problem
from renderer.manifest import yamlio
from renderer.render import Source

if TYPE_CHECKING:
    import jinja2

    from renderer.manifest.jsontypes import Json

_PLAIN: Final = (".yaml", ".yml")
_TEMPLATE: Final = (".yaml.j2", ".yml.j2")
_FILE_LIMIT_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """A directory of policies, and the values for its templates."""

    directory: Path
    values: Mapping[str, Json]


def read_values(path: Path | None) -> Mapping[str, Json]:
    """The values for templates: one YAML map. Raises InputError, or DocumentErrors for broken YAML."""
    if path is None:
        return {}
    documents = yamlio.load(_read(path), source=str(path))
    values = documents[0].value if documents else {}
    if len(documents) > 1 or not isinstance(values, dict):
        raise InputError(f"--values: {path} is not one YAML map.", hint="Write it as `name: value` lines.")
    return values


def read_sources(local: Local) -> list[Source]:
    """Every policy file below the directory, in the order of its paths; hidden files and folders are left out.

    Raises ConfigurationError when it is no directory, DocumentErrors with every template that fails.
    """
    if not local.directory.is_dir():
        raise ConfigurationError(f"--local: {local.directory} is no directory.")
    from renderer.templating import environment

    templates = environment()
    sources, problems = [], []
    for path in _files(local.directory):
        data = _read(path)
        if path.name.endswith(_TEMPLATE):
            rendered = _rendered(templates, path, data, local.values)
            if isinstance(rendered, Problem):
                problems.append(rendered)
                continue
            data = rendered
        sources.append(Source(name=str(path), data=data))
    if problems:
        raise DocumentErrors(problems, hint="Correct the template, or give the value with --values, then run again.")
    return sources


def _files(directory: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.endswith(_PLAIN + _TEMPLATE):
                yield Path(folder) / name


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    if len(data) > _FILE_LIMIT_BYTES:
        raise InputError(f"{path} is larger than {_FILE_LIMIT_BYTES} bytes.")
    return data


def _rendered(templates: jinja2.Environment, path: Path, data: bytes, values: Mapping[str, Json]) -> bytes | Problem:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        text = data.decode()
        return templates.from_string(text).render(values).encode()
    except UnicodeDecodeError as error:
        return Problem(source=str(path), line=data[: error.start].count(b"\n") + 1, message="is not UTF-8")
    except TemplateSyntaxError as error:
        return Problem(source=str(path), line=error.lineno, message=f"the template is broken: {error.message}")
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        return Problem(source=str(path), line=_template_line(error), message=f"the template fails: {error}")


def _template_line(error: BaseException) -> int:
    """The line of the template in which it failed: Jinja2 rewrites the traceback to show it."""
    line = 0
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
