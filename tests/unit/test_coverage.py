"""What tests measured adds up over runs, and nothing of it is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import CoverageData

from ci import testing


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(testing, "_MEASURED", tmp_path)
    return tmp_path


def measure(folder: Path, name: str, *lines: int) -> None:
    data = CoverageData(str(folder / name))
    data.add_arcs({"policy.py": [(line, line + 1) for line in lines]})
    data.write()


def taken(folder: Path) -> list[int]:
    data = CoverageData(str(folder / "data"))
    data.read()
    return sorted(line for line, _ in data.arcs("policy.py") or ())


def test_what_processes_measured_adds_to_what_was_measured_before(measured: Path) -> None:
    measure(measured, "data.one", 1)
    testing._combine()
    measure(measured, "data.two", 2)
    measure(measured, "data.three", 3)
    (measured / "data.running").touch()
    testing._combine()
    assert taken(measured) == [1, 2, 3]
    assert sorted(path.name for path in measured.iterdir()) == ["data", "data.running"]


def test_what_cannot_be_added_up_stays(measured: Path) -> None:
    measure(measured, "data", 1)
    lines = CoverageData(str(measured / "data.other"))
    lines.add_lines({"policy.py": [2]})  # lines and branches can't be put together
    lines.write()
    (measured / "combined").write_text("of a run that was cut off")
    testing._combine()
    assert taken(measured) == [1]
    assert (measured / "data.other").exists()
