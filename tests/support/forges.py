"""A stand-in for the APIs of GitHub and GitLab: a real HTTP server with what the stages ask of them, and no more.

It knows one repository, whose pull requests (or merge requests) are numbered from 1. Whoever asks without the token
gets 401; files are on another host, which must not be shown the token.
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.support.git_http import SECRET

REPOSITORY: Final = "acme/policies"
PROJECT: Final = "7"
_FORK: Final = "8"
US: Final = "github-actions[bot]"
Json = Any


@dataclass(slots=True, kw_only=True)
class Request:
    """A pull or merge request; `head` is the commit that was planned, `merged_as` what became of it."""

    number: int
    branch: str
    base: str
    title: str
    body: str
    head: str = ""
    merged_as: str | None = None
    comments: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What a run left: its files by name, for the commit `head`, by a run of a fork or not."""

    name: str
    head: str
    files: Mapping[str, bytes]
    fork: bool = False

    def archive(self) -> bytes:
        """As GitHub sends it."""
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for name, content in self.files.items():
                archive.writestr(name, content)
        return data.getvalue()


@dataclass(slots=True)
class ForgeStandIn:
    """The server; `requests` and `artifacts` are its state, which tests may look at and change."""

    requests: list[Request] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    _server: _Server | None = None
    _thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        assert self._server
        return self._server.server_port

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="forge")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        assert self._thread
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def comment(self, request: Request, text: str, *, author: str = US) -> None:
        """Somebody writes a comment."""
        comment = {"id": len(request.comments) + 1, "body": text, "user": {"login": author}, "author": {"id": author}}
        request.comments.append(comment)


@pytest.fixture
def forge() -> Iterator[ForgeStandIn]:
    """The API of the place where a repository lives."""
    with ForgeStandIn() as server:
        yield server


