"""What a killed DVC leaves half-written bars no later run; what somebody uses stays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.config import Config
from dvc.lock import make_lock

from flows.failure import CommandError
from flows.mending import mend
from flows.workspace import open_workspace

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


WHOLE_LOCK_FILE = """\
schema: '2.0'
stages:
  corpus:
    cmd: python -m ntulm corpus
    outs:
    - path: data/corpus
      md5: 0123456789abcdef0123456789abcdef.dir
      size: 10
      nfiles: 2
"""


LEFT = ["", "sche", "schema: '2.0'\nstages:\n  corpus:\n    outs:\n    - path: data", "\x00", "[" * 3000]
LEFT += ["a: !!bool x", "a: !!int ''", "a: 2016-02-30", "? {a: 1}\n: 2", "stages: [1]"]


@pytest.mark.parametrize("left", LEFT)
def test_a_lock_file_that_a_killed_dvc_left_half_written_is_set_aside(project, left):
    (project / "dvc.lock").write_text(left)
    said: list[str] = []
    with open_workspace(project, "next", said.append):
        assert not (project / "dvc.lock").exists()
    assert (project / "dvc.lock.damaged").read_text() == left
    assert len(said) == 1
    assert said[0].startswith("dvc.lock was half-written")


def test_a_whole_lock_file_stays(project):
    (project / "dvc.lock").write_text(WHOLE_LOCK_FILE)
    with open_workspace(project, "next", pytest.fail):
        assert (project / "dvc.lock").read_text() == WHOLE_LOCK_FILE


@pytest.mark.parametrize("left", ["", '{"write": {', "[]", "[" * 9000, "9" * 5000, '{"write": {"/a": {"pid": "x"}}}'])
def test_a_list_of_paths_in_use_that_was_left_half_written_is_set_aside(project, left):
    path = project / ".dvc" / "tmp" / "rwlock"
    path.write_text(left)
    said: list[str] = []
    with open_workspace(project, "next", said.append):
        assert not path.exists()
    assert path.with_name("rwlock.damaged").read_text() == left
    assert said == [".dvc/tmp/rwlock was half-written by a killed run: now rwlock.damaged"]


def test_a_whole_list_stays(project):
    path = project / ".dvc" / "tmp" / "rwlock"
    path.write_text(json.dumps({"write": {"/data": {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}))
    with open_workspace(project, "next", pytest.fail):
        assert json.loads(path.read_text())["write"]["/data"]["pid"] == os.getpid()


def test_a_list_that_another_process_is_writing_is_waited_for(project):
    temporary = project / ".dvc" / "tmp"
    (temporary / "rwlock").write_text("")  # as it is between the opening and the writing
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with make_lock(str(temporary / "rwlock.lock"), tmp_dir=str(temporary)):
        waiting = subprocess.Popen(
            [sys.executable, "-m", "flows.mending"], cwd=project, env=environment, stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(4)
        (temporary / "rwlock").write_text("{}")
    said, _ = waiting.communicate(timeout=120)
    assert said == ""
    assert (temporary / "rwlock").read_text() == "{}"


def test_dvc_runs_again_after_a_kill_in_the_moment_of_writing(project):
    command = [sys.executable, "-m", "dvc"]
    (project / "dvc.yaml").write_text("stages:\n  one: {cmd: echo 1 > one, outs: [one]}\n")
    for arguments in (["init", "--no-scm", "--force", "--quiet"], ["repro", "--quiet"]):
        subprocess.run([*command, *arguments], cwd=project, check=True, capture_output=True)
    (project / ".dvc" / "tmp" / "rwlock").write_text("")
    (project / "one").unlink()
    barred = subprocess.run([*command, "repro"], cwd=project, capture_output=True, text=True)
    assert "JSON structure is corrupted" in barred.stderr
    mend(project, print)
    subprocess.run([*command, "repro", "--quiet"], cwd=project, check=True, capture_output=True)
    assert (project / "one").read_text() == "1\n"


REMOTES = """\
[core]
    remote = store
['remote "store"']
    url = s3://bucket/results
['remote "trusted"']
    url = ../elsewhere
    verify = false
"""


def test_what_is_fetched_is_compared_with_its_hash_unless_somebody_decided_otherwise(project):
    (project / ".dvc/config").write_text(REMOTES)
    (project / ".dvc/config.local").write_text("['remote \"store\"']\n    endpointurl = http://127.0.0.1:9000\n")
    said: list[str] = []
    mend(project, said.append)
    assert said == ["remote store: what is fetched is compared with its hash (`verify`, .dvc/config.local)"]
    settings = Config(str(project / ".dvc"))["remote"]
    assert {name: remote["verify"] for name, remote in settings.items()} == {"store": True, "trusted": False}
    assert settings["store"]["endpointurl"] == "http://127.0.0.1:9000"
    assert settings["store"]["url"] == "s3://bucket/results"
    assert (project / ".dvc/config").read_text() == REMOTES
    mend(project, pytest.fail)


def test_settings_that_dvc_does_not_accept_are_one_line(project):
    (project / ".dvc/config").write_text("['remote \"store\"']\n    adress = s3://bucket\n")
    with pytest.raises(CommandError, match=r"^\.dvc/config: .*store.*$"):
        mend(project, pytest.fail)
