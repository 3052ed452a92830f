"""Pure: which of git's settings count. The user's own do; of a repository's own only those that can do no harm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from renderer.errors import ConfigurationError
from renderer.gitrepo.address import Login, parse

#: Added to every call on the user's repository: nothing that the repository names is run, nothing cleans up meanwhile.
HARMLESS: Final = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.pager", "cat"),
    ("core.splitIndex", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
)
_FORCED: Final = (
    *HARMLESS,
    ("core.editor", "false"),
    ("fetch.recurseSubmodules", "no"),
    ("push.recurseSubmodules", "no"),
    ("push.followTags", "false"),
    ("credential.interactive", "false"),
    ("user.useConfigOnly", "true"),
    ("i18n.commitEncoding", "utf-8"),
)
# The user's own come later in the list, and so win: a transfer that stands still ends.
_DEFAULTS: Final = (("http.lowSpeedLimit", "1"), ("http.lowSpeedTime", "60"))

# CI systems keep the token of a checkout in http.<url>.extraHeader of its own configuration.
_OF_A_REPOSITORY: Final = re.compile(
    r"""(?ix) http\.(?!.*cookiefile$|savecookies$).*
      | url\..*\.(insteadof|pushinsteadof)
      | (user|author|committer)\.(name|email) | user\.signingkey | user\.useconfigonly
      | commit\.gpgsign | gpg\.format | gpg\.mintrustlevel
      | remote\..*\.(url|pushurl|promisor|partialclonefilter)
      | remote\.pushdefault | branch\..*\.(remote|pushremote|merge)
      | core\.(compression|loosecompression|sharedrepository|bigfilethreshold) | pack\..*
    """
)
_REPOSITORY_SCOPES: Final = ("local", "worktree")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One setting as git lists it; `key` has its section and name in lower case."""

    scope: str
    key: str
    value: str


def parse_listing(data: bytes) -> list[Entry]:
    """Read what `git config --list --show-scope -z` prints."""
    fields = data.decode(errors="surrogateescape").split("\0")
    entries = []
    for scope, setting in zip(fields[::2], fields[1::2], strict=False):
        key, separator, value = setting.partition("\n")
        # A key without "=" means true, and no environment variable can leave out a value.
        entries.append(Entry(scope=scope, key=key, value=value if separator else "true"))
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All settings that git is to have, in their order, and the logins that stood in the URLs of remotes."""

    settings: tuple[tuple[str, str], ...]
    logins: tuple[Login, ...]
    safe_directories: tuple[str, ...]

    def get(self, key: str) -> str | None:
        """The value that counts, the last; `key` as git lists it."""
        return next((value for name, value in reversed(self.settings) if name.lower() == key.lower()), None)

    def is_true(self, key: str) -> bool:
        """Whether it is set, as git reads truth."""
        return (self.get(key) or "").lower() in ("true", "yes", "on", "1")

    def environment(self) -> dict[str, str]:
        """The settings as variables: they appear in no list of processes and in no file."""
        variables = {"GIT_CONFIG_COUNT": str(len(self.settings)), "GIT_CONFIG_PARAMETERS": ""}
        for number, (key, value) in enumerate(self.settings):
            variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        for number, login in enumerate(self.logins):
            variables |= {f"{_variable(number)}_USER": login.user, f"{_variable(number)}_PASSWORD": login.password}
        return variables


def configuration(entries: Iterable[Entry], extra: Iterable[tuple[str, str]] = (), *logins: Login) -> Configuration:
    """Filter what git lists, keep logins out of URLs, and put on top what must hold and `extra`."""
    entries = list(entries)
    settings = [*_DEFAULTS]
    found = list(logins)
    for entry in entries:
        if not _counts(entry):
            continue
        value = entry.value
        if re.fullmatch(r"(?i)remote\..*\.(url|pushurl)", entry.key):
            value, login = _split(value)
            found += [login] if login else []
        settings.append((entry.key, value))
    for number, login in enumerate(found):
        settings += _helper(number, login)
    return Configuration(
        settings=(*settings, *_FORCED, *extra),
        logins=tuple(found),
        safe_directories=tuple(entry.value for entry in entries if entry.key == "safe.directory"),
    )


def _split(url: str) -> tuple[str, Login | None]:
    try:
        address = parse(url)
    except ConfigurationError:  # told where that remote is the one to use
        return url, None
    return address.url, address.login


def _counts(entry: Entry) -> bool:
    if entry.key.startswith(("include.", "includeif.")):  # what they include is in the list
        return False
    return entry.scope not in _REPOSITORY_SCOPES or bool(_OF_A_REPOSITORY.fullmatch(entry.key))


def may_run_programs(entries: Iterable[Entry]) -> bool:
    """Whether writing files to the work tree would run programs that the repository's own settings may name.

    These are filters, and whatever fetches the files that a partial clone left out.
    """
    return any(
        entry.scope in _REPOSITORY_SCOPES and (entry.key.startswith("filter.") or entry.key.endswith(".promisor"))
        for entry in entries
    )


def _variable(number: int) -> str:
    return f"INSIGHTS_GIT_LOGIN_{number}"


def _helper(number: int, login: Login) -> Iterator[tuple[str, str]]:
    """Settings that answer git's question for this site's login from variables, and ask nobody else."""
    name = _variable(number)
    script = (
        f'!f() {{ test "$1" = get && printf "username=%s\\npassword=%s\\n" "${name}_USER" "${name}_PASSWORD"; }}; f'
    )
    yield f"credential.{login.site}.helper", ""
    yield f"credential.{login.site}.helper", script
