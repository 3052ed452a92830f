"""The kyverno CLI as a process: how it fails, hangs, is killed and is found, and that nothing of it is left."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from pytest_mock import MockerFixture

from applier.kyverno_cli import KyvernoCli, output, process
from renderer.errors import ConfigurationError, ExitCode, Failure, InvalidPolicies
from tests.support.cli_policies import (
    LABELLED,
    legacy,
    rule,
    script,
    validating,
)
from tests.support.tools import tool

pytestmark = pytest.mark.tool

ROOT: Final = Path(__file__).parents[2]


def failure(program: Path, *, timeout_seconds: float = 60) -> Failure:
    with pytest.raises(Failure) as caught:
        KyvernoCli(program, timeout_seconds=timeout_seconds).validate([legacy("any", rule())])
    assert "VALIDATE_POLICIES=false" in caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["kill -KILL $$"], r"was killed \(SIGKILL\), as happens when memory runs out"),
        (["sh -c 'kill -KILL $$'", "exit $?"], r"was killed \(SIGKILL\)"),
        (["kill -TERM $$"], "was ended by SIGTERM"),
        (["echo out; echo oh no >&2; exit 7"], "ended with exit code 7"),
        (["echo hello"], "makes no sense"),
        (["exit 0"], "makes no sense"),
        (["echo 'Error: unknown flag: --remove-color' >&2; exit 1"], "makes no sense"),
        (["exec yes"], "printed more than 32 MiB"),
        (["exec yes >&2"], "printed more than 32 MiB"),
    ],
    ids=["killed", "killed-in-a-shell", "terminated", "exit-7", "garbage", "silent", "other-flags", "out", "err"],
)
def test_a_cli_that_fails_by_itself_judges_nothing(tmp_path: Path, lines: list[str], words: str) -> None:
    says_its_version = '[ "$1" = version ] && echo "Version: 1.19.1" && exit 0'
    caught = failure(script(tmp_path, says_its_version, *lines))
    assert isinstance(caught, InvalidPolicies)
    assert caught.code is ExitCode.INVALID_POLICY
    assert re.search(words, caught.message)
    assert "no policy was validated and nothing was written" in caught.message


def test_a_cli_that_does_not_say_its_version_judges_nothing(tmp_path: Path) -> None:
    assert "does not say its version" in failure(script(tmp_path, "exit 0")).message


def test_the_last_words_of_a_failing_cli_are_quoted(tmp_path: Path) -> None:
    caught = failure(script(tmp_path, "echo oh no >&2", "exit 7"))
    assert caught.details == ("It printed: oh no",)


def test_a_cli_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    program = script(tmp_path, "sleep 600 &", f"echo $$ $! >{started}", "wait")
    # Long enough that it has said its numbers, also on a machine that stalls.
    with start_validation(program, timeout_seconds=10) as validation:
        parent, child = map(int, started.read_text().split())
        _, stderr = validation.communicate(timeout=60)
    assert "did not end within 10 seconds, so it was stopped" in stderr
    assert has_ended(parent)
    assert has_ended(child)


def test_a_cli_that_ends_its_output_but_not_itself_is_stopped(tmp_path: Path) -> None:
    caught = failure(script(tmp_path, "exec sleep 600 >&- 2>&-"), timeout_seconds=1)
    assert "did not end within 1 seconds" in caught.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_is_not_lost(tmp_path: Path, number: signal.Signals) -> None:
    # It arrives when the process runs, but before anybody could know its number.
    code = f"""
import signal, subprocess, sys
from pathlib import Path
from applier.kyverno_cli import KyvernoCli
from tests.support.cli_policies import legacy, rule

class Interrupted(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self.pid, flush=True)
        signal.raise_signal({number.value})

subprocess.Popen = Interrupted
signal.signal(signal.SIGTERM, signal.default_int_handler)
KyvernoCli(Path(sys.argv[1])).validate([legacy("any", rule())])
"""
    program = script(tmp_path, "exec sleep 600")
    done = subprocess.run(
        [sys.executable, "-c", code, str(program)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert "KeyboardInterrupt" in done.stderr
    assert has_ended(int(done.stdout))


def test_an_interrupt_stops_the_cli_too(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    program = script(tmp_path, f"echo $$ >{started}", "exec sleep 600")
    with start_validation(program, timeout_seconds=300) as validation:
        child = int(started.read_text())
        sessions = {os.getsid(child), os.getsid(validation.pid)}
        validation.send_signal(signal.SIGINT)
        _, stderr = validation.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    assert has_ended(child)
    assert len(sessions) == 2, "a Ctrl-C at the terminal would reach it"


def start_validation(program: Path, *, timeout_seconds: float) -> subprocess.Popen[str]:
    """Validate one policy in a process of its own, as the applier would."""
    code = (
        "import sys; from pathlib import Path; from applier.kyverno_cli import KyvernoCli\n"
        "from tests.support.cli_policies import legacy, rule\n"
        "KyvernoCli(Path(sys.argv[1]), timeout_seconds=float(sys.argv[2])).validate([legacy('any', rule())])"
    )
    arguments = [sys.executable, "-c", code, str(program), str(timeout_seconds)]
    return subprocess.Popen(arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def has_ended(pid: int) -> bool:
    """Whether nothing runs under that number any more; a zombie waits for its parent only."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_want_of_memory_is_said_to_be_that(tmp_path: Path) -> None:
    caught = failure(script(tmp_path, "ulimit -v 500000", f'exec {tool("kyverno")} "$@"'))
    assert isinstance(caught, InvalidPolicies)
    assert "ran out of memory" in caught.message
    assert "Give the container more memory." in caught.hint


