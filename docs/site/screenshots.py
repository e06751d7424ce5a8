"""Take the pictures that the docs show of pages: `python docs/site/screenshots.py PROJECT`; needs Chromium.

PROJECT has run the recipe quickstart: a real post must not get into the docs. Writes `docs/images/*.png`.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from ntulm.params import load_params

IMAGES = Path(__file__).resolve().parent.parent / "images"
WORLD = "worlds/quickstart.yaml"
VIEW = {"width": 1200, "height": 860}
PARTS = {"results-map": 'svg[aria-label^="Map"] >> xpath=..'}  # name -> what it shows


def main() -> None:
    """The page of results: its beginning, and some of its parts."""
    project = Path(sys.argv[1]).resolve()
    if load_params(project / "params.yaml").corpus.path != WORLD:
        sys.exit(f"{project}: its posts are not those of {WORLD}; pictures of the docs show made-up posts only")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        page = playwright.chromium.launch(executable_path=chromium).new_page(viewport=VIEW, color_scheme="light")
        page.goto((project / "reports/results.html").as_uri())
        page.screenshot(path=IMAGES / "results.png")
        for name, part in PARTS.items():
            page.locator(part).first.scroll_into_view_if_needed()
            page.locator(part).first.screenshot(path=IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
