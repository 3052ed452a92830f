"""A file of results, written as a whole or not at all, readable by its owner."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from renderer.errors import ConfigurationError


def write(path: Path, text: str, *, flag: str) -> None:
    """Put the text there, in UTF-8: another file of that name is replaced once all of it is on disk.

    Raises ConfigurationError, which names the flag, where that can't be done.
    """
    try:
        if path.exists() and not path.is_file():
            raise FileExistsError(17, "it exists and is no ordinary file")
        handle, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(staged).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(staged).unlink()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"{flag}: {path} can't be written: {error.strerror or error}.",
            hint="Name a file in a directory that this account can write, on a disk with room.",
        ) from error


def is_inside(path: Path, directory: Path) -> bool:
    """Whether that file lies in the directory, links followed."""
    return Path(os.path.realpath(directory)) in Path(os.path.realpath(path)).parents
