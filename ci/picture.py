"""Takes the README's picture of the HTML report, in the browser of the tests: `.venv/bin/python -m ci.picture`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import ViewportSize, sync_playwright

from applier.change import Plan
from applier.report import html
from applier.report.review import Context
from ci.testbed import browser, paths
from tests.support import plans

PICTURE: Final = paths.ROOT / ".github" / "report.png"
_SIZE: Final = ViewportSize(width=900, height=1010)
#: As many of the changes as a picture has room for.
_SHOWN: Final = ("pod-security-restricted", "ingress-tls")


def take() -> None:
    """Show a small review of the baseline, its changes opened, and keep what is on the screen."""
    plan = Plan(changes=tuple(one for one in plans.review().changes if one.identity.name in _SHOWN))
    page = html.write(plans.reviewed(plan, commit="3f9a1c07d2b4"), Context())
    with tempfile.TemporaryDirectory(prefix="report-picture-") as place, sync_playwright() as playwright:
        file = Path(place) / "report.html"
        file.write_text(page, encoding="utf-8")
        # Letters in greys make a smaller file.
        chromium = playwright.chromium.launch(
            executable_path=browser.LINK, chromium_sandbox=False, args=["--disable-lcd-text"]
        )
        shown = chromium.new_page(viewport=_SIZE)
        shown.goto(file.as_uri())
        shown.screenshot(path=PICTURE, animations="disabled")
        chromium.close()


if __name__ == "__main__":
    take()
