"""Makes the shipped set of schemas: what the pinned API server publishes with the pinned Kyverno's CRDs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import click

from applier import offline_schemas
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.offline_schemas import SchemaSet
from ci.testbed import paths, toolchain
from ci.testbed.controlplane import ControlPlane
from renderer.commandline import run

DIRECTORY: Final = paths.ROOT / "applier" / "schemas"
_NOTICE: Final = """\
schemas.json.gz holds parts of the OpenAPI v3 documents that kube-apiserver publishes, without their descriptions:

- of the kinds of kyverno.io and policies.kyverno.io, from the CustomResourceDefinitions of
  Kyverno {kyverno}, Copyright The Kyverno Authors;
- of the policy kinds of admissionregistration.k8s.io, and of the types that they refer to, from
  Kubernetes {kubernetes}, Copyright The Kubernetes Authors.

Both are licensed under the Apache License, Version 2.0, as is this project (see LICENSE). This product includes
software developed by the Kyverno project (kyverno.io) and its contributors. `ci/schemas` makes the file.
"""


def notice() -> str:
    """Whose the schemas are, in the pinned versions."""
    return _NOTICE.format(kyverno=_version(toolchain.KYVERNO), kubernetes=_version(toolchain.KUBERNETES))


def published(kubeconfig: Path) -> SchemaSet:
    """What that cluster of the test bed publishes, in every version that it serves."""
    with tempfile.TemporaryDirectory() as cache:
        cluster = KubernetesCluster(Connection.open(kubeconfig=str(kubeconfig)), cache=Path(cache))
        origin = f"Kyverno {_version(toolchain.KYVERNO)} and Kubernetes {_version(toolchain.KUBERNETES)}"
        return offline_schemas.published(cluster, origin=origin)


def _version(module: toolchain.Module) -> str:
    return module.version.removeprefix("v")


@click.command("ci/schemas")
def schemas() -> None:
    """Make applier/schemas anew from the pinned Kubernetes and Kyverno, on a control plane of its own.

    To be run after their pins in ci/toolchain were changed. The same pins give the same bytes; a test fails when what
    is shipped is not what this makes.
    """
    with tempfile.TemporaryDirectory() as directory, ControlPlane.start(Path(directory) / "cluster") as plane:
        made = published(plane.kubeconfig)
    offline_schemas.write(DIRECTORY, made)
    (DIRECTORY / "NOTICE").write_text(notice(), encoding="utf-8")
    size = (DIRECTORY / offline_schemas.FILE).stat().st_size
    click.echo(f"{len(made.resources)} kinds in {len(made.documents)} group versions of {made.origin}: {size} bytes")


if __name__ == "__main__":
    sys.exit(run(schemas))
