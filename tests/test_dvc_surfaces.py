"""What DVC shows of a run: plots (templates of .dvc/plots, in a browser without a network), metrics, the model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vl_convert
from browser import needs_browser, tab
from fake_run import EVALUATE, HERE, SCHEME, VARIANTS, write_all
from ruamel.yaml import YAML

from ntulm.evaluate import stage as evaluate
from ntulm.files import read_json, write_json
from ntulm.report import stage as report
from ntulm.report.config import Report

ROOT = Path(__file__).parent.parent
PIPELINE = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")
NO_COVERAGE_PAGE: Any = SimpleNamespace(write_coverage_page=lambda *_: False)  # Evidently takes its time
WIDEST = 220  # columns of `dvc metrics show`
SVG = {"usermeta": {"embedOptions": {"renderer": "svg"}}}

pytestmark = pytest.mark.slow


def dvc(*arguments, cwd):
    program = shutil.which("dvc", path=str(Path(sys.executable).parent))
    assert program is not None
    done = subprocess.run([program, *arguments], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the outputs of `evaluate` and `report`, and what dvc.yaml says of plots and metrics."""
    root = tmp_path_factory.mktemp("surfaces")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setitem(sys.modules, "ntulm.report.coverage_page", NO_COVERAGE_PAGE)
        run = write_all(root)
        write_json(HERE.metrics("embeddings"), {"mrr": 0.25, "popularity": {"mrr": 0.1}, "edges": 9, "dimension": 4})
        evaluate.run(EVALUATE, run, SCHEME, HERE)
        report.run(Report(min_coverage=0.05, examples=0), run, SCHEME, HERE)
    dvc("init", "--quiet", "--no-scm", cwd=root)
    shutil.copytree(ROOT / ".dvc/plots", root / ".dvc/plots", dirs_exist_ok=True)
    shown = {"plots": PIPELINE["plots"], "metrics": PIPELINE["stages"]["report"]["metrics"]}
    YAML().dump(shown, root / "dvc.yaml")
    return root


@pytest.fixture(scope="module")
def plots(project):
    """The filled templates, by the name of the file that they show."""
    data = json.loads(dvc("plots", "show", "--json", cwd=project))["data"]
    return {Path(name).name: one[0]["content"] for name, one in data.items()}


def drawn(spec, selector):
    """The paths of the marks of a kind that a browser draws."""
    with tab() as (page, faults):
        page.set_content(vl_convert.vegalite_to_html(spec | SVG, bundle=True))
        page.wait_for_selector("svg")
        paths = page.evaluate(f"[...document.querySelectorAll('{selector}')].map(one => one.getAttribute('d'))")
        assert faults == []
    return paths


@needs_browser
def test_each_variant_has_a_learning_curve_of_its_own(plots):
    lines = drawn(plots["curves.json"], ".mark-line path")
    assert len(set(lines)) == len(lines) == len(VARIANTS)


@needs_browser
def test_each_gain_is_a_dot_with_its_interval(plots, project):
    given = [one for one in read_json(project / "data/evaluate/slices.json") if one["gain"] is not None]
    assert len(given) > 20
    assert len(drawn(plots["slices.json"], ".mark-symbol.role-mark path")) == len(given)


def test_metrics_fit_on_a_screen(project):
    printed = dvc("metrics", "show", cwd=project).splitlines()
    assert len(printed) == 2
    assert max(map(len, printed)) <= WIDEST
    assert "Topic gain %" in printed[0]


def test_the_whole_model_directory_is_what_artifacts_get_fetches(tmp_path):
    root = tmp_path / "repository"
    files = {"config.json", "model.safetensors", "classifiers/topic.json"}
    for name in files:
        (root / "data/model" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data/model" / name).write_text(name)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    dvc("init", "--quiet", cwd=root)
    stages = {"model": {"cmd": "true", "outs": PIPELINE["stages"]["model"]["outs"]}}
    YAML().dump({"stages": stages, "artifacts": PIPELINE["artifacts"]}, root / "dvc.yaml")
    dvc("commit", "--quiet", "--force", cwd=root)
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    author = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", *author, "commit", "--quiet", "-m", "model"], cwd=root, check=True)
    subprocess.run(["git", *author, "tag", "-a", "ntulm@v1.0.0", "-m", "as a promotion tags it"], cwd=root, check=True)
    dvc("artifacts", "get", "--quiet", str(root), "ntulm", "--out", str(tmp_path / "got"), cwd=tmp_path)
    got = tmp_path / "got"
    assert {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()} == files
