"""The whole pipeline through DVC, on a tiny world and a tiny backbone: what a user does, in a copy of the project."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.mending import mend

ROOT = Path(__file__).parent.parent
BIN = str(Path(sys.executable).parent)
ENVIRONMENT = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
SMALL = [
    "run.variants=[text, author+hashtag]",
    "run.tasks=[topic, hashtag]",
    "corpus.path=world.yaml",
    "embeddings.dimension=16",
    "embeddings.epochs=3",
    "adapt.max_posts=200",
    "adapt.max_validation_posts=100",
    "pretrain.max_posts=200",
    "pretrain.max_validation_posts=100",
    "tasks.topic.max_posts={train: 300, validation: 100, test: 150}",
    "tasks.hashtag.max_posts={train: 300, validation: 100, test: 150}",
    "tasks.hashtag.classes=12",
    "probe.trials=2",
    "probe.max_epochs=3",
    "evaluate.resamples=100",
]


def call(*command, cwd, check=True):
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def copy_of_the_project(folder, backbone):
    """A git repository with the files of the project, the small settings and a small world."""
    for name in ("ntulm", "dvc.yaml", "forget.txt", ".dvcignore", ".gitignore"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    world = (ROOT / "worlds/quickstart.yaml").read_text(encoding="utf-8")
    (folder / "world.yaml").write_text(smaller(world), encoding="utf-8")
    call("ntulm", "configure", "quickstart", *SMALL, f"adapt.backbone={backbone}", cwd=folder)
    call("git", "init", "-q", cwd=folder)
    call("git", "add", "-A", cwd=folder)
    call("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start", cwd=folder)


def smaller(world):
    lines = world.splitlines()
    return "\n".join("  posts: 2500" if line.startswith("  posts:") else line for line in lines) + "\n"


def metrics(folder):
    """Every metrics file without its timings."""
    values = {}
    for path in sorted((folder / "metrics").rglob("*.json")):
        values[str(path.relative_to(folder))] = without_timings(json.loads(path.read_text(encoding="utf-8")))
    return values


def without_timings(value):
    if isinstance(value, dict):
        return {key: without_timings(item) for key, item in value.items() if "second" not in key}
    return [without_timings(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_backbone):
    folder = tmp_path_factory.mktemp("project")
    copy_of_the_project(folder, tiny_backbone)
    call("dvc", "repro", cwd=folder)
    return folder


def test_repro_ends_with_tables_and_reports(project):
    printed = call("ntulm", "results", cwd=project).stdout
    assert "SYNTHETIC" in printed
    for name in ("results.md", "coverage.html", "figure3.png", "figure4.png", "figure5.png"):
        assert (project / "reports" / name).stat().st_size > 500, name
    assert "author+hashtag" in (project / "reports/results.md").read_text(encoding="utf-8")
    counts = metrics(project)["metrics/corpus.json"]
    assert counts["posts"] > 1000


def test_a_second_repro_runs_nothing(project):
    done = call("dvc", "repro", cwd=project)
    assert "Running stage" not in done.stdout + done.stderr
    assert "up to date" in call("dvc", "status", cwd=project).stdout


def test_changing_the_probe_re_runs_the_probe_and_what_follows_only(project):
    params = project / "params.yaml"
    before = params.read_text(encoding="utf-8")
    params.write_text(before.replace("trials: 2", "trials: 1"), encoding="utf-8")
    stale = call("dvc", "status", cwd=project).stdout
    params.write_text(before, encoding="utf-8")
    assert "probe@text-0-topic" in stale
    for stage in ("corpus", "graph", "embeddings", "adapt", "pretrain", "encode"):
        assert f"\n{stage}" not in f"\n{stale}", stage


def test_metrics_and_plots_are_what_dvc_reads(project):
    shown = json.loads(call("dvc", "metrics", "show", "--json", cwd=project).stdout)
    assert set(shown[""]["data"]) == {"metrics/report.json"}


def test_a_killed_run_leaves_nothing_half_done_and_the_next_gives_the_same_figures(project, tmp_path, tiny_backbone):
    copy_of_the_project(tmp_path, tiny_backbone)
    for pause in (4.0, 9.0, 15.0):
        run = subprocess.Popen(["dvc", "repro"], cwd=tmp_path, env=ENVIRONMENT, start_new_session=True)
        time.sleep(pause)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        mend(tmp_path, print)
    call("dvc", "repro", cwd=tmp_path)
    assert metrics(tmp_path) == metrics(project)
