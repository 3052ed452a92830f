"""A stand-in for Insights: a real HTTP server that keeps its contract, records all it is asked, and can fail.

In a test:

    with InsightsStandIn(token="…", organization="acme", clusters=["prod"]) as insights:
        insights.publish("prod", yaml_text)
        insights.fail(Fault.RESET, times=2, call="policies")
        …  # ask insights.url
        assert insights.statuses == [...]

By itself, beside a cluster that people try things on (FILE is read anew for each request):

    python -m tests.support.insights --port 0 --token-file F --organization O --cluster C --policies FILE
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

CallName: TypeAlias = Literal["policies", "apply-status", "claim", "job-status"]
Json: TypeAlias = Any

ELSEWHERE: Final = "https://elsewhere.example/login"
JOB_STATUSES: Final = ("running", "completed", "failed")
_CLUSTER_PATH: Final = re.compile(r"/v0/organizations/(?P<organization>[^/]+)/clusters/(?P<cluster>[^/]+)/(?P<rest>.+)")
_CALLS: Final[Mapping[CallName, tuple[str, re.Pattern[str]]]] = {
    "policies": ("GET", re.compile(r"kyverno-policies/with-app-groups-applied/yaml")),
    "apply-status": ("PUT", re.compile(r"policies/apply-status")),
    "claim": ("POST", re.compile(r"reports/on-demand-jobs/claim")),
    "job-status": ("PATCH", re.compile(r"reports/on-demand-jobs/(?P<job>\d+)/status")),
}
_STATUS_FIELDS: Final = (
    "policyName",
    "reportType",
    "action",
    "status",
    "lastAppliedAt",
    "policyBody",
    "output",
)


class Fault(Enum):
    """What the server does instead of its duty."""

    UNAUTHORIZED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    CONFLICT = 409
    TOO_MANY_REQUESTS = 429
    SERVER_ERROR = 500
    UNAVAILABLE = 503
    RESET = "the connection is reset before the answer"
    LOST_ANSWER = "what was asked is done, and the connection is reset before the answer"
    STALL = "nothing comes until the server stops or the client goes"
    STALL_IN_BODY = "the head comes, and half of the body, then nothing more"
    TRUNCATED = "Content-Length promises more than is sent"
    BROKEN_CHUNK = "a chunk is longer than what is sent of it"
    NO_LAST_CHUNK = "every chunk is whole, but the one that says the end is missing"
    UNDECLARED_LENGTH = "neither Content-Length nor chunks: only the connection's end tells the body's"
    HTML_PAGE = "a page for people, with status 200"
    REDIRECT = "a redirect to another host"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFault:
    """One fault for one request: of one call, or of any (None)."""

    fault: Fault
    call: CallName | None = None
    retry_after: str | None = None
    location: str = ELSEWHERE
    body: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked: `call` is None for an unknown path, `status` None where a fault gave none."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    call: CallName | None
    cluster: str | None
    status: int | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, status: int, value: Json) -> Reply:
        return cls(status=status, body=json.dumps(value).encode())

    @classmethod
    def problem(cls, status: int, message: str) -> Reply:
        return cls.of_json(status, {"message": message})


class InsightsStandIn:
    """The server; as a context manager it runs on a free loopback port. Any thread may use it.

    `tls` makes it speak https. What a test looks at are copies: `requests`, `statuses`, `job_statuses`.
    """

    def __init__(
        self,
        *,
        token: str,
        organization: str = "acme",
        clusters: Iterable[str] = ("prod",),
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        on_request: Callable[[Request], None] | None = None,
    ) -> None:
        self.token = token
        self.organization = organization
        self._on_request = on_request
        self._lock = threading.Lock()
        self._policies: dict[str, Callable[[], bytes]] = {name: lambda: b"" for name in clusters}
        self._requests: list[Request] = []
        self._statuses: list[Json] = []
        self._pending_jobs: dict[str, list[Json]] = {name: [] for name in self._policies}
        self._job_statuses: dict[int, list[str]] = {}
        self._faults: list[PlannedFault] = []
        self._server = _Server(self, port, tls)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="insights stand-in")

    @property
    def url(self) -> str:
        scheme = "https" if self._server.tls else "http"
        return f"{scheme}://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Begin to answer; the port is taken since the object was made."""
        self._thread.start()

    def stop(self) -> None:
        """End every connection and thread; may be called again."""
        self._server.stop()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What Insights holds ---------------------------------------------------------------------------------

    def publish(self, cluster: str, policies: str | bytes) -> None:
        """Make this the whole answer for a cluster that was named at the start."""
        data = policies.encode() if isinstance(policies, str) else policies
        self._publish(cluster, lambda: data)

    def publish_file(self, cluster: str, path: Path) -> None:
        """Answer with what the file holds at the time of each request."""
        self._publish(cluster, path.read_bytes)

    def _publish(self, cluster: str, source: Callable[[], bytes]) -> None:
        with self._lock:
            if cluster not in self._policies:
                raise KeyError(cluster)
            self._policies[cluster] = source

    def enqueue_job(
        self,
        report_type: str,
        *,
        options: Mapping[str, str] | None = None,
        cluster: str | None = None,
        **other: Json,
    ) -> int:
        """Add a job that waits to be claimed, for the first cluster if none is named; gives its id.

        `other` overrides fields of its JSON.
        """
        with self._lock:
            job_id = len(self._job_statuses) + 1
            self._job_statuses[job_id] = []
            job = {"id": job_id, "reportType": report_type, "status": "pending", "options": options, **other}
            self._pending_jobs[cluster or next(iter(self._policies))].append(job)
            return job_id

    def fail(
        self,
        fault: Fault,
        *,
        times: int = 1,
        call: CallName | None = None,
        retry_after: str | None = None,
        location: str = ELSEWHERE,
        body: str | None = None,
    ) -> None:
        """Fail the next requests (of that call, or of any), in the order in which faults were planned.

        `body` replaces the text of an answer that has one; `retry_after` is sent as the header says it.
        """
        planned = PlannedFault(fault=fault, call=call, retry_after=retry_after, location=location, body=body)
        with self._lock:
            self._faults += [planned] * times

    def forgive(self) -> None:
        """Fail no more, whatever was planned."""
        with self._lock:
            self._faults.clear()

    # What Insights was asked and told ----------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._requests)

    @property
    def statuses(self) -> list[Json]:
        """Every policy status that was accepted, as sent."""
        with self._lock:
            return list(self._statuses)

    @property
    def job_statuses(self) -> dict[int, list[str]]:
        """For each job, the statuses that were accepted, in their order."""
        with self._lock:
            return {job: list(statuses) for job, statuses in self._job_statuses.items()}

    @property
    def waiting_jobs(self) -> list[int]:
        """The ids of the jobs that nobody claimed yet."""
        with self._lock:
            return [job["id"] for jobs in self._pending_jobs.values() for job in jobs]

    # The contract ------------------------------------------------------------------------------------------

    def next_fault(self, call: CallName | None) -> PlannedFault | None:
        with self._lock:
            for index, planned in enumerate(self._faults):
                if planned.call in {None, call}:
                    return self._faults.pop(index)
        return None

    def record(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)
        if self._on_request:
            self._on_request(request)

    def answer(self, request: Request, *, organization: str | None, job: int | None) -> Reply:
        """Keep the contract for a request without a fault."""
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return Reply.problem(401, "the token is missing or wrong")
        if request.call is None or request.cluster is None:
            return Reply.problem(404, "no such path")
        with self._lock:
            if organization != self.organization or request.cluster not in self._policies:
                return Reply.problem(404, "no such organization or cluster")
            return self._answer_call(request, job)

    def _answer_call(self, request: Request, job: int | None) -> Reply:
        match request.call:
            case "policies":
                return self._answer_policies(str(request.cluster))
            case "apply-status":
                return self._take_status(request)
            case "claim":
                return self._answer_claim(request)
            case _:
                return self._take_job_status(request, job)

    def _answer_policies(self, cluster: str) -> Reply:
        try:
            policies = self._policies[cluster]()
        except OSError as error:
            return Reply.problem(500, f"the policies can't be read: {error}")
        return Reply(status=200, body=policies, content_type="application/yaml")

    def _take_status(self, request: Request) -> Reply:
        status = _json(request.body)
        problem = _status_problem(status)
        if problem:
            return Reply.problem(400, problem)
        self._statuses.append(status)
        return Reply(status=204)

    def _answer_claim(self, request: Request) -> Reply:
        limit = request.query.get("limit", [""])[0]
        if not limit.isdigit() or int(limit) < 1:
            return Reply.problem(400, "limit must be a positive number")
        waiting = self._pending_jobs[str(request.cluster)]
        claimed, waiting[:] = waiting[: int(limit)], waiting[int(limit) :]
        return Reply.of_json(200, claimed)

    def _take_job_status(self, request: Request, job: int | None) -> Reply:
        change = _json(request.body)
        if job not in self._job_statuses:
            return Reply.problem(404, "no such job")
        if not isinstance(change, dict) or change.get("status") not in JOB_STATUSES:
            return Reply.problem(400, f"status must be one of {', '.join(JOB_STATUSES)}")
        self._job_statuses[job].append(change["status"])
        return Reply(status=204)


