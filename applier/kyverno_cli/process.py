"""Runs the kyverno CLI as a process that can't outlive, overrun or reach beyond what it was started for."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from applier.kyverno_cli import output
from renderer.errors import ConfigurationError, InvalidPolicies

#: For every message that says that the CLI is of no use.
SKIP_HINT: Final = "VALIDATE_POLICIES=false skips this layer, and only this one."

_OUTPUT_LIMIT_BYTES: Final = 32 * 1024 * 1024
_QUOTE_LIMIT: Final = 500
#: Where a pod with a read-only root may still write, after TMPDIR; Insights' agent mounts /output.
_PLACES: Final = ("/tmp", "/output", "/dev/shm")  # noqa: S108 - a private directory is made there
_ROOM_HINT: Final = "Mount an emptyDir at /tmp, or set TMPDIR."
# Nothing answers there, and Kyverno refuses every URL that does not begin with it.
_NOWHERE: Final = "http://127.0.0.1:1"
_SIGNALS: Final = frozenset(signal.Signals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What a run that came to its end printed."""

    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KyvernoProcess:
    """Where the program is, and how many seconds each run of it may take."""

    path: Path
    timeout_seconds: float

    def run(self, arguments: Sequence[str], directory: Path) -> Printed:
        """Run it there, without a shell, without our environment and without a network.

        Raises ConfigurationError when it cannot be started, and InvalidPolicies when it was killed, took too
        long, printed more than 32 MiB or ended with a code that the CLI does not have.
        """
        process: subprocess.Popen[bytes] | None = None
        try:
            with _undisturbed():
                process = self._start(arguments, directory)
            printed = self._follow(process)
        except BaseException:
            if process is not None:
                _kill(process)
            raise
        self._refuse_failure(process.returncode, printed)
        return printed

    def fail(self, what: str, printed: Printed | None = None, *, hint: str = "") -> NoReturn:
        """Raise InvalidPolicies: the program did that, quoted by the end of what it printed."""
        raise InvalidPolicies(
            f"The kyverno CLI ({self.path}) {what}; no policy was validated and nothing was written.",
            details=[_quote(printed)] if printed else [],
            hint=f"{hint} {SKIP_HINT}".strip(),
        )

    def _start(self, arguments: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
        # A session of its own keeps a Ctrl-C at our terminal from it until we have decided.
        try:
            return subprocess.Popen(
                [str(self.path), *arguments],
                cwd=directory,
                env=_environment(directory),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            msg = f"The kyverno CLI {self.path} cannot be run: {error.strerror or error}."
            raise ConfigurationError(msg, hint=f"Install one for this platform. {SKIP_HINT}") from error

    def _follow(self, process: subprocess.Popen[bytes]) -> Printed:
        """Read both pipes to their ends, so that neither fills up, and wait for its end."""
        deadline = time.monotonic() + self.timeout_seconds
        pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe]
        texts = {pipe.fileno(): bytearray() for pipe in pipes}
        with contextlib.ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            for pipe in pipes:
                stack.enter_context(pipe)
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    self._fail_slow()
                for key, _ in ready:
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    texts[key.fd] += chunk
                if sum(map(len, texts.values())) > _OUTPUT_LIMIT_BYTES:
                    self.fail(f"printed more than {_OUTPUT_LIMIT_BYTES // 1024**2} MiB, so it was stopped")
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._fail_slow()
        stdout, stderr = (text.decode(errors="replace") for text in texts.values())
        return Printed(stdout=stdout, stderr=stderr)

    def _fail_slow(self) -> NoReturn:
        self.fail(f"did not end within {self.timeout_seconds:g} seconds, so it was stopped")

    def _refuse_failure(self, code: int, printed: Printed) -> None:
        """Let only those ends pass in which the CLI may have said something of the policies.

        0 and 1 are its own, 2 is a Go panic. A wrapper in a shell reports a signal as 128 + its number.
        """
        number = -code if code < 0 else code - 128
        if number == signal.SIGKILL:
            what = "was killed (SIGKILL), as happens when memory runs out"
            self.fail(what, hint="Give the container more memory.")
        if number in _SIGNALS:
            self.fail(f"was ended by {signal.Signals(number).name}", printed)
        if output.out_of_memory(printed.stderr):
            self.fail("ran out of memory", printed, hint="Give the container more memory.")
        if code not in {0, 1, 2}:
            self.fail(f"ended with exit code {code}", printed)


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """Make a directory that only we can read, in the first place that is writable; it is gone afterwards.

    Raises ConfigurationError when no place is writable, or the one that was has no room for the policies.
    """
    directory = _make_directory()
    try:
        yield directory
    except OSError as error:
        raise ConfigurationError(
            f"The policies can't be written to {directory} for the kyverno CLI: {error.strerror or error}.",
            hint=f"{_ROOM_HINT} {SKIP_HINT}",
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _make_directory() -> Path:
    reasons = []
    for place in filter(None, (os.environ.get("TMPDIR", ""), *_PLACES)):
        try:
            return Path(tempfile.mkdtemp(prefix="kyverno-cli-", dir=place))
        except OSError as error:
            reasons.append(f"{place}: {error.strerror or error}")
    raise ConfigurationError(
        "The kyverno CLI needs a writable directory and there is none; no policy was validated and nothing was "
        "written.",
        details=reasons,
        hint=f"{_ROOM_HINT} {SKIP_HINT}",
    )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block has ended: a process half started could not be ended.

    Python handles signals in the main thread only, so other threads are not disturbed anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: arrived.append(number)) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in arrived:
            signal.raise_signal(late)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with process:  # waits for it
        pass


def _environment(directory: Path) -> Mapping[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "NO_COLOR": "1",
        # For image registries, and whatever else honours a proxy.
        "HTTP_PROXY": _NOWHERE,
        "HTTPS_PROXY": _NOWHERE,
        # For the calls that policies make; Kyverno's own switch.
        "FLAG_HTTP_ALLOWLIST": _NOWHERE,
    }


def _quote(printed: Printed) -> str:
    text = printed.stderr.strip() or printed.stdout.strip()
    return f"It printed: {text[-_QUOTE_LIMIT:]}" if text else "It printed nothing."
