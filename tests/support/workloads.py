"""Resources of many kinds, some of which violate about everything that policies ask for and some hardly anything."""

from __future__ import annotations

from renderer.manifest import yamlio
from renderer.manifest.jsontypes import JsonObject

#: By name, with the labels that policies select them by.
NAMESPACES: dict[str, dict[str, str]] = {"shop": {"env": "prod", "team": "shop"}, "lab": {"env": "dev"}}

_GOOD_CONTAINER = """
name: app
image: ghcr.io/acme/app:1.2.3
imagePullPolicy: Always
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 1000
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 100m, memory: 64Mi}}
livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 10}
readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 10}
"""
_BAD_CONTAINER = """
name: app
image: nginx:latest
ports: [{containerPort: 8080, hostPort: 8080}]
securityContext: {privileged: true, runAsUser: 0, capabilities: {add: [SYS_ADMIN]}}
"""
_LABELS = {
    "app": "web",
    "team": "shop",
    "foo": "bar",
    "app.kubernetes.io/name": "web",
    "app.kubernetes.io/instance": "web",
    "app.kubernetes.io/part-of": "shop",
}


def pod_spec(*, good: bool, restart: str = "Always") -> JsonObject:
    """What a Pod runs."""
    documents, _ = yamlio.load_documents((_GOOD_CONTAINER if good else _BAD_CONTAINER).encode(), source="container")
    spec: JsonObject = {"containers": [documents[0].value], "restartPolicy": restart}
    if good:
        security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
        return {**spec, "automountServiceAccountToken": False, "securityContext": security}
    return {
        **spec,
        "hostNetwork": True,
        "hostPID": True,
        "volumes": [{"name": "host", "hostPath": {"path": "/var/run/docker.sock"}}],
    }


def workloads() -> list[JsonObject]:
    """All of them, in both namespaces; nothing of them makes a controller create more."""
    return [
        body
        for namespace in NAMESPACES
        for good in (True, False)
        for body in (*_pods_and_controllers(namespace, good=good), *_others(namespace, good=good))
    ]


def namespaces() -> list[JsonObject]:
    """The namespaces that they are in."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name, labels in NAMESPACES.items()
    ]


def _pods_and_controllers(namespace: str, *, good: bool) -> list[JsonObject]:
    name = "good" if good else "bad"
    labels = _LABELS if good else {"app": "web"}
    metadata = {"name": name, "namespace": namespace, **({"labels": labels} if good else {})}
    template = {"metadata": {"labels": labels}, "spec": pod_spec(good=good)}
    once = {"metadata": {"labels": labels}, "spec": pod_spec(good=good, restart="Never")}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(good=good)},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata,
            "spec": {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": {"spec": {"template": once}}},
        },
    ]


def _others(namespace: str, *, good: bool) -> list[JsonObject]:
    name = "good" if good else "bad"
    metadata = {"name": name, "namespace": namespace, **({"labels": _LABELS} if good else {})}
    port = {"port": 80}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": "web"}, "ports": [port], "type": "ClusterIP" if good else "NodePort"},
        },
    ]
