"""Replaces the renderer's files in a directory: all of them or none, and nobody else's.

A directory can't be changed atomically file by file. So the new one is made beside it, with hard links to whatever
stays, and the two names are exchanged in one system call. Where that can't be done (the directory is a mount point, a
repository's root or the caller's own working directory, or the file system can't exchange), the files are written one
by one, the lock last: killed half-way, such a directory does not match its lock, and every reader refuses it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from renderer.errors import ConfigurationError

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The paths that a write added, changed and removed, sorted."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def replace_files(
    directory: Path, contents: Mapping[str, bytes], *, own: Callable[[], frozenset[str]], last: str
) -> Changed:
    """Make `directory` hold `contents`; of the paths that `own` gives, remove those that `contents` lacks.

    `own` is asked anew once the place is locked. `last` is the path that is written last where the exchange
    can't be used. Nothing is written when nothing differs. Raises ConfigurationError when the place can't be
    written, or when a folder in it is a link: what is in there is elsewhere.
    """
    directory = Path(os.path.realpath(directory))
    try:
        if directory.exists() and not directory.is_dir():
            raise NotADirectoryError(20, "it is not a directory", str(directory))
        _refuse_links(directory, contents)
        changed = compare(directory, contents, own=own())
        if changed or any(os.path.lexists(left) for left in _leftovers(directory)):
            changed = _write(directory, contents, own, last)
    except OSError as error:
        raise ConfigurationError(
            f"{directory} can't be written: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}.",
            hint="Name a directory that this account can write, on a disk with room, with --out.",
        ) from error
    return changed


def linked_folder(directory: Path, path: str) -> Path | None:
    """The folder of `directory` on the way to `path` that is a link, and so leads elsewhere; None when none is."""
    folders = Path(path).parents
    return next(
        (directory / folder for folder in folders if folder != Path() and (directory / folder).is_symlink()), None
    )


def _refuse_links(directory: Path, paths: Iterable[str]) -> None:
    for folder in sorted({str(Path(path).parent) for path in paths}):
        link = linked_folder(directory, f"{folder}/x")
        if link is not None:
            raise NotADirectoryError(20, "a folder in it is a link", str(link))


def compare(directory: Path, contents: Mapping[str, bytes], *, own: frozenset[str]) -> Changed:
    """What writing `contents` would change in `directory`, without changing it."""
    found = {path: _bytes_at(directory / path) for path in contents}
    return Changed(
        added=tuple(sorted(path for path, data in found.items() if data is None)),
        changed=tuple(sorted(path for path, data in found.items() if data not in (None, contents[path]))),
        removed=tuple(sorted(path for path in own - contents.keys() if os.path.lexists(directory / path))),
    )


def _bytes_at(path: Path) -> bytes | None:
    try:
        # A link is replaced by a file: following it would write elsewhere.
        return b"" if path.is_symlink() else path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(directory: Path, contents: Mapping[str, bytes], own: Callable[[], frozenset[str]], last: str) -> Changed:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.parent):
        for left in _leftovers(directory):
            shutil.rmtree(left, ignore_errors=True)
        # Another render may have written since: what it left is what is changed now.
        changed = compare(directory, contents, own=own())
        staged, _ = _leftovers(directory)
        if changed and not (_stands_alone(directory) and _stage_and_swap(directory, staged, contents, changed)):
            _write_in_place(directory, contents, changed, last)
        return changed


def _leftovers(directory: Path) -> tuple[Path, Path]:
    """Where a render makes its files, beside the directory or hidden in it; what a killed one leaves lies there."""
    return directory.parent / f".{directory.name}.rendering", directory / ".rendering"


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """Hold the parent directory, so that two renders into one place take turns."""
    handle = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _stands_alone(directory: Path) -> bool:
    """False for a mount point, a repository's root, and the folder that our caller stands in."""
    if not directory.exists():
        return True
    here = Path(os.path.realpath(Path.cwd()))
    return not (directory.is_mount() or (directory / ".git").exists() or here == directory or directory in here.parents)


def _stage_and_swap(directory: Path, staged: Path, contents: Mapping[str, bytes], changed: Changed) -> bool:
    """Make the new directory beside the old and exchange the two; False when this place does not allow it."""
    replaced = {*changed.changed, *changed.removed}
    try:
        if directory.exists():
            _link_tree(directory, staged, leave_out=replaced)
        else:
            staged.mkdir()
        for path in (*changed.added, *changed.changed):
            _write_file(staged / path, contents[path])
        if not directory.exists():
            staged.rename(directory)
        elif not _exchange(staged, directory):
            return False
    except OSError:
        # The other way of writing finds out whether this is for good, and says so.
        return False
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return True


def _link_tree(source: Path, target: Path, *, leave_out: set[str]) -> None:
    """Recreate the folders of `source` in `target` with hard links to its files, but for those left out."""
    for folder, subfolders, names in os.walk(source):
        relative = Path(folder).relative_to(source)
        for name in (*names, *(sub for sub in subfolders if (Path(folder) / sub).is_symlink())):
            if (relative / name).as_posix() not in leave_out:
                (target / relative).mkdir(parents=True, exist_ok=True)
                os.link(Path(folder) / name, target / relative / name, follow_symlinks=False)
        if not names and not subfolders:
            (target / relative).mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copymode(source, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the C library or the file system can't."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def _write_in_place(directory: Path, contents: Mapping[str, bytes], changed: Changed, last: str) -> None:
    """Write beside the files first, so that a full disk changes none of them; then put each in its place."""
    _, staged = _leftovers(directory)
    new = sorted((*changed.added, *changed.changed), key=lambda path: (path == last, path))
    try:
        for path in new:
            _write_file(staged / path, contents[path])
        for path in new:
            if path == last:
                _remove(directory, changed.removed)
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).replace(directory / path)
        _remove(directory, changed.removed)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _remove(directory: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (directory / path).unlink(missing_ok=True)
        _remove_empty_folders(directory, Path(path).parent)


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _remove_empty_folders(directory: Path, relative: Path) -> None:
    while relative != Path():
        try:
            (directory / relative).rmdir()
        except OSError:
            return
        relative = relative.parent
