"""Pure: where a repository is. URLs are told from paths, and what is secret in a URL is kept apart from it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from renderer.errors import ConfigurationError

#: What git may speak; anything else (`ext::`, say) could run a program that a repository names.
PROTOCOLS: Final = ("https", "ssh", "git", "file")
_HIDDEN: Final = "***"

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
# host:path or user@host:path, as ssh has it; a slash before the colon makes it a path.
_SCP_LIKE: Final = re.compile(r"(?:[^/:\s]+@)?(?:\[[^\]/]+\]|[^/:\s]+):(?!:)")
_LOGIN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/\s'\"]*)@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user and a password or token that stood in a URL, and the part of the URL that they are for."""

    site: str
    user: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A remote repository's URL as git gets it, without a password, and the login that it had."""

    url: str
    login: Login | None = None

    def __str__(self) -> str:
        return redact(self.url)


def is_url(text: str) -> bool:
    """Whether `--repo` names a remote repository, not a directory."""
    return bool(_SCHEME.match(text) or _HELPER.match(text) or _SCP_LIKE.match(text))


def parse(text: str, *, setting: str = "--repo") -> Address:
    """Check a URL (or the path that a repository's remote may be) and take its login out.

    Raises ConfigurationError when it speaks what is not allowed.
    """
    found = _SCHEME.match(text)
    scheme = found.group(1).lower() if found else ""
    try:
        host = urlsplit(text).hostname or "" if found else ""
    except ValueError:
        host = "-"
    allowed = (not scheme or scheme in PROTOCOLS) or (scheme == "http" and _is_loopback(host))
    if text.startswith("-") or host.startswith("-") or _HELPER.match(text) or not allowed or not text.isprintable():
        raise ConfigurationError(
            f"{setting}: {redact(text)!r} is not accepted; it takes a URL with "
            f"{', '.join(f'{name}://' for name in PROTOCOLS)}, or host:path.",
            hint="Plain http:// is accepted for this machine only, since others could read the password.",
        )
    return _without_login(text) if scheme in ("http", "https") else Address(url=text)


def _without_login(url: str) -> Address:
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    login, at, host = place.rpartition("@")
    if not at:
        return Address(url=url)
    user, _, password = login.partition(":")
    site = f"{scheme}://{host}"
    return Address(url=f"{site}{slash}{path}", login=Login(site=site, user=unquote(user), password=unquote(password)))


def redact(text: str) -> str:
    """The text without the login of any URL in it; a plain ssh user, such as git@, stays."""
    return _LOGIN.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    scheme, login = found.groups()
    is_plain_user = scheme.lower() in ("ssh://", "git://") and ":" not in login
    return f"{scheme}{login if is_plain_user else _HIDDEN}@"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
