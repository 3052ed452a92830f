"""The repository that snapshots are committed to: open it, write into a copy of its newest state, commit, push."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, Self, TypeAlias

import stamina

from renderer import logs
from renderer.errors import ConfigurationError, Failure, InputError, Interrupted, Locked
from renderer.gitrepo import address, failures
from renderer.gitrepo.address import Address
from renderer.gitrepo.configuration import Configuration, configuration, parse_listing
from renderer.gitrepo.local import Local, MovedError, Taken
from renderer.gitrepo.process import Git
from renderer.gitrepo.store import REMOTE, Store

#: Writes the snapshots below the root that it is given, and gives the commit's message; None for "no commit".
#: Called again, with the newest state of the branch below the root, each time that a push loses a race.
Write: TypeAlias = Callable[[Path], str | None]

#: How often a push, or a move of a branch, is tried when others are faster.
ATTEMPTS: Final = 5
_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 5.0
_AUTHOR: Final = re.compile(r"\s*(?P<name>[^<>\n]*[^<>\s])\s*<(?P<mail>[^<>\s]+)>\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says of git.

    `where` is a path or a URL, None the repository that holds `out`. `branch` None is the one that is checked out
    (of a URL: its default). `author` is "Name <mail>", None the one that git is configured with.
    """

    out: Path
    where: str | None = None
    branch: str | None = None
    push: bool = False
    author: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What became of it: the new commit (None when no byte changed), its branch, and where it was pushed to.

    `remote` shows no password, and is "" where nothing was pushed. `local` is False when the commit was pushed on
    top of what others had pushed and the work tree could not follow (edits of the user's are in the way).
    """

    commit: str | None
    branch: str
    remote: str = ""
    local: bool = True


class RacedError(Exception):
    """Someone else moved the branch first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A branch to commit to: its newest commit (None before the first), and what of it lies on this machine.

    `checked_out` says that HEAD and the work tree go along; `local` is where the branch is here, None without one.
    `head` is HEAD's commit, `attached` whether the work tree is on this branch.
    """

    branch: str
    base: str | None
    local: str | None = None
    head: str | None = None
    attached: bool = False
    checked_out: bool = False


class Repository:
    """One repository for the time of a run; a context manager, since it keeps private files.

    `out` is where `Settings.out` is, from the repository's root.
    """

    def __init__(self, settings: Settings, *, home: Path) -> None:
        """Open it, with private files below `home`; `open` makes and removes such a place."""
        self._settings = settings
        self._home = home
        where = settings.where
        if where and address.is_url(where) and not Path(where).exists():
            self._local: Local | None = None
            self.out = _below_root(settings.out)
            self._remote_name = ""
            self._store = _clone(home, address.parse(where), settings)
        else:
            if where and not Path(where).is_dir():
                raise ConfigurationError(f"--repo: {where} is no directory, and no URL.")
            self._local = Local.find(Path(where or settings.out).absolute())
            self.out = _inside(self._local, settings.out, relative=bool(where))
            self._remote_name, self._store = _beside(home, self._local, settings)
        self._check_branch(settings.branch)
        self._line = self._find_line(settings.branch)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Find or fetch the repository, and check all that can be checked before anything is rendered.

        Raises ConfigurationError (no git, not a repository, no author, a bad branch name, --out outside of it),
        InputError (a merge is in progress), RemoteError and NotPermitted (of a URL).
        """
        with _private_files():
            home = Path(tempfile.mkdtemp(prefix="insights-renderer-"))
            try:
                return cls(settings, home=home)
            except BaseException:
                shutil.rmtree(home, ignore_errors=True)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._home, ignore_errors=True)

    def on(self, branch: str) -> Self:
        """The same repository on another branch (made from the default one where it does not exist yet).

        For one branch a cluster: no second clone is made. Its private files go when this repository's go.
        """
        self._check_branch(branch)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._settings = replace(self._settings, branch=branch)
        other._line = other._find_line(branch)
        return other

    def publish(self, directories: Sequence[PurePosixPath], write: Write) -> Committed:
        """Commit what `write` does to these directories (from the repository's root), and push it if so set.

        `write` gets the root of a private copy that holds these directories as the branch has them; nothing else
        is there, and nothing else is committed. The user's work tree gets the new bytes only when the commit (and
        the push) stands: whatever fails before, it is as it was. A push that loses a race is tried again on the
        new tip, five times in all.

        Raises InputError when the work tree has uncommitted edits in one of the directories, Locked (another git
        holds the index, or every push lost its race), RemoteError, NotPermitted (credentials, a protected branch;
        with the remote's words), ConfigurationError (signing, a full disk).
        """
        if self._local and self._line.checked_out:
            self._local.require_idle()
            self._local.require_clean(self._store, self._line.head, directories)
        attempts = stamina.retry_context(
            on=RacedError,
            attempts=ATTEMPTS,
            timeout=None,
            wait_initial=_WAIT_SECONDS,
            wait_max=_LONGEST_WAIT_SECONDS,
            wait_jitter=1.0,
        )
        try:
            for attempt in attempts:
                with attempt, _private_files():
                    return self._publish_once(directories, write, again=attempt.num > 1)
        except RacedError as error:
            raise Locked(
                f"Others changed branch {self._line.branch} {ATTEMPTS} times while this was going on ({error}).",
                hint="Nothing was committed. Run it again.",
            ) from error
        msg = "stamina gave no attempt"
        raise AssertionError(msg)

    def _publish_once(self, directories: Sequence[PurePosixPath], write: Write, *, again: bool) -> Committed:
        if again:
            self._line = self._newest()
        line = self._line
        root = self._home / "tree"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        self._store.require_directories(line.base, directories)
        self._store.write_out(self._store.list_tree(line.base, directories), root)
        message = _told_without(root, write)
        commit = self._store.commit(line.base, root, directories, message) if message is not None else None
        newest = commit or line.base
        remote = self._push(newest) if self._settings.push and newest else ""
        behind = line.checked_out and line.base != line.head
        local = self._take(line, newest, directories, message or "") if newest and (commit or behind) else True
        return Committed(commit=commit, branch=line.branch, remote=remote, local=local)

    # Where the branch is ----------------------------------------------------------------------------------

    def _check_branch(self, branch: str | None) -> None:
        if branch is not None and self._store.git.run("check-ref-format", "--branch", branch).text != branch:
            raise ConfigurationError(
                f"--branch: {branch!r} can't be the name of a branch.",
                hint="It takes a name such as main or policies/prod: no spaces, no .., no ~^:?*[, no - at its start.",
            )

    def _find_line(self, branch: str | None) -> _Line:
        if self._local is None:
            return self._remote_line(branch)
        current, head = self._local.branch, self._local.commit_of("HEAD")
        if branch is None and current is None and self._settings.push:
            raise ConfigurationError(
                "HEAD is detached, so there is no branch to push to.",
                hint="Name the branch with --branch (INSIGHTS_BRANCH), as CI systems have it in a variable.",
            )
        name = branch or current or "HEAD"
        in_tree = self._local.root is not None
        elsewhere = "" if in_tree and name == current else self._local.other_checkout(name)
        if elsewhere:
            raise ConfigurationError(
                f"--branch: {name} is checked out in {elsewhere}.", hint=f"Name that work tree with --repo {elsewhere}."
            )
        if name == "HEAD" and not in_tree:
            raise ConfigurationError(
                f"{self._local.git_dir} has no branch as its HEAD.", hint="Name one with --branch."
            )
        if name == current or branch is None:
            self._know(head)
            attached = in_tree and current is not None
            return _Line(branch=name, base=head, local=head, head=head, attached=attached, checked_out=in_tree)
        return self._line_of_another_branch(self._local, name, head, detached=in_tree and current is None)

    def _line_of_another_branch(self, local: Local, name: str, head: str | None, *, detached: bool) -> _Line:
        """A branch that is not checked out. On a detached HEAD, as in CI, the work tree follows to it if it can."""
        here = local.commit_of(f"refs/heads/{name}")
        self._know(head, here)
        base = here or head
        if self._settings.push and (detached or here is None) and self._store.ask_remote(name).wanted:
            base = self._store.fetch(name)
        return _Line(branch=name, base=base, local=here, head=head, checked_out=detached)

    def _remote_line(self, branch: str | None) -> _Line:
        remote = self._store.ask_remote(branch)
        name = branch or remote.default_branch or self._default_branch_name()
        if remote.wanted or (not branch and remote.default):
            return _Line(branch=name, base=self._store.fetch(name))
        base = self._store.fetch(remote.default_branch) if remote.default and remote.default_branch else None
        return _Line(branch=name, base=base)

    def _default_branch_name(self) -> str:
        return self._store.git.run("var", "GIT_DEFAULT_BRANCH").text or "main"

    def _know(self, *commits: str | None) -> None:
        for commit in filter(None, commits):
            self._store.know(commit)

    def _newest(self) -> _Line:
        """Where the branch is, now that others have moved it. Raises InputError when it has gone another way here."""
        line = self._line
        if self._local is None:
            return self._remote_line(line.branch)
        if not self._settings.push:
            return self._find_line(self._settings.branch)
        if not self._store.ask_remote(line.branch).wanted:
            return line
        base = self._store.fetch(line.branch)
        own = line.head if line.attached else line.local
        if not self._store.contains(own, base):
            raise InputError(
                f"Branch {line.branch} has commits here that {self._store.address} has not, and the other way round.",
                hint="Nothing was committed. Bring them together with `git pull --rebase`, then run again.",
            )
        return replace(line, base=base)

    # Bringing the commit there ----------------------------------------------------------------------------

    def _push(self, commit: str) -> str:
        try:
            if not self._store.push(commit, self._line.branch):
                raise RacedError("the remote's branch had moved")
        except KeyboardInterrupt:
            logs.get_logger().warning(
                f"Interrupted while pushing: {self._store.address} may have taken commit {commit}; nothing changed here"
            )
            raise
        if self._local:
            self._local.note_pushed(self._remote_name, self._line.branch, commit)
        return str(self._store.address)

    def _take(self, line: _Line, commit: str, directories: Sequence[PurePosixPath], message: str) -> bool:
        """Bring the user's repository to the commit; False when it was pushed and can't be had here as it is."""
        if self._local is None:
            return True
        try:
            return self._take_locally(self._local, line, commit, directories, message.partition("\n")[0])
        except Interrupted:
            raise
        except (MovedError, Failure) as error:
            if self._settings.push:
                logs.get_logger().warning("Pushed, but the repository here could not follow", because=str(error))
                return False
            if isinstance(error, MovedError):
                raise RacedError("the branch had moved") from error
            raise

    def _take_locally(
        self, local: Local, line: _Line, commit: str, directories: Sequence[PurePosixPath], reason: str
    ) -> bool:
        moves = line.branch != "HEAD" and not line.attached and bool(line.local or not self._settings.push)
        if moves and not self._store.contains(line.local, commit):
            return False
        was = line.local or self._store.no_object
        if line.checked_out and line.base == line.head:
            branch = (line.branch, was) if moves else None
            local.take(
                self._store,
                Taken(base=line.base, commit=commit, directories=directories, reason=reason, branch=branch),
            )
            return True
        if moves:
            local.move_branch(line.branch, commit, was, reason)
        return local.fast_forward(commit) if line.checked_out else True