def test_what_is_no_program_is_a_wrong_setting(tmp_path: Path) -> None:
    program = tmp_path / "kyverno"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    caught = failure(program)
    assert isinstance(caught, ConfigurationError)
    assert "cannot be run: Exec format error" in caught.message


@pytest.mark.parametrize("group", ["legacy", "cel"])
def test_what_is_dropped_in_silence_is_not_valid(tmp_path: Path, group: str) -> None:
    # The real CLI, on a file that was emptied behind its back: it says nothing of it.
    program = script(tmp_path, '[ "$1" = apply ] && : >p1.yaml', f'exec {tool("kyverno")} "$@"')
    policies = [
        legacy(f"p{number}", rule()) if group == "legacy" else validating(f"p{number}", LABELLED) for number in range(3)
    ]
    verdict = KyvernoCli(program).validate(policies)
    assert verdict.findings == ()
    assert verdict.unjudged == ((policies[1].identity, "the kyverno CLI did not say that it loaded it"),)


def test_a_file_that_vanishes_is_an_error(tmp_path: Path) -> None:
    program = script(tmp_path, "rm -f p0.yaml", f'exec {tool("kyverno")} "$@"')
    (finding,) = KyvernoCli(program).validate([legacy("gone", rule())]).findings
    assert "no such file" in finding.problem.message


def test_nothing_of_our_environment_reaches_the_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWINDS_TOKEN", "secret")
    seen = tmp_path / "seen"
    program = script(tmp_path, f"env >{seen}; pwd >>{seen}; ls -ld . >>{seen}", "exit 3")
    failure(program)
    text = seen.read_text()
    assert "secret" not in text
    assert "drwx------" in text
    directory = re.search(r"^HOME=(.*)$", text, re.MULTILINE)
    assert directory is not None
    assert f"\n{directory[1]}\n" in text
    assert not Path(directory[1]).exists()


def test_the_cli_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError) as caught:
        KyvernoCli.find()
    assert caught.value.code is ExitCode.CONFIGURATION
    assert "VALIDATE_POLICIES=false skips this layer, and only this one." in caught.value.hint
    plugin = tmp_path / "kubectl-kyverno"
    script(tmp_path).rename(plugin)
    assert KyvernoCli.find() == plugin
    program = script(tmp_path)
    assert KyvernoCli.find() == program
    assert KyvernoCli.find(str(plugin)) == plugin
    with pytest.raises(ConfigurationError, match="not a program that can be run"):
        KyvernoCli.find(str(tmp_path / "nowhere"))


def test_the_version_is_one_whose_words_are_known() -> None:
    assert KyvernoCli(tool("kyverno")).version() == "1.19.1"
    assert output.is_seen("1.19.1")


@pytest.mark.parametrize("version", ["v1.18.9", "1.9.0", "v2.0.0", "main", "0.0.0-dev"])
def test_a_cli_of_another_age_judges_nothing(tmp_path: Path, version: str) -> None:
    caught = failure(script(tmp_path, f"echo 'Version: {version}'"))
    assert isinstance(caught, ConfigurationError)
    assert f"is version {version.removeprefix('v')}; no policy was validated" in caught.message
    assert "Install version 1.19" in caught.hint


def test_a_newer_cli_is_asked_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = script(
        tmp_path, '[ "$1" = version ] && echo "Version: v1.20.3" && exit 0', f'exec {tool("kyverno")} "$@"'
    )
    (finding,) = KyvernoCli(program).validate([legacy("fine", rule()), legacy("same", rule(), rule())]).findings
    assert "Duplicate rule name" in finding.problem.message
    shown = capsys.readouterr()
    assert "What this version of the kyverno CLI prints is not known" in shown.out + shown.err


def test_a_cli_without_a_version_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidPolicies, match="does not say its version"):
        KyvernoCli(script(tmp_path, "echo hello")).version()


def test_without_a_writable_directory_nothing_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no directory")
    places = (str(tmp_path / "file"), str(tmp_path / "missing"))
    monkeypatch.setattr(process, "_PLACES", places)
    monkeypatch.setenv("TMPDIR", "/proc")
    caught = failure(tool("kyverno"))
    assert isinstance(caught, ConfigurationError)
    assert "needs a writable directory and there is none; no policy was validated" in caught.message
    assert [detail.partition(": ")[0] for detail in caught.details] == ["/proc", *places]
    assert "Mount an emptyDir at /tmp" in caught.hint


def test_the_users_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with process.private_directory() as directory:
        assert directory.parent == tmp_path


def test_the_first_writable_directory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    second = tmp_path / "second"
    second.mkdir()
    monkeypatch.setattr(process, "_PLACES", (str(tmp_path / "gone"), str(second), "/dev/shm"))
    with process.private_directory() as directory:
        assert directory.parent == second
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(second.iterdir()) == []


def test_a_full_disk_is_told(mocker: MockerFixture) -> None:
    mocker.patch.object(Path, "write_text", side_effect=OSError(errno.ENOSPC, "No space left on device"))
    caught = failure(tool("kyverno"))
    assert isinstance(caught, ConfigurationError)
    assert "No space left on device" in caught.message
