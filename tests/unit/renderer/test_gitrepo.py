"""How git is called: what is hidden, what counts of its settings, what its words mean, and that it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from renderer.errors import ConfigurationError, ExitCode, Failure, NotPermitted
from renderer.gitrepo import failures
from renderer.gitrepo.address import is_url, parse, redact
from renderer.gitrepo.configuration import Entry, configuration, parse_listing
from renderer.gitrepo.failures import Push
from renderer.gitrepo.process import Git, TimeLimitError
from tests.support.repositories import begin, has_ended, run_git


@pytest.mark.parametrize(
    "text",
    ["https://h/x", "ssh://git@h:22/x", "git@h:x/y.git", "h:x", "file:///x", "ext::sh x", "[::1]:x", "HTTPS://h/x"],
)
def test_what_is_a_url(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize("text", [".", "/a/b", "a/b:c", "./h:x", "../x", "policies"])
def test_what_is_a_path(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize(
    "text",
    ["http://h/x", "ftp://h/x", "ext::sh -c x", "-u", "ssh://-oProxyCommand=x/y", "https://h/\nx", "rsync://h/x"],
)
def test_urls_that_are_refused_show_no_password(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text.replace("://h", "://u:secret@h"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url", "user", "password"),
    [
        ("https://u:p%40ss@h:8443/x.git", "https://h:8443/x.git", "u", "p@ss"),
        ("https://token@h/x", "https://h/x", "token", ""),
        ("http://u:pw:2@127.0.0.1/x", "http://127.0.0.1/x", "u", "pw:2"),
    ],
)
def test_a_login_is_taken_out_of_a_url(text: str, url: str, user: str, password: str) -> None:
    address = parse(text)
    assert address.url == url
    assert address.login
    assert (address.login.user, address.login.password) == (user, password)
    assert password not in repr(address) or not password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://u:p@h/x: no", "at https://***@h/x: no"),
        ("'https://token@h/x/'", "'https://***@h/x/'"),
        ("ssh://git@h/x", "ssh://git@h/x"),
        ("ssh://git:p@h/x", "ssh://***@h/x"),
        ("https://u:p@ss@h/x https://v:q@h", "https://***@h/x https://***@h"),
        ("https://h/x@y", "https://h/x@y"),
    ],
)
def test_no_login_of_a_url_is_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_settings_of_the_user_count_and_of_a_repository_only_the_harmless() -> None:
    entries = [
        Entry(scope="global", key="core.sshcommand", value="mine"),
        Entry(scope="local", key="core.sshcommand", value="theirs"),
        Entry(scope="local", key="credential.helper", value="!theirs"),
        Entry(scope="local", key="credential.https://h.helper", value="!theirs"),
        Entry(scope="worktree", key="gpg.program", value="theirs"),
        Entry(scope="local", key="http.cookiefile", value="theirs"),
        Entry(scope="local", key="something.new", value="theirs"),
        Entry(scope="local", key="http.https://h/.extraheader", value="Authorization: Basic x"),
        Entry(scope="local", key="user.name", value="Robin"),
        Entry(scope="local", key="core.hookspath", value="theirs"),
        Entry(scope="global", key="includeif.gitdir:/x/.path", value="mine"),
    ]
    settled = configuration(entries)
    assert "theirs" not in str(settled.settings)
    assert settled.get("core.sshcommand") == "mine"
    assert settled.get("core.hookspath") == "/dev/null"
    assert settled.get("user.name") == "Robin"
    assert settled.get("http.https://h/.extraheader") == "Authorization: Basic x"
    assert settled.get("includeif.gitdir:/x/.path") is None


def test_a_listing_of_git_is_read_whole(tmp_path: Path) -> None:
    repository = begin(tmp_path / "r", a__b="two\nlines = x", c__d="ü")
    with (repository / ".git" / "config").open("a") as file:
        file.write("[e]\n\tf\n")
    listing = subprocess.run(
        ["git", "config", "--list", "--show-scope", "-z"], cwd=repository, capture_output=True, check=True
    ).stdout
    entries = {entry.key: (entry.scope, entry.value) for entry in parse_listing(listing)}
    assert entries["a.b"] == ("local", "two\nlines = x")
    assert entries["c.d"] == ("local", "ü")
    assert entries["e.f"] == ("local", "true")


@pytest.mark.parametrize(
    ("code", "porcelain", "result"),
    [
        (0, "To x\n*\tabc:refs/heads/main\t[new branch]\nDone\n", Push.DONE),
        (1, "To x\n!\tabc:refs/heads/main\t[rejected] (fetch first)\nDone\n", Push.RACED),
        (1, "!\tabc:refs/heads/main\t[rejected] (non-fast-forward)\n", Push.RACED),
        (1, "!\tabc:refs/heads/main\t[remote rejected] (failed to update ref)\n", Push.RACED),
        (1, "!\tabc:refs/heads/main\t[remote rejected] (cannot lock ref 'refs/heads/main': is at 1)\n", Push.RACED),
        (1, "!\tabc:refs/heads/main\t[remote rejected] (pre-receive hook declined)\n", Push.REFUSED),
        (1, "!\tabc:refs/heads/main\t[remote rejected] (branch is currently checked out)\n", Push.REFUSED),
        (1, "!\tabc:refs/heads/main\t[remote rejected] (unpacker error)\n", Push.FAILED),
        (128, "", Push.FAILED),
    ],
)
def test_the_answers_to_a_push(code: int, porcelain: str, result: Push) -> None:
    assert failures.push_result(code, porcelain)[0] is result


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("fatal: Authentication failed for 'https://u:secret@h/x/'", ExitCode.NOT_PERMITTED),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", ExitCode.NOT_PERMITTED),
        ("git@h: Permission denied (publickey).\nfatal: Could not read from remote", ExitCode.NOT_PERMITTED),
        (
            "remote: Permission to a/b.git denied to robin.\nThe requested URL returned error: 403",
            ExitCode.NOT_PERMITTED,
        ),
        ("Host key verification failed.", ExitCode.CONFIGURATION),
        ("SSL certificate problem: self-signed certificate", ExitCode.CONFIGURATION),
        ("fatal: transport 'ext' not allowed", ExitCode.CONFIGURATION),
        ("ssh: Could not resolve hostname h: Name or service not known", ExitCode.UNAVAILABLE),
        ("fatal: '/x' does not appear to be a git repository", ExitCode.UNAVAILABLE),
        ("fatal: the remote end hung up unexpectedly", ExitCode.UNAVAILABLE),
    ],
)
def test_the_words_of_a_remote(said: str, code: ExitCode) -> None:
    failure = failures.remote_failure("fetching", "https://h/x", said)
    assert failure.code is code
    assert "secret" not in str(failure)


def test_words_of_a_remote_control_no_terminal_and_are_cut() -> None:
    refused: Failure = failures.protected("h", "main", "no", "remote: \x1b[31mred\x07\n" + "remote: more\n" * 100)
    assert isinstance(refused, NotPermitted)
    assert "\x1b" not in str(refused)
    assert len(refused.details) == 13


def test_a_repository_of_somebody_else_is_told_as_git_does(tmp_path: Path) -> None:
    repository = begin(tmp_path / "r")
    done = run_git(repository, "status", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    failure = failures.local_failure("reading", done.returncode, done.stderr)
    assert isinstance(failure, ConfigurationError)
    assert "safe.directory" in failure.hint


def test_git_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    git = Git(tmp_path, environment={}, options=("-c", f"alias.wait=!echo $$ >{pid}; sleep 1000 & wait"))
    with pytest.raises(TimeLimitError):
        git.run("wait", seconds=3)
    assert has_ended(int(pid.read_text()))


def test_only_variables_that_are_settings_reach_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_TRACE", "GIT_QUARANTINE_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "x"))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Robin")
    git = Git(tmp_path, environment={}, options=("-c", "alias.env=!env"))
    variables = {line.partition("=")[0] for line in git.run("env", doing="listing").text.splitlines()}
    assert "GIT_AUTHOR_NAME" in variables
    assert not {"GIT_DIR", "GIT_INDEX_FILE", "GIT_TRACE", "GIT_QUARANTINE_PATH"} & variables