@contextmanager
def _private_files() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"A temporary file can't be used: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}. Nothing was committed.",
            hint="See that there is room where temporary files go, or name another place with TMPDIR.",
        ) from error


def _told_without(root: Path, write: Write) -> str | None:
    """Call it; an error of its names files by their path in the repository, not in the private copy."""
    try:
        return write(root)
    except Failure as failure:
        for prefix in (f"{root}/", f"{os.path.realpath(root)}/"):
            failure.message = failure.message.replace(prefix, "")
            failure.hint = failure.hint.replace(prefix, "")
            failure.details = tuple(line.replace(prefix, "") for line in failure.details)
        raise


def _clone(home: Path, where: Address, settings: Settings) -> Store:
    if not settings.push:
        raise ConfigurationError(
            f"--repo: {where} is not on this machine; without --push the commit would be lost.", hint="Add --push."
        )
    listing = Git(home, environment={}).run("config", "--list", "--show-scope", "-z", doing="reading git's settings")
    logins = [where.login] if where.login else []
    settled = configuration(parse_listing(listing.output), [(f"remote.{REMOTE}.url", where.url)], *logins)
    return Store(
        home, directory=home, configuration=settled, identity=_identity(home, settled, settings.author), address=where
    )


def _beside(home: Path, local: Local, settings: Settings) -> tuple[str, Store]:
    """The remote's name, and a store that shares the objects of a repository on this machine."""
    settled = configuration(local.entries)
    name = _remote_of(settled, settings.branch or local.branch) if settings.push else ""
    url = (settled.get(f"remote.{name}.pushurl") or settled.get(f"remote.{name}.url")) if name else None
    if address.is_url(name):
        url = name
    if settings.push and not url:
        raise ConfigurationError(
            "--push: the repository has no remote to push to.", hint="Add one with `git remote add origin URL`."
        )
    if url:
        settled = configuration(local.entries, [(f"remote.{REMOTE}.url", url)])
    return name, Store(
        home,
        directory=local.root or local.git_dir,
        configuration=settled,
        identity=_identity(home, settled, settings.author),
        address=address.parse(url) if url else None,
        shared=local.common_dir,
        object_format=local.object_format,
    )


