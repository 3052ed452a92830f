"""How `plan` and `validate` show what they found: on standard output in one format, and in files in others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from applier.commands import terminal
from applier.report.formats import FORMATS
from renderer import logs
from renderer.commandline import option, options

if TYPE_CHECKING:
    from applier.report.review import Review


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """A report that is to be written: in which format, and where."""

    format: str
    path: Path


class Reports(click.ParamType[ReportFile]):
    """A value of --report: FORMAT=FILE."""

    name = "report"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ReportFile:
        """Read the text."""
        if isinstance(value, ReportFile):
            return value
        its_format, found, path = str(value).partition("=")
        if not found or not path:
            self.fail(f"{value!r} is not FORMAT=FILE, such as json=plan.json.", param, ctx)
        if its_format not in FORMATS:
            self.fail(f"{its_format!r} is no format; these are: {', '.join(FORMATS)}.", param, ctx)
        if path == "-":
            self.fail(f"standard output is -o's: use -o {its_format}.", param, ctx)
        return ReportFile(format=its_format, path=Path(path))


_quiet_option = option(
    "-q", "--quiet", is_flag=True, help="Show the summary and what is wrong only, and log warnings and errors only."
)
report_options = options(
    _quiet_option,
    option(
        "-o",
        "--output",
        type=click.Choice(list(FORMATS)),
        default="text",
        show_default=True,
        help="How to show it on standard output: "
        + "; ".join(f"{name}: {one.says}" for name, one in FORMATS.items())
        + ".",
    ),
    option(
        "--report",
        multiple=True,
        type=Reports(),
        metavar="FORMAT=FILE",
        help="Write it to FILE, too, in any of these formats. May be given again; in the variable, separated by "
        "spaces.",
    ),
    option(
        "--report-link",
        metavar="URL",
        default="",
        help="Where the whole report can be read, for a comment that has to be cut.  [default: the run's own page on "
        "GitHub and GitLab]",
    ),
)


def begin(settings: dict[str, Any]) -> None:
    """Log to standard error, and show progress there, as --log-level and --quiet say."""
    if not settings["quiet"]:
        terminal.show_progress()
    level = settings["log_level"].lower()
    logs.configure(sys.stderr, "warning" if settings["quiet"] and level in {"debug", "info"} else level)


def check(settings: dict[str, Any], directory: Path, *others: Path | None) -> None:
    """Raise BadOptionUsage for report files that lie in the snapshot, or are named twice; `others` are taken, too."""
    from applier import whole_file

    taken = {os.path.realpath(path) for path in others if path}
    for report in settings["report"]:
        place = os.path.realpath(report.path)
        if place in taken:
            raise click.BadOptionUsage("--report", f"--report: {report.path} is named twice.")
        taken.add(place)
        if whole_file.is_inside(report.path, directory):
            message = f"--report: {report.path} is in the snapshot, which holds its own files only."
            raise click.BadOptionUsage("--report", message)


def tell_basis(settings: dict[str, Any]) -> bool:
    """Whether one of the chosen formats tells which cluster and commit a plan was made from."""
    return any(FORMATS[name].basis for name in _chosen(settings))


def deliver(review: Review, directory: Path, settings: dict[str, Any]) -> None:
    """Write the report files, then show it on standard output; `directory` is the snapshot's."""
    from applier import whole_file
    from applier.report.review import Context

    context = Context(
        diffs=settings.get("diff", True),
        link=settings["report_link"] or _own_page(os.environ),
        folder=_folder(directory),
    )
    for report in settings["report"]:
        text = FORMATS[report.format].write(review, context)
        whole_file.write(report.path, click.unstyle(text) if report.format == "text" else text, flag="--report")
    shown, quiet = settings["output"], settings["quiet"]
    text = FORMATS[shown].write(review, replace(context, ascii=not terminal.encodes_all(), brief=quiet))
    if shown == "text":
        terminal.tell(text.removesuffix("\n").split("\n"))
        return
    terminal.show(text)
    if not review.validation:
        terminal.tell(_asides(review, shown, brief=quiet), err=True)


def _own_page(environment: Mapping[str, str]) -> str:
    """Where GitHub or GitLab shows the run that this is; "" elsewhere."""
    if environment.get("GITHUB_ACTIONS"):
        names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
        server, repository, run = (environment.get(name, "") for name in names)
        return f"{server}/{repository}/actions/runs/{run}"
    return environment.get("CI_JOB_URL", "")


def _folder(directory: Path) -> str:
    """The directory from the root of its git repository; outside of one, as it was given."""
    real = Path(os.path.realpath(directory))
    root = next((folder for folder in (real, *real.parents) if (folder / ".git").exists()), None)
    found = real.relative_to(root) if root else directory
    return "" if found == Path() else found.as_posix()


def _asides(review: Review, shown: str, *, brief: bool) -> Iterator[str]:
    """What people must not miss where the plan itself goes to a program."""
    from applier.report import patch, text
    from applier.report.impact import impact_lines

    if brief:
        yield from text.blocking_lines(review.plan, review.verdict)
        return
    if shown == "patch":
        yield from patch.without_patch(review.plan)
        yield from impact_lines(review.impact) if review.impact else ()
    yield from text.aside_lines(review.plan, review.verdict)


def _chosen(settings: dict[str, Any]) -> Iterable[str]:
    return {settings["output"], *(report.format for report in settings["report"])}
