"""The server of health and metrics, over real connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import requests
import structlog

from applier.telemetry.health import Health
from applier.telemetry.metrics import Metrics
from applier.telemetry.server import Address, serving
from renderer.errors import ConfigurationError


@pytest.fixture
def health() -> Health:
    return Health(clock=lambda: 0.0, within=1)


@pytest.fixture
def url(health: Health) -> Iterator[str]:
    with (
        structlog.testing.capture_logs() as lines,
        serving(Address(host="127.0.0.1", port=0), health, Metrics().exposition),
    ):
        (port,) = (line["port"] for line in lines if "port" in line)
        yield f"http://127.0.0.1:{port}"


def test_probes_are_told_why(url: str, health: Health) -> None:
    assert requests.get(f"{url}/healthz", timeout=10).text == "ok\n"
    answer = requests.get(f"{url}/readyz", timeout=10)
    assert (answer.status_code, "has not been reached" in answer.text) == (503, True)
    health.turned(reached=True)
    assert requests.get(f"{url}/readyz?verbose", timeout=10).status_code == 200
    health.expect(-1)
    assert {requests.get(f"{url}/{path}", timeout=10).status_code for path in ("healthz", "readyz")} == {503}


def test_metrics_are_served_in_the_format_that_is_asked_for(url: str) -> None:
    plain = requests.get(f"{url}/metrics", timeout=10)
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert "process_resident_memory_bytes" in plain.text
    modern = requests.get(
        f"{url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}, timeout=10
    )
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")


def test_nothing_else_is_there(url: str) -> None:
    assert requests.get(url, timeout=10).status_code == 404
    assert requests.post(f"{url}/metrics", timeout=10).status_code == 501
    head = requests.head(f"{url}/healthz", timeout=10)
    assert (head.status_code, head.content) == (200, b"")


def test_a_port_that_is_taken_is_said_and_harms_nobody(health: Health) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as lines:
        address = Address(host="127.0.0.1", port=taken.getsockname()[1])
        with serving(address, health, Metrics().exposition):
            pass
    assert [line["log_level"] for line in lines] == ["error"]
    assert "can't be served" in lines[0]["event"]


@pytest.mark.parametrize(
    ("text", "host", "port"), [(":8080", "", 8080), ("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:80", "::1", 80)]
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.of(text) == Address(host=host, port=port)


@pytest.mark.parametrize("text", ["", "8080", ":", ":http", ":65536", "::1:80", "host:-1", ":８０"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no address to listen at"):
        Address.of(text)
