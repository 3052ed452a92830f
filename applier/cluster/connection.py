"""HTTP to the Kubernetes API: where the cluster is, who we are there, time limits, and errors in our own terms."""

from __future__ import annotations

import json
import logging
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

import stamina
import urllib3
import yaml
from kubernetes import client, config
from kubernetes.config import exec_provider, kube_config
from kubernetes.config.config_exception import ConfigException

from applier.cluster import hearing
from applier.ports import Forbidden, ServerRefused, Status, Unauthenticated
from renderer import logs
from renderer.errors import ConfigurationError, Failure, RemoteError
from renderer.http import PassingError, retry_after_seconds, user_agent
from renderer.insights.config import TOKEN_VARIABLE

if TYPE_CHECKING:
    from renderer.manifest.jsontypes import Json, JsonObject

log = logs.get_logger()

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
JSON: Final = "application/json"
JSON_PATCH: Final = "application/json-patch+json"

_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 60.0
#: One write: it fits into what is left of the Lease when it starts.
_WRITE_SECONDS: Final = 5.0
#: How long its answer may take beyond what the server is told.
_ANSWER_SECONDS: Final = 1.0
_ANSWER_BYTES: Final = 512 * 1024 * 1024
_BLOCK_BYTES: Final = 64 * 1024
_POOL_SIZE: Final = 16
_ATTEMPTS: Final = 5
_RETRY_SECONDS: Final = 60.0
_WEBHOOK_FAILED: Final = "failed calling webhook"
_CHECK_CONFIG: Final = (
    "Check KUBECONFIG (--kubeconfig) and --context; `kubectl version` with the same settings must work."
)


def pod_namespace() -> str:
    """The namespace of the pod that this runs in; "" outside of one."""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        return ""


class _Plugin(exec_provider.ExecProvider):
    """A credential plugin, which gets our environment but for Insights' token, unless the kubeconfig sets that."""

    def __init__(self, exec_config: Any, *rest: Any) -> None:
        super().__init__(exec_config, *rest)  # type: ignore[no-untyped-call] # the library has no types
        if TOKEN_VARIABLE not in {item["name"] for item in exec_config.safe_get("env") or ()}:
            self.env.pop(TOKEN_VARIABLE, None)


# The library takes no environment, and threads that renew credentials must not change our own.
kube_config.ExecProvider = _Plugin  # type: ignore[attr-defined] # it is not declared to be exported


