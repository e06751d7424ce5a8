"""Work pools: their templates, the deployments in them, and the stages that dvc.yaml sends there."""

import json
import re
from pathlib import Path
from typing import Any

import docker
import pytest
from ruamel.yaml import YAML

from deploy.registration import POOLS, TEMPLATES, pool_template
from deploy.services import ServiceError

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
DEPLOYMENTS = YAML(typ="safe", pure=True).load(ROOT / "deploy/prefect.yaml")["deployments"]
TYPES = ["process", "docker", "kubernetes"]
NEWER = {"docker": {"container_create_kwargs"}}  # than the table of worker types that Prefect's wheel brings
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")


def known_settings(kind: str) -> set[str]:
    """What a job of this type can be told, by the table in Prefect's wheel."""
    import prefect.server.api.collections_data as data

    views = Path(data.__path__[0]) / "views/aggregate-worker-metadata.json"
    workers = {name: worker for types in json.loads(views.read_text()).values() for name, worker in types.items()}
    return set(workers[kind]["default_base_job_configuration"]["job_configuration"]) | NEWER.get(kind, set())


def test_each_pool_of_a_stage_is_registered_and_has_the_deployment_that_builds_start():
    pools = {body["meta"]["pool"] for stage in STAGES.values() if (body := stage.get("do", stage)).get("meta")}
    assert pools == {"gpu-pool"}
    deployed = {item["name"]: item for item in DEPLOYMENTS}
    for pool in pools:
        assert POOLS[pool] == 1
        assert deployed[pool]["work_pool"]["name"] == pool
        assert deployed[pool]["entrypoint"] == "flows/single_stage.py:stage"


def test_deployments_name_flows_and_pools_that_exist():
    for item in DEPLOYMENTS:
        path, function = item["entrypoint"].split(":")
        assert re.search(rf"^def {function}\(", (ROOT / path).read_text(encoding="utf-8"), re.M)
        assert item["work_pool"]["name"] in POOLS
    assert next(item for item in DEPLOYMENTS if item["name"] == "build-gpu")["parameters"] == {"by_pool": True}


def test_the_worker_not_the_registering_machine_says_where_the_project_is():
    assert "{{ $" not in (ROOT / "deploy/prefect.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("pool", POOLS)
def test_a_template_uses_its_variables_and_settings_that_its_worker_knows(pool, kind):
    template = pool_template(ROOT, pool, kind)
    assert set(template) == {"job_configuration", "variables"}
    used = set(PLACEHOLDER.findall(json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    assert set(template["job_configuration"]) <= known_settings(kind)
    assert all(variable["description"] for variable in template["variables"]["properties"].values())


def test_an_unknown_type_of_pool_is_named():
    with pytest.raises(ServiceError, match="NTULM_POOL_TYPE=podman"):
        pool_template(ROOT, "gpu-pool", "podman")


def test_docker_accepts_what_the_gpu_template_asks_for():
    template = pool_template(ROOT, "gpu-pool", "docker")
    asked = filled(template["job_configuration"]["container_create_kwargs"], {"gpus": 4})
    client = docker.APIClient(base_url="tcp://127.0.0.1:9", version="1.45")
    settings = client.create_host_config(**asked)
    assert settings["DeviceRequests"][0]["Driver"] == "nvidia"
    assert settings["DeviceRequests"][0]["Count"] == 4
    assert settings["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
    assert (
        "device_requests"
        not in pool_template(ROOT, "cpu-pool", "docker")["job_configuration"]["container_create_kwargs"]
    )


def test_only_the_pool_of_the_gpu_asks_for_one():
    pods = {pool: job_manifest(pool)["spec"]["template"]["spec"] for pool in POOLS}
    assert pods["gpu-pool"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pods["gpu-pool"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nvidia.com/gpu" not in json.dumps(pods["cpu-pool"])


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_a_job_trains_on_all_the_gpus_that_it_gets(kind):
    variables = pool_template(ROOT, "gpu-pool", kind)["variables"]["properties"]
    assert str(variables["gpus"]["default"]) == "1"
    assert variables["env"]["default"]["NTULM_RANKS"] == "all"
    assert "gpus" not in pool_template(ROOT, "cpu-pool", kind)["variables"]["properties"]


def test_no_template_holds_a_secret():
    for path in (ROOT / TEMPLATES).glob("*.json"):
        assert not re.search(r"PASSWORD|SECRET_KEY|AUTH_STRING", path.read_text(encoding="utf-8")), path


def job_manifest(pool: str) -> dict[str, Any]:
    """The job of a run in a Kubernetes pool, as its worker fills the template in."""
    template = pool_template(ROOT, pool, "kubernetes")
    defaults = {name: value.get("default") for name, value in template["variables"]["properties"].items()}
    defaults |= {"name": "calm-otter", "command": ["prefect", "flow-run", "execute"], "env": []}
    return filled(template["job_configuration"]["job_manifest"], defaults)


def filled(value: Any, defaults: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: filled(item, defaults) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, defaults) for item in value]
    whole = PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    if whole:
        return defaults[whole[1]]
    return PLACEHOLDER.sub(lambda match: str(defaults[match[1]]), value) if isinstance(value, str) else value
