"""Background services: started once, recognised for sure, ended with their children, and nothing else ended."""

import json
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from deploy import services
from deploy.services import Service, ServiceError

PARENT = (
    "import subprocess, time; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr(services, "END_SECONDS", 1.0)


@pytest.fixture
def service(tmp_path):
    service = Service("server", [sys.executable, "-c", PARENT], 0)
    services.start(service, tmp_path, tmp_path, os.environ)
    yield service
    services.end(service, tmp_path)


def record(home):
    return json.loads((home / "run/server.json").read_text())


def test_a_service_is_started_once_and_ended_with_its_children(service, tmp_path):
    first = record(tmp_path)
    services.start(service, tmp_path, tmp_path, os.environ)
    assert record(tmp_path) == first
    deadline = time.monotonic() + 60
    while not (tmp_path / "logs/server.log").read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int((tmp_path / "logs/server.log").read_text())
    services.end(service, tmp_path)
    assert not services.is_running(service, tmp_path)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    services.end(service, tmp_path)  # ending twice is fine


def test_a_process_that_only_has_the_recorded_number_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["sleep", "60"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run/server.json").write_text(json.dumps({"pid": stranger.pid, "started": 1.0, "port": 4200}))
    service = Service("server", ["true"])
    assert not services.is_running(service, tmp_path)
    assert services.recorded_port(tmp_path) is None
    services.end(service, tmp_path)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_taken_port_and_a_program_that_ends_at_once_are_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} is taken"):
            services.start(Service("web", ["sleep", "60"], port), tmp_path, tmp_path, os.environ)
    with pytest.raises(ServiceError, match="exit code 3"):
        services.start(Service("web", ["sh", "-c", "exit 3"]), tmp_path, tmp_path, os.environ)


WORKER = """
import os, subprocess, sys, time
environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
run = "import subprocess, time; subprocess.Popen(['sleep', '121'], start_new_session=True); time.sleep(122)"
child = subprocess.Popen([sys.executable, "-c", run], start_new_session=True, env=environment)
print(child.pid, flush=True)
time.sleep(120)
"""


def started_by(pid):
    """The process and its children, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        process = psutil.Process(pid)
        if process.children():
            return [process, *process.children()]
        time.sleep(0.05)
    raise AssertionError(f"{pid} starts nothing")


def is_gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("again", [False, True])
def test_what_a_killed_service_left_in_other_sessions_is_ended_too(again, tmp_path, capsys):
    worker = Service("cpu-worker", [sys.executable, "-c", WORKER])
    services.start(worker, tmp_path, tmp_path, os.environ)
    deadline = time.monotonic() + 60
    while not (tmp_path / "logs/cpu-worker.log").read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.05)
    run = started_by(int((tmp_path / "logs/cpu-worker.log").read_text()))
    killed = psutil.Process(json.loads((tmp_path / "run/cpu-worker.json").read_text())["pid"])
    killed.kill()
    killed.wait(10)
    assert not any(is_gone(process) for process in run)
    if again:  # as a second `make up` does
        services.start(worker, tmp_path, tmp_path, os.environ)
    stranger = subprocess.Popen(["sleep", "60"], env=os.environ | {services.MARK: "/elsewhere/run/cpu-worker.json"})
    services.end(worker, tmp_path)
    assert all(is_gone(process) for process in run)
    assert "left behind when it was killed: 2 processes" in capsys.readouterr().out
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
