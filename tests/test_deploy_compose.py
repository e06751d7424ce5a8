"""What deploy/compose.yaml and deploy/Dockerfile promise, where no Docker is at hand: names, ports, secrets, users."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy.registration import POOLS

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "deploy/compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEXT = (ROOT / "deploy/compose.yaml").read_text(encoding="utf-8")
EXAMPLE = dict(
    line.split("=", 1) for line in (ROOT / "deploy/.env.example").read_text().splitlines() if line and line[0] != "#"
)
TOP_KEYS = {"name", "networks", "services", "volumes"}
SERVICE_KEYS = {
    "build", "cap_add", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment", "healthcheck",
    "image", "init", "network_mode", "networks", "ports", "profiles", "restart", "security_opt", "shm_size",
    "stop_grace_period", "user", "volumes",
}  # fmt: skip
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
SECRET = re.compile(r"PASSWORD|AUTH_STRING|SECRET|ACCESS_KEY|_USER$")
REQUIRED = re.compile(r"^\$\{(\w+):\?set it in deploy/\.env\}$")


def test_only_keys_that_the_compose_specification_has():
    assert {key for key in COMPOSE if not key.startswith("x-")} == TOP_KEYS
    for name, service in SERVICES.items():
        assert set(service) <= SERVICE_KEYS, name


def test_what_a_service_waits_for_exists_and_can_tell_that_it_is_ready():
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            assert set(how) == {"condition"}
            assert how["condition"] in CONDITIONS
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"]
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "on-failure"


def test_every_volume_is_declared_and_used():
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    named = {mount.split(":")[0] for mount in mounts if re.match(r"[a-z]", mount)}
    assert named == set(COMPOSE["volumes"])


def test_what_listens_outside_listens_on_loopback():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_secrets_come_from_the_environment_and_the_example_has_none():
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name) and value != "prefect":  # the name of a database user
                assert REQUIRED.match(str(value)), name
    assert set(re.findall(r"\$\{(\w+)", TEXT)) == set(EXAMPLE)
    assert set(EXAMPLE.values()) == {""}


def test_images_are_pinned_and_ours_are_built_from_the_dockerfile():
    for name, service in SERVICES.items():
        assert re.fullmatch(r"\S+:(?!latest)\S+", service["image"]), name
        if "build" in service:
            assert (ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_each_pool_has_a_worker_and_that_of_the_gpu_gets_one():
    pools = {service["command"][4] for service in SERVICES.values() if "worker" in service.get("command", [])}
    assert pools == set(POOLS)
    devices = SERVICES["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "${NTULM_GPUS:-1}", "capabilities": ["gpu"]}]
    assert SERVICES["gpu-worker"]["environment"]["NTULM_RANKS"] == "all"
    shared = {SERVICES[f"{kind}-worker"]["volumes"][0] for kind in ("cpu", "gpu")}
    assert len(shared) == 2  # two workspaces: a build waits for a stage that would wait for the build's lock


def test_no_container_holds_more_rights_than_it_needs():
    for name in SERVICES:
        assert SERVICES[name]["cap_drop"] == ["ALL"], name
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"], name
    own = {name for name, service in SERVICES.items() if not service["image"].startswith("ntulm:")}
    assert {name: SERVICES[name]["user"] for name in own} == {  # our image says so itself
        "postgres": "70:70",
        "store": "1000:1000",
        "store-folder": "0:0",
    }
    assert {name for name in SERVICES if "cap_add" in SERVICES[name]} == {"store-folder"}
    assert SERVICES["store-folder"]["network_mode"] == "none"


def test_database_and_store_are_reached_by_those_alone_who_need_them_and_reach_nothing():
    members: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for network in service.get("networks", ["none" if "network_mode" in service else "default"]):
            members.setdefault(network, set()).add(name)
    assert COMPOSE["networks"] == {"database": {"internal": True}, "store": {"internal": True}}
    assert members["database"] == {"postgres", "server"}
    assert members["store"] == {"store", "cpu-worker", "gpu-worker"}
    assert not members["default"] & {"postgres", "store"}


def test_the_image_is_pinned_runs_as_nobody_special_and_leaves_secrets_out():
    lines = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    assert "ARG PYTHON=python:3.11.14-slim-bookworm" in lines
    stages = {line.split()[3] for line in lines if line.startswith("FROM") and " AS " in line}
    assert {line.split()[1] for line in lines if line.startswith("FROM")} - stages == {"${PYTHON}"}
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in line for line in installs)
    images = [part for part in "\n".join(lines).split("\nFROM") if "ENTRYPOINT" in part]
    assert len(images) == 2  # that of the server, then that of everything else: the one without a target
    assert "AS serve\n" in images[0]
    for image in images:
        assert re.search(r"^USER 1000:1000$", image, re.M)
        assert image.index("USER") < image.index("ENTRYPOINT")
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".env", "deploy/.env", ".dvc/config.local", ".prefect", "data"} <= set(ignored)


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker")
def test_docker_compose_itself_accepts_the_file():
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker without compose")
    command = ["docker", "compose", "-f", "deploy/compose.yaml", "--profile", "gpu", "config", "--quiet"]
    environment = os.environ | {name: f"/{name}" for name in EXAMPLE}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
