"""A snapshot's files as they were at a revision of the repository that holds them; nothing is checked out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from renderer.errors import ConfigurationError
from renderer.gitrepo.configuration import configuration
from renderer.gitrepo.local import Local, is_of_a_snapshot
from renderer.gitrepo.store import Store


def files_at(directory: Path, revision: str) -> Mapping[str, bytes]:
    """The files of a snapshot's kind below that directory, by their path in it; none when it was not there then.

    Nobody is asked over the network, unless it is a partial clone: then git fetches what it lacks. Raises
    ConfigurationError when there is no git, no repository or no such revision.
    """
    local = Local.find(directory.absolute(), unless="Name a saved file or another directory instead.")
    if local.root is None:
        raise ConfigurationError(f"{directory} is inside a bare repository, which has no work tree.")
    commit = local.commit_of(revision) if revision else None
    if commit is None:
        raise ConfigurationError(
            f"The repository {local.root} has no revision {revision!r}.",
            hint="It takes what git takes: HEAD~1, a branch, a tag, a commit. In a shallow clone, fetch more of it.",
        )
    place = PurePosixPath(Path(os.path.realpath(directory)).relative_to(local.root))
    try:
        with tempfile.TemporaryDirectory(prefix="insights-applier-") as home:
            return _files(_store(Path(home), local), commit, place)
    except OSError as error:
        raise ConfigurationError(
            f"A temporary file can't be used: {error.strerror or error}.",
            hint="See that there is room where temporary files go, or name another place with TMPDIR.",
        ) from error


def _files(store: Store, commit: str, place: PurePosixPath) -> Mapping[str, bytes]:
    prefix = f"{place}/" if place.parts else ""
    found = {
        path.removeprefix(prefix): blob.name
        for path, blob in store.list_tree(commit, [place]).items()
        if blob.is_file and is_of_a_snapshot(path)
    }
    return dict(zip(found, store.read(list(found.values())), strict=True))


def _store(home: Path, local: Local) -> Store:
    """A reader of the repository's objects, which knows none of its settings that could make git run something."""
    return Store(
        home,
        directory=home,
        configuration=configuration(local.entries),
        identity={},
        address=None,
        shared=local.common_dir,
        object_format=local.object_format,
    )
