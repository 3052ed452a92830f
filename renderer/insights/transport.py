"""HTTP to Insights: the token, timeouts, the byte cap, retries, and every error in our own terms.

`Transport.send` is one call with its retries; deadline.py cuts off what takes too long, and http_errors.py
says what the libraries' exceptions mean.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, Self
from urllib.parse import urlsplit

import requests
import requests.auth
import stamina
from requests.adapters import DEFAULT_POOLSIZE

from renderer.errors import ConfigurationError, Failure, NotPermitted, RemoteError
from renderer.http import PassingError, retry_after_seconds, user_agent
from renderer.insights.deadline import LimitedAdapter, cut_off
from renderer.insights.http_errors import LIBRARY_ERRORS, failure_of

if TYPE_CHECKING:
    from renderer.insights.config import Account
    from renderer.manifest.jsontypes import Json

#: Which variables name the certificates to trust, the strongest first. requests knows the first two only.
CA_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

_BLOCK_BYTES: Final = 64 * 1024
# An error's own text is a courtesy: not worth many bytes, nor a wait.
_PEEKED_BYTES: Final = 8 * 1024
_PEEK_SECONDS: Final = 2.0
_SHOWN_CHARACTERS: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much, at most. `call_seconds` is for all attempts of one call together.

    `read_seconds` is for the whole head of an answer and for each silence in its body; `request_seconds` for
    one request from its start to the last byte.
    """

    connect_seconds: float = 10
    read_seconds: float = 30
    request_seconds: float = 60
    call_seconds: float = 150
    attempts: int = 4
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 10
    jitter_seconds: float = 1
    answer_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: `purpose` completes "Could not …", `missing` says what a 404 means: "it knows no …".

    A `repeatable` call is sent again after a failure that may pass. `params` and `payload` are what goes into
    the query and, as JSON, into the body.
    """

    method: Literal["GET", "PUT", "PATCH", "POST"]
    url: str
    purpose: str
    missing: str
    repeatable: bool
    params: Mapping[str, str] = field(default_factory=dict)
    payload: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A 2xx answer, whole. The body is empty for PUT and PATCH, whose answers say nothing more."""

    status: int
    body: bytes


