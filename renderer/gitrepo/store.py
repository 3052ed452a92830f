"""A private git directory: reads trees, builds commits, fetches and pushes, with none of the repository's own settings.

For a repository on this machine it shares that one's objects, so that a commit made here is there, named by nothing
yet. For a remote one it is a clone of its own: one commit deep, with no more files than are asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from renderer.errors import ConfigurationError, InputError, RemoteError
from renderer.gitrepo import failures
from renderer.gitrepo.address import Address
from renderer.gitrepo.configuration import Configuration
from renderer.gitrepo.failures import Push
from renderer.gitrepo.process import REMOTE_SECONDS, Git, TimeLimitError

#: The name of the remote in the private directory.
REMOTE: Final = "snapshots"
_TIP: Final = "refs/insights/tip"
_FILE_LIMIT_BYTES: Final = 16 * 1024 * 1024
_BATCH_BYTES: Final = 64 * 1024 * 1024
_MOST_PATHSPECS: Final = 16
_FILE: Final = "100644"
_FILES: Final = (_FILE, "100755")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What a tree has at a path: the mode in git's digits, and the object's name."""

    mode: str
    name: str

    @property
    def is_file(self) -> bool:
        """False for a link and for another repository."""
        return self.mode in _FILES


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The branches of a remote: the commit of the wanted one and of the default one, None where they are not there."""

    default_branch: str
    default: str | None
    wanted: str | None


class Store:
    """The private git directory below `home`, and where its remote is (None without one)."""

    def __init__(
        self,
        home: Path,
        *,
        directory: Path,
        configuration: Configuration,
        identity: Mapping[str, str],
        address: Address | None,
        shared: Path | None = None,
        object_format: str = "sha1",
    ) -> None:
        """Make it. `directory` is where git runs; `shared` is the git directory whose objects it shares."""
        self.home = home
        self.address = address
        self.object_format = object_format
        #: What git writes for "no object".
        self.no_object = "0" * hashlib.new(object_format).digest_size * 2
        self._partial = shared is None
        self._sign = configuration.is_true("commit.gpgsign")
        environment = {**configuration.environment(), **identity, "GIT_CONFIG_NOSYSTEM": "1"}
        environment["GIT_CONFIG_GLOBAL"] = str(_safe_directories(home, configuration))
        if not ({"GIT_SSH", "GIT_SSH_COMMAND"} & os.environ.keys() or configuration.get("core.sshcommand")):
            environment["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes -oConnectTimeout=30"
        if address and address.url.startswith("http://"):
            environment["GIT_ALLOW_PROTOCOL"] = "http:https"
        git_dir = home / "git"
        Git(home, environment=environment).run(
            "init", "-q", "--bare", "--template=", f"--object-format={object_format}", str(git_dir), doing="starting"
        )
        environment["GIT_DIR"] = str(git_dir)
        if shared:
            environment["GIT_OBJECT_DIRECTORY"] = str(shared / "objects")
            if (shared / "shallow").exists():
                shutil.copyfile(shared / "shallow", git_dir / "shallow")
        self.git = Git(directory, environment=environment)

    # Reading ----------------------------------------------------------------------------------------------

    def list_tree(self, commit: str | None, directories: Sequence[PurePosixPath]) -> dict[str, Blob]:
        """Every file, link and submodule below the directories (of the whole tree, with none), by path."""
        if commit is None:
            return {}
        places = pathspecs(directories)
        answer = self.git.run("ls-tree", "-r", "-z", "--full-tree", commit, "--", *places, doing="reading the commit")
        found = dict(parse_tree(answer.text))
        if not directories:
            return found
        return {path: found[path] for paths in sorted_into(directories, found).values() for path in paths}

    def require_directories(self, commit: str | None, directories: Iterable[PurePosixPath]) -> None:
        """Raises ConfigurationError when one of them is, or is below, a file, a link or another repository."""
        places = {str(place) for directory in directories for place in (directory, *directory.parents) if place.parts}
        if commit is None or not places:
            return
        answer = self.git.run("ls-tree", "-z", "--full-tree", commit, "--", *sorted(places), doing="reading the commit")
        kinds = {"120000": "a symbolic link", "160000": "a submodule", "040000": ""}
        for path, blob in parse_tree(answer.text):
            kind = kinds.get(blob.mode, "a file")
            if kind and path in places:
                raise ConfigurationError(
                    f"--out: {path} is {kind} in the repository.", hint="Name a directory that can hold a snapshot."
                )

    def write_out(self, tree: Mapping[str, Blob], root: Path) -> None:
        """Write the files of a tree below `root`: their own bytes, changed by no filter; no links."""
        files = {path: blob.name for path, blob in tree.items() if blob.is_file}
        for path in files:
            if any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/")):
                raise InputError(f"The repository has the path {path!r}, which no repository may have.")
        paths = iter(files)
        for data in self.read(list(files.values())):
            target = root / next(paths)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """The bytes of these objects, in this order. Raises InputError for one that no snapshot could have."""
        self._fetch_missing(names)
        sizes = self.git.run("cat-file", "--batch-check=%(objectsize)", doing="reading files", stdin=_lines(names))
        batch: list[str] = []
        total = 0
        for name, size in zip(names, sizes.text.splitlines(), strict=True):
            if not size.isdigit() or int(size) > _FILE_LIMIT_BYTES:
                raise InputError(f"The object {name} is not there, or larger than {_FILE_LIMIT_BYTES} bytes.")
            batch.append(name)
            total += int(size)
            if total > _BATCH_BYTES:
                yield from self._read_batch(batch)
                batch, total = [], 0
        yield from self._read_batch(batch)

    def _read_batch(self, names: Sequence[str]) -> Iterator[bytes]:
        data = self.git.run("cat-file", "--batch", doing="reading files", stdin=_lines(names)).output
        start = 0
        for _ in names:
            head = data.index(b"\n", start)
            size = int(data[start:head].rpartition(b" ")[2])
            yield data[head + 1 : head + 1 + size]
            start = head + size + 2

    def object_name(self, path: Path) -> str:
        """The name that git gives to this file's bytes."""
        return blob_name(path.read_bytes(), self.object_format)

    def differences(self, base: str | None, commit: str) -> dict[str, tuple[Blob | None, Blob | None]]:
        """What the commit changes: for each path what was there and what is there."""
        if base is None:
            return {path: (None, blob) for path, blob in self.list_tree(commit, ()).items()}
        answer = self.git.run(
            "diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-ext-diff", base, commit, doing="comparing"
        )
        fields = answer.text.split("\0")
        found = {}
        for head, path in zip(fields[::2], fields[1::2], strict=False):
            old_mode, mode, old_name, name, _ = head.removeprefix(":").split(" ")
            found[path] = (_blob(old_mode, old_name), _blob(mode, name))
        return found

    def contains(self, ancestor: str | None, commit: str) -> bool:
        """Whether a commit has the other among its ancestors (None is everybody's)."""
        return ancestor is None or not self.git.run("merge-base", "--is-ancestor", ancestor, commit).code

    # Committing -------------------------------------------------------------------------------------------

    def commit(self, base: str | None, root: Path, directories: Sequence[PurePosixPath], message: str) -> str | None:
        """Commit, on top of `base`, what lies below these directories of `root`; named by no branch yet.

        None when no byte differs. Raises what `failures.local_failure` tells: a full disk, a signature.
        """
        before = self.list_tree(base, directories)
        changes = self._changes(before, root, directories)
        if not changes:
            return None
        index = {"GIT_INDEX_FILE": str(self.home / "index")}
        self.git.run("read-tree", base or "--empty", doing="reading the commit", environment=index)
        self.git.run("update-index", "-z", "--index-info", doing="committing", stdin=changes, environment=index)
        tree = self.git.run("write-tree", "--missing-ok", doing="committing", environment=index).text
        parents = ("-p", base) if base else ()
        sign = ("-S",) if self._sign else ()
        return self.git.run(
            "commit-tree", tree, *parents, *sign, "-F", "-", doing="committing", stdin=_utf8(message)
        ).text

    def _changes(self, before: Mapping[str, Blob], root: Path, directories: Sequence[PurePosixPath]) -> bytes:
        """What is gone below the directories, and the files whose bytes differ, as `index_lines` has it."""
        files = {path.relative_to(root).as_posix(): path for path in _files(root, directories)}
        gone = [path for path, blob in before.items() if blob.is_file and path not in files]
        new = {
            path: file
            for path, file in files.items()
            if path not in before or not before[path].is_file or before[path].name != self.object_name(file)
        }
        names = self.git.run(
            "hash-object",
            "-w",
            "--no-filters",
            "--stdin-paths",
            doing="writing files",
            stdin=_lines(map(str, new.values())),
        ).text.splitlines()
        changes: dict[str, Blob | None] = dict.fromkeys(gone)
        for path, name in zip(new, names, strict=True):
            earlier = before.get(path)
            changes[path] = Blob(mode=earlier.mode if earlier and earlier.is_file else _FILE, name=name)
        return self.index_lines(changes)

    def index_lines(self, changes: Mapping[str, Blob | None]) -> bytes:
        """What `update-index -z --index-info` takes: first the paths that are gone, then what is at the others."""
        gone = [f"0 {self.no_object}\t{path}\0" for path, blob in changes.items() if blob is None]
        there = [f"{blob.mode} {blob.name}\t{path}\0" for path, blob in changes.items() if blob]
        return os.fsencode("".join(gone + there))

    # The remote -------------------------------------------------------------------------------------------

    def ask_remote(self, branch: str | None) -> Remote:
        """Which branches there are. Raises RemoteError, NotPermitted or ConfigurationError."""
        wanted = f"refs/heads/{branch}" if branch else ""
        listing = self._ask(
            "looking for its branches", "ls-remote", "--symref", REMOTE, "HEAD", *([wanted] if wanted else [])
        )
        refs, default = {}, ""
        for line in listing.splitlines():
            value, _, name = line.partition("\t")
            if name == "HEAD" and value.startswith("ref: "):
                default = value.removeprefix("ref: refs/heads/")
            else:
                refs[name] = value
        return Remote(default_branch=default, default=refs.get("HEAD"), wanted=refs.get(wanted))

    def fetch(self, branch: str) -> str:
        """Fetch the branch's newest commit, and give its name."""
        shallow = ("--depth=1", "--filter=blob:none") if self._partial else ()
        self._ask(
            "fetching",
            "fetch",
            "-q",
            "--no-tags",
            "--no-write-fetch-head",
            *shallow,
            REMOTE,
            f"+refs/heads/{branch}:{_TIP}",
        )
        return self.git.run("rev-parse", "--verify", _TIP, doing="fetching").text

    def know(self, commit: str) -> None:
        """Tell later fetches that this commit and its history are here."""
        self.git.run("update-ref", f"refs/insights/have/{commit}", commit, doing="reading the commit")

    def push(self, commit: str, branch: str) -> bool:
        """Push it; False when someone else was first.

        When the answer is lost, the remote is asked what it has. Raises NotPermitted for a protected branch, and
        what `failures.remote_failure` tells.
        """
        target = f"{commit}:refs/heads/{branch}"
        said = ""
        try:
            answer = self.git.run(
                "push", "--porcelain", "--no-verify", "--no-thin", REMOTE, target, seconds=REMOTE_SECONDS
            )
            result, reason = failures.push_result(answer.code, answer.text)
            said = answer.said
        except TimeLimitError as error:
            result, reason = Push.FAILED, str(error)
        if result is Push.DONE:
            return True
        if result is Push.RACED:
            return False
        if result is Push.REFUSED:
            raise failures.protected(str(self.address), branch, reason, said)
        failure = failures.remote_failure("being pushed to", str(self.address), f"{said}\n{reason}")
        if isinstance(failure, RemoteError) and self._has(commit, branch):
            return True
        raise failure

    def _has(self, commit: str, branch: str) -> bool:
        try:
            return self.ask_remote(branch).wanted == commit
        except Exception:  # noqa: BLE001 - the push's own failure is what is told
            return False

    def _fetch_missing(self, names: Sequence[str]) -> None:
        """Fetch files that the clone left out, all in one request; git itself would ask for each."""
        if not self._partial or not names:
            return
        listing = self.git.run("cat-file", "--batch-all-objects", "--batch-check=%(objectname)", doing="reading files")
        missing = sorted(set(names) - set(listing.text.split()))
        if missing:
            self._ask(
                "fetching files",
                *("-c", "fetch.negotiationAlgorithm=noop", "fetch", "-q", "--no-tags", "--no-write-fetch-head"),
                *("--filter=blob:none", "--stdin", REMOTE),
                stdin=_lines(missing),
            )

    def _ask(self, doing: str, *arguments: str, stdin: bytes = b"") -> str:
        try:
            answer = self.git.run(*arguments, seconds=REMOTE_SECONDS, stdin=stdin)
        except TimeLimitError as error:
            raise failures.too_slow(doing, str(self.address), error.seconds) from error
        if answer.code:
            raise failures.remote_failure(doing, str(self.address), answer.said)
        return answer.text


