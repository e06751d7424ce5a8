"""What stands in params.yaml becomes no command and no path out of the project: quoted in dvc.yaml, refused before."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.errors import UserError

ROOT = Path(__file__).parent.parent
PIPELINE: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
HOSTILE = [
    "a; touch X",
    "a'; touch X; '",
    'a"; touch X; "',
    "$(touch X)",
    "`touch X`",
    "a\ntouch X",
    "| touch X",
    "--help",
]


def commands(stage: str) -> list[str]:
    """The commands of a stage as dvc.yaml writes them."""
    written = PIPELINE[stage].get("do", PIPELINE[stage])["cmd"]
    return [written] if isinstance(written, str) else written


def test_every_value_in_a_command_is_quoted_by_dvc_or_refused_before():
    for stage in PIPELINE:
        *before, last = commands(stage)
        for value in re.findall(r"'?\$\{[^}]*\}'?", last):
            if value == "${item}":  # a mapping: DVC writes its keys as options, its values quoted
                assert set(PIPELINE[stage]["matrix"]) <= {"variant", "seed", "task"}
            else:
                assert value == "'${key}'"
                assert before == ["python -m ntulm params"]
        assert "${" not in "".join(before)


def pipeline(folder: Path) -> None:
    """The commands of dvc.yaml with no inputs and outputs, on hostile names."""
    stages = {name: {"foreach": "${tasks}", "do": {"cmd": commands(name)}} for name in ("tasks",)}
    for name in ("pretrain", "encode", "probe"):
        stages[name] = {"matrix": PIPELINE[name]["matrix"], "cmd": commands(name)}
    params = {
        "tasks": {name: {"kind": "topic", "path": "data/corpus"} for name in HOSTILE},
        "run": {"variants": ["text", *HOSTILE[:4]], "seeds": [0, "0; touch X"], "tasks": HOSTILE[:2]},
    }
    yaml = YAML()
    with (folder / "dvc.yaml").open("w") as file:
        yaml.dump({"stages": stages}, file)
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params, file)


def test_dvc_runs_no_command_that_a_name_brings(tmp_path):
    pipeline(tmp_path)
    dvc = str(Path(sys.executable).with_name("dvc"))
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": tools, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([dvc, "init", "-q", "--no-scm"], cwd=tmp_path, env=environment, check=True)
    names = [f"tasks@{name}" for name in HOSTILE[:4]]
    names += [f"pretrain@{variant}-0" for variant in HOSTILE[:2]] + ["pretrain@text-0; touch X"]
    names += [f"{stage}@text-0-{HOSTILE[0]}" for stage in ("encode", "probe")]
    shells = "import sys; print(sys.argv)"  # in the place of ntulm: what reached it as arguments
    (tmp_path / "ntulm").mkdir()
    (tmp_path / "ntulm/__main__.py").write_text(f"{shells}; sys.exit(sys.argv[1] == 'params')\n")
    command = [dvc, "repro", "--keep-going", "--", *names]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "touch X" in done.stdout
    assert not (tmp_path / "X").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("X")] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_such_names_are_refused_at_the_first_read(name):
    task = f"{{{name!r}: {{kind: hashtag}}}}"
    for change in (f"tasks={task}", f"run.variants=[{name!r}]", f"run.tasks=[{name!r}]", f"run.seeds=[{name!r}]"):
        with pytest.raises(UserError):
            configured("quickstart", [change])


def test_the_command_that_is_in_front_refuses_such_a_file(tmp_path):
    text = configured("quickstart", []).replace("  topic:\n", "  'a; touch X':\n", 1)
    (tmp_path / "params.yaml").write_text(text)
    shutil.copytree(ROOT / "worlds", tmp_path / "worlds")
    done = subprocess.run([sys.executable, "-m", "ntulm", "params"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: params.yaml: tasks.a; touch X")
    assert done.stderr.count("\n") == 1


def outside_outputs(folder: Path, change: dict[str, Any]) -> None:
    """The stages of dvc.yaml with names in their paths, and nothing to run; all that they read is there."""
    stages = {}
    for name in ("tasks", "pretrain", "encode", "probe"):
        about = dict(PIPELINE[name].get("do", PIPELINE[name]))
        deps = [dep for dep in about["deps"] if dep.startswith("data/")]
        stage = {"cmd": "exit 1", "deps": deps, "outs": about["outs"]}
        matrix = {"matrix": about["matrix"]} if "matrix" in about else {}
        stages[name] = {"foreach": "${tasks}", "do": stage} if name == "tasks" else stage | matrix
    params = {"tasks": {"topic": {"a": 1}}, "run": {"variants": ["text"], "seeds": [0], "tasks": ["topic"]}}
    for name, value in (("dvc.yaml", {"stages": stages}), ("params.yaml", params | change)):
        with (folder / name).open("w") as file:
            YAML().dump(value, file)
    for name in ("corpus", "adapt", "embeddings"):
        (folder / "data" / name).mkdir(parents=True)


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": {"../../../kept": {"a": 1}}},
        {"tasks": {"a/../../../../kept/0": {"a": 1}}},
        {"run": {"variants": ["../../../kept"], "seeds": [0], "tasks": []}},
        {"run": {"variants": ["text"], "seeds": [0, "../../../../kept"], "tasks": []}},
        {"run": {"variants": ["text"], "seeds": [0], "tasks": ["../../../../../kept"]}},
        {"run": {"variants": ["a/.."], "seeds": ["../../.."], "tasks": ["../kept"]}},
        {"tasks": {"../../kept": {"a": 1}}},
    ],
    ids=["task", "deeper", "variant", "seed", "task of the run", "together", "inside"],
)
def test_dvc_removes_nothing_where_a_name_leads_out_of_the_folder_of_its_stage(change, tmp_path, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    Repo.init(no_scm=True).close()
    outside_outputs(project, change)
    for folder in (tmp_path, project):
        (folder / "kept").mkdir()
        (folder / "kept/0").write_text("precious")
    before = {path for path in tmp_path.rglob("*") if ".dvc" not in path.parts}
    with Repo() as repo:
        with suppress(Exception):  # it reads what is around the project, and may find that odd
            repo.status()
        with pytest.raises(DvcException, match=r"both a dependency and an output|overlap"):
            repo.reproduce(on_error="keep-going")
    assert {path for path in tmp_path.rglob("*") if ".dvc" not in path.parts} == before
