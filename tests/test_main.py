"""`python -m ntulm` runs the code of the folder it is called in, whatever is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
CHANGED_STAGE = """\
from ntulm.files import write_json


def run(section, layout):
    print("this is the changed code")
    layout.corpus.mkdir(parents=True)
    layout.posts.write_text("")
    write_json(layout.metrics("corpus"), {})
"""


def call(*command: str, cwd: Path) -> str:
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    environment |= {f"GIT_{who}_{what}": "t@e.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path) -> Path:
    """A git and DVC project with a copy of this code, and of dvc.yaml the stage `corpus` alone."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "ntulm", folder / "ntulm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "worlds", folder / "worlds")
    for name in ("params.yaml", "forget.txt"):
        shutil.copy(ROOT / name, folder)
    pipeline = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")
    with (folder / "dvc.yaml").open("w") as stream:
        YAML(typ="safe", pure=True).dump({"stages": {"corpus": pipeline["stages"]["corpus"]}}, stream)
    (folder / ".gitignore").write_text("__pycache__/\n")
    call("git", "init", "--quiet", cwd=folder)
    call("dvc", "init", "--quiet", cwd=folder)
    call("git", "add", "--all", cwd=folder)
    call("git", "commit", "--quiet", "--message", "start", cwd=folder)
    return folder


def test_an_experiment_with_changed_code_runs_the_changed_code(project):
    (project / "ntulm/corpus/stage.py").write_text(CHANGED_STAGE)
    assert "this is the changed code" in call("dvc", "exp", "run", "--temp", cwd=project)
