"""The HTML report as people meet it, in a real Chromium."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from applier.report import html
from applier.report.review import Context
from tests.browser.conftest import Elsewhere, Reader
from tests.support import plans

pytestmark = pytest.mark.browser

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
NARROWEST = {"width": 320, "height": 568}
WEAKENED = "ClusterPolicy/pod-security-restricted"


@pytest.fixture(scope="module")
def review() -> str:
    review = plans.reviewed(plans.review(), plans.verdict(), commit="3f9a1c07d2b45e68")
    return html.write(replace(review, impact=plans.impact()), Context())


@pytest.fixture(scope="module")
def hostile() -> str:
    return html.write(
        plans.reviewed(plans.hostile(), where=f"against {plans.HOSTILE[0]}", commit=plans.HOSTILE[3]), Context()
    )


def policy(page: Page, name: str) -> Locator:
    return page.locator(f'.policies > li[id="{name}"]')


def shown(page: Page) -> list[str]:
    return [one.get_attribute("id") or "" for one in page.locator(".policies > li:visible").all()]


# --- what it says ------------------------------------------------------------------------------------


def test_the_page_says_what_changes_the_worst_first(reader: Reader, review: str) -> None:
    page = reader.open(review)
    expect(page).to_have_title("Policy plan: 2 to create, 5 to update, 1 to delete, 3 unchanged, 1 refused")
    expect(page.get_by_role("heading", level=1)).to_have_text(
        "2 to create, 5 to update, 1 to delete, 3 unchanged, 1 refused"
    )
    expect(page.locator("header")).to_contain_text("3f9a1c07d2b4")
    attention = page.get_by_role("region", name="Needs attention")
    for words in ("exists that Insights does not own", "--adopt", "image-registries.yaml:43", "--allow-weaken"):
        expect(attention).to_contain_text(words)
    risks = page.get_by_role("region", name="Risk").locator("tbody .badge").all_text_contents()
    assert risks[:3] == ["Weakens"] * 3
    assert risks[-1] == "No effect"
    expect(page.get_by_role("rowheader", name="Starts enforcing")).to_be_visible()
    assert shown(page)[0] == WEAKENED
    assert shown(page)[-1] == "ValidatingPolicy/pod-sysctls"
    expect(page.get_by_role("region", name="Impact").locator("tbody tr")).to_have_count(3)
    expect(page.get_by_role("region", name="Impact")).to_contain_text(
        "gateways.example.org: this account may not list them"
    )


def test_a_difference_stands_side_by_side_with_the_changed_words_marked(reader: Reader, review: str) -> None:
    page = reader.open(review, fragment=f"#{WEAKENED}")
    table = policy(page, WEAKENED).get_by_role("table")
    assert table.get_by_role("columnheader").all_text_contents() == ["Before", "After"]
    assert table.locator("mark").all_text_contents() == ["Enforce", "Audit", "takes", "should take"]
    action = table.locator("tr:not(.same)", has_text="failureAction")
    before, after = (cell.bounding_box() for cell in action.locator("td").all())
    assert before
    assert after
    assert before["y"] == after["y"]
    assert before["x"] + before["width"] <= after["x"] + 1
    expect(table.locator(".place").first).to_have_text(
        "spec › rules › restricted › exclude › any › [0] › resources › namespaces"
    )


def test_the_patch_is_json_that_can_be_taken_out(reader: Reader, review: str) -> None:
    page = reader.open(review, fragment=f"#{WEAKENED}")
    patch = policy(page, WEAKENED).locator("details.patch")
    patch.locator("summary").click()
    operations = page.evaluate("element => JSON.parse(element.textContent)", patch.locator("code").element_handle())
    expected = {"op": "replace", "path": "/spec/rules/0/validate/failureAction", "value": "Audit"}
    assert expected in operations


# --- finding one of many -----------------------------------------------------------------------------


def test_filters_narrow_the_list_and_say_how_many_are_left(reader: Reader, review: str) -> None:
    page = reader.open(review)
    status = page.get_by_role("status")
    expect(status).to_have_text("9 of 9 shown")
    update = page.get_by_role("button", name="Update 5")
    update.click()
    expect(status).to_have_text("5 of 9 shown")
    expect(update).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Weakens").click()
    assert shown(page) == [WEAKENED]
    page.get_by_role("button", name="Delete 1").click()
    assert shown(page) == [WEAKENED, "ValidatingPolicy/service-external-names"]
    page.get_by_label("Kind").select_option("ClusterPolicy")
    assert shown(page) == [WEAKENED]
    page.get_by_role("button", name="Clear filters").click()
    expect(status).to_have_text("9 of 9 shown")
    expect(page.get_by_role("searchbox")).to_be_focused()
    expect(update).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("POD-SECURITY restricted", WEAKENED),
        ("exempts resources", "PolicyException.policies.kyverno.io/kyverno/node-exporter"),
        ("ghcr.io/acme", "ValidatingPolicy/image-registries"),
    ],
    ids=["a name", "an effect", "a line of the difference"],
)
def test_the_search_finds_a_policy_by(reader: Reader, review: str, words: str, found: str) -> None:
    page = reader.open(review)
    page.get_by_role("searchbox", name="Search").fill(words)
    expect(page.get_by_role("status")).to_have_text("1 of 9 shown")
    assert shown(page) == [found]


def test_a_search_that_finds_nothing_says_so_and_can_be_taken_back(reader: Reader, review: str) -> None:
    page = reader.open(review)
    page.get_by_role("searchbox").fill("no such thing")
    expect(page.get_by_text("No change matches.")).to_be_visible()
    page.locator(".nothing").get_by_role("button", name="Clear filters").click()
    expect(page.get_by_role("status")).to_have_text("9 of 9 shown")
    expect(page.get_by_text("No change matches.")).to_be_hidden()


def test_everything_can_be_opened_and_closed_at_once_as_far_as_it_is_shown(reader: Reader, review: str) -> None:
    page = reader.open(review)
    page.get_by_role("button", name="Create 2").click()
    page.get_by_role("button", name="Expand all").click()
    expect(page.locator(".policies > li > details[open]")).to_have_count(2)
    page.get_by_role("button", name="Collapse all").click()
    expect(page.locator(".policies > li > details[open]")).to_have_count(0)


def test_a_risk_leads_to_its_policy_even_when_a_filter_hides_it(reader: Reader, review: str) -> None:
    page = reader.open(review)
    page.get_by_role("button", name="Create 2").click()
    page.get_by_role("region", name="Risk").get_by_role("link", name=WEAKENED).first.click()
    expect(policy(page, WEAKENED).get_by_role("table")).to_be_visible()
    expect(policy(page, WEAKENED).locator("> details > summary")).to_be_focused()


# --- for everybody -----------------------------------------------------------------------------------


def test_the_keyboard_reaches_everything(reader: Reader, review: str) -> None:
    page = reader.open(review)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the changes")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("pod-s")
    expect(page.get_by_role("status")).to_have_text("2 of 9 shown")
    summaries = page.locator(".policies > li:visible > details > summary")
    summaries.last.focus()
    page.keyboard.press("ArrowUp")
    expect(summaries.first).to_be_focused()
    page.keyboard.press("Enter")
    expect(policy(page, WEAKENED).get_by_role("table")).to_be_visible()
    page.keyboard.press("Tab")
    expect(policy(page, WEAKENED).locator(".patch summary")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("End")
    expect(summaries.last).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(summaries.last).to_be_focused()
    page.keyboard.press("Home")
    expect(summaries.first).to_be_focused()


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(reader: Reader, review: str, scheme: Any, viewport: Any) -> None:
    page = reader.open(review, color_scheme=scheme, viewport=viewport)
    page.get_by_role("button", name="Expand all").click()
    # A filter that is on has other colours.
    page.get_by_role("button", name="Update 5").click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_nor_is_one_broken_by_what_policies_say(reader: Reader, hostile: str) -> None:
    page = reader.open(hostile)
    page.get_by_role("button", name="Expand all").click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("source", ["review", "hostile"])
def test_nothing_is_wider_than_the_narrowest_phone(reader: Reader, request: pytest.FixtureRequest, source: str) -> None:
    page = reader.open(request.getfixturevalue(source), viewport=NARROWEST)
    page.get_by_role("button", name="Expand all").click()
    assert page.evaluate("document.documentElement.scrollWidth") == NARROWEST["width"]


def test_on_a_phone_before_stands_above_after(reader: Reader, review: str) -> None:
    page = reader.open(review, fragment=f"#{WEAKENED}", viewport=PHONE)
    row = policy(page, WEAKENED).locator("tr:not(.same)", has_text="failureAction")
    before, after = (cell.bounding_box() for cell in row.locator("td").all())
    assert before
    assert after
    assert before["y"] + before["height"] <= after["y"] + 1
    same = policy(page, WEAKENED).locator("tr.same").first.locator("td")
    assert [cell.is_visible() for cell in same.all()] == [False, True]


def test_the_colours_follow_the_system_until_somebody_chooses(reader: Reader, review: str) -> None:
    page = reader.open(review, color_scheme="dark")
    dark = background(page)
    page.emulate_media(color_scheme="light")
    light = background(page)
    assert dark != light
    page.get_by_role("radio", name="Dark").check(force=True)
    assert background(page) == dark
    page.reload()
    assert background(page) == dark
    page.get_by_role("radio", name="Auto").check(force=True)
    assert background(page) == light


def test_on_paper_everything_shown_is_open_and_light_and_no_control_is_left(reader: Reader, review: str) -> None:
    page = reader.open(review, color_scheme="dark")
    screen = background(page)
    page.get_by_role("button", name="Update 5").click()
    page.emulate_media(media="print")
    for control in (".themes", ".tools", ".bar", ".skip"):
        expect(page.locator(control)).to_be_hidden()
    expect(policy(page, WEAKENED).locator(".diff")).to_be_visible()
    expect(policy(page, "ValidatingPolicy/image-tags")).to_be_hidden()
    assert background(page) != screen
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 36, 48)"
    assert page.pdf().startswith(b"%PDF-")


def test_without_scripts_everything_can_still_be_read(reader: Reader, review: str) -> None:
    page = reader.open(review, java_script_enabled=False)
    expect(page.get_by_role("searchbox")).to_be_hidden()
    policy(page, WEAKENED).locator("> details > summary").click()
    expect(policy(page, WEAKENED).get_by_role("table")).to_be_visible()


def background(page: Page) -> str:
    found: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


# --- what policies may hold --------------------------------------------------------------------------


def test_what_policies_say_stays_text(reader: Reader, hostile: str) -> None:
    page = reader.open(hostile)
    page.get_by_role("button", name="Expand all").click()
    assert page.evaluate("typeof window.broken") == "undefined"
    for element, count in {"script": 1, "style": 1, "title": 1, "img": 0}.items():
        expect(page.locator(element)).to_have_count(count)
    names = page.evaluate("[...new Set([...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()))]")
    assert [name for name in names if name.startswith("on")] == []
    assert page.evaluate("[...document.links].every(link => link.protocol === 'file:' && link.hash)")
    text = page.locator("body").inner_text()
    for words in ("<script>window.broken = 1</script>", "]]><!-- {{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;"):
        assert words in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\u0000]", text)
    assert r"\u202e" in text


def test_a_script_that_got_in_would_not_run_nor_fetch(reader: Reader, review: str, elsewhere: Elsewhere) -> None:
    smuggled = (
        "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
        "<style>body { display: none }</style><p style='color: red'>!</p>"
        f"<script src='{elsewhere.url}/x.js'></script><link rel=stylesheet href='{elsewhere.url}/x.css'>"
        f"<iframe src='{elsewhere.url}'></iframe><img src='{elsewhere.url}/x.png'>"
    )
    page = reader.open(review.replace("</main>", f"{smuggled}</main>"))
    assert page.evaluate("typeof window.broken") == "undefined"
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    by_script = "() => { try { document.body.innerHTML = '<p>'; return ''; } catch (error) { return error.name; } }"
    assert page.evaluate(by_script) == "TypeError"
    assert page.evaluate(f"() => fetch('{elsewhere.url}/').then(() => '', error => error.name)") == "TypeError"
    refused, reader.complaints[:], reader.requests[:] = list(reader.complaints), [], []
    assert len(refused) >= 9
    assert all("Content Security Policy" in complaint or "TrustedHTML" in complaint for complaint in refused), refused
    assert elsewhere.asked == []


# --- many --------------------------------------------------------------------------------------------


def test_five_hundred_changes_stay_small_and_are_searched(reader: Reader) -> None:
    plan = plans.many(500)
    many = html.write(plans.reviewed(plan), Context())
    assert len(many) < 4_000_000
    page = reader.open(many)
    assert page.evaluate("document.querySelectorAll('*').length") < 60_000
    expect(page.locator("details[open]")).to_have_count(0)
    # Found by selector: to find something by its role, all elements are asked for theirs.
    page.locator("#search").fill(plan.changes[71].identity.name)
    expect(page.locator("[role=status]")).to_have_text("1 of 500 shown")
    page.locator("#search").fill("")
    expect(page.locator("[role=status]")).to_have_text("500 of 500 shown")
    page.locator("[data-do=open]").click()
    expect(page.locator(".policies > li > details[open]")).to_have_count(500)
