"""Stages and their order come from dvc.yaml, through DVC."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.failure import CommandError
from flows.pipeline import Pipeline, family, read_pipeline, stage_families

ROOT = Path(__file__).parent.parent
PIPELINE = """\
stages:
  report:
    cmd: "true"
    deps: [data/model]
  corpus:
    cmd: "true"
    outs: [data/corpus]
  model:
    matrix: {size: [1, 2]}
    cmd: "true"
    deps: [data/corpus]
    outs: ["data/model/${item.size}"]
  other:
    cmd: "true"
    deps: [data/corpus]
"""


@pytest.fixture
def project(tmp_path):
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    return tmp_path


def test_stages_come_after_what_they_need(project):
    pipeline = read_pipeline(project)
    assert pipeline.upstream == {
        "corpus": frozenset(),
        "model@1": {"corpus"},
        "model@2": {"corpus"},
        "other": {"corpus"},
        "report": {"model@1", "model@2"},
    }
    done: set[str] = set()
    for stage, needed in pipeline.upstream.items():
        assert needed <= done
        done.add(stage)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("corpus", ["corpus", "model@1", "model@2", "other", "report"]),
        ("model", ["model@1", "model@2", "report"]),
        ("model@2", ["model@2", "report"]),
        ("report", ["report"]),
    ],
)
def test_starting_at_a_stage_takes_what_follows_it(project, start, expected):
    part = read_pipeline(project).starting_at(start)
    assert sorted(part.stages) == expected
    assert all(needed <= set(part.stages) for needed in part.upstream.values())


def test_an_unknown_stage_is_named(project):
    with pytest.raises(CommandError, match="'mode': unknown"):
        read_pipeline(project).starting_at("mode")


def test_a_broken_pipeline_is_a_failure_with_dvcs_words(project):
    (project / "dvc.yaml").write_text("stages:\n  corpus:\n    commands: x\n")
    with pytest.raises(CommandError, match=r"dvc\.yaml"):
        read_pipeline(project)


def test_the_project_has_one_list_of_stages():
    assert {family(stage) for stage in read_pipeline(ROOT).stages} == set(stage_families(ROOT))


def test_the_order_is_that_of_the_readme():
    assert isinstance(read_pipeline(ROOT), Pipeline)
    stages = [family(stage) for stage in read_pipeline(ROOT).stages]
    assert stages[0] == "corpus"
    assert stages[-1] == "report"
