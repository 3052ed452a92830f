"""Writes documents as files that the kyverno CLI reads as they are meant."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from renderer.manifest.jsontypes import JsonObject

# As YAML 1.1 has it (5.1), with the characters that it takes for line breaks.
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def write(path: Path, *bodies: JsonObject) -> None:
    """Write them as JSON, which the CLI reads as YAML once what YAML takes for unprintable is escaped."""
    text = "\n---\n".join(json.dumps(body, ensure_ascii=False, allow_nan=False) for body in bodies)
    text = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    path.write_text(text, encoding="utf-8")
