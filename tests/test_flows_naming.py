"""Names and tags of runs that can be read in a list."""

import subprocess
from types import SimpleNamespace
from uuid import uuid4

import pytest

from flows import naming
from flows.naming import called, commit_of, recipe_of, trigger
from flows.parameters import AS_IT_STANDS


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_text("# stocknet: raw objects about stocks\nrun: {}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_name_has_flow_recipe_and_commit(project):
    commit = commit_of(project)
    assert len(commit) == 7
    assert called("build", {"recipe": AS_IT_STANDS}, project) == f"build stocknet @{commit}"
    assert called("retrain", {"recipe": "ira"}, project) == f"retrain ira @{commit}"
    assert called("monitor", {}, project) == f"monitor stocknet @{commit}"


def test_a_name_that_somebody_gave_stays(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(naming.flow_run, "get_flow_name", lambda: "build")
    monkeypatch.setattr(naming.flow_run, "get_parameters", dict)
    for given, expected in (("brave-otter", f"build stocknet @{commit_of(project)}"), ("Before the move", None)):
        monkeypatch.setattr(naming.flow_run, "get_name", lambda given=given: given)
        assert naming.run_name() == (expected or given)


def test_edited_code_shows_and_edited_parameters_do_not(project):
    before = commit_of(project)
    (project / "params.yaml").write_text("# own: yours\n")
    assert commit_of(project) == before
    (project / "dvc.yaml").write_text("stages: {a: {cmd: x}}\n")
    assert commit_of(project) == f"{before}+"


def test_without_git_and_without_a_recipe_the_flow_is_all_that_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert called("build", {}, tmp_path) == "build"
    (tmp_path / "params.yaml").write_bytes(b"run: {} \xff\n")
    assert recipe_of({}, tmp_path) == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) == ""


def test_who_started_a_run():
    deployment = uuid4()
    assert [trigger(True, deployment), trigger(False, deployment), trigger(False, None)] == [
        "schedule",
        "request",
        "shell",
    ]


def test_a_run_that_cannot_be_tagged_goes_on(monkeypatch):
    said: list[str] = []
    run = SimpleNamespace(id="id", tags=["ntulm"], auto_scheduled=True, deployment_id="id")
    monkeypatch.setattr(naming.FlowRunContext, "get", lambda: SimpleNamespace(flow_run=run))
    monkeypatch.setattr(naming.flow_run, "get_parameters", dict)
    monkeypatch.setattr("flows.artifacts.get_run_logger", lambda: SimpleNamespace(warning=said.append))

    def get_client(sync_client):
        raise RuntimeError("database is locked")

    monkeypatch.setattr(naming, "get_client", get_client)
    naming.tag_run()
    assert said == ["tags: not shown in the UI: database is locked"]
