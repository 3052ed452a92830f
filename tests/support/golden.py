"""Texts that are known to be good, in files that people can open; `GOLDEN=write` in the environment renews them."""

from __future__ import annotations

import os
from pathlib import Path


def require_same(file: Path, text: str) -> None:
    """Fail unless the file holds that text; with GOLDEN=write, put it there, for `git diff` to be looked at."""
    if os.environ.get("GOLDEN") == "write":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="")
    assert file.read_bytes().decode() == text, f"{file} has another text; GOLDEN=write renews it"