def _remote_of(settled: Configuration, branch: str | None) -> str:
    """The remote that git itself would push to: https://git-scm.com/docs/git-push#_description."""
    of_branch = [f"branch.{branch}.pushremote", "remote.pushdefault", f"branch.{branch}.remote"]
    named = next(filter(None, map(settled.get, of_branch)), None)
    return named or "origin"


def _identity(home: Path, settled: Configuration, author: str | None) -> Mapping[str, str]:
    """Author and committer as git's variables. Raises ConfigurationError when nobody says who it is."""
    variables = {}
    if author is not None:
        found = _AUTHOR.fullmatch(author)
        if not found:
            raise ConfigurationError(f'--author: {author!r} is not accepted; it takes "Name <mail>".')
        variables = {"GIT_AUTHOR_NAME": found["name"], "GIT_AUTHOR_EMAIL": found["mail"]}
    git = Git(home, environment={**settled.environment(), **variables, "GIT_CONFIG_NOSYSTEM": "1"})
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_DIR": str(home / "none")}
    if git.run("var", "GIT_AUTHOR_IDENT", environment=alone).code:
        raise failures.no_author()
    if git.run("var", "GIT_COMMITTER_IDENT", environment=alone).code:
        if not variables:
            raise failures.no_author()
        variables |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in variables.items()}
    return variables


