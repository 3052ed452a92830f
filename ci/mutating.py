"""Makes mistakes in the modules that decide, one at a time (mutmut), and says which their tests do not find.

Each module is mutated in a copy of the project, with only the tests that are about it: a mistake takes less than a
second. A line whose mutants do the same as it does is marked `# pragma: no mutate`, with the reason.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_COPIES: Final = ROOT / ".mutation"
_MUTMUT: Final = str(ROOT / ".venv" / "bin" / "mutmut")
_NOT_FOUND: Final = (": survived", ": no tests")
_COPIED: Final = ("renderer", "applier", "tests", "policies", "ci", "README.md", "pyproject.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """What is mutated, and the tests that have to find it.

    Where its tests leave nothing in caches, they are loaded once for all mutants, which is several times as fast; else
    what they left in the first run would answer for a mutant.
    """

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    caches: bool = False


_UNIT: Final = "tests/unit/applier"
MODULES: Final = {
    "diff": Module(
        sources=("applier/diff.py",),
        tests=(f"{_UNIT}/test_diff.py", f"{_UNIT}/saved_plan/test_saved_plan.py"),
    ),
    "plan": Module(sources=("applier/plan.py",), tests=(f"{_UNIT}/test_plan*.py",)),
    "guards": Module(
        sources=("applier/guards/refusals.py",), tests=(f"{_UNIT}/guards/test_refusals.py", f"{_UNIT}/test_plan.py")
    ),
    "own writes": Module(sources=("applier/guards/own_writes.py",), tests=(f"{_UNIT}/guards/test_own_writes.py",)),
    "self-block": Module(sources=("applier/guards/self_block.py",), tests=(f"{_UNIT}/guards/test_self_block.py",)),
    "rights": Module(sources=("applier/guards/rights.py",), tests=(f"{_UNIT}/guards/test_rights.py",)),
    "weakening": Module(sources=("applier/guards/weakening.py",), tests=(f"{_UNIT}/guards/test_weakening.py",)),
    "order": Module(
        sources=("applier/transaction/order.py", "applier/transaction/references.py"),
        tests=(f"{_UNIT}/transaction/test_order.py", f"{_UNIT}/transaction/test_references.py"),
    ),
    "standing": Module(sources=("applier/transaction/standing.py",), tests=(f"{_UNIT}/transaction/test_standing.py",)),
    "writes": Module(sources=("applier/transaction/writes.py",), tests=(f"{_UNIT}/transaction/test_writes.py",)),
    "verification": Module(
        sources=("applier/transaction/verification.py",), tests=(f"{_UNIT}/transaction/test_verification.py",)
    ),
    "ownership": Module(
        sources=("renderer/manifest/ownership.py",),
        tests=("tests/unit/renderer/test_render.py", f"{_UNIT}/test_plan.py", f"{_UNIT}/test_diff.py"),
    ),
    # Its tables of fields are made on import, before a mutant is chosen, so that mutants of them do nothing.
    "effect": Module(
        sources=tuple(
            f"renderer/manifest/effect/{name}.py"
            for name in ("comparison", "covering", "enforcement", "matching", "units")
        ),
        tests=("tests/unit/manifest/test_[ec]*.py", f"{_UNIT}/guards"),
        caches=True,
    ),
}


#: Lines of mutants that do what the original does, and why.
EQUIVALENT: Final = {
    'expression = str(what.get("expression", None)) if isinstance(what, dict) else ""': "None is no expression either",
    'expression = str(what.get("expression", )) if isinstance(what, dict) else ""': "None is no expression either",
    'expression = str(what.get("expression", "XXXX")) if isinstance(what, dict) else ""': "XXXX sets nothing either",
    'expression = str(what.get("expression", "")) if isinstance(what, dict) else "XXXX"': "XXXX sets nothing either",
    'keys: object = ""': "neither None nor text is a list of keys",
    'annotations[MANAGED_KEYS] = json.dumps(record, separators=(",", ":"), ensure_ascii=None)': "None is as false",
    'return str(entry.get(key, None)) if isinstance(entry, dict) else ""': "no policy has the name None",
    'return str(entry.get(key, )) if isinstance(entry, dict) else ""': "no policy has the name None",
    'return str(entry.get(key, "XXXX")) if isinstance(entry, dict) else ""': "names are in small letters",
    'return str(entry.get(key, "")) if isinstance(entry, dict) else "XXXX"': "names are in small letters",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How many mutants there were, what those change that no test found, and how many are alike or say it otherwise.

    A mutant of wording has another case, or XX, in a text: what the text has to say is tested, not how.
    """

    total: int
    left: tuple[str, ...]
    alike: int
    wording: int


