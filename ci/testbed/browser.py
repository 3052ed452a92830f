"""The browser that tests of the HTML report open: one of the machine's, else Debian's own package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ci.testbed import paths
from renderer.errors import RemoteError

NAME: Final = "chromium"
LINK: Final = paths.BINARIES / NAME
_COMMANDS: Final = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable"),
)
#: Without the parts that need a screen: a third of the whole.
_PACKAGE: Final = "chromium-headless-shell"
_APT: Final = ("apt-get", "--quiet", "--yes", "-o", "DPkg::Lock::Timeout=300")
_TAIL: Final = 12


def located() -> Path | None:
    """A Chromium on PATH that runs, or None; never our own link."""
    for command in _COMMANDS:
        found = shutil.which(command)
        if found and Path(found).parent.resolve() != paths.BINARIES.resolve() and version(Path(found)):
            return Path(found)
    return None


def version(browser: Path) -> str | None:
    """What it says that it is, or None: a launcher of a package that is not installed is no browser."""
    try:
        answer = subprocess.run(
            [browser, "--version"], capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    found = re.search(r"Chrom\w+ (\d+[\d.]*)", answer.stdout)
    return found[1] if found and answer.returncode == 0 else None


def install(*, started: Callable[[], None]) -> Path:
    """Install Debian's package; `started` is called before. Raises RemoteError where that can't be done."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RemoteError(
            "No Chromium or Chrome is on PATH, which the tests of the HTML report open.",
            hint="Install one (Debian: apt-get install chromium-headless-shell, as root), then run ci/tools again.",
        )
    started()
    # What is known of the packages may be old or nothing at all: then it is fetched, and tried once more.
    if _apt("install", "--no-install-recommends", _PACKAGE):
        _apt("update")
        output = _apt("install", "--no-install-recommends", _PACKAGE)
        if output:
            raise RemoteError(
                f"{_PACKAGE} could not be installed.",
                details=output.strip().splitlines()[-_TAIL:],
                hint="Put a Chromium or Chrome on PATH, then run ci/tools again.",
            )
    found = located()
    if found is None:
        raise RemoteError(f"{_PACKAGE} is installed, but does not run.", hint="Try chromium-headless-shell --version.")
    return found


def _apt(*arguments: str) -> str:
    """What apt-get said if it failed, else nothing."""
    answer = subprocess.run(
        [*_APT, *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return (answer.stdout or "It said nothing.") if answer.returncode else ""