class Transport:
    """A session with one Insights host, which threads may share; as a context manager it closes itself."""

    def __init__(
        self,
        account: Account,
        *,
        limits: Limits | None = None,
        connections: int = DEFAULT_POOLSIZE,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Prepare, without connecting.

        `connections` is how many are kept open for the next calls: as many as there are threads. `clock` gives
        seconds that only grow, `jitter` a number from 0 to 1. Raises ConfigurationError when a variable names
        certificates that are not there.
        """
        self._limits = limits or Limits()
        self._names = account.names
        self._secret = account.token.reveal()
        self._clock = clock
        self._jitter = jitter
        self._ca_variable, ca_path = _certificates(environ)
        self._session = _Session()
        self._session.auth = _Bearer(self._secret)
        # Proxies from the environment apply, but never on this machine: plain http would show them the token.
        self._session.trust_env = not account.is_loopback
        self._session.headers["User-Agent"] = user_agent()
        # A compressed body can end early unnoticed, and can be a bomb.
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.mount("http://", LimitedAdapter(pool_maxsize=connections))
        self._session.mount("https://", LimitedAdapter(pool_maxsize=connections))
        # Given with each request: the session's own value loses to the environment's.
        self._verify: str | bool = ca_path or True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept for the next call."""
        self._session.close()

    def send(self, call: Call, *, seconds: float | None = None) -> Answer:
        """Make the call and give its whole answer; `seconds`, where there are fewer, take the place of `call_seconds`.

        A repeatable call is sent up to `attempts` times within `call_seconds`, with jittered backoff or after
        what Retry-After asks, on 429, 5xx, resets, stalls and answers that end early. Redirects are not
        followed, and a page for people is no answer. Raises NotPermitted (401, 403), ConfigurationError (404,
        settings that can't work) and RemoteError (all else).
        """
        call_seconds = min(self._limits.call_seconds, math.inf if seconds is None else seconds)
        end = self._clock() + call_seconds
        if not call.repeatable:
            return self._attempt(call, end)
        attempts = stamina.retry_context(
            on=lambda error: self._wait_seconds(error, end),
            attempts=self._limits.attempts,
            timeout=call_seconds,
            wait_initial=self._limits.backoff_seconds,
            wait_max=self._limits.backoff_max_seconds,
            wait_jitter=self._limits.jitter_seconds,
        )
        number = 0
        try:
            for attempt in attempts:
                with attempt:
                    number += 1
                    return self._attempt(call, end)
        except PassingError as error:
            error.details = (*error.details, f"Tried {number} {'time' if number == 1 else 'times'}.")
            raise
        raise AssertionError  # retry_context ends with a return or a raise

    def _wait_seconds(self, error: Exception, end: float) -> bool | float:
        """Say whether to try again: no, after the usual backoff (True), or after so many seconds."""
        if not isinstance(error, PassingError):
            return False
        if error.retry_after_seconds is None:
            return self._clock() < end
        # The server's figure is the least; the jitter keeps a thousand clusters from coming back at once.
        wait = error.retry_after_seconds + self._jitter() * self._limits.jitter_seconds
        return wait if self._clock() + wait < end else False

    def _attempt(self, call: Call, call_end: float) -> Answer:
        end = min(call_end, self._clock() + self._limits.request_seconds)
        try:
            return self._exchange(call, end)
        except LIBRARY_ERRORS as error:
            failed = f"Could not {call.purpose} ({_host_of(call)})"
            raise failure_of(
                error, failed=failed, ca_variable=self._ca_variable, host_setting=self._names.host
            ) from error

    def _exchange(self, call: Call, end: float) -> Answer:
        """Send one request, judge its head, read its body."""
        left = max(0.001, end - self._clock())
        response = self._session.request(
            call.method,
            call.url,
            params=call.params,
            json=call.payload,
            timeout=(min(self._limits.connect_seconds, left), min(self._limits.read_seconds, left)),
            verify=self._verify,
            stream=True,
        )
        with response:
            if not 200 <= response.status_code < 300:
                raise self._refusal(call, response)
            body = b""
            if call.method in {"GET", "POST"}:
                with cut_off(response.raw.shutdown, end - self._clock()):
                    body = _whole_body(response, call, self._limits.answer_bytes)
            if looks_like_html(body, response.headers.get("Content-Type", "")):
                raise RemoteError(
                    f"Could not {call.purpose}: {_host_of(call)} answered with an HTML page, so a proxy or "
                    "a login page speaks for it.",
                    hint=f"Check {self._names.host} and HTTPS_PROXY; does this network ask for a login?",
                )
            return Answer(status=response.status_code, body=body)

    def _refusal(self, call: Call, response: requests.Response) -> Failure:
        """Turn any status but 2xx into an error."""
        status = response.status_code
        said = self._said(response)
        failed = f"Could not {call.purpose}: {_host_of(call)} answered {status}"
        if status in {401, 403}:
            return NotPermitted(
                f"{failed}, so it does not accept the token{said}.",
                hint=f"Check {self._names.token}, and that the token is this organization's.",
            )
        if status == 404:
            return ConfigurationError(
                f"{failed}: it knows no {call.missing}{said}.",
                hint=f"Check {self._names.organization}, {self._names.cluster} and {self._names.host}.",
            )
        if 300 <= status < 400:
            target = _place(response.headers.get("Location", ""))
            return RemoteError(
                f"{failed}, a redirect to {self._clean(target) or 'nowhere'}, which is not followed "
                "since it would take the token along.",
                hint=f"Check {self._names.host}, and whether a login page stands in between.",
            )
        if status == 429 or status >= 500:
            wait = retry_after_seconds(response.headers.get("Retry-After", ""), now=datetime.now(UTC))
            asked = "" if wait is None else f", and asks to wait {wait:.0f} s"
            return PassingError(f"{failed}{said}{asked}.", retry_after_seconds=wait)
        return RemoteError(
            f"{failed}{said}.",
            hint="Trying again does not help with this status: show Fairwinds that answer, "
            f"or check that {self._names.host} is Insights.",
        )

    def _said(self, response: requests.Response) -> str:
        """Give the first line of an error's body, short and clean, as ` ("…")`; "" for a page or nothing."""
        body = b""
        wait_seconds = min(_PEEK_SECONDS, self._limits.read_seconds)
        with suppress(*LIBRARY_ERRORS), cut_off(response.raw.shutdown, wait_seconds):
            body = response.raw.read(_PEEKED_BYTES, decode_content=False) or b""
        if looks_like_html(body, response.headers.get("Content-Type", "")):
            return ""
        lines = body.decode("utf-8", errors="replace").strip().splitlines()
        said = self._clean(lines[0]) if lines else ""
        return f' ("{said}")' if said else ""

    def _clean(self, text: str) -> str:
        """Make a server's text fit for a message: one short printable line, without the token."""
        text = text.replace(self._secret, "***")
        text = "".join(character if character.isprintable() else " " for character in text).strip()
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def looks_like_html(body: bytes, content_type: str) -> bool:
    """Say whether an answer is a page for people, as a proxy or a login page gives it."""
    start = body[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return "html" in content_type.lower() or start.startswith((b"<!doctype html", b"<html"))


class _Session(requests.Session):
    """A session that never looks at where a redirect points: it would parse it even if it does not follow."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - requests' signature
        return None


class _Bearer(requests.auth.AuthBase):
    """Sets the token itself; given to the session, it keeps requests from asking ~/.netrc."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._secret}"
        return request


def _whole_body(response: requests.Response, call: Call, limit_bytes: int) -> bytes:
    """Read the body up to its declared end; anything that may be only a part of it is an error."""
    raw = response.raw
    host = _host_of(call)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise RemoteError(
            f"Could not {call.purpose}: {host} compressed its answer, which was not asked for.",
            hint="A proxy in between may do that; have it leave this host's answers alone.",
        )
    if raw.length_remaining is None and not raw.chunked:
        raise RemoteError(
            f"Could not {call.purpose}: {host} did not say how long its answer is, "
            "so nobody can know whether it is whole.",
            hint="A proxy in between may cause that; HTTP/1.1 with Content-Length or chunks is needed.",
        )
    blocks = []
    total = 0
    while block := raw.read(_BLOCK_BYTES, decode_content=False):
        total += len(block)
        if total > limit_bytes:
            raise RemoteError(f"Could not {call.purpose}: {host} answered with more than {limit_bytes} bytes.")
        blocks.append(block)
    return b"".join(blocks)


def _certificates(environ: Mapping[str, str]) -> tuple[str, str]:
    """Give the variable that names the certificates to trust, and their path; ("", "") for requests' own."""
    for variable in CA_VARIABLES:
        path = environ.get(variable, "")
        if not path:
            continue
        if not os.path.exists(path):  # noqa: PTH110 - a null character in it must not raise
            raise ConfigurationError(
                f"{variable}: {path!r} does not exist; it takes a file of certificates in PEM form."
            )
        return variable, path
    return "", ""


def _host_of(call: Call) -> str:
    return urlsplit(call.url).netloc


def _place(url: str) -> str:
    """Give a URL without the parts that may hold a secret."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that is no URL"
    origin = f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else ""
    return f"{origin}{parts.path}"
