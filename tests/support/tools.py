"""Finds the binaries that ci/tools makes; a test that needs one fails where it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

TOOLCHAIN = Path(__file__).resolve().parents[2] / ".toolchain"


def tool(name: str) -> Path:
    """The binary of that name, such as `kubectl`; fails the test when it has not been built."""
    path = TOOLCHAIN / "bin" / name
    if not path.exists():
        pytest.fail(f"{path} is missing: run ci/tools")
    return path