def _json(body: bytes) -> Json:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _status_problem(status: Json) -> str:
    """Say what is wrong with a policy status by the contract, or ""."""
    if not isinstance(status, dict):
        return "the body must be a JSON object"
    for name in _STATUS_FIELDS:
        if not isinstance(status.get(name), str):
            return f"{name} must be a string"
    if status["reportType"] != "kyverno":
        return "reportType must be kyverno"
    if status["action"] not in {"apply", "delete"}:
        return "action must be apply or delete"
    if status["status"] not in {"success", "failed"}:
        return "status must be success or failed"
    try:
        aware = datetime.fromisoformat(status["lastAppliedAt"]).tzinfo is not None
    except ValueError:
        aware = False
    return "" if aware else "lastAppliedAt must be an RFC 3339 time"


class _Server(ThreadingHTTPServer):
    """Threads for the connections, all of which end with the server."""

    daemon_threads = False  # so that server_close waits for them: nothing outlives a test
    request_queue_size = 64

    def __init__(self, stand_in: InsightsStandIn, port: int, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.stand_in = stand_in
        self.tls = tls
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._resets: set[socket.socket] = set()
        self._connections_lock = threading.Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls:
            # The handshake waits for the connection's own thread, so that one client can't block the others.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._connections_lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
            resets = request in self._resets
            self._resets.discard(request)
        if resets:
            request.close()  # without the farewell that super() sends first
        else:
            super().shutdown_request(request)

    def reset_at_close(self, connection: socket.socket) -> None:
        """Have the connection end with RST instead of FIN."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._connections_lock:
            self._resets.add(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that hang up or do not trust us; show everything else."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """End every connection, also those that are idle or stalled, and wait for their threads."""
        self.stopping.set()
        self.shutdown()
        with self._connections_lock:
            for connection in self._connections:
                with suppress(OSError):  # the client was quicker
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads a request, lets a fault or the contract answer it, records it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)  # a whole URL, where we are asked as a proxy
        call, found, job = _route(self.command, target.path)
        request = Request(
            method=self.command,
            path=target.path,
            query=parse_qs(target.query),
            headers=dict(self.headers.items()),
            body=body,
            call=call,
            cluster=found.get("cluster"),
        )
        stand_in = self.server.stand_in
        planned = stand_in.next_fault(call)
        if planned:
            status = _FAULT_STATUSES.get(planned.fault)
            if planned.fault is Fault.LOST_ANSWER:
                stand_in.answer(request, organization=found.get("organization"), job=job)
            stand_in.record(replace(request, status=status, fault=planned.fault))
            self._misbehave(planned)
            return
        reply = stand_in.answer(request, organization=found.get("organization"), job=job)
        # Recorded before it is sent: who has the answer finds the record.
        stand_in.record(replace(request, status=reply.status))
        self._reply(reply)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_any  # noqa: N815 - http.server looks these names up

    def log_message(self, *_: object) -> None:
        """Say nothing; the stand-in's record says it all."""

    def _reply(self, reply: Reply) -> None:
        headers = dict(reply.headers)
        if reply.status != 204:
            headers |= {"Content-Type": reply.content_type, "Content-Length": str(len(reply.body))}
        self._head(reply.status, headers)
        self.wfile.write(reply.body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _misbehave(self, planned: PlannedFault) -> None:
        fault = planned.fault
        text = (planned.body or "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\n").encode()
        match fault:
            case Fault.RESET | Fault.LOST_ANSWER:
                self.server.reset_at_close(self.connection)
            case Fault.STALL:
                self.server.stopping.wait()
            case Fault.STALL_IN_BODY:
                self._head(200, {"Content-Type": "application/yaml", "Content-Length": str(2 * len(text))})
                self.wfile.write(text)
                self.server.stopping.wait()
            case Fault.TRUNCATED:
                self._head(200, {"Content-Type": "application/yaml", "Content-Length": str(2 * len(text))})
                self.wfile.write(text)
            case Fault.BROKEN_CHUNK:
                self._head(200, {"Content-Type": "application/yaml", "Transfer-Encoding": "chunked"})
                self.wfile.write(b"%x\r\n%b" % (2 * len(text), text))
            case Fault.NO_LAST_CHUNK:
                self._head(200, {"Content-Type": "application/yaml", "Transfer-Encoding": "chunked"})
                self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
            case Fault.UNDECLARED_LENGTH:
                self._head(200, {"Content-Type": "application/yaml", "Connection": "close"})
                self.wfile.write(text)
            case Fault.HTML_PAGE:
                page = (planned.body or "<!DOCTYPE html>\n<title>Log in</title>").encode()
                self._reply(Reply(status=200, body=page, content_type="text/html; charset=utf-8"))
            case Fault.REDIRECT:
                self._reply(Reply(status=302, headers={"Location": planned.location}))
            case _:
                headers = {"Retry-After": planned.retry_after} if planned.retry_after is not None else {}
                message = (planned.body or json.dumps({"message": f"planned: {fault.name}"})).encode()
                self._reply(Reply(status=fault.value, body=message, headers=headers))
        self.close_connection = True


_FAULT_STATUSES: Final[Mapping[Fault, int]] = {
    fault: fault.value for fault in Fault if isinstance(fault.value, int)
} | {Fault.HTML_PAGE: 200, Fault.REDIRECT: 302}


def _route(method: str, path: str) -> tuple[CallName | None, Mapping[str, str], int | None]:
    """Say which call a path is, of which organization and cluster (unquoted), and for which job."""
    whole = _CLUSTER_PATH.fullmatch(path)
    if not whole:
        return None, {}, None
    found = {name: unquote(value) for name, value in whole.groupdict().items()}
    for call, (call_method, pattern) in _CALLS.items():
        match = pattern.fullmatch(found["rest"])
        if match and method == call_method:
            job = match.groupdict().get("job")
            return call, found, int(job) if job else None
    return None, found, None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run alone until SIGTERM or Ctrl-C; prints the URL, then one line for each request."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.insights", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--organization", required=True)
    parser.add_argument("--cluster", required=True, action="append", help="may be given again")
    parser.add_argument("--policies", type=Path, required=True, metavar="FILE", help="read anew for each request")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with InsightsStandIn(
        token=options.token_file.read_text().strip(),
        organization=options.organization,
        clusters=options.cluster,
        port=options.port,
        on_request=_print_request,
    ) as insights:
        for cluster in options.cluster:
            insights.publish_file(cluster, options.policies)
        print(insights.url, flush=True)
        stop.wait()
    return 0


def _print_request(request: Request) -> None:
    told = f" {request.body.decode(errors='replace')[:200]}" if request.body else ""
    print(f"{request.method} {request.path} -> {request.status}{told}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