class Connection:
    """A pool of connections to one API server, with the account's credentials; threads may share it."""

    def __init__(self, configuration: client.Configuration, *, write_seconds: float = _WRITE_SECONDS) -> None:
        """Prepare, without connecting; `write_seconds` is how long one write may take."""
        self.write_seconds = write_seconds
        configuration.connection_pool_maxsize = _POOL_SIZE
        self._configuration = configuration
        self._pool: urllib3.PoolManager = client.ApiClient(configuration).rest_client.pool_manager
        self.server = str(configuration.host)
        self._warnings = hearing.Warnings()

    @classmethod
    def open(
        cls, *, kubeconfig: str | None = None, context: str | None = None, write_seconds: float = _WRITE_SECONDS
    ) -> Connection:
        """Find the cluster as kubectl does: the flag, KUBECONFIG (several files), ~/.kube/config, or the pod's own.

        `write_seconds` is how long one write may take. Raises ConfigurationError when none is there or one is broken.
        """
        configuration = client.Configuration()
        location = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        files = [part for part in location.split(os.pathsep) if part]
        found = any(Path(part).expanduser().exists() for part in files)
        try:
            with _exec_errors() as errors:
                if found:
                    config.load_kube_config(
                        os.pathsep.join(files),
                        # A single file is read once only: it may be a pipe.
                        context or (_current_context(files) if len(files) > 1 else None),
                        client_configuration=configuration,
                        persist_config=False,
                    )
                elif not kubeconfig and not context and (SERVICE_ACCOUNT / "token").exists():
                    config.load_incluster_config(client_configuration=configuration)
                else:
                    raise ConfigurationError(
                        f"No cluster is configured: {location} does not exist, and this is not a pod.",
                        hint=_CHECK_CONFIG,
                    )
        except yaml.YAMLError as error:
            raise ConfigurationError(
                f"The kubeconfig {location} is not valid YAML: {' '.join(str(error).split())}.", hint=_CHECK_CONFIG
            ) from error
        except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"The cluster's configuration can't be used: {_first_line(error)}.", hint=_CHECK_CONFIG
            ) from error
        if errors:
            raise ConfigurationError(
                f"The credentials plugin of the kubeconfig failed: {_first_line(errors[0])}.",
                hint=_CHECK_CONFIG,
            )
        if "@" in configuration.host.rpartition("://")[2].partition("/")[0]:
            # Every message and every saved plan names the server.
            raise ConfigurationError(
                "The kubeconfig's server holds a user name or a password, which would be shown.",
                hint="Take them out of the address, and put the credentials into the kubeconfig's user.",
            )
        if urlsplit(configuration.host).scheme not in ("http", "https"):
            raise ConfigurationError(
                f"The kubeconfig's server {configuration.host!r} is no URL that begins with https://.",
                hint=_CHECK_CONFIG,
            )
        if not configuration.verify_ssl:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            log.warning("TLS is not verified: the kubeconfig says insecure-skip-tls-verify", server=configuration.host)
        return cls(configuration, write_seconds=write_seconds)

    def get(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        seconds: float = _READ_SECONDS,
        attempts: int = _ATTEMPTS,
        accept: str = JSON,
    ) -> Json:
        """GET within so many seconds, tried again with backoff while the failure may pass. Raises as `send`.

        `accept` is a form of JSON that the server is asked for.
        """
        limit = min(_RETRY_SECONDS, attempts * seconds)
        tries = stamina.retry_context(
            on=lambda error: _wait_seconds(error, limit=limit),
            attempts=attempts,
            timeout=limit,
            wait_initial=0.2,
            wait_max=5.0,
            wait_jitter=0.5,
        )
        for attempt in tries:
            with attempt:
                return self.send("GET", path, query, seconds=seconds, accept=accept)
        raise AssertionError  # retry_context ends with a return or a raise

    def lines(self, path: str, query: Mapping[str, Any], *, seconds: float) -> Iterator[Json]:
        """GET a watch and give each event as it comes, until the server ends it.

        `seconds` is how long the server is asked to keep it up; one that is silent for longer has gone. Raises as
        `send`.
        """
        url = f"{self.server}{path}?{urlencode({**query, 'watch': 'true', 'timeoutSeconds': math.ceil(seconds)})}"
        headers = {"Accept": JSON, "User-Agent": user_agent(), **self._authorization()}
        try:
            response = self._pool.request(
                "GET",
                url,
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=seconds + _ANSWER_SECONDS),
                preload_content=False,
                redirect=False,
                retries=False,
            )
            # What is left of a watch is of no use to anybody.
            with closing(response):
                if response.status != 200:
                    answer = _without(headers, response.read(_ANSWER_BYTES).decode(errors="replace")).encode()
                    raise _refusal(self.server, "GET", path, response.status, dict(response.headers), answer)
                rest = b""
                for block in response.stream(_BLOCK_BYTES):
                    *whole, rest = (rest + block).split(b"\n")
                    if len(rest) > _ANSWER_BYTES:
                        raise RemoteError(f"{self.server} answered with more than {_ANSWER_BYTES} bytes.")
                    yield from (_parse(self.server, line) for line in whole if line)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(self.server, error) from error

    def write(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Json = None,
        *,
        content_type: str = JSON,
        seconds: float | None = None,
    ) -> Json:
        """Send one request, once, limited on both sides: a client that gives up leaves the server writing, otherwise.

        `seconds` is the limit, by default that of a write. Raises as `send`.
        """
        limit = self.write_seconds if seconds is None else seconds
        query = {**(query or {}), "timeout": f"{limit:g}s"}
        return self.send(method, path, query, body, content_type=content_type, seconds=limit + _ANSWER_SECONDS)

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Json = None,
        *,
        content_type: str = JSON,
        seconds: float = _READ_SECONDS,
        accept: str = JSON,
    ) -> Json:
        """Send one request, once, and give the JSON of a 2xx answer; None when it is empty.

        Raises ServerRefused (400, 404, 409, 410, 422 …), NotPermitted (401, 403) and RemoteError: unreachable,
        too slow, throttled, or failing on its own side.
        """
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept, "User-Agent": user_agent(), **self._authorization()}
        data = None
        if body is not None:
            data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
            headers["Content-Type"] = content_type
        try:
            response = self._pool.request(
                method,
                url,
                body=data,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, seconds), read=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            with _released(response):
                answer = response.read(_ANSWER_BYTES + 1)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(self.server, error) from error
        self._warnings.take(_without(headers, warning) for warning in response.headers.getlist("Warning"))
        if not 200 <= response.status < 300:
            said = _without(headers, answer.decode(errors="replace")).encode()
            raise _refusal(self.server, method, path, response.status, dict(response.headers), said)
        return _parse(self.server, answer)

    def _authorization(self) -> dict[str, str]:
        try:
            with _exec_errors() as errors:
                token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
                basic = (
                    self._configuration.get_basic_auth_token() if not token and self._configuration.username else None
                )
        except (ConfigException, OSError, ValueError) as error:
            raise ConfigurationError(
                f"The cluster's credentials can't be renewed: {_first_line(error)}.", hint=_CHECK_CONFIG
            ) from error
        if errors:
            raise ConfigurationError(
                f"The credentials plugin of the kubeconfig failed: {_first_line(errors[0])}.",
                hint=_CHECK_CONFIG,
            )
        value = token or basic
        if value and not all(" " <= character <= "~" for character in value):
            # The library's own error would quote the header.
            raise ConfigurationError(
                "The cluster's token holds a line break or another character that no token has.", hint=_CHECK_CONFIG
            )
        return {"Authorization": value} if value else {}


