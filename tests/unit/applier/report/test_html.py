"""What the HTML report holds, as text; how it behaves is tested in a browser."""

from __future__ import annotations

import base64
import hashlib
import html as html_module
import json
import re
from dataclasses import replace

import pytest

from applier.change import Action, Change, Plan, Rehearsed
from applier.report import html
from applier.report.review import Context
from applier.report.validation import Validation
from applier.verdict import Finding, Layer, Verdict
from renderer.errors import Problem
from tests.support import plans
from tests.support.policies import cluster_policy


def page(*changes: Change, verdict: Verdict | None = None) -> str:
    return html.write(plans.reviewed(Plan(changes=changes), verdict or Verdict()), Context())


def test_the_same_plan_gives_the_same_bytes() -> None:
    one, other = (html.write(plans.reviewed(plans.review(), plans.verdict()), Context()) for _ in range(2))
    assert one == other


def test_the_policy_of_the_page_allows_exactly_its_own_style_and_script() -> None:
    text = page()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.replace("&#39;", "'").split("; "))
    for element in ("style", "script"):
        (source,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[f"{element}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy


def test_nothing_but_anchors_of_its_own_and_an_empty_icon_is_linked() -> None:
    text = html.write(replace(plans.reviewed(plans.hostile()), impact=plans.impact()), Context())
    links = re.findall(r'(?<![-\w])(?:href|src|action|srcset|poster)="([^"]*)"', text)
    assert links
    assert {link for link in links if not link.startswith("#")} == {"data:,"}


def test_a_plan_without_changes_says_so() -> None:
    body = cluster_policy()
    text = page(plans.change(body, body, Action.UNCHANGED))
    assert "<h1>No changes: 1 unchanged</h1>" in text
    assert "Nothing is to be changed." in text


def test_an_error_is_told_before_everything_else() -> None:
    named = plans.identity(cluster_policy())
    problem = Problem(source="a.yaml", line=3, policy=str(named), field="spec.rules", message="is wrong")
    finding = Finding(policy=named, layer=Layer.SCHEMA, problem=problem)
    text = page(plans.change(None, cluster_policy()), verdict=Verdict(findings=(finding,)))
    assert "a.yaml:3" in text
    assert text.index("is wrong") < text.index('id="changes"')


def test_what_stands_about_a_change_is_said_beside_it() -> None:
    change = plans.edited("image-registries", lambda spec: spec.update(failurePolicy="Fail"))
    change = replace(change, drifted_by=("kubectl-edit",), rehearsed=Rehearsed.NOT_ASKED, reason="it must be so")
    text = page(change)
    for words in ("It must be so.", "Its spec was also written by kubectl-edit.", "Not dry-run: "):
        assert words in text


def test_a_patch_is_ascii_where_it_would_deceive_and_readable_elsewhere() -> None:
    change = plans.edited("image-registries", lambda spec: spec.update(note="für \u202e alle \u200b"))
    text = page(change)
    (patch,) = re.findall(r'aria-label="JSON Patch[^>]*><code>(.*?)</code>', text, re.DOTALL)
    operations = json.loads(patch.replace("&#34;", '"').replace("&#39;", "'"))
    assert {"op": "add", "path": "/spec/note", "value": "für \u202e alle \u200b"} in operations
    assert "für \\u202e alle \\u200b" in patch


def test_a_huge_policy_is_cut_and_says_so() -> None:
    huge = cluster_policy("huge", annotations={f"key-{number:04}": "value" for number in range(6_000)})
    other = cluster_policy("huge", annotations={f"key-{number:04}": "other" for number in range(6_000)})
    text = page(plans.change(huge, other), plans.change(None, {**huge, "metadata": {**huge["metadata"], "name": "b"}}))
    assert len(text) < 2_000_000
    assert re.search(r"\d+ more rows are not shown here", text)
    assert re.search(r"\d+ more lines are not shown here", text)
    assert "It is too long to be shown here" in text


def test_a_huge_plan_keeps_the_differences_of_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "_MOST_LINES", 100)
    text = html.write(plans.reviewed(plans.review()), Context())
    assert text.count("The difference is not shown") > 0
    first, *_ = re.findall(r'<li id="([^"]+)".*?</li>', text, re.DOTALL)
    assert first == "ClusterPolicy/pod-security-restricted"
    assert text.index('class="diff"') < text.index("The difference is not shown")


def test_where_only_ascii_can_be_written_the_page_is_the_same_and_its_script_still_runs() -> None:
    review = plans.reviewed(plans.review())
    ascii_only = html.write(review, Context(ascii=True))
    assert ascii_only.isascii()
    assert html_module.unescape(ascii_only) == html_module.unescape(html.write(review, Context()))
    for element in ("style", "script"):
        (source,) = re.findall(rf"<{element}>(.*?)</{element}>", ascii_only, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in ascii_only


def test_without_differences_neither_they_nor_patches_are_in_it() -> None:
    text = html.write(plans.reviewed(plans.review()), Context(diffs=False))
    assert 'class="diff"' not in text
    assert "JSON Patch" not in text
    assert "Rule restricted no longer denies requests" in text


def test_what_validation_found_is_a_page_of_findings() -> None:
    named = plans.identity(cluster_policy())
    problem = Problem(source="a.yaml", line=3, policy=str(named), field="spec.rules", message="is <b>wrong</b>")
    verdict = Verdict(findings=(Finding(policy=named, layer=Layer.SCHEMA, problem=problem),))
    other = plans.identity(cluster_policy("other"))
    found = Validation(policies=(named, other), verdict=verdict, unchecked=frozenset({other}), by_cli=False)
    review = replace(plans.reviewed(Plan(changes=()), verdict), validation=found)
    text = html.write(review, Context())
    for words in ("0 of 2 policies are valid", "is &lt;b&gt;wrong&lt;/b&gt;", "was not asked", "Unchecked"):
        assert words in text
    assert 'id="changes"' not in text
