"""The real thing for the slow tests: a copy of the project with small settings, and a Prefect started by `up`."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect_api import PrefectApi
from test_end_to_end import ENVIRONMENT, ROOT, SMALL, call, copy_of_the_project, metrics


def copy_with_flows(folder, backbone):
    """A git repository with the project, its flows and its deployments."""
    copy_of_the_project(folder, backbone)
    for name in ("flows", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    call("git", "add", "-A", cwd=folder)
    call("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "flows", cwd=folder)


def two_free_ports() -> int:
    """A port that is free together with the next one."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return port
            except OSError:
                continue


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every process that works in the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def command_of(process: psutil.Process) -> list[str]:
    """The words of its command; none of a process that has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie is one too
        return []


def local(action: str, folder: Path, port: int, settings: dict[str, str] | None = None) -> str:
    """`make up` and `make down` in the environment of the tests."""
    done = subprocess.run(
        [sys.executable, "deploy/local.py", action],
        cwd=folder,
        env=ENVIRONMENT | {"NTULM_PORT": str(port)} | (settings or {}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def changes(tiny_backbone) -> list[str]:
    """What the copy of the project differs in from the quickstart."""
    return [*SMALL, f"adapt.backbone={tiny_backbone}"]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, tiny_backbone) -> dict:
    """The metrics of a plain `dvc repro` in a fresh copy."""
    folder = tmp_path_factory.mktemp("undisturbed")
    copy_with_flows(folder, tiny_backbone)
    call("dvc", "repro", cwd=folder)
    return metrics(folder)


@pytest.fixture(scope="session")
def project(tmp_path_factory, tiny_backbone) -> Path:
    folder = tmp_path_factory.mktemp("project")
    copy_with_flows(folder, tiny_backbone)
    return folder


@pytest.fixture(scope="session")
def api(project):
    """A server with two pools, two workers and the deployments, in the project; ended afterwards without a trace."""
    port = two_free_ports()
    try:
        printed = local("up", project, port)
        assert f"http://127.0.0.1:{port}" in printed
        yield PrefectApi(f"http://127.0.0.1:{port}")
    finally:
        local("down", project, port)  # first: what goes wrong below must not leave it running
        keep = os.environ.get("NTULM_E2E_LOGS")
        if keep:
            shutil.copytree(project / ".prefect/logs", keep, dirs_exist_ok=True)
    assert processes_in(project) == []
