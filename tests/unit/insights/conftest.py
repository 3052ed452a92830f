"""What the tests of the client share: a stand-in for Insights, and a transport to it that waits briefly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina

from renderer.insights.config import InsightsConfig
from renderer.insights.transport import Limits, Transport
from tests.support.insights import InsightsStandIn

TOKEN = "s3cr3t-t0k3n"
POLICIES = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: one\n"

#: For the tests that run into them; no good answer needs to come within these.
BRIEF = Limits(read_seconds=0.1, request_seconds=0.2)


def config_for(host: str, *, cluster: str = "prod", token: str = TOKEN) -> InsightsConfig:
    return InsightsConfig.of(host=host, organization="acme", cluster=cluster, token=token, insecure_http=True)


@pytest.fixture
def insights() -> Iterator[InsightsStandIn]:
    with InsightsStandIn(token=TOKEN, organization="acme", clusters=["prod", "my/cluster ü"]) as stand_in:
        stand_in.publish("prod", POLICIES)
        yield stand_in


@pytest.fixture
def config(insights: InsightsStandIn) -> InsightsConfig:
    return config_for(insights.url)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Retry at once, as often as the limits say."""
    with stamina.set_testing(True, attempts=1000, cap=True):
        yield


@pytest.fixture
def transport(config: InsightsConfig, request: pytest.FixtureRequest) -> Iterator[Transport]:
    request.getfixturevalue("no_waiting")
    with Transport(config, environ={}) as made:
        yield made
