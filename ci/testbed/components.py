"""Every program of the control plane and the flags it is run with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ci.testbed.pki import Credentials
from ci.testbed.supervisor import Component

LOOPBACK: Final = "127.0.0.1"
#: etcd wants an address for its peers; it has none here, so nobody ever connects to this one.
_NO_PEER: Final = f"http://{LOOPBACK}:2380"

AUDIT_POLICY: Final = """\
# Who did what to which object, once for each request that was answered; of policies and Leases, what was answered too.
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: RequestResponse
  verbs: [create, update, patch, delete]
  resources:
  - group: kyverno.io
  - group: policies.kyverno.io
  - group: admissionregistration.k8s.io
  - group: coordination.k8s.io
    resources: [leases]
- level: Metadata
"""

#: What the admission controller's Deployment would set in its pod.
_KYVERNO_ENVIRONMENT: Final = {
    "INIT_CONFIG": "kyverno",
    "METRICS_CONFIG": "kyverno-metrics",
    "KYVERNO_NAMESPACE": "kyverno",
    "KYVERNO_POD_NAME": "kyverno-local",
    "KYVERNO_SERVICEACCOUNT_NAME": "kyverno-admission-controller",
    "KYVERNO_ROLE_NAME": "kyverno:admission-controller",
    "KYVERNO_SVC": "kyverno-svc",
    "KYVERNO_DEPLOYMENT": "kyverno-admission-controller",
}


def etcd(data: Path) -> Component:
    """The store. It does not wait for the disk: a test cluster need not survive the machine."""
    return Component(
        name="etcd",
        ports=1,
        timeout_s=30,
        arguments=lambda ports: [
            "--name=testbed",
            f"--data-dir={data}",
            f"--listen-client-urls=http://{LOOPBACK}:{ports[0]}",
            f"--advertise-client-urls=http://{LOOPBACK}:{ports[0]}",
            f"--listen-peer-urls=http://{LOOPBACK}:0",
            f"--initial-advertise-peer-urls={_NO_PEER}",
            f"--initial-cluster=testbed={_NO_PEER}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    )


def apiserver(etcd_port: int, credentials: Credentials, audit: Mapping[str, Path] | None = None) -> Component:
    """The API. `audit`, when given, names the `policy` file and the `log` that it writes."""
    audited = [f"--audit-policy-file={audit['policy']}", f"--audit-log-path={audit['log']}"] if audit else []
    return Component(
        name="kube-apiserver",
        ports=1,
        timeout_s=120,
        arguments=lambda ports: [
            f"--etcd-servers=http://{LOOPBACK}:{etcd_port}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={ports[0]}",
            f"--tls-cert-file={credentials.certificate('server')}",
            f"--tls-private-key-file={credentials.key('server')}",
            f"--client-ca-file={credentials.authority}",
            f"--token-auth-file={credentials.token_file}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={credentials.service_account_key}",
            f"--service-account-signing-key-file={credentials.service_account_key}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--profiling=false",
            *audited,
        ],
    )


def _delegated(kubeconfig: Path, credentials: Credentials, port: int) -> list[str]:
    """The flags that controller-manager and scheduler have in common."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        f"--tls-cert-file={credentials.certificate('server')}",
        f"--tls-private-key-file={credentials.key('server')}",
        "--leader-elect=false",
    ]


def controller_manager(kubeconfig: Path, credentials: Credentials) -> Component:
    """The controllers: Jobs, CronJobs, service accounts, garbage collection, aggregated ClusterRoles."""
    return Component(
        name="kube-controller-manager",
        ports=1,
        timeout_s=60,
        arguments=lambda ports: [
            *_delegated(kubeconfig, credentials, ports[0]),
            f"--service-account-private-key-file={credentials.service_account_key}",
            f"--root-ca-file={credentials.authority}",
            "--use-service-account-credentials=true",
            # each controller asks for its own token before any starts: 4 s at the usual 20 requests a second
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        ],
    )


def scheduler(kubeconfig: Path, credentials: Credentials) -> Component:
    """Gives pods their node."""
    return Component(
        name="kube-scheduler",
        ports=1,
        timeout_s=60,
        arguments=lambda ports: _delegated(kubeconfig, credentials, ports[0]),
    )


def kwok(kubeconfig: Path, stages: Path) -> Component:
    """Plays the node: it makes pods run and complete as the `stages` say. It exits without any."""
    return Component(
        name="kwok",
        ports=1,
        timeout_s=60,
        arguments=lambda ports: [
            f"--kubeconfig={kubeconfig}",
            f"--config={stages}",
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=40",
            f"--node-ip={LOOPBACK}",
            f"--node-port={ports[0]}",
            "--cidr=10.244.0.0/24",
            f"--server-address={LOOPBACK}:{ports[0]}",
        ],
    )


def kyverno(kubeconfig: Path, scratch: Path) -> Component:
    """Kyverno's admission controller, out of the cluster; without its rate limits, which slow each write."""
    account = "system:serviceaccount:kyverno"
    return Component(
        name="kyverno-controller",
        ports=2,
        timeout_s=120,
        environment={**_KYVERNO_ENVIRONMENT, "TUF_ROOT": str(scratch)},
        arguments=lambda ports: [
            f"--kubeconfig={kubeconfig}",
            f"--serverIP={LOOPBACK}:{ports[0]}",
            f"--webhookServerHost={LOOPBACK}",
            f"--webhookServerPort={ports[0]}",
            "--caSecretName=kyverno-svc.kyverno.svc.kyverno-tls-ca",
            "--tlsSecretName=kyverno-svc.kyverno.svc.kyverno-tls-pair",
            f"--backgroundServiceAccountName={account}:kyverno-background-controller",
            f"--reportsServiceAccountName={account}:kyverno-reports-controller",
            f"--metricsHost={LOOPBACK}",
            f"--metricsPort={ports[1]}",
            "--controllerRuntimeMetricsAddress=0",
            "--admissionReports=false",
            # Off by default: without it, Kyverno takes exceptions and processes none.
            "--enablePolicyException=true",
            "--exceptionNamespace=*",
            "--generateValidatingAdmissionPolicy=false",
            "--registryCredentialHelpers=",
            "--tlsKeyAlgorithm=ECDSA",
            "--clientRateLimitQPS=1000",
            "--clientRateLimitBurst=2000",
            "--omitEvents=PolicyApplied,PolicySkipped",
            "--loggingFormat=text",
            "--disableLogColor",
            "--v=2",
        ],
    )
