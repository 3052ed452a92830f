"""The formats in which a plan, or what validation found, is shown: one table, a line a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from applier.report.review import Context, Review


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format: `module` has `write(review, context) -> str`, and is imported when it is used.

    What `write` gives ends with a line feed, or is empty. `says` is for --help. `basis` is True where the format tells
    which cluster and commit a plan was made from, which costs requests to find out.
    """

    module: str
    says: str
    basis: bool = False

    def write(self, review: Review, context: Context) -> str:
        """All of the review in this format: the same review gives the same text."""
        text: str = import_module(self.module).write(review, context)
        return text


FORMATS: Final[Mapping[str, Format]] = {
    "text": Format(module="applier.report.as_text", says="for people"),
    "json": Format(module="applier.report.as_json", says="one document", basis=True),
    "html": Format(module="applier.report.html", says="a page to read, search and print", basis=True),
    "patch": Format(module="applier.report.patch", says="a line of JSON with an RFC 6902 patch for each policy"),
    "yaml": Format(module="applier.report.as_yaml", says="each changed policy as it would be stored"),
    "markdown": Format(module="applier.report.markdown", says="for a comment on a pull request", basis=True),
    "github": Format(module="applier.report.github", says="annotations of GitHub Actions"),
    "sarif": Format(module="applier.report.sarif", says="SARIF 2.1.0, for code scanning"),
    "junit": Format(module="applier.report.junit", says="JUnit's XML, for test views"),
}
