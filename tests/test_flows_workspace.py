"""One writer a workspace; commands with their own reasons; no secret in a log."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.failure import CommandError
from flows.workspace import LOCK, command_environment, open_workspace, secrets_hidden

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def test_a_second_run_waits_for_the_first_and_says_for_whom(project):
    said: list[str] = []
    order: list[str] = []

    def second():
        with open_workspace(project, "second", said.append):
            order.append("second in")

    with open_workspace(project, "flow run calm-otter", said.append):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(1.5)
        order.append("first out")
    thread.join(10)
    assert order == ["first out", "second in"]
    assert said == ["waiting: flow run calm-otter writes to this workspace"]


def test_a_killed_holder_frees_the_workspace(project):
    program = (
        "import time\nfrom pathlib import Path\nfrom flows.workspace import open_workspace\n"
        f"with open_workspace(Path({str(project)!r}), 'victim', print):\n"
        "    print('in', flush=True)\n    time.sleep(60)\n"
    )
    victim = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"in\n"
    victim.kill()
    victim.wait()
    with open_workspace(project, "next", pytest.fail):
        assert (project / LOCK).read_text() == "next"


def test_a_folder_that_is_no_project_is_refused(tmp_path):
    with pytest.raises(CommandError, match="root of the project"), open_workspace(tmp_path, "x", print):
        pass


def test_a_failed_command_gives_its_own_reason_and_its_lines_reach_the_log(project):
    lines: list[str] = []
    with open_workspace(project, "x", print) as workspace:
        with pytest.raises(CommandError, match=r"^no such folder$"):
            workspace.run(["sh", "-c", "echo working; echo error: no such folder >&2; exit 1"], lines.append)
        assert workspace.run(["echo", "fine"], lines.append) == ["fine"]
    assert lines == ["working", "error: no such folder", "fine"]


def test_secrets_of_the_environment_do_not_reach_a_log(project, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22hunter22")
    lines: list[str] = []
    with open_workspace(project, "x", print) as workspace:
        workspace.run(
            [sys.executable, "-c", "import os; print('key', os.environ['AWS_SECRET_ACCESS_KEY'])"], lines.append
        )
    assert lines == ["key ***"]
    assert secrets_hidden({"TOKEN": "ab"})("cab") == "cab"  # too short to tell from ordinary text


def test_stages_see_none_of_prefects_settings_and_no_telemetry():
    environment = command_environment({"PREFECT_API_KEY": "k", "PATH": "/bin", "HOME": "/h", "PYTHONSAFEPATH": "1"})
    assert "PYTHONSAFEPATH" not in environment
    assert not [name for name in environment if name.startswith("PREFECT")]
    assert environment["HOME"] == "/h"
    assert environment["PATH"].endswith(":/bin")
    assert environment["DVC_NO_ANALYTICS"] == environment["DO_NOT_TRACK"] == "1"
