"""Fetching policies: the bytes as Insights sends them, and what is no answer of Insights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from renderer.errors import ConfigurationError, NotPermitted, RemoteError
from renderer.insights.policies import fetch_policies
from renderer.insights.transport import Transport
from tests.support.insights import Fault, InsightsStandIn
from tests.unit.insights.conftest import POLICIES, config_for

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig


def test_gives_the_answers_bytes(insights: InsightsStandIn, transport: Transport, config: InsightsConfig) -> None:
    assert fetch_policies(transport, config) == POLICIES.encode()
    (request,) = insights.requests
    assert request.method == "GET"
    assert request.path == "/v0/organizations/acme/clusters/prod/kyverno-policies/with-app-groups-applied/yaml"
    assert request.call == "policies"


def test_names_reach_the_server_as_they_are(insights: InsightsStandIn, transport: Transport) -> None:
    insights.publish("my/cluster ü", "a: 1\n")
    assert fetch_policies(transport, config_for(insights.url, cluster="my/cluster ü")) == b"a: 1\n"
    assert insights.requests[0].cluster == "my/cluster ü"


def test_an_empty_answer_is_given_as_it_is(
    insights: InsightsStandIn, transport: Transport, config: InsightsConfig
) -> None:
    insights.publish("prod", "")
    assert fetch_policies(transport, config) == b""


def test_a_large_answer_is_whole(insights: InsightsStandIn, transport: Transport, config: InsightsConfig) -> None:
    policies = POLICIES * 50_000
    insights.publish("prod", policies)
    assert fetch_policies(transport, config) == policies.encode()


def test_a_page_for_people_is_an_error(insights: InsightsStandIn, transport: Transport, config: InsightsConfig) -> None:
    insights.fail(Fault.HTML_PAGE)
    with pytest.raises(RemoteError, match="answered with an HTML page") as raised:
        fetch_policies(transport, config)
    assert insights.url.removeprefix("http://") in str(raised.value)
    assert "Log in" not in str(raised.value)
    assert len(insights.requests) == 1


@pytest.mark.parametrize("page", ["<!doctype html><p>x", "\n  <!DOCTYPE HTML>", "\ufeff<html lang=en>", "<HTML>"])
def test_a_page_is_known_by_its_start_too(
    insights: InsightsStandIn, transport: Transport, config: InsightsConfig, page: str
) -> None:
    insights.publish("prod", page)
    with pytest.raises(RemoteError, match="HTML page"):
        fetch_policies(transport, config)


def test_a_wrong_token_is_refused(insights: InsightsStandIn) -> None:
    wrong = config_for(insights.url, token="wr0ng")
    with (
        Transport(wrong, environ={}) as other,
        pytest.raises(NotPermitted, match=r"answered 401, so it does not accept the token") as raised,
    ):
        fetch_policies(other, wrong)
    assert "wr0ng" not in str(raised.value)


def test_an_unknown_cluster_is_a_wrong_setting(insights: InsightsStandIn, transport: Transport) -> None:
    with pytest.raises(ConfigurationError) as raised:
        fetch_policies(transport, config_for(insights.url, cluster="prd"))
    assert "it knows no cluster 'prd' of organization 'acme'" in str(raised.value)
    assert "FAIRWINDS_CLUSTER (--cluster)" in str(raised.value)
    assert len(insights.requests) == 1
