"""One real Chromium a worker, and pages opened in it that must neither complain nor ask the network for anything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.support.tools import tool

#: Nothing that a browser asks of its maker belongs into a test.
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


#: A loaded machine is no defect.
_PATIENCE_MS = 120_000
expect.set_options(timeout=_PATIENCE_MS)


@dataclass(slots=True)
class Reader:
    """Opens pages as a person does: a file on the disk. Keeps what the browser complained about and asked for."""

    browser: Browser
    directory: Path
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(self, html: str, *, fragment: str = "", **context: Any) -> Page:
        """Show the page; keywords are Playwright's, such as `color_scheme` and `viewport`."""
        file = self.directory / f"report-{len(self.contexts)}.html"
        file.write_text(html, encoding="utf-8")
        self.contexts.append(self.browser.new_context(**context))
        self.contexts[-1].set_default_timeout(_PATIENCE_MS)
        page = self.contexts[-1].new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(file.as_uri() + fragment)
        return page


@dataclass(slots=True)
class Elsewhere:
    """A server that a page might ask, and what it was asked."""

    url: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """What is asked is in the list."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Elsewhere(url=f"http://127.0.0.1:{server.server_port}", asked=asked)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=_QUIET, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def reader(browser: Browser, tmp_path: Path) -> Iterator[Reader]:
    """Whatever a test does with pages, nothing may be logged, thrown or fetched."""
    reader = Reader(browser=browser, directory=tmp_path)
    yield reader
    for context in reader.contexts:
        context.close()
    assert reader.complaints == []
    assert [url for url in reader.requests if not url.startswith((tmp_path.as_uri(), "data:,"))] == []
