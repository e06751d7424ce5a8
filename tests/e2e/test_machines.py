"""Two workspaces as two machines with a folder as DVC remote, on a pipeline of three stages that take no time.

The build's machine runs the server and the worker of cpu-pool; the other one the worker of gpu-pool.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from conftest import command_of, local, processes_in, two_free_ports
from prefect_api import PrefectApi
from test_end_to_end import ENVIRONMENT, ROOT, call

STAGE = """\
import pathlib, sys, time
name, source, target = sys.argv[1:]
while pathlib.Path("hold").exists():
    time.sleep(0.1)
text = pathlib.Path(source).read_text()
pathlib.Path(target).parent.mkdir(exist_ok=True)
pathlib.Path(target).write_text(text + name + "\\n")
with open("ran", "a") as ran:
    print(name, file=ran)
"""
PIPELINE = """\
stages:
  corpus:
    cmd: python stage.py corpus source data/corpus
    deps: [source, stage.py]
    outs: [data/corpus]
  pretrain:
    matrix: {seed: "${run.seeds}"}
    meta: {pool: gpu-pool}
    cmd: python stage.py pretrain data/corpus data/model-${item.seed}
    deps: [data/corpus, stage.py]
    outs: ["data/model-${item.seed}"]
  report:
    cmd: python stage.py report data/model-0 data/report
    deps: [data/model-0, stage.py]
    outs: [data/report]
"""
IMPATIENCE = {"NTULM_WORKER_PATIENCE": "5", "NTULM_SILENCE": "75"}


@dataclass
class Machines:
    """The two workspaces, the server in between, and the worker in the second."""

    build: Path
    gpu: Path
    api: PrefectApi
    workers: list[subprocess.Popen] = field(default_factory=list)

    def start_worker(self) -> None:
        """What the how-to says for the second machine."""
        environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("PREFECT")} | {
            "PREFECT_API_URL": f"{self.api.address}/api",
            "PREFECT_HOME": str(self.gpu / ".prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "NTULM_WORKSPACE": str(self.gpu),
        }
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu-pool", "--type", "process"]
        with (self.gpu / "worker.log").open("a") as log:
            self.workers.append(
                subprocess.Popen(command, cwd=self.gpu, env=environment, stdout=log, stderr=log, start_new_session=True)
            )

    def end(self) -> None:
        """End what runs in the second workspace."""
        for process in processes_in(self.gpu):
            process.kill()
        for worker in self.workers:
            worker.wait()

    def next_posts(self, text: str) -> None:
        """Let the next build have something to do, with nothing noted yet."""
        (self.build / "source").write_text(text)
        for folder in (self.build, self.gpu):
            (folder / "ran").unlink(missing_ok=True)

    def ran(self) -> tuple[list[str], list[str]]:
        paths = (self.build / "ran", self.gpu / "ran")
        first, second = (path.read_text().split() if path.exists() else [] for path in paths)
        return first, second

    def stage_runs(self) -> list[dict]:
        """The runs of the flow `stage`, newest first."""
        return self.api.send(
            "POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["stage"]}}, "sort": "EXPECTED_START_TIME_DESC"}
        )


def workspace(folder: Path, remote: Path) -> Path:
    folder.mkdir()
    for name in ("flows", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "stage.py").write_text(STAGE)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "source").write_text("posts\n")
    call("dvc", "init", "--quiet", "--no-scm", cwd=folder)
    call("dvc", "remote", "add", "--quiet", "--local", "--default", "store", str(remote), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    build, gpu = (workspace(folder / name, folder / "remote") for name in ("build", "gpu"))
    port = two_free_ports()
    machines = Machines(build, gpu, PrefectApi(f"http://127.0.0.1:{port}"))
    try:
        local("up", build, port, IMPATIENCE | {"NTULM_WORKERS": "cpu"})
        machines.start_worker()
        yield machines
    finally:
        machines.end()
        local("down", build, port)
        keep = os.environ.get("NTULM_E2E_LOGS")
        if keep:
            for log in [*build.glob(".prefect/logs/*.log"), *gpu.glob("worker.log")]:
                shutil.copy(log, keep)
    assert processes_in(folder) == []


def hold(machines: Machines) -> None:
    (machines.gpu / "hold").touch()


def release(machines: Machines) -> None:
    (machines.gpu / "hold").unlink(missing_ok=True)


def wait_for_stage(machines: Machines, patience: float = 90) -> list[psutil.Process]:
    """Wait until the stage runs in the second workspace; return its flow's process and those below, outermost first."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = processes_in(machines.gpu)
        lines = {process.pid: " ".join(command_of(process)) for process in found}
        if any("python stage.py" in line for line in lines.values()):
            return [process for process in found if "prefect.engine" in lines.get(process.pid, "")]
        time.sleep(0.2)
    raise AssertionError("the stage did not start\n" + (machines.gpu / "worker.log").read_text()[-3000:])


