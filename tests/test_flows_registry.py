"""The registry on a real git and DVC repository: tags that GTO and DVC read, rollback, the user's files untouched."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gto.api
import pytest

from flows import registry
from flows.champion import fetch
from flows.failure import CommandError
from flows.registry import Version, before, git
from flows.workspace import open_workspace
from ntulm.errors import UserError
from ntulm.inference.directory import find

ROOT = Path(__file__).parent.parent
PIPELINE = """
stages:
  corpus:
    cmd: mkdir -p data/corpus && cp posts data/corpus/posts
    deps: [posts]
    outs: [data/corpus]
  model:
    cmd: mkdir -p data/model && cp posts data/model/weights && echo {} > data/model/reading.json
    deps: [data/corpus]
    outs: [data/model]
artifacts:
  ntulm:
    type: model
    path: data/model
"""
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "PYTHONPATH": str(ROOT),
}


def call(*command, cwd, check=True):
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def build(root, posts):
    (root / "posts").write_text(posts)
    call("dvc", "repro", "-q", cwd=root)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    for name, text in (("dvc.yaml", PIPELINE), ("params.yaml", "model: {variant: author}\n"), ("notes", "mine\n")):
        (root / name).write_text(text)
    call("git", "init", "-q", "-b", "main", cwd=root)
    call("dvc", "init", "-q", cwd=root)
    build(root, "first")
    call("git", "add", "dvc.yaml", "params.yaml", "notes", ".dvc", "posts", cwd=root)
    call("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start", cwd=root)
    return root


@pytest.fixture(scope="module")
def promoted(project):
    """Two promotions, each of other posts; the second with changes of the user's lying about."""
    assert registry.production(project) is None
    first = registry.promote(project, "the first model")
    build(project, "second")
    (project / "params.yaml").write_text("model: {variant: author} # tried\n")
    (project / "notes").write_text("staged\n")
    call("git", "add", "notes", cwd=project)
    before_promotion = call("git", "status", "--porcelain", "-b", cwd=project).stdout
    second = registry.promote(project, "not worse")
    assert call("git", "status", "--porcelain", "-b", cwd=project).stdout == before_promotion
    return first, second


def test_versions_and_stages_are_tags_that_gto_reads(project, promoted):
    first, second = promoted
    assert (first.version, second.version) == ("v1.0.0", "v2.0.0")
    tags = git(project, "tag").splitlines()
    assert sorted(tags) == ["ntulm#production#1", "ntulm#production#2", "ntulm@v1.0.0", "ntulm@v2.0.0"]
    assert gto.api.find_versions_in_stage(str(project), "ntulm", "production")[0].version == "v2.0.0"


def test_a_promotion_holds_the_files_that_built_the_model(project, promoted):
    _, second = promoted
    assert git(project, "show", f"{second.commit}:params.yaml") == "model: {variant: author} # tried"
    assert git(project, "show", f"{second.commit}:dvc.lock") == (project / "dvc.lock").read_text().strip()
    assert second.data != promoted[0].data
    assert second.data.endswith(".dir")
    assert git(project, "rev-parse", "promotions") == second.commit


def test_dvc_gets_the_model_of_a_stage_and_of_a_version(project, promoted, tmp_path):
    call("dvc", "artifacts", "get", str(project), "ntulm", "--stage", "production", "-o", "now", cwd=tmp_path)
    assert (tmp_path / "now/weights").read_text() == "second"
    call("dvc", "artifacts", "get", str(project), "ntulm", "--rev", "v1.0.0", "-o", "then", cwd=tmp_path)
    assert (tmp_path / "then/weights").read_text() == "first"


def test_the_champion_is_fetched_as_a_folder_like_the_project(project, promoted):
    first, _ = promoted
    with open_workspace(project, "test", lambda line: None) as workspace:
        folder = project / fetch(workspace, first, lambda line: None)
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == {"data/corpus/posts": "first", "data/model/weights": "first", "data/model/reading.json": "{}\n"}
    assert (project / "data/corpus/posts").read_text() == "second"


