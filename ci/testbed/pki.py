"""The keys, certificates and tokens of one cluster, and the kubeconfig files made of them."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trustme
import yaml

from renderer.manifest.jsontypes import JsonObject

#: User name -> group. `viewer` and `worker` have only what RBAC gives them.
TOKEN_USERS: Final[Mapping[str, str]] = {"admin": "system:masters", "viewer": "viewers", "worker": "workers"}
#: Client certificates: file name -> user, group.
_CLIENTS: Final = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", "testbed"),
    "kube-scheduler": ("system:kube-scheduler", "testbed"),
}
_SERVER_NAMES: Final = (
    "127.0.0.1",
    "10.0.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody but its owner can read, not even for a moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What one cluster's servers and clients prove themselves with, as files under `directory`."""

    directory: Path
    tokens: Mapping[str, str] = field(repr=False)

    @property
    def authority(self) -> Path:
        """The CA's certificate."""
        return self.directory / "ca.crt"

    def certificate(self, name: str) -> Path:
        """The certificate of `server` or of a client."""
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        """The private key of `server` or of a client."""
        return self.directory / f"{name}.key"

    @property
    def service_account_key(self) -> Path:
        """The key that signs and verifies service account tokens."""
        return self.directory / "service-accounts.key"

    @property
    def token_file(self) -> Path:
        """The apiserver's list of tokens."""
        return self.directory / "tokens.csv"


def create(directory: Path) -> Credentials:
    """Make a new authority and everything that it signs; nothing is shared between two clusters."""
    directory.mkdir(mode=0o700)
    tokens = {user: secrets.token_hex(16) for user in TOKEN_USERS}
    credentials = Credentials(directory=directory, tokens=tokens)
    authority = trustme.CA(organization_name="testbed", organization_unit_name="testbed")
    credentials.authority.write_bytes(authority.cert_pem.bytes())
    leaves = {"server": authority.issue_cert(*_SERVER_NAMES, common_name="kube-apiserver")}
    for name, (user, group) in _CLIENTS.items():
        # the host name is for Go, which refuses a certificate whose list of names is empty
        leaves[name] = authority.issue_cert("localhost", common_name=user, organization_name=group)
    for name, leaf in leaves.items():
        credentials.certificate(name).write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        write_private(credentials.key(name), leaf.private_key_pem.bytes())
    write_private(credentials.service_account_key, trustme.CA().private_key_pem.bytes())
    rows = [f'{tokens[user]},{user},{user},"{group}"\n' for user, group in TOKEN_USERS.items()]
    write_private(credentials.token_file, "".join(rows).encode())
    return credentials


def kubeconfig(server: str, authority: bytes, user: Mapping[str, str]) -> bytes:
    """A kubeconfig that needs no other file, for `user` (an entry's `user` block)."""
    authority_data = base64.b64encode(authority).decode()
    document: JsonObject = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "testbed",
                "cluster": {"server": server, "certificate-authority-data": authority_data},
            }
        ],
        "users": [{"name": "user", "user": dict(user)}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "user"}}],
        "current-context": "testbed",
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def token_user(token: str) -> dict[str, str]:
    """The `user` block of an account that shows a token."""
    return {"token": token}


def certificate_user(credentials: Credentials, name: str) -> dict[str, str]:
    """The `user` block of an account that shows a client certificate."""
    return {
        "client-certificate-data": base64.b64encode(credentials.certificate(name).read_bytes()).decode(),
        "client-key-data": base64.b64encode(credentials.key(name).read_bytes()).decode(),
    }
