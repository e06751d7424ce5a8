"""The commands that use a model, as the README has them and with the light install alone."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import test_inference
import test_use_train
import tiny_model

from ntulm.cli import app
from ntulm.layout import Layout

ROOT = Path(__file__).parent.parent
# Typer brings pydantic.
ABSENT = tuple(name for name in test_inference.ABSENT if name != "pydantic")
COMMANDS = ("embed", "similar", "predict", "train-classifier", "suggest")


@pytest.fixture
def project(lm_project, tiny_backbone) -> Path:
    """A folder with a model, posts and labels, as the README supposes."""
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), Layout(lm_project))
    (lm_project / "posts.csv").write_text("text,author\nwe like it,left1\nwe see,right2\n")
    test_use_train.write_labels(90, lm_project / "labels.csv")
    text = (lm_project / "labels.csv").read_text().replace("who,side", "author,label", 1)
    (lm_project / "labels.csv").write_text(text)
    return lm_project


def commands(document: str) -> list[list[str]]:
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"^\$ ntulm (.+?)(?:   #.*)?$", text, re.M)
    return [shlex.split(line) for line in found if line.split()[0] in COMMANDS]


def test_the_commands_of_the_readme_run_as_written(project, capsys):
    given = commands("README.md")
    assert [one[0] for one in given] == ["embed", "similar", "predict", "train-classifier", "predict"]
    for arguments in given:
        assert app(arguments, standalone_mode=False) in (None, 0)
    assert (project / "complaints.csv").read_text().count("\n") == 3
    assert "2 posts embedded" in capsys.readouterr().err


@pytest.mark.slow
def test_with_the_light_install_all_but_training_works_and_that_says_what_is_missing(project):
    code = f"""
import socket, sys
class Light:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {ABSENT} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Light, sys.meta_path)
from ntulm.cli import app, main
for line in ("embed posts.csv --out v.parquet", "predict posts.csv --task topic", "suggest posts.csv",
             "similar @left1", "similar we --store v.parquet"):
    app(line.split(), standalone_mode=False)
sys.argv[1:] = "train-classifier labels.csv --name camp".split()
main()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project, env=environment)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("cosine") == 7 + 2, done.stderr[-3000:]
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: the package \w+ is not installed; `pip install 'ntulm\[pipeline\]'` .*", last)


def test_missing_posts_are_said_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in ("embed none.csv --out v.parquet", "predict none.csv --task topic", "suggest none.csv"):
        with pytest.raises(Exception, match=r"none\.csv: not found; expected posts"):
            app(line.split(), standalone_mode=False)
