"""The images' entrypoint brings the code into the workspace and leaves what the workspace owns alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).parent.parent / "deploy/entrypoint.sh"


@pytest.fixture
def folders(tmp_path):
    """An image's files and an empty workspace."""
    source, workspace = tmp_path / "image", tmp_path / "workspace"
    for name in ("ntulm", "flows", ".dvc"):
        (source / name).mkdir(parents=True)
    (source / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (source / "ntulm/old.py").write_text("1\n")
    (source / "params.yaml").write_text("recipe\n")
    (source / ".image").write_text("one\n")
    workspace.mkdir()
    return source, workspace


def enter(source, workspace, *command, **settings):
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(workspace),
        "NTULM_SOURCE": str(source),
        "NTULM_WORKSPACE": str(workspace),
        "NTULM_DVC_REMOTE": "s3://ntulm/dvc",
        "AWS_ENDPOINT_URL": "http://store:9000",
        "AWS_SECRET_ACCESS_KEY": "not-to-be-written",
        "DVC_NO_ANALYTICS": "1",
    } | settings  # fmt: skip
    return subprocess.run([ENTRYPOINT, *command], env=environment, capture_output=True, text=True, check=False)


def test_the_workspace_gets_the_code_and_the_remote_but_no_secret(folders):
    source, workspace = folders
    done = enter(source, workspace, "sh", "-c", "pwd; exit 7")
    assert (done.returncode, done.stdout.strip()) == (7, str(workspace)), done.stderr
    assert (workspace / "ntulm/old.py").read_text() == "1\n"
    settings = (workspace / ".dvc/config.local").read_text()
    for line in ("no_scm = true", "remote = store", "url = s3://ntulm/dvc", "endpointurl = http://store:9000"):
        assert line in settings
    assert "not-to-be-written" not in settings


def test_the_same_image_touches_nothing_and_a_new_one_replaces_the_code_alone(folders):
    source, workspace = folders
    enter(source, workspace, "true")
    (workspace / "params.yaml").write_text("mine\n")
    (workspace / "data").mkdir()
    (workspace / "ntulm/old.py").write_text("edited\n")
    enter(source, workspace, "true", PATH=os.environ["PATH"].replace(str(Path(sys.executable).parent), "/nowhere"))
    assert (workspace / "ntulm/old.py").read_text() == "edited\n"
    (source / "ntulm/old.py").rename(source / "ntulm/new.py")
    (source / ".image").write_text("two\n")
    done = enter(source, workspace, "true")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (workspace / "ntulm").iterdir()] == ["new.py"]
    assert (workspace / "params.yaml").read_text() == "mine\n"
    assert (workspace / "data").is_dir()


def test_a_new_image_waits_for_the_run_that_writes_to_the_workspace(folders):
    source, workspace = folders
    lock = workspace / ".dvc/tmp/flows.lock"
    lock.parent.mkdir(parents=True)
    with subprocess.Popen(["flock", str(lock), "sleep", "3"]) as holder:
        while subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode == 0:
            assert holder.poll() is None
        done = enter(source, workspace, "true")
        assert done.returncode == 0, done.stderr
        assert holder.poll() == 0
