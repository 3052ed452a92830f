"""Times the HTML report: how long it takes to make, and how long a real Chromium takes to show it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from applier.report import html
from applier.report.review import Context, Review
from ci.benchmarks.timing import Timing
from ci.testbed import browser
from tests.support import plans

#: The second frame comes when the first is on the screen.
_SHOWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def measure(*, policies: int, runs: int) -> tuple[Timing, ...]:
    """Make and open the page of so many changed policies, each time in a browser that knows nothing of it."""
    review = plans.reviewed(plans.many(policies))
    made = tuple(_made(review) for _ in range(runs))
    with tempfile.TemporaryDirectory(prefix="report-bench-") as place, sync_playwright() as playwright:
        file = Path(place) / "report.html"
        file.write_text(html.write(review, Context()), encoding="utf-8")
        chromium = playwright.chromium.launch(executable_path=browser.LINK, chromium_sandbox=False)
        opened = tuple(_opened(chromium, file) for _ in range(runs))
        chromium.close()
    return (
        Timing(name=f"make the page of {policies} changes", seconds=made),
        Timing(name="open it: from the address to the screen", seconds=opened),
    )


def _made(review: Review) -> float:
    began = time.monotonic()
    html.write(review, Context())
    return time.monotonic() - began


def _opened(chromium: Browser, file: Path) -> float:
    context = chromium.new_context()
    page = context.new_page()
    began = time.monotonic()
    page.goto(file.as_uri())
    page.evaluate(_SHOWN)
    seconds = time.monotonic() - began
    context.close()
    return seconds
