"""Runs git through GitPython: with settings that are told whole, a time limit, and an end that leaves no lock."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Final

from renderer.errors import ConfigurationError
from renderer.gitrepo import failures
from renderer.gitrepo.address import PROTOCOLS
from renderer.insights.config import TOKEN_VARIABLE

#: How long one call on this machine may take, and one that asks a remote.
LOCAL_SECONDS: Final = 120.0
REMOTE_SECONDS: Final = 300.0
_GRACE_SECONDS: Final = 5.0

# Of git's own variables these are the user's settings. All others (GIT_DIR, GIT_INDEX_FILE, …) belong to the git that
# may have started us, in a hook say, and would lead ours to another repository, or print secrets (GIT_TRACE…).
_KEPT: Final = re.compile(
    r"GIT_(ASKPASS|SSH|SSH_COMMAND|SSH_VARIANT|EXEC_PATH|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM"
    r"|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|PARAMETERS|KEY_\d+|VALUE_\d+)|(AUTHOR|COMMITTER)_(NAME|EMAIL|DATE)"
    r"|(SSL|HTTP|PROXY|PYTHON)_\w+)"
)
_ALWAYS: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
    "SSH_ASKPASS": "",
    TOKEN_VARIABLE: "",  # of no use to git, its helpers or ssh
}


class TimeLimitError(Exception):
    """Git was stopped since it took longer than it may; `seconds` is the limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"git took longer than {seconds:g} seconds")
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call of git gave: its exit code, its output, and what it said besides."""

    code: int
    output: bytes
    said: str

    @property
    def text(self) -> str:
        """The output as text, without the line's end."""
        return os.fsdecode(self.output).removesuffix("\n")


class Git:
    """Git in one directory, with variables and options that every call gets."""

    def __init__(self, directory: Path, *, environment: Mapping[str, str], options: Sequence[str] = ()) -> None:
        """Prepare. Raises ConfigurationError when there is no git."""
        program = os.environ.get("GIT_PYTHON_GIT_EXECUTABLE") or "git"
        if not shutil.which(program):
            raise ConfigurationError(
                f"The program {program} is not there, and git is needed for this.",
                hint="Install git, and see that it is in a directory of PATH.",
            )
        # GitPython gives git every variable of this process, so the process must not have those that redirect it.
        for name in [name for name in os.environ if name.startswith("GIT_") and not _KEPT.fullmatch(name)]:
            os.environ.pop(name, None)
        _load_library()
        import git

        self.directory = directory
        self._git = git.Git(str(directory))
        self._options = tuple(options)
        self._environment = {**_ALWAYS, **environment}

    def run(
        self,
        *arguments: str,
        doing: str = "",
        stdin: bytes = b"",
        seconds: float = LOCAL_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run it to its end.

        With `doing` ("reading the index", say) a failure is raised, as `failures.local_failure` has it; without, the
        answer has its code. Raises TimeLimitError when it takes longer than `seconds`. However this ends, git ended
        before: stopped by SIGTERM, upon which it removes its locks.
        """
        process = self._start(arguments, {**self._environment, **(environment or {})})
        try:
            output, said = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            _stop(process)
            if doing:
                raise failures.local_failure(doing, 0, f"it took longer than {seconds:g} seconds") from error
            raise TimeLimitError(seconds) from error
        except BaseException:
            _stop(process)
            raise
        answer = Answer(code=process.returncode, output=output, said=said.decode(errors="replace"))
        if doing and answer.code:
            raise failures.local_failure(doing, answer.code, answer.said)
        return answer

    def _start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        # A group of its own: Ctrl-C reaches us only, and no terminal is there to ask for a password.
        process = self._git.execute(
            [self._git.GIT_PYTHON_GIT_EXECUTABLE, *self._options, *arguments],
            istream=PIPE,
            as_process=True,
            env=environment,
            start_new_session=True,
        )
        # The library's wrapper would end the process with itself; `run` does, and removes locks first.
        started, process.proc = process.proc, None
        if started is None:
            msg = "GitPython started no process"
            raise AssertionError(msg)
        return started


def _load_library() -> None:
    """Import GitPython, which runs git when it is first imported, before it can be told to leave the token out."""
    token = os.environ.pop(TOKEN_VARIABLE, None)
    try:
        import git  # noqa: F401 - only for what its import does
    finally:
        if token is not None:
            os.environ[TOKEN_VARIABLE] = token


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End git and what it started: kindly first, so that it removes its lock files."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with suppress(OSError):
                stream.close()
