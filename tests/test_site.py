"""docs/site/: the site builds without a network and without a warning, its links lead somewhere, it loads nothing."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("material", reason="the site needs `pip install 'ntulm[docs]'`")
pytest.importorskip("mkdocstrings", reason="the site needs `pip install 'ntulm[docs]'`")

ROOT = Path(__file__).parent.parent
NO_NETWORK = """
import socket
def refuse(*_, **__):
    raise OSError("this build has no network")
socket.getaddrinfo = socket.socket.connect = refuse
"""
LOADS = {  # what a browser fetches by itself
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "link": "href", "image": "href", "use": "href",
}  # fmt: skip


class Page(HTMLParser):
    """What a page loads, where it leads, and the anchors that it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.texts: list[str] = []
        self.code = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get(LOADS.get(tag, "")):
            self.loads.append(given[LOADS[tag]])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.code += tag in ("code", "script", "style")

    def handle_endtag(self, tag):
        self.code -= tag in ("code", "script", "style")

    def handle_data(self, data):
        if not self.code:
            self.texts.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/site/mkdocs.yml", "-d", folder / "html"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    found = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    return {path: page for path, page in found.items() if path.name != "404.html"}  # its links are absolute


def test_each_document_is_a_page(site):
    documents = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    wanted = {path.with_name("index.html") if path.name == "README.md" else path.with_suffix(".html")
              for path in documents}  # fmt: skip
    added = {Path(name) for name in ("notebook.html", "commands.html", "contributing.html", "deploy.html")}
    assert {path for path in wanted | added if not (site / path).is_file()} == set()


def test_a_page_loads_nothing_from_elsewhere(site, pages):
    assert len(pages) > 40
    foreign = {(path.name, load) for path, page in pages.items() for load in page.loads
               if re.match(r"(?:[a-z]+:)?//", load)}  # fmt: skip
    assert foreign == set()
    sheets = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", sheets) == []


def test_links_lead_to_pages_and_anchors_that_exist(site, pages):
    broken = set()
    for path, page in pages.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (path.parent / unquote(file)).resolve() if file else path
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else set()
            if not target.exists() or (anchor and anchor != "__codelineno" and unquote(anchor) not in known):
                broken.add((str(path.relative_to(site)), link))
    assert broken == set()


def test_markdown_is_understood(pages):
    """What Python's Markdown reads otherwise than GitHub would stand there as it was written."""
    left = {(path.name, text.strip()[:60]) for path, page in pages.items() for text in page.texts
            if re.search(r"```|^\s*\|.*\|\s*$|\]\([\w./#-]+\)|\n- ", text)}  # fmt: skip
    assert left == set()


def test_the_reference_has_the_public_names_and_every_command(site, pages):
    import ntulm

    texts = "".join(pages[site / "api.html"].texts)
    code = (site / "api.html").read_text(encoding="utf-8")
    for name in set(ntulm.__all__) - {"__version__"}:
        assert f"ntulm.{name}" in texts
    for name in ("encode", "predict", "known", "push_to_hub"):
        assert f'id="ntulm.inference.model.Model.{name}"' in code
    commands = re.findall(r"@app\.command\(.*\)\ndef (\w+)", (ROOT / "ntulm/cli.py").read_text(encoding="utf-8"))
    shown = "".join(pages[site / "commands.html"].texts)
    assert {name for name in commands if f"ntulm {name.replace('_', '-')}" not in shown} == set()