def test_a_champion_of_before_the_model_directory_names_the_way_out(project, promoted, tmp_path):
    root = tmp_path / "earlier"
    shutil.copytree(project, root, symlinks=True)
    earlier = (root / "dvc.yaml").read_text().replace(" && echo {} > data/model/reading.json", "")
    (root / "dvc.yaml").write_text(earlier)
    build(root, "earlier")
    version = registry.promote(root, "an earlier release")
    with open_workspace(root, "test", lambda line: None) as workspace, pytest.raises(CommandError) as refused:
        fetch(workspace, version, lambda line: None)
    assert str(refused.value).startswith(
        f"{version.version} was promoted before model directories existed; take it out"
    )
    command = str(refused.value).split("`")[1]
    registry.wait_past(registry.stage_events(root))
    for name, value in (("user.name", "t"), ("user.email", "t@example.org")):
        git(root, "config", name, value)
    call(*command.split(), cwd=root)
    assert registry.production(root) is None


def test_a_change_of_production_takes_the_fetched_model_of_before_away(project, promoted, tmp_path, monkeypatch):
    root = tmp_path / "fetched"
    shutil.copytree(project, root, symlinks=True)
    monkeypatch.chdir(root)

    def fetched():
        with open_workspace(root, "test", lambda line: None) as workspace:
            version = registry.production(root)
            assert version is not None
            fetch(workspace, version, lambda line: None)
        assert find("production").is_dir()

    for change in (lambda: registry.promote(root, "again"), lambda: registry.rollback(root)):
        fetched()
        change()
        with pytest.raises(UserError, match="--stage production"):
            find("production")


def test_one_command_rolls_back_and_show_says_so(project, promoted):
    command = [sys.executable, "-m", "flows.registry"]
    assert "in production: v2.0.0" in call(*command, "show", cwd=project).stdout
    assert "in production: v1.0.0" in call(*command, "rollback", cwd=project).stdout
    shown = call(*command, "show", cwd=project).stdout.splitlines()
    assert shown[0].startswith("in production: v1.0.0 (commit ")
    assert [row.split()[0] for row in shown[1:]] == ["v1.0.0", "v2.0.0", "v1.0.0"]
    assert promoted[0].data in shown[1]
    refused = call(*command, "rollback", cwd=project, check=False)
    assert (refused.returncode, refused.stderr) == (1, "error: registry: no earlier version to roll back to\n")
    assert "v2.0.0" in call(*command, "rollback", "--to", "v2.0.0", cwd=project).stdout
    wrong = call(*command, "rollback", "--to", "v9.0.0", cwd=project, check=False)
    assert "v9.0.0" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


def test_a_model_that_is_taken_out_is_no_champion(project, promoted):
    registry.wait_past(registry.stage_events(project))
    gto.api.unassign(str(project), "ntulm", version="v2.0.0", stage="production", author="t", author_email="t@e.org")
    assert registry.production(project) is None
    assert registry.assign(project, "v2.0.0", "back again").version == "v2.0.0"


def test_a_change_in_the_future_is_refused_not_waited_for():
    ahead = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(CommandError, match="ahead of this machine's clock"):
        registry.wait_past([{"timestamp": ahead}])


@pytest.mark.parametrize(
    ("assigned", "expected"),
    [("", None), ("1", None), ("12", "1"), ("121", None), ("123", "2"), ("1232", "1"), ("12324", "2"), ("11", None)],
)
def test_rolling_back_twice_goes_back_two_versions(assigned, expected):
    since = datetime(2026, 1, 1, tzinfo=UTC)
    found = before([Version(name, "c", since, "d") for name in assigned])
    assert (found.version if found else None) == expected


def test_a_promotion_needs_something_that_was_built(tmp_path):
    call("git", "init", "-q", cwd=tmp_path)
    with pytest.raises(CommandError, match="git rev-parse"):
        registry.promote(tmp_path, "nothing here")
