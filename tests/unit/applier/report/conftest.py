"""Reviews to show, each made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from applier.report.review import Review
from tests.support import reviews


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Review:
    # From there, so that no report names a directory of this very run.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("plan"))
        return reviews.a_plan(Path())


@pytest.fixture(scope="session")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Review:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("validation"))
        return reviews.a_validation(Path())


@pytest.fixture(scope="session")
def impacted(planned: Review) -> Review:
    return reviews.with_impact(planned)
