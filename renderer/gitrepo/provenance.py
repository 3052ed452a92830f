"""Which commit a directory is at, for people who want to know later; git runs nothing that the repository names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from renderer.errors import Failure
from renderer.gitrepo.local import Local
from renderer.gitrepo.process import TimeLimitError
from renderer.gitrepo.store import blob_name, parse_tree


def commit_that_holds(directory: Path, paths: Iterable[str]) -> str | None:
    """HEAD's commit, when these files of the directory lie in it exactly as they lie here.

    None when the directory is in no repository (or there is no git), or one of the files differs or is missing.
    """
    try:
        local = Local.find(directory.absolute())
        commit = local.commit_of("HEAD")
        if commit is None or local.root is None:
            return None
        place = Path(os.path.realpath(directory)).relative_to(os.path.realpath(local.root))
        within = ("--", str(place)) if place.parts else ()
        listing = local.git.run("ls-tree", "-r", "-z", "--full-tree", commit, *within, doing="reading the commit")
        committed = dict(parse_tree(listing.text))
        here = {(place / path).as_posix(): (directory / path).read_bytes() for path in paths}
    except (Failure, TimeLimitError, OSError, ValueError):
        return None
    held = all(
        path in committed and committed[path].name == blob_name(data, local.object_format)
        for path, data in here.items()
    )
    return commit if held else None
