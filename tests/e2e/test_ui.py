"""`build` by the button: a real browser opens the deployment, fills the form, and sees the run complete.

NTULM_E2E_LOGS=FOLDER keeps the screenshots there.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Page, TimeoutError, expect, sync_playwright
from test_end_to_end import metrics

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 900  # seconds that a build may take beside other work
NAME = "pressed-by-hand"
PRESSES = 4  # of Submit, as a person presses it again when a busy server did not take it

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def page(tmp_path):
    """A tab of a headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        tab = browser.new_page(viewport={"width": 1400, "height": 1100})
        tab.set_default_timeout(60_000)
        yield tab
        browser.close()


def look(page: Page, name: str) -> None:
    """Keep a screenshot where the environment asks for it."""
    if folder := os.environ.get("NTULM_E2E_LOGS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def open_form(page: Page, address: str) -> None:
    page.goto(f"{address}/deployments")
    page.get_by_text("build-cpu", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()


def choose(page: Page, shown: str, wanted: str) -> None:
    """Choose from the list that shows this value; the arrow opens it, as in any list."""
    page.get_by_role("button", name=shown).press("ArrowDown")
    page.get_by_role("option", name=wanted, exact=True).click()


def submit(page: Page) -> None:
    """Press Submit until the form is gone."""
    for _ in range(PRESSES):
        page.get_by_role("button", name="Submit").click()
        with suppress(TimeoutError):
            page.wait_for_url(lambda url: "/run?" not in url, timeout=20_000)
            return
    raise AssertionError(f"the form is still there: {page.inner_text('body')[-2000:]}")


def test_the_button_runs_a_build_and_shows_its_results(page, api, project, changes, undisturbed):
    open_form(page, api.address)
    choose(page, "params.yaml as it stands", "quickstart")
    for number, change in enumerate(changes):
        page.get_by_role("button", name="Add item").click()
        page.locator("textarea").nth(number).fill(change)
    page.locator("input[type=text]").first.fill(NAME)
    look(page, "form")
    submit(page)
    page.get_by_role("link", name=NAME).first.click()
    page.wait_for_url("**/runs/flow-run/**")
    # By the API: a busy browser still shows the page before, with other runs, completed ones too.
    assert api.wait(page.url.split("/flow-run/")[1].split("?")[0], patience=PATIENCE)["type"] == "COMPLETED"
    page.reload()
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    look(page, "run")
    page.get_by_text("Task Runs", exact=True).first.click()
    expect(page.get_by_text("pretrain@text-0").first).to_be_visible()
    page.get_by_text("Artifacts", exact=True).first.click()
    expect(page.get_by_text("coverage-report").first).to_be_visible()
    look(page, "artifacts")
    assert metrics(project) == undisturbed


def test_the_form_offers_recipes_and_stages_and_says_what_they_do(page, api):
    open_form(page, api.address)
    page.get_by_role("button", name="params.yaml as it stands").press("ArrowDown")
    for recipe in ("stocknet", "ira", "paper", "quickstart"):
        expect(page.get_by_role("option", name=recipe, exact=True)).to_be_visible()
    page.get_by_role("option", name="quickstart", exact=True).click()
    page.get_by_role("button", name="the whole pipeline").press("ArrowDown")
    expect(page.get_by_role("option", name="embeddings", exact=True)).to_be_visible()
    assert "Values that differ from the recipe" in page.inner_text("body")
