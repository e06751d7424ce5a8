"""ntulm/project/: the installed package makes a folder in which DVC runs its stages."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ntulm.errors import UserError
from ntulm.project import folder

ROOT = Path(__file__).parent.parent
NEW = Path("new")
BESIDE = str(Path(sys.executable).parent)


def pipeline(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path)


def dvc(*arguments, cwd):
    program = shutil.which("dvc", path=BESIDE)
    assert program is not None
    environment = {"PATH": f"{BESIDE}:/usr/bin:/bin", "HOME": str(cwd), "DVC_NO_ANALYTICS": "1"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture
def new(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder.run(NEW)
    return NEW


def test_the_pipeline_is_the_repositorys_without_files_of_code(new):
    ours, made = pipeline(ROOT / "dvc.yaml"), pipeline(new / "dvc.yaml")
    assert list(made["stages"]) == list(ours["stages"])
    for stage, about in made["stages"].items():
        body, own = about.get("do", about), ours["stages"][stage]
        own = own.get("do", own)
        deps = [dep for dep in own["deps"] if not dep.startswith("ntulm/")]
        assert body["deps"] == [*deps, f"code/{stage}.txt"]
        assert {**body, "deps": 0} == {**own, "deps": 0}
        listed = [line.split("  ")[1] for line in (new / f"code/{stage}.txt").read_text().splitlines()]
        assert listed
        assert all((ROOT / name).is_file() for name in listed)
        assert f"ntulm/{stage}.py" in listed or f"ntulm/{stage}/stage.py" in listed
    assert (new / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert {key: made[key] for key in made if key != "stages"} == {key: ours[key] for key in ours if key != "stages"}
    for plot in made["plots"]:
        template = Path(f".dvc/plots/{next(iter(plot.values()))['template']}.json")
        assert (new / template).read_text() == (ROOT / template).read_text()


@pytest.mark.slow
def test_a_stage_runs_in_it_and_only_changed_code_runs_again(new):
    done = dvc("repro", "corpus", cwd=new)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (new / "data/corpus/posts.parquet").is_file()
    folder.run(new)
    assert "didn't change, skipping" in dvc("repro", "corpus", cwd=new).stdout
    listed = new / "code/corpus.txt"
    listed.write_text("0" + listed.read_text()[1:])
    assert "code/corpus.txt" in dvc("status", "corpus", cwd=new).stdout


def test_again_brings_the_pipeline_up_and_keeps_what_is_the_users(new):
    before = (new / "dvc.yaml").read_text()
    (new / "dvc.yaml").write_text(folder.HEAD + "stages: {}\n")
    (new / "params.yaml").write_text("mine")
    (new / ".gitignore").write_text("mine")
    folder.run(new)
    assert (new / "dvc.yaml").read_text() == before
    assert (new / "params.yaml").read_text() == (new / ".gitignore").read_text() == "mine"


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml"])
def test_other_projects_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"has {name}; expected a folder without a project"):
        folder.run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_below_a_repository_and_a_missing_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    folder.run(NEW)
    assert not (NEW / ".git").exists()
    assert (NEW / ".dvc/config").is_file()
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match="the program git is not there"):
        folder.run(Path("other"))
    assert not Path("other").exists()