class _Server(ThreadingHTTPServer):
    def __init__(self, forge: ForgeStandIn) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.forge = forge


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What is asked: the parts of the path that vary, the query and the body."""

    forge: ForgeStandIn
    parts: tuple[str, ...]
    query: Mapping[str, str]
    body: Json

    @property
    def request(self) -> Request:
        return next(one for one in self.forge.requests if one.number == int(self.parts[0]))

    def page(self, items: list[Json]) -> list[Json]:
        size, number = int(self.query["per_page"]), int(self.query["page"])
        return items[(number - 1) * size : number * size]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        split = urlsplit(self.path)
        credentials = [self.headers["Authorization"], self.headers["PRIVATE-TOKEN"]]
        if split.path.startswith("/files/"):
            wanted = self.server.forge.artifacts[int(split.path.rpartition("/")[2])]
            self._send(400, b"") if any(credentials) else self._send(200, wanted.archive())
            return
        if f"Bearer {SECRET}" not in credentials and SECRET not in credentials:
            self._send(401, b"{}")
            return
        if self.command != "GET":
            self.server.forge.written.append(f"{self.command} {split.path}")
        for method, pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, split.path)
            if found and method == self.command:
                query = {name: values[0] for name, values in parse_qs(split.query).items()}
                parts = tuple(unquote(part) for part in found.groups())
                given = answer(_Call(forge=self.server.forge, parts=parts, query=query, body=body))
                self._answer(given)
                return
        self._send(404, b"{}")

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_PATCH(self) -> None:
        self.do_GET()

    def _answer(self, given: Json) -> None:
        if isinstance(given, bytes):
            self._send(200, given)
        elif isinstance(given, _Elsewhere):
            port = self.server.server_port
            self._send(302, b"", Location=f"http://localhost:{port}/files/{given.artifact}")
        else:
            self._send(200, json.dumps(given).encode())

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    artifact: int


# --- both ------------------------------------------------------------------------------------------


def _open_request(call: _Call, *, branch: str, base: str, body: str) -> Request:
    number = len(call.forge.requests) + 1
    made = Request(number=number, branch=call.body[branch], base=call.body[base], title="", body="")
    call.forge.requests.append(made)
    return _tell(made, call.body, body=body)


def _tell(request: Request, told: Json, *, body: str) -> Request:
    request.title, request.body = told["title"], told[body]
    return request


def _edit_comment(comments: list[Json], number: str, text: str) -> Json:
    comment = next(one for one in comments if one["id"] == int(number))
    comment["body"] = text
    return comment


def _comment(call: _Call) -> Json:
    call.forge.comment(call.request, call.body["body"])
    return {}


# --- GitHub ----------------------------------------------------------------------------------------


def _pull(request: Request) -> Json:
    return {
        "number": request.number,
        "merged_at": "2026-01-02T03:04:05Z" if request.merged_as else None,
        "merge_commit_sha": request.merged_as,
        "head": {"sha": request.head, "ref": request.branch},
    }


def _pulls(call: _Call) -> Json:
    owner, _, branch = call.query["head"].partition(":")
    assert owner == REPOSITORY.partition("/")[0]
    return [
        _pull(one)
        for one in call.forge.requests
        if not one.merged_as and (one.branch, one.base) == (branch, call.query["base"])
    ]


def _edit_pull(call: _Call) -> Json:
    return _pull(_tell(call.request, call.body, body="body"))


def _edit_issue_comment(call: _Call) -> Json:
    return next(
        _edit_comment(one.comments, call.parts[0], call.body["body"]) for one in call.forge.requests if one.comments
    )


def _artifacts(call: _Call) -> Json:
    return {
        "artifacts": [
            {
                "id": number,
                "expired": False,
                "created_at": f"2026-01-02T03:04:{number:02}Z",
                "workflow_run": {
                    "head_sha": one.head,
                    "repository_id": int(PROJECT),
                    "head_repository_id": int(_FORK if one.fork else PROJECT),
                },
            }
            for number, one in enumerate(call.forge.artifacts)
            if one.name == call.query["name"]
        ]
    }


# --- GitLab ----------------------------------------------------------------------------------------


def _merge_request(call: _Call, request: Request) -> Json:
    run = next((one for one in reversed(call.forge.artifacts) if one.head == request.head), None)
    return {
        "iid": request.number,
        "state": "merged" if request.merged_as else "opened",
        "merge_commit_sha": request.merged_as,
        "squash_commit_sha": None,
        "sha": request.head,
        "head_pipeline": run
        and {"id": call.forge.artifacts.index(run), "project_id": int(_FORK if run.fork else PROJECT)},
    }


def _jobs(call: _Call) -> Json:
    run = call.forge.artifacts[int(call.parts[0])]
    planned = {"id": int(call.parts[0]), "name": run.name, "status": "success"}
    return call.page([{"id": 100, "name": "lint", "status": "failed"}, planned])


_G: Final = f"/repos/{REPOSITORY}"
_L: Final = f"/projects/{PROJECT}"
_ROUTES: Final[list[tuple[str, str, Callable[[_Call], Json]]]] = [
    ("GET", rf"{_G}/issues/(\d+)/comments", lambda call: call.page(call.request.comments)),
    ("POST", rf"{_G}/issues/(\d+)/comments", _comment),
    ("PATCH", rf"{_G}/issues/comments/(\d+)", _edit_issue_comment),
    ("GET", rf"{_G}/pulls", _pulls),
    ("POST", rf"{_G}/pulls", lambda call: _pull(_open_request(call, branch="head", base="base", body="body"))),
    ("PATCH", rf"{_G}/pulls/(\d+)", _edit_pull),
    (
        "GET",
        rf"{_G}/commits/(\w+)/pulls",
        lambda call: call.page([_pull(one) for one in call.forge.requests if call.parts[0] == one.merged_as]),
    ),
    ("GET", rf"{_G}/actions/artifacts", _artifacts),
    ("GET", rf"{_G}/actions/artifacts/(\d+)/zip", lambda call: _Elsewhere(int(call.parts[0]))),
    ("GET", "/user", lambda _: {"id": US}),
    ("GET", rf"{_L}/merge_requests/(\d+)/notes", lambda call: call.page(call.request.comments)),
    ("POST", rf"{_L}/merge_requests/(\d+)/notes", _comment),
    (
        "PUT",
        rf"{_L}/merge_requests/(\d+)/notes/(\d+)",
        lambda call: _edit_comment(call.request.comments, call.parts[1], call.body["body"]),
    ),
    (
        "GET",
        rf"{_L}/merge_requests",
        lambda call: [
            _merge_request(call, one)
            for one in call.forge.requests
            if not one.merged_as
            and (one.branch, one.base) == (call.query["source_branch"], call.query["target_branch"])
        ],
    ),
    (
        "POST",
        rf"{_L}/merge_requests",
        lambda call: _merge_request(
            call, _open_request(call, branch="source_branch", base="target_branch", body="description")
        ),
    ),
    (
        "PUT",
        rf"{_L}/merge_requests/(\d+)",
        lambda call: _merge_request(call, _tell(call.request, call.body, body="description")),
    ),
    ("GET", rf"{_L}/merge_requests/(\d+)", lambda call: _merge_request(call, call.request)),
    (
        "GET",
        rf"{_L}/repository/commits/(\w+)/merge_requests",
        lambda call: call.page(
            [_merge_request(call, one) for one in call.forge.requests if call.parts[0] == one.merged_as]
        ),
    ),
    ("GET", rf"{_L}/pipelines/(\d+)/jobs", _jobs),
    (
        "GET",
        rf"{_L}/jobs/(\d+)/artifacts/insights-plan/(.+)",
        lambda call: call.forge.artifacts[int(call.parts[0])].files[call.parts[1]],
    ),
]


def files_of(directory: Path) -> dict[str, bytes]:
    """What an artifact of that directory holds."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