def _below_root(out: Path) -> PurePosixPath:
    """`--out` in a repository that is not a directory here. Raises ConfigurationError when it leads out of it."""
    path = PurePosixPath(os.path.normpath(out))
    if path.is_absolute() or ".." in path.parts:
        raise ConfigurationError(f"--out: {out} is not inside the repository; it takes a path from its root.")
    return _named(path)


def _inside(local: Local, out: Path, *, relative: bool) -> PurePosixPath:
    """`--out` from the root of a repository on this machine, links followed."""
    if local.root is None:
        return _below_root(out)
    place = Path(os.path.realpath(local.root / out if relative else out))
    try:
        path = place.relative_to(os.path.realpath(local.root))
    except ValueError:
        raise ConfigurationError(
            f"--out: {out} is not inside the repository {local.root}.", hint="With --repo it is a path from its root."
        ) from None
    nested = [folder for folder in _between(local.root, place) if os.path.lexists(folder / ".git")]
    if nested:
        raise ConfigurationError(
            f"--out: {out} is in another repository, {nested[0]}.", hint="Name that one with --repo."
        )
    return _named(PurePosixPath(path))


def _between(root: Path, place: Path) -> Iterable[Path]:
    return [folder for folder in (place, *place.parents) if folder != root and root in folder.parents]


def _named(path: PurePosixPath) -> PurePosixPath:
    if any(part.lower() == ".git" or not part.isprintable() for part in path.parts):
        raise ConfigurationError(f"--out: {str(path)!r} can't be a directory of a repository.")
    return path
