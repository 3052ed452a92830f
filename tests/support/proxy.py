"""A real HTTP proxy on loopback between a client and a real kube-apiserver; it counts requests and can fail each.

In a test:

    with Proxy(plane) as proxy:
        kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig")
        proxy.plan(reset_after, at=3)                      # the third write is made, its answer is lost
        proxy.plan(refuse(429, retry_after=1), matching=to("leases"), at=1, times=2)
        …  # let the program under test work with that kubeconfig
        assert proxy.count(is_write) == 4

What becomes of a request is a function of its Exchange: those below, or a test's own.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias
from urllib.parse import parse_qs, urlsplit

import yaml

from ci.testbed.controlplane import ControlPlane
from ci.testbed.pki import write_private
from renderer.manifest.jsontypes import Json, JsonObject

_SERVER_SECONDS: Final = 60.0
#: Of one connection only, so that they are not passed on (RFC 9110, 7.6.1); lengths are set anew.
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "te", "transfer-encoding", "upgrade", "content-length"})
#: What is posted to these groups is a question.
_REVIEWS: Final = frozenset({"authorization.k8s.io", "authentication.k8s.io"})
_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the client asked; headers by their names in small letters."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the body."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def json(self) -> Json:
        """The body's document; None when it is empty or no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def group(self) -> str:
        """The API group; "" for the core's, and where there is none."""
        parts = self.path.split("/")
        return parts[2] if parts[1] == "apis" and len(parts) > 2 else ""

    @property
    def resource(self) -> str:
        """The plural name of the kind asked for, such as `leases`; "" for discovery and the like."""
        parts = self.path.strip("/").split("/")
        below = parts[3:] if parts[0] == "apis" else parts[2:] if parts[0] == "api" else []
        if below[:1] == ["namespaces"] and len(below) > 2:
            below = below[2:]
        return below[0] if below else ""

    @property
    def dry_run(self) -> bool:
        """Whether the server keeps nothing of it. With a body, a DELETE's query says nothing (measured)."""
        if self.method == "DELETE" and self.body:
            options = self.json
            return isinstance(options, dict) and bool(options.get("dryRun"))
        return bool(self.query.get("dryRun"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server answered, or what the proxy answers in its place."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


Predicate: TypeAlias = Callable[[Request], bool]


def is_write(request: Request) -> bool:
    """Whether the server may change something for it: neither a dry run nor a question in the form of a POST."""
    changes = request.method in {"POST", "PUT", "PATCH", "DELETE"}
    return changes and not request.dry_run and request.group not in _REVIEWS


def to(*resources: str) -> Predicate:
    """Whether it is a write to one of these resources, by plural name."""
    return lambda request: is_write(request) and request.resource in resources


def not_to(*resources: str) -> Predicate:
    """Whether it is a write to any other resource than these; leases and configmaps are the applier's own."""
    return lambda request: is_write(request) and request.resource not in resources


class Exchange:
    """One request and what became of it: `answers` of the server, and the `status` that the client was sent, if any.

    A behaviour does with it what it likes: forwards it as often as it wants, sends one answer, or none.
    """

    def __init__(self, request: Request, handler: _Handler) -> None:
        self.request = request
        self.answers: list[Answer] = []
        self.status: int | None = None
        self._handler = handler

    def __repr__(self) -> str:
        return f"{self.request.method} {self.request.path} {dict(self.request.query)} -> {self.status}"

    def forward(self, headers: Mapping[str, str] | None = None) -> Answer:
        """Have the server act on it, with more headers if given; OSError or HTTPException when it does not answer."""
        answer = self._handler.forward(replace(self.request, headers={**self.request.headers, **(headers or {})}))
        self.answers.append(answer)
        return answer

    def send(self, answer: Answer, *, withhold: int = 0) -> None:
        """Answer the client; that many bytes of the body are promised and never come."""
        self.status = answer.status
        self._handler.reply(answer, withhold=withhold)

    def reset(self) -> None:
        """End the client's connection with RST, without an answer."""
        self._handler.server.reset_at_close(self._handler.connection)
        self._handler.close_connection = True

    def stall(self) -> None:
        """Say nothing for as long as the client stays, or until the proxy ends; then hang up."""
        self._handler.close_connection = True
        self._handler.connection.recv(1, socket.MSG_PEEK)


Behaviour: TypeAlias = Callable[[Exchange], None]


def forward(exchange: Exchange) -> None:
    """What a proxy is for."""
    exchange.send(exchange.forward())


def refuse(code: int, *, retry_after: int | None = None, message: str = "refused by the proxy") -> Behaviour:
    """Answer with a Kubernetes Status; the server hears nothing. `retry_after` is in seconds."""
    reason = _REASONS[code]
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
    body = json.dumps({**status, "reason": reason, "message": message}).encode()
    headers = [("Content-Type", "application/json")]
    if retry_after is not None:
        headers.append(("Retry-After", str(retry_after)))
    return lambda exchange: exchange.send(Answer(status=code, headers=tuple(headers), body=body))


def reset_before(exchange: Exchange) -> None:
    """Reset the connection; the server hears nothing."""
    exchange.reset()


def reset_after(exchange: Exchange) -> None:
    """Reset the connection when the server has acted."""
    exchange.forward()
    exchange.reset()


def stall_before(exchange: Exchange) -> None:
    """Keep the request, for longer than the client waits."""
    exchange.stall()


def stall_after(exchange: Exchange) -> None:
    """Keep the answer, for longer than the client waits."""
    exchange.forward()
    exchange.stall()


def truncate(exchange: Exchange) -> None:
    """Let the server act, send half of what it answers, and hang up."""
    answer = exchange.forward()
    exchange.send(answer, withhold=len(answer.body) - len(answer.body) // 2)


def duplicate(exchange: Exchange) -> None:
    """Have the server act twice, as a proxy does that repeats what it believes lost; the second answer is sent."""
    exchange.forward()
    exchange.send(exchange.forward())


def call(function: Callable[[Request], None], *, when: Literal["before", "instead", "after"]) -> Behaviour:
    """Call the function before the server acts, or after it has and before it is answered.

    With "instead" the server hears nothing, and the connection is reset: a client killed before it sent.
    """

    def behave(exchange: Exchange) -> None:
        if when != "after":
            function(exchange.request)
        if when == "instead":
            exchange.reset()
            return
        answer = exchange.forward()
        if when == "after":
            function(exchange.request)
        exchange.send(answer)

    return behave


@dataclass(slots=True, kw_only=True)
class _Plan:
    """A behaviour for some of the requests that match; `seen` counts them."""

    behaviour: Behaviour
    matching: Predicate
    at: int
    times: int | None
    seen: int = 0

    def applies(self, request: Request) -> bool:
        if not self.matching(request):
            return False
        self.seen += 1
        return self.seen >= self.at and (self.times is None or self.seen < self.at + self.times)


class Proxy:
    """Plain HTTP to the client, TLS to the server. As a context manager it runs on a free port of the loopback.

    The client's own Authorization is passed on, so that its account's rights count; a request without one is made
    as `user` of the plane. Where a behaviour itself fails, the proxy raises that when it ends. Any thread may use it.
    """

    def __init__(self, plane: ControlPlane, *, user: str = "admin") -> None:
        self.upstream = urlsplit(plane.server).netloc
        self.authorization = f"Bearer {plane.tokens[user]}"
        self.tls = ssl.create_default_context(cafile=str(plane.credentials.authority))
        self.failures: list[BaseException] = []
        self._exchanges: list[Exchange] = []
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.stop()
        self._thread.join()
        if self.failures and kind is None:
            raise self.failures[0]

    @property
    def url(self) -> str:
        """Where the client finds it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def write_kubeconfig(self, path: Path, *, token: str = "") -> Path:
        """Write a kubeconfig for the proxy, with that account's token or without any; gives the path back.

        client-go shows no token on plain HTTP, so that kubectl is always the proxy's `user`.
        """
        document: JsonObject = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "user", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "user"}}],
            "current-context": "proxy",
        }
        write_private(path, yaml.safe_dump(document).encode())
        return path

    def plan(self, behaviour: Behaviour, *, at: int = 1, matching: Predicate = is_write, times: int | None = 1) -> None:
        """Behave so at the `at`-th request from now on that matches, and at the next ones up to `times` in all.

        With `times` None, at all of them from there on. Where several plans apply, the first one made is followed.
        """
        with self._lock:
            self._plans.append(_Plan(behaviour=behaviour, matching=matching, at=at, times=times))

    def clear(self) -> None:
        """Forget every plan: from now on all is forwarded."""
        with self._lock:
            self._plans.clear()

    @property
    def exchanges(self) -> list[Exchange]:
        """All requests so far, in the order in which they came, each with what became of it by now."""
        with self._lock:
            return list(self._exchanges)

    def requests(self, matching: Predicate = is_write) -> list[Request]:
        """The requests so far that match, in the order in which they came."""
        return [exchange.request for exchange in self.exchanges if matching(exchange.request)]

    def count(self, matching: Predicate = is_write) -> int:
        """How many requests came so far that match."""
        return len(self.requests(matching))

    def wait_until_left(self, seconds: float = 30.0) -> None:
        """Wait until every client has hung up and all that they sent was dealt with: a killed one may have just sent.

        Raises TimeoutError.
        """
        self._server.wait_until_left(seconds)

    def begin(self, exchange: Exchange) -> Behaviour:
        """Record it, and decide what becomes of it."""
        with self._lock:
            self._exchanges.append(exchange)
            behaviours = [plan.behaviour for plan in self._plans if plan.applies(exchange.request)]
        return behaviours[0] if behaviours else forward


class _Server(ThreadingHTTPServer):
    """Threads for the connections, all of which end with the server."""

    daemon_threads = False  # so that server_close waits for them: nothing outlives a test
    request_queue_size = 64

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self._connections: set[socket.socket] = set()
        self._resets: set[socket.socket] = set()
        self._lock = threading.Condition()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
            resets = request in self._resets
            self._resets.discard(request)
            self._lock.notify_all()
        if resets:
            request.close()  # without the farewell that super() sends first
        else:
            super().shutdown_request(request)

    def wait_until_left(self, seconds: float) -> None:
        """See `Proxy.wait_until_left`."""
        with self._lock:
            if not self._lock.wait_for(lambda: not self._connections, seconds):
                raise TimeoutError(f"{len(self._connections)} connections are open after {seconds:.0f} s")

    def reset_at_close(self, connection: socket.socket) -> None:
        """Have the connection end with RST instead of FIN."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._lock:
            self._resets.add(connection)

    def handle_error(self, *_: object) -> None:
        """Pass over clients that hang up, are killed or are reset; keep everything else."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.proxy.failures.append(error)

    def stop(self) -> None:
        """End every connection, also those that are idle or stalled, and wait for their threads."""
        self.shutdown()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # the client was quicker
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of the client, and one to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    server: _Server

    def setup(self) -> None:
        super().setup()
        proxy = self.server.proxy
        self._upstream = HTTPSConnection(proxy.upstream, context=proxy.tls, timeout=_SERVER_SECONDS)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def do_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError("the client went while it sent")
        target = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=target.path,
            query=parse_qs(target.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
        )
        exchange = Exchange(request, self)
        self.server.proxy.begin(exchange)(exchange)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_any  # noqa: N815 - http.server looks these names up

    def forward(self, request: Request) -> Answer:
        """Ask the server, on a connection that is kept."""
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        headers.setdefault("authorization", self.server.proxy.authorization)
        try:
            self._upstream.request(request.method, self.path, body=request.body or None, headers=headers)
            response = self._upstream.getresponse()
            body = response.read()
        except BaseException:
            self._upstream.close()  # what is left of the answer must not meet the next request
            raise
        kept = tuple((name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP)
        return Answer(status=response.status, headers=kept, body=body)

    def reply(self, answer: Answer, *, withhold: int) -> None:
        """Answer the client; what is withheld is promised, and the connection ends."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) - withhold])
        if withhold:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing; the proxy's record says it all."""
