"""The user's repository on this machine: what is checked out there, and how it takes a commit that was made beside it.

Whatever git runs here gets settings that keep it from running anything that the repository names.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from renderer import snapshot
from renderer.directory import replace_files
from renderer.errors import ConfigurationError, ExitCode, InputError, Interrupted
from renderer.gitrepo import failures
from renderer.gitrepo.configuration import HARMLESS, Entry, may_run_programs, parse_listing
from renderer.gitrepo.process import Git
from renderer.gitrepo.store import Blob, Store, pathspecs, sorted_into

_OPTIONS: Final = tuple(part for key, value in HARMLESS for part in ("-c", f"{key}={value}"))
_MAKE_ONE: Final = "Make one with `git init`, or name one with --repo PATH|URL (INSIGHTS_REPO)."
# https://git-scm.com/docs/gitrepository-layout, and where rebase and am keep their state
_IN_PROGRESS: Final = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}


class MovedError(Exception):
    """A branch is not where it was when it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """A repository: the top of its work tree (of a bare one None), its directories, and all settings of git there."""

    git: Git
    root: Path | None
    git_dir: Path
    common_dir: Path
    object_format: str
    entries: tuple[Entry, ...]

    @classmethod
    def find(cls, place: Path, *, unless: str = _MAKE_ONE) -> Local:
        """The repository that holds `place`, which need not exist; `unless` is what to do when there is none.

        Raises ConfigurationError then, and when its own settings say that its files are elsewhere.
        """
        start = place
        while not start.is_dir() and start != start.parent:
            start = start.parent
        git = Git(start, environment={}, options=_OPTIONS)
        asked = ("--is-bare-repository", "--is-inside-git-dir", "--show-object-format")
        answer = git.run("rev-parse", *asked, "--path-format=absolute", "--git-dir", "--git-common-dir")
        if answer.code:
            raise _not_found(place, answer.code, answer.said, unless)
        bare, inside, object_format, git_dir, common_dir = answer.text.splitlines()
        if inside == "true" and bare != "true":
            raise ConfigurationError(f"{place} is inside {git_dir}, which is git's own; name the work tree.")
        root = None if bare == "true" else _work_tree(git, start)
        listing = git.run("config", "--list", "--show-scope", "-z", doing="reading its configuration")
        return cls(
            git=Git(root or Path(git_dir), environment={}, options=_OPTIONS),
            root=root,
            git_dir=Path(git_dir),
            common_dir=Path(common_dir),
            object_format=object_format,
            entries=tuple(parse_listing(listing.output)),
        )

    @property
    def branch(self) -> str | None:
        """The branch that is checked out, born or not; None on a detached HEAD."""
        answer = self.git.run("symbolic-ref", "-q", "HEAD")
        return answer.text.removeprefix("refs/heads/") if answer.code == 0 else None

    def commit_of(self, ref: str) -> str | None:
        """The commit that a ref or another revision names; None when there is none."""
        answer = self.git.run("rev-parse", "-q", "--verify", "--end-of-options", f"{ref}^{{commit}}")
        return answer.text if answer.code == 0 else None

    def other_checkout(self, branch: str) -> str:
        """The directory of another work tree that has the branch checked out, or ""."""
        listing = self.git.run("worktree", "list", "--porcelain", doing="looking for other work trees").text
        for block in listing.split("\n\n"):
            lines = block.splitlines()
            if f"branch refs/heads/{branch}" in lines:
                return lines[0].removeprefix("worktree ")
        return ""

    def move_branch(self, branch: str, new: str, old: str, reason: str) -> None:
        """Set a branch that is not checked out. Raises MovedError when it is not at `old` (all zeros: not there)."""
        self._update_refs([f"update refs/heads/{branch} {new} {old}"], reason)

    def note_pushed(self, remote: str, branch: str, commit: str) -> None:
        """Let the branch's remote-tracking ref say what the remote has now, where there is one."""
        ref = f"refs/remotes/{remote}/{branch}"
        if self.commit_of(ref):
            self.git.run("update-ref", "-m", "update by push", ref, commit)

    def _update_refs(self, lines: Sequence[str], reason: str) -> None:
        script = "\n".join(["start", *lines, "prepare", "commit", ""]).encode()
        answer = self.git.run("update-ref", "-m", f"insights-renderer: {reason}", "--stdin", stdin=script)
        if answer.code:
            if "but expected" in answer.said or "reference already exists" in answer.said:
                raise MovedError(answer.said)
            raise failures.local_failure("moving the branch", answer.code, answer.said)

    # The work tree ----------------------------------------------------------------------------------------

    def require_idle(self) -> None:
        """Raises InputError in the middle of a merge or the like, Locked when another git holds the index."""
        for name, what in _IN_PROGRESS.items():
            if (self.git_dir / name).exists():
                raise InputError(
                    f"A {what} is in progress in {self.root}; nothing was written.",
                    hint=f"Finish it, or end it with `git {what} --abort`, then run again.",
                )
        lock = self.git_dir / "index.lock"
        if lock.exists():
            raise failures.locked(str(lock))

    def require_clean(self, store: Store, head: str | None, directories: Sequence[PurePosixPath]) -> None:
        """Raises InputError that names each file of the snapshots that differs from HEAD, in index or work tree."""
        committed = store.list_tree(head, directories)
        staged = self._index(directories)
        tracked = sorted_into(directories, {**committed, **staged})
        wrong = []
        for directory in directories:
            own = {_prefix(directory) + path for path in snapshot.own_paths(self._on_disk(directory))}
            for path in sorted(own.union(filter(is_of_a_snapshot, tracked[directory]))):
                problem = self._difference(store, path, committed.get(path), staged.get(path))
                if problem:
                    wrong.append(f"{path}: {problem}")
        _refuse(wrong)

    def _difference(self, store: Store, path: str, committed: Blob | None, staged: _Staged | None) -> str:
        file = self._on_disk(PurePosixPath(path))
        if staged and not staged.merged:
            return "is in the middle of a merge"
        if (staged.blob if staged else None) != committed:
            return "is staged and not committed"
        if not os.path.lexists(file):
            return "was deleted" if committed and staged and not staged.left_out else ""
        if committed is None:
            return "is not in git"
        if committed.is_file and (file.is_symlink() or not file.is_file() or store.object_name(file) != committed.name):
            return "was edited"
        return ""

    def _index(self, directories: Sequence[PurePosixPath]) -> dict[str, _Staged]:
        places = pathspecs(directories)
        listing = self.git.run(
            "ls-files", "-s", "-t", "-z", "--full-name", "--", *places, doing="reading the index"
        ).text
        found = {}
        for line in listing.split("\0"):
            if line:
                head, _, path = line.partition("\t")
                tag, mode, name, stage = head.split(" ")
                found[path] = _Staged(blob=Blob(mode=mode, name=name), merged=stage == "0", left_out=tag == "S")
        return found

    def _on_disk(self, path: PurePosixPath) -> Path:
        return (self.root or self.git_dir) / path

    def take(self, store: Store, taken: Taken) -> None:
        """Bring branch, index and the files of the snapshots to a commit made on top of HEAD: all or none of them.

        Nothing else of index and work tree is touched. Raises MovedError, Locked, InputError when something was
        edited meanwhile, ConfigurationError when the files can't be written.
        """
        changes = store.differences(taken.base, taken.commit)
        index = self.git_dir / "index"
        with _uninterrupted(), self._replacing(index) as new_index:
            self._require_untouched(store, changes, taken.directories)
            new_index.write_bytes(self._new_index(store, index, changes))
            if index.exists():
                shutil.copymode(index, new_index)
            self._update_refs(_moves(taken, taken.base or store.no_object, taken.commit), taken.reason)
            try:
                self._write_files(store, changes, taken.directories, new=True)
            except BaseException:
                self._update_refs(_moves(taken, taken.commit, taken.base or store.no_object), "undone")
                self._write_files(store, changes, taken.directories, new=False)
                raise
        self._refresh(store, index, taken.directories)

    @contextmanager
    def _replacing(self, index: Path) -> Iterator[Path]:
        """Hold the index as git itself does: while its lock file is there, no git writes it.

        What is written to the lock file is the index afterwards, unless something failed.
        """
        lock = index.with_name("index.lock")
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError as error:
            raise failures.locked(str(lock)) from error
        except OSError as error:
            raise failures.local_failure("locking the index", 0, f"{lock}: {error.strerror}") from error
        try:
            yield lock
            lock.replace(index)
        except BaseException as error:
            lock.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise failures.local_failure("writing the index", 0, f"{lock}: {error.strerror}") from error
            raise

    def _require_untouched(self, store: Store, changes: _Changes, directories: Sequence[PurePosixPath]) -> None:
        staged = self._index(directories)
        wrong = [
            f"{path}: {problem}"
            for path, (before, _) in sorted(changes.items())
            if (problem := self._difference(store, path, before, staged.get(path)))
        ]
        _refuse(wrong)

    def _new_index(self, store: Store, index: Path, changes: _Changes) -> bytes:
        copy = store.home / "work-tree-index"
        copy.unlink(missing_ok=True)
        if index.exists():
            shutil.copyfile(index, copy)
        lines = store.index_lines({path: after for path, (_, after) in changes.items()})
        # Writing an index, git compares files that changed as it was last written, through the filters that it knows
        # of: the store's git knows none of the repository's.
        store.git.run(
            *("update-index", "-z", "--index-info"),
            doing="writing the index",
            stdin=lines,
            environment={"GIT_INDEX_FILE": str(copy), "GIT_WORK_TREE": str(self.root)},
        )
        return copy.read_bytes()

    def _write_files(self, store: Store, changes: _Changes, directories: Sequence[PurePosixPath], *, new: bool) -> None:
        """Give the snapshots' directories the files of the new commit, or those of the old."""
        wanted = {path: after if new else before for path, (before, after) in changes.items()}
        in_each = sorted_into(directories, wanted)
        there = [blob.name for paths in in_each.values() for path in paths if (blob := wanted[path])]
        data = store.read(there)
        for directory, paths in in_each.items():
            if paths:
                start = len(_prefix(directory))
                contents = {path[start:]: next(data) for path in paths if wanted[path]}
                gone = frozenset(path[start:] for path in paths if not wanted[path])
                replace_files(self._on_disk(directory), contents, own=partial(frozenset, gone), last=snapshot.LOCK)
                if not new:
                    self._remove_if_empty(directory)

    def _remove_if_empty(self, directory: PurePosixPath) -> None:
        with suppress(OSError):
            for place in (directory, *directory.parents[:-1]):
                self._on_disk(place).rmdir()

    def _refresh(self, store: Store, index: Path, directories: Sequence[PurePosixPath]) -> None:
        """Note in the index that the files are as they should be, which spares the next git a look into each."""
        places = pathspecs(directories) or ["."]
        store.git.run(
            *("add", "--refresh", "--", *places),
            environment={"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(self.root)},
        )

    def fast_forward(self, commit: str) -> bool:
        """Let branch and work tree follow to a commit that others' commits precede; False when that can't be done.

        Git refuses it, and changes nothing, where an edit of the user's is in the way. Where the repository has
        settings of its own that would make git run something for this, it is not tried.
        """
        if may_run_programs(self.entries):
            return False
        options = ("--ff-only", "-q", "--no-autostash", "--no-stat", "--no-verify-signatures")
        return self.git.run("-c", "core.editor=false", "merge", *options, commit).code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A commit for the work tree: on top of what, for which directories, and a branch that goes along with HEAD.

    `branch` is the one to set when HEAD is detached, as (name, where it was or all zeros).
    """

    base: str | None
    commit: str
    directories: Sequence[PurePosixPath]
    reason: str
    branch: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Staged:
    """An entry of the index: `merged` is False in the middle of a merge, `left_out` True in a sparse checkout."""

    blob: Blob
    merged: bool
    left_out: bool


_Changes = Mapping[str, tuple[Blob | None, Blob | None]]


def _moves(taken: Taken, old: str, new: str) -> list[str]:
    """The lines for `git update-ref --stdin`; all zeros is "not there", and one line moves or removes a branch."""
    lines = [_move("HEAD", old, new)]
    if taken.branch:
        name, was = taken.branch
        forward = new == taken.commit
        lines.append(_move(f"refs/heads/{name}", was if forward else taken.commit, new if forward else was))
    return lines


def _move(ref: str, old: str, new: str) -> str:
    return f"delete {ref} {old}" if not new.strip("0") else f"update {ref} {new} {old}"


def _prefix(directory: PurePosixPath) -> str:
    return f"{directory}/" if directory.parts else ""


def is_of_a_snapshot(path: str) -> bool:
    """Whether a file of that name may belong to a snapshot, or would be an extra one in it."""
    return path.endswith((".yaml", ".yml", ".json", snapshot.LOCK))


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        raise InputError(
            "The snapshot has edits that are not committed; nothing was written.",
            details=[*wrong[:20], *([f"… and {len(wrong) - 20} more"] if len(wrong) > 20 else [])],
            hint="Commit them, or drop them with `git restore --staged --worktree` and `git clean`, then run again.",
        )


def _not_found(place: Path, code: int, said: str, unless: str) -> Exception:
    if "not a git repository" in said or "does not exist" in said:
        return ConfigurationError(f"{place} is in no git repository.", hint=unless)
    return failures.local_failure(f"looking for the repository of {place}", code, said)


def _work_tree(git: Git, start: Path) -> Path:
    """The top of the work tree, as the files show it: a setting in the repository may name any other directory."""
    root = Path(git.run("rev-parse", "--show-toplevel", doing="looking for the work tree").text)
    here = Path(os.path.realpath(start))
    holders = [folder for folder in (here, *here.parents) if os.path.lexists(folder / ".git")]
    if not holders or holders[0] != Path(os.path.realpath(root)):
        raise ConfigurationError(
            f"The repository of {start} says that its work tree is {root}; that is not followed.",
            hint="Remove core.worktree from its configuration, or name the work tree itself.",
        )
    return holders[0]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM, since what is begun here must come to its end.

    What came meanwhile is raised then, as Interrupted, unless the work failed anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda one, _frame: came.append(one)) for number in _CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise Interrupted("Interrupted when the commit was done; it stands.", code=_CODES[came[0]])


_CODES: Final[Mapping[int, ExitCode]] = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
}
