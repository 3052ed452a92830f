"""The work of the `deploy` command: where the manifests go, and the values in its --help."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from renderer.deploy import manifests, values
from renderer.directory import Changed, replace_files
from renderer.errors import ConfigurationError

_MARK: Final = manifests.MARK.encode()


class DeployCommand(click.Command):
    """A command whose --help has the values of --set, too."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every value with its default, and then the examples."""
        with formatter.section("Values"):
            formatter.write_dl(values.described())
        super().format_epilog(ctx, formatter)


def stream(files: dict[str, bytes]) -> str:
    """All objects as one stream for `kubectl apply -f -`, in the order of the kustomization."""
    return "---\n".join(data.decode() for path, data in files.items() if path != manifests.KUSTOMIZATION)


def write(directory: Path, files: dict[str, bytes]) -> Changed:
    """Make the directory hold these files; what an earlier run wrote and this one does not goes, all else stays.

    Raises ConfigurationError when a file is in the way that no run wrote, or the place can't be written.
    """
    foreign = sorted(path for path in files if (directory / path).exists() and path not in _own(directory))
    if foreign:
        raise ConfigurationError(
            f"{directory} holds {', '.join(foreign)}, which `deploy` did not write; nothing was changed.",
            hint="Name another directory with --out, or move what is in the way.",
        )
    return replace_files(directory, files, own=lambda: _own(directory), last=manifests.KUSTOMIZATION)


def _own(directory: Path) -> frozenset[str]:
    """The paths that an earlier run wrote there, by the first line of each file."""
    return frozenset(name for name in manifests.NAMES if _is_ours(directory / name))


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline().rstrip(b"\r\n") == _MARK
    except OSError:
        return False
