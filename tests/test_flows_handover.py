"""A stage handed from one workspace to another through a DVC remote, Prefect left out: nothing runs twice."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.dispatch import restore
from flows.failure import CommandError
from flows.handover import Handover, differing, pack
from flows.pipeline import has_remote, read_pipeline
from flows.single_stage import run_handed_over, stage
from flows.stage import Outcome
from flows.workspace import Workspace, open_workspace

ROOT = Path(__file__).parent.parent
PIPELINE = """\
stages:
  corpus:
    cmd: mkdir -p data && echo posts > data/corpus && echo corpus >> ran
    outs: [data/corpus]
  pretrain:
    matrix: {seed: "${run.seeds}"}
    meta: {pool: gpu-pool}
    cmd: cp data/corpus data/model-${item.seed} && echo pretrain-${item.seed} >> ran
    params: [pretrain]
    deps: [data/corpus, stage.py]
    outs: ["data/model-${item.seed}"]
  report:
    cmd: cat data/model-0 > data/report
    deps: [data/model-0]
    outs: [data/report]
"""


def call(*command: str, cwd: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "dvc", *command], cwd=cwd, check=True, env=os.environ | {"DVC_NO_ANALYTICS": "1"}
    )


def machine(folder: Path, remote: Path) -> Path:
    """A workspace with the small pipeline, the real parameters, and a remote."""
    folder.mkdir()
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "stage.py").write_text("# the code of the stage\n")
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    call("init", "--quiet", "--no-scm", cwd=folder)
    assert not has_remote(folder)
    call("remote", "add", "--quiet", "--local", "--default", "store", str(remote), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """The build's workspace with its corpus made and pushed, the worker's, and the remote."""
    folder = tmp_path_factory.mktemp("ready")
    build, _ = (machine(folder / name, Path("../remote")) for name in ("build", "worker"))
    call("repro", "--quiet", "--single-item", "corpus", cwd=build)
    call("push", "--quiet", "corpus", cwd=build)
    return folder


@pytest.fixture
def machines(ready, tmp_path):
    """A copy of both workspaces, open."""
    shutil.copytree(ready, tmp_path, dirs_exist_ok=True)
    build, worker = tmp_path / "build", tmp_path / "worker"
    with open_workspace(build, "flow run build", print) as here, open_workspace(worker, "stage", print) as there:
        yield here, there


def ran(workspace: Workspace) -> list[str]:
    path = workspace.root / "ran"
    return path.read_text().split() if path.exists() else []


def packed(workspace: Workspace) -> Handover:
    """As Prefect hands it over: as JSON."""
    handover = pack(workspace.root, "pretrain@0", read_pipeline(workspace.root).upstream["pretrain@0"])
    return Handover.model_validate(json.loads(handover.model_dump_json()))


def test_the_pipeline_says_which_pool_a_stage_goes_to(machines):
    here, _ = machines
    assert read_pipeline(here.root).pools == {}
    assert read_pipeline(here.root, by_pool=True).pools == {"pretrain@0": "gpu-pool"}
    assert read_pipeline(here.root, by_pool=True).starting_at("report").pools == {}
    assert has_remote(here.root)


def test_a_stage_runs_there_and_is_restored_here(machines):
    here, there = machines
    (here.root / "params.yaml").write_text(
        (here.root / "params.yaml").read_text().replace("seed: 0 # draws", "seed: 7 # draws")
    )
    assert restore("pretrain@0", here, print) is None
    assert run_handed_over("pretrain@0", packed(here), there, print) is Outcome.RAN
    assert restore("pretrain@0", here, print, "--pull") is Outcome.RESTORED
    assert (here.root / "data/model-0").read_text() == "posts\n"
    assert (ran(here), ran(there)) == (["corpus"], ["pretrain-0"])
    assert restore("pretrain@0", here, print) is Outcome.UNCHANGED
    assert run_handed_over("pretrain@0", packed(here), there, print) is Outcome.UNCHANGED
    assert ran(there) == ["pretrain-0"]


def test_yesterdays_inputs_there_are_replaced_by_those_of_the_build(machines):
    here, there = machines
    (there.root / "data").mkdir()
    (there.root / "data/corpus").write_text("old posts\n")
    run_handed_over("pretrain@0", packed(here), there, print)
    assert (there.root / "data/model-0").read_text() == "posts\n"


def test_other_code_there_is_named_before_anything_runs(machines):
    here, there = machines
    (there.root / "stage.py").write_text("# another commit\n")
    assert differing(there.root, "pretrain@0", packed(here)) == ["data/corpus", "stage.py"]
    with pytest.raises(CommandError, match=r"not the same here as in the build: stage\.py"):
        run_handed_over("pretrain@0", packed(here), there, print)
    assert ran(there) == []


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  - 0\n", '  - "0; touch pwned"\n', "run.seeds"),
        ("run:", "run: [", "not valid YAML"),
        ("run:", "rum:", "rum"),
    ],
)
def test_parameters_are_checked_before_dvc_reads_them(machines, old, new, named):
    here, there = machines
    handover = packed(here)
    assert old in handover.params
    before = (there.root / "params.yaml").read_text()
    with pytest.raises(CommandError, match=named):
        run_handed_over(
            "pretrain@0", handover.model_copy(update={"params": handover.params.replace(old, new)}), there, print
        )
    assert (there.root / "params.yaml").read_text() == before
    assert not (there.root / "pwned").exists()


@pytest.mark.parametrize("name", ["pretrain@1", "--help", "pretrain@0; touch pwned"])
def test_a_stage_that_is_not_there_is_named(machines, name):
    here, there = machines
    with pytest.raises(CommandError, match=r"unknown in dvc\.yaml"):
        run_handed_over(name, packed(here), there, print)


def test_a_failure_that_is_not_about_the_caches_keeps_its_reason(machines):
    here, _ = machines
    (here.root / "stage.py").unlink()
    with pytest.raises(CommandError, match=r"stage\.py"):
        restore("pretrain@0", here, print)


def test_a_handover_has_no_other_fields():
    with pytest.raises(ValidationError):
        Handover.model_validate({"builder": "b", "params": "", "lock": {}, "inputs": {}, "shell": "true"})


def test_a_worker_in_the_builds_own_folder_is_refused_instead_of_waiting_for_ever(machines, monkeypatch):
    here, _ = machines
    monkeypatch.chdir(here.root)
    state = stage.fn("pretrain@0", packed(here))
    assert state.is_failed()
    assert "a clone of its own" in (state.message or "")
