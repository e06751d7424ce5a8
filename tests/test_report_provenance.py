"""Where a page says that it comes from, and the run before."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ntulm.files import sha256
from ntulm.layout import Layout
from ntulm.report.provenance import keep_run, provenance, run_before

NOW = datetime(2026, 11, 27, 18, 0, 5, tzinfo=UTC)


def git(root: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@t")
    return subprocess.run(["git", *settings, *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    layout.params.write_text("# own: your own posts.\nrun: 1\n")
    layout.corpus.mkdir(parents=True)
    layout.posts.write_bytes(b"posts")
    return layout


def test_commit_changes_recipe_and_hashes(layout, tmp_path):
    (tmp_path / "dvc.lock").write_text("1")
    git(tmp_path, "init", "--quiet")
    assert provenance(layout).commit is None  # none yet
    git(tmp_path, "add", "params.yaml", "dvc.lock")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    clean = provenance(layout, NOW)
    assert clean.commit == git(tmp_path, "rev-parse", "HEAD").strip()
    assert (clean.date, clean.changed, clean.recipe) == ("2026-11-27T18:00:05+00:00", [], "own")
    assert (clean.params, clean.data) == (sha256(layout.params), sha256(layout.posts))
    layout.params.write_text("run: 2\n")
    (tmp_path / "dvc.lock").write_text("2")  # DVC writes it while it runs
    changed = provenance(layout, NOW)
    assert (changed.changed, changed.recipe) == (["params.yaml"], None)


def test_without_git_a_corpus_or_params(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance(Layout(tmp_path), NOW)
    assert (found.commit, found.changed, found.recipe, found.params, found.data) == (None, [], None, None, None)


def test_the_latest_run_is_the_run_before(layout):
    assert run_before(layout) is None
    for day, value in ((26, 0.5), (25, 0.4)):
        keep_run(f"<p>{day}</p>", provenance(layout, NOW.replace(day=day)), {"Topic map": value}, layout)
    before = run_before(layout)
    assert before is not None
    assert before.headlines == {"Topic map": 0.5}
    assert before.page.read_text() == "<p>26</p>"
    assert before.provenance.date.startswith("2026-11-26")