def mutate(name: str, module: Module) -> Outcome:
    """Make a copy of the project, and every mistake in it in turn. Raises CalledProcessError."""
    copy = _COPIES / name
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for part in _COPIED:
        source = ROOT / part
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, copy / part, ignore=ignored) if source.is_dir() else shutil.copy(source, copy)
    with (copy / "pyproject.toml").open("a") as file:
        file.write(_configuration(module))
    subprocess.run((_MUTMUT, "run", "--max-children", "1"), cwd=copy, check=True, stdout=subprocess.DEVNULL)
    subprocess.run((_MUTMUT, "export-cicd-stats"), cwd=copy, check=True, stdout=subprocess.DEVNULL)
    counts = json.loads((copy / "mutants" / "mutmut-cicd-stats.json").read_text())
    lines = subprocess.run((_MUTMUT, "results"), cwd=copy, check=True, capture_output=True, text=True).stdout
    mutants = [line.partition(":")[0].strip() for line in lines.splitlines() if line.endswith(_NOT_FOUND)]
    changes = {mutant: _change(copy, mutant) for mutant in mutants}
    alike = {mutant for mutant, (_, after) in changes.items() if after in EQUIVALENT}
    wording = {mutant for mutant, (before, after) in changes.items() if _plain(before) == _plain(after)} - alike
    left = [
        f"{mutant}\n  - {before}\n  + {after}"
        for mutant, (before, after) in changes.items()
        if mutant not in alike | wording
    ]
    return Outcome(total=counts["total"], left=tuple(left), alike=len(alike), wording=len(wording))


def _configuration(module: Module) -> str:
    tests = [str(path.relative_to(ROOT)) for pattern in module.tests for path in sorted(ROOT.glob(pattern))]
    return f"""
[tool.mutmut]
source_paths = ["renderer", "applier"]
only_mutate = {json.dumps(module.sources)}
also_copy = ["policies", "ci", "README.md"]
pytest_add_cli_args = ["-q", "-x", "-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {json.dumps(tests)}
use_setproctitle = false
process_isolation = "{"forkserver" if module.caches else "fork"}"
"""


def _change(copy: Path, mutant: str) -> tuple[str, str]:
    """The lines that a mutant takes away, and those that it puts there."""
    shown = subprocess.run((_MUTMUT, "show", mutant), cwd=copy, check=True, capture_output=True, text=True).stdout
    lines = [line for line in shown.splitlines() if line[:3] not in {"+++", "---"}]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return before, after


def _plain(text: str) -> str:
    return text.replace("XX", "").lower()


def main() -> int:
    """Read the arguments and run; 1 when a mutant is left."""
    parser = argparse.ArgumentParser(prog="ci/mutate", description="Mutate what decides, and say what no test finds.")
    parser.add_argument("module", nargs="*", metavar="MODULE", help=f"some of {', '.join(MODULES)} (all)")
    arguments = parser.parse_args()
    if unknown := set(arguments.module) - MODULES.keys():
        parser.error(f"there is no module {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    names = arguments.module or list(MODULES)
    complete = True
    for name in names:
        found = mutate(name, MODULES[name])
        print(*found.left, sep="\n")
        spared = found.alike + found.wording + len(found.left)
        print(
            f"{name}: {found.total} mutants, {found.total - spared} found; of the others {found.alike} are alike, "
            f"{found.wording} wording, {len(found.left)} left",
            flush=True,
        )
        complete = complete and not found.left
    return 0 if complete else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
