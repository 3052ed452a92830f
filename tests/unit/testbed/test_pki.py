"""Credentials: new for each cluster, readable by nobody else."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import yaml

from ci.testbed import pki


def test_nothing_is_shared_between_clusters(tmp_path: Path) -> None:
    one, two = pki.create(tmp_path / "one"), pki.create(tmp_path / "two")
    assert not set(one.tokens.values()) & set(two.tokens.values())
    same = [
        file.name for file in one.directory.iterdir() if file.read_bytes() == (two.directory / file.name).read_bytes()
    ]
    assert same == []


def test_keys_and_tokens_are_private(tmp_path: Path) -> None:
    credentials = pki.create(tmp_path / "pki")
    secret = [credentials.token_file, credentials.service_account_key, credentials.key("admin")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in secret} == {0o600}
    assert all(token not in repr(credentials) for token in credentials.tokens.values())


def test_kubeconfig_needs_no_other_file(tmp_path: Path) -> None:
    credentials = pki.create(tmp_path / "pki")
    user = pki.certificate_user(credentials, "admin")
    document = yaml.safe_load(pki.kubeconfig("https://127.0.0.1:1", b"authority", user))
    (cluster,), (account,) = document["clusters"], document["users"]
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == b"authority"
    assert base64.b64decode(account["user"]["client-key-data"]).startswith(b"-----BEGIN")
    assert str(tmp_path) not in yaml.safe_dump(document)
