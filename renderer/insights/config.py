"""Where Insights is, for which organisation and cluster, and with which token: checked once, at the edge."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from renderer.errors import ConfigurationError

DEFAULT_HOST: Final = "https://insights.fairwinds.com"
#: The variable that holds the token; no program that we start gets it.
TOKEN_VARIABLE: Final = "FAIRWINDS_TOKEN"  # noqa: S105 - the variable's name


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingNames:
    """How an error names each setting: the variable and the flag that set it."""

    host: str = "FAIRWINDS_INSIGHTS_HOST (--host)"
    organization: str = "FAIRWINDS_ORG (--organization)"
    cluster: str = "FAIRWINDS_CLUSTER (--cluster)"
    token: str = "FAIRWINDS_TOKEN (--token-file)"  # noqa: S105 - the setting's name, not a token


USUAL_NAMES: Final = SettingNames()

_HOST_ACCEPTED: Final = f"a URL such as {DEFAULT_HOST}"
_TOKEN_ACCEPTED: Final = "printable ASCII characters without spaces, as Insights shows the token"  # noqa: S105 - words
_TOKEN_MAX_BYTES: Final = 16 * 1024
_SHOWN_MAX_CHARACTERS: Final = 120


class Token:
    """A token that fits in a header. Printed in any way it shows stars; only `reveal` gives the text."""

    # Not a dataclass: asdict and the like would lay the value open.
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def of(cls, text: str, *, source: str = USUAL_NAMES.token) -> Token:
        """Check a token that `source` gave; one newline at its end is dropped. Raises ConfigurationError."""
        token = text.removesuffix("\n").removesuffix("\r")
        if not token:
            raise ConfigurationError(f"{source} is empty; it takes {_TOKEN_ACCEPTED}.")
        if not all("!" <= character <= "~" for character in token):
            raise ConfigurationError(
                f"{source} holds a space, a line break or another character that no token has; "
                f"it takes {_TOKEN_ACCEPTED}."
            )
        if len(token) > _TOKEN_MAX_BYTES:
            raise ConfigurationError(f"{source} is longer than {_TOKEN_MAX_BYTES} bytes; that is no token.")
        return cls(token)

    def reveal(self) -> str:
        """Give the token itself; for a header or a key, never for a text that people read."""
        return self._text

    def __repr__(self) -> str:
        return "Token(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where Insights is and the token for it, the same for many clusters; made by `account`, which checks both.

    `host` is a base URL without a slash at its end. `names` are for messages.
    """

    host: str
    token: Token
    names: SettingNames = field(default=USUAL_NAMES, compare=False, repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, so that nothing leaves it."""
        return _is_loopback(urlsplit(self.host).hostname or "")

    def on(self, organization: str | None, cluster: str | None) -> InsightsConfig:
        """The settings for one cluster. Raises ConfigurationError when a name is missing or can't be one."""
        return InsightsConfig(
            host=self.host,
            token=self.token,
            names=self.names,
            organization=_name(organization, self.names.organization),
            cluster=_name(cluster, self.names.cluster),
        )


def account(
    *,
    host: str | None = None,
    token: Token | str | None,
    insecure_http: bool = False,
    names: SettingNames = USUAL_NAMES,
) -> Account:
    """Check what flags, environment and file gave; None or "" means not set.

    Without a host it is Insights' own. Plain http is refused but for loopback, unless `insecure_http`. Raises
    ConfigurationError that names the variable, the flag, the value (never the token) and what is accepted.
    """
    if token is None:
        raise ConfigurationError(
            f"{names.token} is not set.", hint="Set the variable, or name a file with --token-file."
        )
    return Account(
        host=_host(host or DEFAULT_HOST, names.host, insecure_http=insecure_http),
        token=token if isinstance(token, Token) else Token.of(token, source=names.token),
        names=names,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InsightsConfig(Account):
    """Everything that a call to Insights for one cluster needs; made by `of`, which checks it.

    `organization` and `cluster` are plain names.
    """

    organization: str
    cluster: str

    @classmethod
    def of(
        cls,
        *,
        host: str | None = None,
        organization: str | None,
        cluster: str | None,
        token: Token | str | None,
        insecure_http: bool = False,
    ) -> InsightsConfig:
        """Check it all, as `account` and `Account.on` do. Raises ConfigurationError."""
        return account(host=host, token=token, insecure_http=insecure_http).on(organization, cluster)

    @property
    def subject(self) -> str:
        """How a message names the cluster."""
        return f"cluster {self.cluster!r} of organization {self.organization!r}"

    def url(self, path: str) -> str:
        """Give the URL of `path` below this cluster; the names are quoted, so each stays one segment."""
        organization, cluster = quote(self.organization, safe=""), quote(self.cluster, safe="")
        return f"{self.host}/v0/organizations/{organization}/clusters/{cluster}/{path}"


def read_token(path: Path) -> Token:
    """Read the token from a file (a pipe will do); one newline at its end is dropped.

    Raises ConfigurationError that names the file, and never shows what it holds.
    """
    source = f"The token file {str(path)!r} (--token-file)"
    try:
        with path.open("rb") as file:
            data = file.read(_TOKEN_MAX_BYTES + 3)  # room for \r\n, and one more to notice that there is more
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise ConfigurationError(
            f"{source} can't be read: {reason}.",
            hint="Name a readable file that holds nothing but the token.",
        ) from error
    return Token.of(data.decode("ascii", errors="replace"), source=source)


def _host(value: str, setting: str, *, insecure_http: bool) -> str:
    shown = _shown_url(value)

    def wrong(what: str) -> ConfigurationError:
        return ConfigurationError(f"{setting}: {shown} {what}; it takes {_HOST_ACCEPTED}.")

    if not value.isprintable() or " " in value or "\\" in value:
        raise wrong("holds a space, a backslash or a control character")
    try:
        parts = urlsplit(value)
        port_is_wrong = parts.port == 0
    except ValueError:
        raise wrong("is not a URL (look at its port and brackets)") from None
    problem = _host_problem(value, parts)
    if problem or port_is_wrong:
        raise wrong(problem or "has port 0")
    if parts.scheme == "http" and not insecure_http and not _is_loopback(parts.hostname or ""):
        raise ConfigurationError(
            f"{setting}: {shown} would send the token unencrypted; it takes {_HOST_ACCEPTED}.",
            hint="Plain http is for this machine only; --insecure-http allows it anywhere.",
        )
    return value.rstrip("/")


def _host_problem(value: str, parts: SplitResult) -> str:
    """Say what is wrong with a URL as the base of all others, or ""."""
    if parts.scheme not in {"http", "https"} or "://" not in value:
        return "does not begin with https://"
    if "@" in parts.netloc:
        return "holds a user name or password"
    if not parts.hostname:
        return "names no host"
    if "?" in value or "#" in value:
        return "holds a query or a fragment"
    if {".", ".."} & set(parts.path.split("/")):
        return "holds . or .. in its path"
    return ""


def _name(value: str | None, setting: str) -> str:
    if not value:
        raise ConfigurationError(f"{setting} is not set; it takes the name as Insights shows it.")
    problem = name_problem(value)
    if problem:
        raise ConfigurationError(f"{setting}: {problem}")
    return value


def name_problem(value: str) -> str:
    """What keeps a text from being the name of an organization or a cluster, or ""."""
    # "." and ".." would be resolved as steps of the path, quoted or not.
    if value and value not in {".", ".."} and value.isprintable() and value == value.strip():
        return ""
    return (
        f"{_cut(value)!r} is not accepted; it takes the name as Insights shows it, "
        "without control characters or spaces around it, and not . or .."
    )


def _is_loopback(hostname: str) -> bool:
    if hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False


def _shown_url(value: str) -> str:
    """Quote a URL for a message; one with room for a secret is not shown."""
    if any(character in value for character in "@?#"):
        return "its value (not shown, as it may hold a secret)"
    return repr(_cut(value))


def _cut(value: str) -> str:
    return value if len(value) <= _SHOWN_MAX_CHARACTERS else f"{value[:_SHOWN_MAX_CHARACTERS]}…"