def _current_context(files: Sequence[str]) -> str | None:
    """The context that the first file which names one names, as with kubectl; the library would take the last."""
    for name in files:
        path = Path(name).expanduser()
        loaded = yaml.safe_load(path.read_bytes()) if path.is_file() else None
        if isinstance(loaded, dict) and loaded.get("current-context"):
            return str(loaded["current-context"])
    return None


@contextmanager
def _released(response: urllib3.BaseHTTPResponse) -> Iterator[None]:
    """Give the connection back to the pool when the body was read, close it when that failed."""
    try:
        yield
    except BaseException:
        response.close()
        raise
    response.release_conn()


@contextmanager
def _exec_errors() -> Iterator[list[str]]:
    """Collect what the Kubernetes library only logs: the failures of credential plugins."""
    messages: list[str] = []

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = _Collector(level=logging.ERROR)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield messages
    finally:
        root.removeHandler(handler)


def _without(headers: Mapping[str, str], text: str) -> str:
    """What a server, a webhook or a proxy says, without the token that it was sent with these headers."""
    secret = headers.get("Authorization", "").partition(" ")[2]
    return text.replace(secret, "***") if secret else text


def _wait_seconds(error: Exception, *, limit: float) -> bool | float:
    """Whether to try again: no, after the usual backoff, or after so many seconds, if they are fewer than `limit`."""
    if not isinstance(error, PassingError):
        return False
    if error.retry_after_seconds is None:
        return True
    if error.retry_after_seconds >= limit:
        return False
    # The jitter keeps many clients from coming back at once.
    return error.retry_after_seconds + random.random()  # noqa: S311 - not a secret


def _unreachable(server: str, error: Exception) -> RemoteError:
    reason = error
    while isinstance(reason, urllib3.exceptions.MaxRetryError) and reason.reason:
        reason = reason.reason
    hint = "Check the address in the kubeconfig, the network, and that the API server runs."
    if isinstance(reason, urllib3.exceptions.SSLError):
        return RemoteError(
            f"{server} has a certificate that is not trusted: {_first_line(reason)}.", hint=_CHECK_CONFIG
        )
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        # Its text begins with an object's address; what went wrong is the last part.
        return PassingError(f"{server} can't be reached: {_first_line(reason).rpartition(': ')[2]}.", hint=hint)
    if isinstance(reason, (urllib3.exceptions.TimeoutError, TimeoutError)):
        return PassingError(f"{server} did not answer in time.", hint=hint)
    return PassingError(f"The connection to {server} broke: {_first_line(reason)}.", hint=hint)


def _refusal(server: str, method: str, path: str, code: int, headers: Mapping[str, str], body: bytes) -> Failure:
    status = _status(code, body)
    if code == 401:
        return Unauthenticated(
            f"{server} does not know this account (401).",
            hint="The credentials of the kubeconfig are wrong or have expired: log in again.",
        )
    if code == 403:
        return Forbidden(
            f"{server} does not allow {method} {path}: {status.message}",
            hint="Grant the account that right.",
            status=status,
        )
    if code == 429 or code >= 500:
        wait = retry_after_seconds(headers.get("Retry-After", ""), now=datetime.now(UTC))
        return PassingError(
            f"{server} answered {code}: {status.message}",
            hint=_about_webhooks(status.message),
            retry_after_seconds=wait,
            # Webhooks are asked before anything is stored.
            refused=code == 429 or _WEBHOOK_FAILED in status.message,
        )
    return ServerRefused(status)


def _status(code: int, body: bytes) -> Status:
    try:
        answer: JsonObject = json.loads(body)
        details = answer.get("details") or {}
        causes = tuple(
            (str(cause.get("field") or ""), str(cause.get("message") or "")) for cause in details.get("causes") or ()
        )
        return Status(
            code=code,
            reason=str(answer.get("reason") or ""),
            message=str(answer.get("message") or ""),
            causes=causes,
        )
    except (ValueError, AttributeError, TypeError):
        text = body[:200].decode(errors="replace").strip()
        return Status(code=code, reason="", message=text.splitlines()[0] if text else "no explanation")


def _parse(server: str, body: bytes) -> Json:
    if not body:
        return None
    if len(body) > _ANSWER_BYTES:
        raise RemoteError(f"{server} answered with more than {_ANSWER_BYTES} bytes.")
    try:
        return json.loads(body)
    except ValueError as error:
        raise RemoteError(
            f"{server} did not answer with JSON, so it is no Kubernetes API server, or a proxy answered.",
            hint=_CHECK_CONFIG,
        ) from error


def _about_webhooks(message: str) -> str:
    """What to do about an admission webhook that failed, by what the API server says of it."""
    if _WEBHOOK_FAILED not in message:
        return ""
    if "kyverno" not in message:
        return "An admission webhook of another program does not answer: see to its controller, then run again."
    if "deadline exceeded" in message:
        return (
            "Kyverno's admission controller did not answer in time: see whether its pods are overloaded or hang, "
            "then run again."
        )
    return (
        "Kyverno's admission controller does not answer. Start it, or, if it was removed, delete what it left: "
        "`kubectl delete validatingwebhookconfigurations,mutatingwebhookconfigurations "
        "-l webhook.kyverno.io/managed-by=kyverno`."
    )


def _first_line(error: object) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