def test_the_stages_of_the_pool_run_in_the_second_workspace_only(machines):
    run, state = machines.api.run("build/build-gpu")
    assert state["message"] == "3 stages: 2 ran, 1 ran in their pool", machines.api.log(run)[-3000:]
    assert machines.ran() == (["corpus", "report"], ["pretrain"])
    assert (machines.build / "data/report").read_text() == "posts\ncorpus\npretrain\nreport\n"
    assert "up to date" in call("dvc", "status", cwd=machines.build).stdout
    assert [one["name"] for one in machines.stage_runs()] == ["pretrain@0"]


def test_registering_again_changes_nothing(machines):
    before = machines.api.send("POST", "/automations/filter", {})
    local("up", machines.build, 1, IMPATIENCE | {"NTULM_WORKERS": "cpu"})
    after = machines.api.send("POST", "/automations/filter", {})
    assert [one["id"] for one in after] == [one["id"] for one in before]
    assert len(after) == 1
    pools = {pool["name"]: pool for pool in machines.api.send("POST", "/work_pools/filter", {})}
    assert pools["gpu-pool"]["concurrency_limit"] == 1
    assert pools["cpu-pool"]["concurrency_limit"] is None


@pytest.mark.parametrize("path", sorted((ROOT / "deploy/templates").glob("*.json")), ids=lambda path: path.name)
def test_the_server_accepts_every_template(machines, path):
    template = json.loads(path.read_text())
    name = path.stem.replace(".", "-")
    body = {"name": name, "type": path.name.partition(".")[0], "base_job_template": template}
    assert machines.api.send("POST", "/work_pools/", body)["base_job_template"] == template
    machines.api.send("DELETE", f"/work_pools/{name}")


def test_nothing_is_sent_where_nothing_changed(machines):
    before = len(machines.stage_runs())
    _, state = machines.api.run("build/build-gpu")
    assert state["message"] == "3 stages: 3 unchanged"
    assert len(machines.stage_runs()) == before


def test_a_killed_run_is_sent_again(machines):
    machines.next_posts("more posts\n")
    hold(machines)
    run = machines.api.start("build/build-gpu")
    wait_for_stage(machines)[0].kill()
    release(machines)
    state = machines.api.wait(run)
    assert state["message"] == "3 stages: 2 ran, 1 ran in their pool", machines.api.log(run)[-3000:]
    assert "pretrain@0: crashed in gpu-pool" in machines.api.log(run)
    assert "sending it again" in machines.api.log(run)


def test_a_failed_stage_is_named_with_its_pool_and_reason(machines):
    machines.next_posts("even more posts\n")
    (machines.gpu / "stage.py").write_text("# another commit\n")
    _, state = machines.api.run("build/build-gpu")
    (machines.gpu / "stage.py").write_text(STAGE)
    assert state["type"] == "FAILED"
    assert "pretrain@0: failed in gpu-pool: not the same here as in the build: stage.py" in state["message"]


def test_a_cancelled_build_cancels_its_stage_in_the_pool(machines):
    machines.next_posts("posts of today\n")
    hold(machines)
    run = machines.api.start("build/build-gpu")
    wait_for_stage(machines)
    machines.api.send("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert machines.api.wait(run)["type"] == "CANCELLED"
    assert machines.api.wait(machines.stage_runs()[0]["id"])["type"] == "CANCELLED"
    release(machines)
    assert not [one for one in processes_in(machines.gpu) if "stage.py" in " ".join(command_of(one))]


def test_a_machine_that_dies_is_noticed_by_its_silence_and_named(machines):
    """Last: it leaves no worker behind."""
    machines.next_posts("posts of tomorrow\n")
    hold(machines)
    run = machines.api.start("build/build-gpu")
    wait_for_stage(machines)
    machines.end()
    state = machines.api.wait(run, patience=240)
    assert state["type"] == "FAILED"
    assert "pretrain@0: no worker of gpu-pool is online" in state["message"]
    assert "pretrain@0: crashed in gpu-pool: no heartbeat for 75 s: its machine died" in machines.api.log(run)