def pathspecs(directories: Sequence[PurePosixPath]) -> list[str]:
    """How to name the directories to git: none for all; of many what they share, since git tries each on each path."""
    if not all(directory.parts for directory in directories):
        return []
    names = [str(directory) for directory in directories]
    if len(names) <= _MOST_PATHSPECS:
        return names
    shared = os.path.commonpath(names)
    return [shared] if shared else []


def sorted_into(directories: Iterable[PurePosixPath], paths: Iterable[str]) -> dict[PurePosixPath, list[str]]:
    """The paths that lie in each of the directories (the innermost one); those that lie in none are left out."""
    found: dict[str, list[str]] = {_key(directory): [] for directory in directories}
    for path in paths:
        folder = path
        while folder and folder not in found:
            folder = folder.rpartition("/")[0]
        if folder in found:
            found[folder].append(path)
    return {PurePosixPath(folder): inside for folder, inside in found.items()}


def _key(directory: PurePosixPath) -> str:
    return str(directory) if directory.parts else ""


def blob_name(data: bytes, object_format: str) -> str:
    """The name that git gives to a file of these bytes."""
    return hashlib.new(object_format, b"blob %d\0" % len(data) + data).hexdigest()


def parse_tree(listing: str) -> Iterator[tuple[str, Blob]]:
    """Read what `git ls-tree -z` prints."""
    for line in listing.split("\0"):
        if line:
            head, _, path = line.partition("\t")
            mode, _, name = head.split(" ")
            yield path, Blob(mode=mode, name=name)


def _blob(mode: str, name: str) -> Blob | None:
    return Blob(mode=mode, name=name) if mode.strip("0") else None


def _files(root: Path, directories: Iterable[PurePosixPath]) -> Iterator[Path]:
    for directory in directories:
        for folder, _, names in os.walk(root / directory):
            yield from (Path(folder) / name for name in names)


def _lines(values: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(value) + b"\n" for value in values)


def _utf8(message: str) -> bytes:
    return message.encode(errors="replace")


def _safe_directories(home: Path, configuration: Configuration) -> Path:
    """The only setting that no variable can carry to the git at the other end of a local remote."""
    path = home / "gitconfig"
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in configuration.safe_directories)
    path.write_text("".join(f'[safe]\n\tdirectory = "{value}"\n' for value in quoted))
    return path
