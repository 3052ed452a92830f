"""What the HTTP libraries raise, and what it means to people: the one place that maps it to our errors."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import urllib3.exceptions as pool_errors
from requests import exceptions as request_errors

from renderer.errors import ConfigurationError, Failure, RemoteError
from renderer.http import PassingError
from renderer.insights.config import USUAL_NAMES

_TLS_HINT: Final = "If a proxy or an own authority signs here, name its certificate in SSL_CERT_FILE."
_PROXY_HINT: Final = "Look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    """What it means; in `hint`, {host} stands for the setting of the address."""

    text: str
    passing: bool = False
    configuration: bool = False
    hint: str = ""


_UNREACHABLE: Final = _Meaning(text="the connection failed", passing=True)
_TOO_SLOW: Final = _Meaning(text="it did not answer in time", passing=True)
_BROKEN: Final = _Meaning(text="the answer broke off before its end", passing=True)
_NONSENSE: Final = _Meaning(text="its answer is not proper HTTP")
_TLS: Final = _Meaning(text="TLS failed", hint=_TLS_HINT)
_PROXY: Final = _Meaning(text="the proxy does not let it through", passing=True, hint=_PROXY_HINT)
_BAD_PROXY: Final = _Meaning(text="the proxy's address can't be used", configuration=True, hint=_PROXY_HINT)
_BAD_URL: Final = _Meaning(
    text="the address can't be used",
    configuration=True,
    hint="Check {host}, HTTPS_PROXY and HTTP_PROXY.",
)
_UNEXPECTED: Final = _Meaning(text="the request failed")

#: A class means what the nearest of its ancestors here means. The tests see to it that each class of both
#: libraries is listed, so that a new one gets a thought.
MEANINGS: Final[Mapping[type[BaseException], _Meaning]] = {
    OSError: _UNREACHABLE,
    TimeoutError: _TOO_SLOW,
    request_errors.RequestException: _UNEXPECTED,
    request_errors.ConnectionError: _UNREACHABLE,
    request_errors.Timeout: _TOO_SLOW,
    request_errors.ConnectTimeout: _TOO_SLOW,
    request_errors.ReadTimeout: _TOO_SLOW,
    request_errors.ProxyError: _PROXY,
    request_errors.SSLError: _TLS,
    request_errors.ChunkedEncodingError: _BROKEN,
    request_errors.ContentDecodingError: _NONSENSE,
    request_errors.HTTPError: _UNEXPECTED,
    request_errors.InvalidJSONError: _UNEXPECTED,
    request_errors.JSONDecodeError: _NONSENSE,
    request_errors.InvalidHeader: _NONSENSE,
    request_errors.InvalidProxyURL: _BAD_PROXY,
    request_errors.InvalidSchema: _BAD_URL,
    request_errors.InvalidURL: _BAD_URL,
    request_errors.MissingSchema: _BAD_URL,
    request_errors.URLRequired: _BAD_URL,
    request_errors.RetryError: _UNREACHABLE,
    request_errors.StreamConsumedError: _UNEXPECTED,
    request_errors.TooManyRedirects: _UNEXPECTED,
    request_errors.UnrewindableBodyError: _UNEXPECTED,
    pool_errors.HTTPError: _UNEXPECTED,
    pool_errors.PoolError: _UNREACHABLE,
    pool_errors.EmptyPoolError: _UNREACHABLE,
    pool_errors.FullPoolError: _UNREACHABLE,
    pool_errors.ClosedPoolError: _UNREACHABLE,
    pool_errors.RequestError: _UNREACHABLE,
    pool_errors.MaxRetryError: _UNREACHABLE,
    pool_errors.HostChangedError: _UNEXPECTED,
    pool_errors.NewConnectionError: _UNREACHABLE,
    pool_errors.NameResolutionError: _UNREACHABLE,
    pool_errors.TimeoutError: _TOO_SLOW,
    pool_errors.ConnectTimeoutError: _TOO_SLOW,
    pool_errors.ReadTimeoutError: _TOO_SLOW,
    pool_errors.TimeoutStateError: _UNEXPECTED,
    pool_errors.SSLError: _TLS,
    pool_errors.ProxyError: _PROXY,
    pool_errors.ProxySchemeUnknown: _BAD_PROXY,
    pool_errors.ProxySchemeUnsupported: _BAD_PROXY,
    pool_errors.URLSchemeUnknown: _BAD_URL,
    pool_errors.LocationValueError: _BAD_URL,
    pool_errors.LocationParseError: _BAD_URL,
    pool_errors.ProtocolError: _BROKEN,
    pool_errors.IncompleteRead: _BROKEN,
    pool_errors.InvalidChunkLength: _BROKEN,
    pool_errors.ResponseNotChunked: _NONSENSE,
    pool_errors.BodyNotHttplibCompatible: _NONSENSE,
    pool_errors.DecodeError: _NONSENSE,
    pool_errors.HeaderParsingError: _NONSENSE,
    pool_errors.InvalidHeader: _NONSENSE,
    pool_errors.ResponseError: _NONSENSE,
    pool_errors.UnrewindableBodyError: _UNEXPECTED,
}

#: Both libraries' roots, and what they let through: OSError, and one ValueError of its own.
LIBRARY_ERRORS: Final = (
    request_errors.RequestException,
    pool_errors.HTTPError,
    pool_errors.ProxySchemeUnsupported,
    OSError,
)


def failure_of(error: Exception, *, failed: str, ca_variable: str, host_setting: str = USUAL_NAMES.host) -> Failure:
    """Turn what a library raised into our error; none of its text is used, since it may hold anything.

    `failed` begins the message: what could not be done. `ca_variable` names the variable that says which
    certificates are trusted, or is ""; `host_setting` what sets the address.
    """
    chain = list(_chain(error))
    meaning = _meaning(error, chain)
    reason = _reason(chain)
    message = f"{failed}: {meaning.text}{f' ({reason})' if reason else ''}."
    hint = meaning.hint.replace("{host}", host_setting)
    if meaning is _TLS and ca_variable:
        hint = f"Only the certificates that {ca_variable} names are trusted; check that file."
    if meaning.configuration:
        return ConfigurationError(message, hint=hint)
    return PassingError(message, hint=hint) if meaning.passing else RemoteError(message, hint=hint)


def _meaning(error: Exception, chain: list[BaseException]) -> _Meaning:
    nearest = next(MEANINGS[cls] for cls in type(error).__mro__ if cls in MEANINGS)
    # A connection that is cut in the middle of TLS says nothing about certificates.
    if nearest is _TLS and any(isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) for cause in chain):
        return _BROKEN
    if nearest is _UNREACHABLE and _unknown_host(chain):
        return _Meaning(text="no such host", hint="Check {host}.")
    return nearest


def _unknown_host(chain: list[BaseException]) -> bool:
    return any(isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME for cause in chain)


def _reason(chain: list[BaseException]) -> str:
    """Give the system's own words for the innermost cause that has any."""
    for cause in reversed(chain):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return (getattr(cause, "reason", None) or "").replace("_", " ").lower()
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return cause.strerror
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to its causes; both libraries also keep some as `reason` or as an argument."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
