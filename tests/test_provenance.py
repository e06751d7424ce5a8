"""What a run was made of, beside its figures in the history."""

import json
import subprocess

import pandas as pd
import pytest
from evidently import Dataset, Report
from evidently.metrics import RowCount

from ntulm.layout import Layout
from ntulm.production.monitoring import keep
from ntulm.provenance import provenance


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_text("# stocknet: raw objects\nrun: {seeds: [0, 1]}\ncorpus: {path: <b>x}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    return tmp_path


def test_commit_recipe_and_parameters(project):
    found = provenance(Layout(project))
    commit = str(found["commit"])
    assert len(commit) == 40
    assert found["recipe"] == "stocknet"
    assert found["parameters"] == {"run.seeds": "[0, 1]", "corpus.path": '"<b>x"'}
    (project / "dvc.yaml").write_text("stages: {a: {cmd: x}}\n")
    assert provenance(Layout(project))["commit"] == commit + "+"


def test_what_is_not_known_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance(Layout(tmp_path)) == {}
    (tmp_path / "params.yaml").write_text("a: [\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance(Layout(tmp_path)) == {}


def test_a_run_in_the_history_says_what_it_was_made_of(project):
    snapshot = Report([RowCount()]).run(Dataset.from_pandas(pd.DataFrame({"a": [1, 2]})), None)
    before = snapshot.get_html_str(as_iframe=False)
    keep(snapshot, "runs", [], Layout(project))
    (kept,) = (project / "monitoring").rglob("snapshots/*.json")
    metadata = json.loads(kept.read_text())["metadata"]
    assert metadata == provenance(Layout(project))
    assert metadata["commit"] not in before  # a page is an output that is hashed
