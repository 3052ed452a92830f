"""Where the project, its tools and its caches lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import platformdirs

ROOT: Final = Path(__file__).resolve().parents[2]
#: The pinned Go modules, one directory each.
MODULES: Final = ROOT / "ci" / "toolchain"
#: Links to the binaries and to the module sources that tests and the control plane use.
BINARIES: Final = ROOT / ".toolchain" / "bin"
SOURCES: Final = ROOT / ".toolchain" / "source"


def cache() -> Path:
    """The directory in the user's cache that every clone shares (`XDG_CACHE_HOME` moves it)."""
    return Path(platformdirs.user_cache_path("on-demand-job-runner", appauthor=False))
