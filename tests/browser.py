"""The machine's own Chromium, without a network, for tests of pages; `needs_browser` skips where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP, PHONE = (1280, 900), (390, 844)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@contextmanager
def tab(size: tuple[int, int] = DESKTOP) -> Iterator[tuple]:
    """A tab that is offline, and the list of what goes wrong in it: errors of the page, and requests to elsewhere."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=True)
        page, faults = context.new_page(), []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: faults.append(asked.url) if asked.url.startswith("http") else None)
        yield page, faults
        browser.close()
