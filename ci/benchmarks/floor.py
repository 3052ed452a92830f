"""The least that an in-sync plan can cost: import the Kubernetes client, send the same LISTs, parse the same bytes.

    python -m ci.benchmarks.floor SNAPSHOT GROUP/VERSION/PLURAL...

KUBECONFIG names the cluster.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from kubernetes import client, config


def main() -> None:
    """Read, parse and throw away."""
    snapshot, *collections = sys.argv[1:]
    config.load_kube_config()
    api = client.ApiClient()
    for collection in collections:
        token = ""
        while True:
            address = f"{api.configuration.host}/apis/{collection}"
            page = api.rest_client.pool_manager.request("GET", address, fields={"limit": "500", "continue": token})
            token = json.loads(page.data)["metadata"].get("continue", "")
            if not token:
                break
    for file in sorted(Path(snapshot).rglob("*.yaml")):
        yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)


if __name__ == "__main__":
    main()
