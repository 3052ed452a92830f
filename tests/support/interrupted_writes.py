"""Kills a snapshot's writer at each of its steps in turn and judges what it leaves; run as a program of its own.

    python -m tests.support.interrupted_writes DIR exchange|in-place

It is single-threaded, so that it may fork. It prints how many kills there were.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

from renderer import snapshot
from renderer.errors import SnapshotError
from tests.support.policies import cluster_policy, desired, exception, validating_policy

#: What Python tells its audit hooks when a step may change the file system.
_STEPS = ("open", "os.", "shutil.", "ctypes.dlsym")

OLD = (cluster_policy("same"), cluster_policy("changed"), exception("stale"), validating_policy("stale"))
NEW = (cluster_policy("same"), cluster_policy("changed", message="Other."), exception("new", namespace="team"))


def write(directory: Path, *bodies: dict[str, object]) -> None:
    """Write these policies as a snapshot."""
    snapshot.write(directory, snapshot.render_files(desired(*bodies), organization="acme", cluster="prod"))


def tree(directory: Path) -> dict[str, bytes]:
    """Every file of the directory that a reader sees: what is hidden is nobody's manifest."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".rendering" not in path.parts
    }


def killed_at(step: int, directory: Path) -> bool:
    """Write the new snapshot in a child that is killed at that step; False when it ended before."""
    child = os.fork()
    if child == 0:
        count = itertools.count(1)

        def kill(event: str, _arguments: object) -> None:
            if event.startswith(_STEPS) and next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        files = snapshot.render_files(desired(*NEW), organization="acme", cluster="prod")
        sys.addaudithook(kill)
        snapshot.write(directory, files)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main() -> None:
    """Kill at every step, and insist on before or after."""
    root, way = Path(sys.argv[1]), sys.argv[2]
    before, after = root / "before", root / "after"
    write(before, *OLD)
    write(after, *NEW)
    for directory in (before, after):
        (directory / "OWNERS").write_text("somebody else's")
    refused = 0
    for step in itertools.count(1):
        target = root / "target"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(before, target)
        if way == "in-place":
            os.chdir(target)
        killed = killed_at(step, target)
        os.chdir(root)
        if tree(target) not in (tree(before), tree(after)):
            assert way == "in-place", f"half-written at step {step}: {sorted(tree(target))}"
            refused += 1
            try:
                snapshot.read(target)
            except SnapshotError:
                pass
            else:
                raise AssertionError(f"a half-written snapshot was read at step {step}")
        write(target, *NEW)
        assert tree(target) == tree(after), f"not repaired after step {step}"
        assert not (target / ".rendering").exists(), f"left behind after step {step}"
        left = sorted(path.name for path in root.iterdir())
        assert left == ["after", "before", "target"], f"left behind after step {step}: {left}"
        if not killed:
            print(f"{step - 1} kills, {refused} refused until rendered again")
            return


if __name__ == "__main__":
    main()
