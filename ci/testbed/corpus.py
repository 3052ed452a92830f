"""Kyverno's own policies, read from its module's source when a demo, a test or a measurement runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from renderer.manifest import yamlio
from renderer.manifest.document import Policy, parse

#: Where policies lie in the source; the rest is code, resources and expected results.
FOLDERS = ("test/cli", "test/conformance", "test/policy", "charts")


def files(source: Path) -> Iterator[Path]:
    """Every YAML file of those folders, sorted; Helm's templates are no YAML and are left out."""
    for folder in FOLDERS:
        for directory, subfolders, names in os.walk(source / folder):
            subfolders[:] = sorted(name for name in subfolders if name != "templates")
            for name in sorted(names):
                if name.endswith((".yaml", ".yml")):
                    yield Path(directory) / name


def policies(source: Path) -> Iterator[Policy]:
    """Every policy document there that we read as one, in the order of the files; names do recur."""
    for path in files(source):
        documents, _ = yamlio.load_documents(path.read_bytes(), source=path.relative_to(source).as_posix())
        for document in documents:
            policy, _ = parse(document)
            if policy is not None:
                yield policy
