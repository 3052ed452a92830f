"""Serves /healthz, /readyz and /metrics to probes and scrapers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final

from applier.telemetry.health import Health
from renderer import logs
from renderer.errors import ConfigurationError

log = logs.get_logger()

#: A client that does not come to the point within this time is dropped.
_CLIENT_SECONDS: Final = 10
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen; an empty host means every interface, port 0 any free one."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Address:
        """Read HOST:PORT, :PORT or [IPv6]:PORT. Raises ConfigurationError."""
        host, colon, port = text.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535 or (":" in host and bare == host):
            raise ConfigurationError(f"{text!r} is no address to listen at; it takes :9090 or 127.0.0.1:9090, say.")
        return cls(host=bare, port=int(port))


@contextmanager
def serving(address: Address, health: Health, exposition: Callable[[str], tuple[bytes, str]]) -> Iterator[None]:
    """Answer at the address meanwhile. Where that can't be, it is logged, and the work goes on all the same."""
    try:
        server = _listen(address, health, exposition)
    except OSError as error:
        log.error(
            "Health and metrics can't be served; everything else goes on",
            address=f"{address.host}:{address.port}",
            why=error.strerror or str(error),
        )
        yield
        return
    log.info("Health and metrics are served", port=server.server_port)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listen(address: Address, health: Health, exposition: Callable[[str], tuple[bytes, str]]) -> _Server:
    if address.host:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        return _Server(family, address, health, exposition)
    try:
        return _Server(socket.AF_INET6, address, health, exposition)
    except OSError:
        return _Server(socket.AF_INET, address, health, exposition)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # One that hangs must not keep the process from ending.
    block_on_close = False

    def __init__(
        self,
        family: socket.AddressFamily,
        address: Address,
        health: Health,
        exposition: Callable[[str], tuple[bytes, str]],
    ) -> None:
        self.address_family = family
        self.health = health
        self.exposition = exposition
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # IPv4 too, also where the machine's own setting says otherwise.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's own, which asks DNS for our name and waits for the answer.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def handle_error(self, _request: object, client_address: object) -> None:
        log.debug("A client of the metrics has gone", client=str(client_address))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_SECONDS
    server_version = "on-demand-job-runner"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, *self.server.exposition(self.headers.get("Accept", "")))
        elif path == "/healthz":
            self._verdict(self.server.health.stuck())
        elif path == "/readyz":
            self._verdict(self.server.health.unready())
        else:
            self._answer(404, b"There are /healthz, /readyz and /metrics.\n", _TEXT)

    do_HEAD = do_GET  # noqa: N815 - the same

    def _verdict(self, trouble: str) -> None:
        self._answer(503 if trouble else 200, f"{trouble or 'ok'}\n".encode(), _TEXT)

    def _answer(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes ask all the time."""
