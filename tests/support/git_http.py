"""Git over HTTP on loopback, for who knows the password; it looks for the password where it must not be."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest

USER = "robin"
SECRET = "s3cret-of-the-url"
_LOGIN = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()


class GitServer:
    """Serves the bare repositories below `root`; `seen` are processes that had the password among their arguments."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: list[str] = []
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="git server")

    @property
    def port(self) -> int:
        return self._server.server_port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def look_around(self) -> None:
        """Note each process of the machine that shows the password, while git waits for an answer."""
        for arguments in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                text = arguments.read_bytes().decode(errors="replace")
                self.seen += [text] if SECRET in text else []


class _Server(ThreadingHTTPServer):
    def __init__(self, git: GitServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.git = git


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        body = self._body()
        self.server.git.look_around()
        if (self.headers["Authorization"] or "").partition(" ")[2] != _LOGIN:
            self._send(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
            return
        head, _, content = self._run_git(body).partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self._send(int(headers.pop("Status", "200").split()[0]), headers, content)

    def do_POST(self) -> None:
        self.do_GET()

    def _run_git(self, body: bytes) -> bytes:
        path, _, query = self.path.partition("?")
        variables = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.git.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": USER,
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers["Content-Type"] or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "",
            "GIT_PROTOCOL": self.headers["Git-Protocol"] or "",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, check=False)
        return done.stdout

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """Serves the repositories of the test's directory."""
    with GitServer(tmp_path) as git:
        yield git
