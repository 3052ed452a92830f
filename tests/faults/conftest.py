"""The bed of the fault matrix, how much of it is run, and the line that says what was run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import structlog

from applier.journal import format as journal_format
from tests.faults.bed import Bed
from tests.faults.matrix import Tally
from tests.faults.runs import CHUNK_BYTES
from tests.support.cluster import running
from tests.support.killed_runs import Runs
from tests.support.proxy import Proxy

_TALLY = "faults"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Without it, one request of each class is made to fail."""
    parser.addoption("--whole-matrix", action="store_true", help="make every request fail, in every way and mode")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these are long, and each needs a control plane."""
    for item in items:
        if "tests/faults/" in item.nodeid:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.cluster)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults were tried, and what they did, over all workers."""
    found: Counter[str] = Counter()
    classes: set[str] = set()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == _TALLY and report.when == "teardown":
                    classes |= set(value["classes"])
                    found.update({key: value[key] for key in ("faults", "half_applied", "lost_edits")})
    if found:
        terminalreporter.write_line(f"The classes: {', '.join(sorted(classes))}")
        terminalreporter.write_line(
            f"{found['faults']} faults in {len(classes)} classes, "
            f"{found['half_applied']} half-applied, {found['lost_edits']} lost edits"
        )


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether every request is made to fail, and not one of each class."""
    return bool(request.config.getoption("--whole-matrix", default=False))


@pytest.fixture(scope="session")
def _bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """The bed of one worker, on a cluster of its own: nothing else may touch the policies of others on it."""
    directory = tmp_path_factory.mktemp("bed")
    with running(directory / "plane") as plane, Proxy(plane) as proxy:
        yield Bed.made(plane, proxy, directory)


@pytest.fixture
def bed(_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """A bed that holds BEFORE, with journals of several chunks."""
    monkeypatch.setattr(journal_format, "CHUNK_BYTES", CHUNK_BYTES)
    # What hundreds of runs log would be kept, and passed from the worker.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    _bed.reset()
    yield _bed
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    """The program whose children are killed and frozen."""
    with Runs("tests.faults.runs") as program:
        yield program


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """Counts what the test tries, for the summary; at the end nothing may be wrong."""
    counted = Tally()
    yield counted
    record_property(_TALLY, counted.told())
