"""Finds the binaries and sources that ci/tools makes; a test that needs one fails where it is missing."""

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


def source(module: str) -> Path:
    """The source of that module, such as `kyverno`; fails the test when it has not been fetched."""
    found = sorted((TOOLCHAIN / "source").glob(f"{module}-v*"))
    if len(found) != 1 or not found[0].exists():
        pytest.fail(f"{TOOLCHAIN / 'source'} has no single {module}-v…: run ci/tools")
    return found[0]
