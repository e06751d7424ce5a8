"""The manifests of deploy/kubernetes and the jobs of its pools: valid, whole, without rights or secrets to spare."""

import copy
from pathlib import Path
from typing import Annotated, Any, Literal

import kubernetes_validate
import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML
from test_deploy_pools import job_manifest

from deploy.registration import POOLS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy/kubernetes"
VERSION = "1.33"  # the oldest that is still maintained; nothing here is newer
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for manifest in YAML(typ="safe", pure=True).load_all(path)
]
JOBS = {pool: job_manifest(pool) for pool in POOLS}
YOURS = {
    "posts": "PersistentVolumeClaim",
    "ntulm-store": "Secret",
    "ntulm-postgres": "Secret",
    "ntulm-prefect": "Secret",
    "ntulm-serve": "Secret",
    "ntulm-alerts": "Secret",
}


def named(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata'].get('name', manifest['metadata'].get('generateName'))}"


def pods() -> dict[str, dict[str, Any]]:
    """The pod of each thing that has one."""
    found = [*MANIFESTS, *JOBS.values()]
    return {named(one): one["spec"]["template"]["spec"] for one in found if "template" in one.get("spec", {})}


def everything(value: Any) -> list[dict[str, Any]]:
    """All mappings in a manifest."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] * isinstance(value, dict) + [mapping for item in below for mapping in everything(item)]


@pytest.mark.parametrize("manifest", [*MANIFESTS, *JOBS.values()], ids=named)
def test_a_manifest_fits_the_schema_of_its_kind(manifest):
    kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_schema_would_find_a_mistake():
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_all_files_are_applied_and_all_is_in_one_namespace():
    listed = YAML(typ="safe", pure=True).load(FOLDER / "kustomization.yaml")["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in FOLDER.glob("*.yaml"))
    for manifest in MANIFESTS:
        assert manifest["metadata"].get("namespace", manifest["metadata"]["name"]) == "ntulm", named(manifest)


def test_what_a_pod_refers_to_is_there_or_named_in_the_readme():
    readme = (ROOT / "deploy/README.md").read_text(encoding="utf-8")
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in MANIFESTS}
    keys = {"secretKeyRef": "Secret", "secretRef": "Secret", "configMapRef": "ConfigMap"}
    for pod in pods().values():
        for mapping in everything(pod):
            wanted = [(kind, mapping[key]["name"]) for key, kind in keys.items() if key in mapping]
            if "claimName" in mapping:
                wanted.append(("PersistentVolumeClaim", mapping["claimName"]))
            for kind, name in wanted:
                assert (kind, name) in there or (YOURS[name] == kind and name in readme), name
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | {"data"}
        assert {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]} <= volumes


def test_services_and_workloads_select_pods_that_exist():
    labels = [one["spec"]["template"].get("metadata", {}).get("labels") for one in MANIFESTS if named(one) in pods()]
    for manifest in MANIFESTS:
        selector = manifest.get("spec", {}).get("selector", {})
        if selector:
            assert selector.get("matchLabels", selector) in labels, named(manifest)


def test_no_secret_is_written_down():
    assert "Secret" not in {manifest["kind"] for manifest in MANIFESTS}
    for mapping in [mapping for manifest in MANIFESTS for mapping in everything(manifest)]:
        if any(word in str(mapping.get("name", "")) for word in ("PASSWORD", "AUTH_STRING")):
            assert "valueFrom" in mapping or mapping["name"].startswith("PREFECT_INTEGRATIONS"), mapping["name"]


@pytest.mark.parametrize("name", pods())
def test_a_pod_is_nobody_special_and_has_limits(name):
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod.get("serviceAccountName") == "worker" or pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert "memory" in container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_nothing_can_be_reached_from_outside_the_cluster():
    assert {manifest["kind"] for manifest in MANIFESTS}.isdisjoint({"Ingress", "Gateway", "ClusterRole"})
    types = {manifest["spec"].get("type", "ClusterIP") for manifest in MANIFESTS if manifest["kind"] == "Service"}
    assert types == {"ClusterIP"}


POLICIES = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == "NetworkPolicy"}


def test_nothing_comes_in_that_no_policy_names():
    assert POLICIES["nothing-comes-in"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    labels = [one["spec"]["template"].get("metadata", {}).get("labels") for one in MANIFESTS if named(one) in pods()]
    for name, policy in POLICIES.items():
        chosen = policy["podSelector"].get("matchLabels")
        assert chosen is None or chosen in labels, name
    listening = {one["spec"]["selector"]["app"] for one in MANIFESTS if one["kind"] == "Service"}
    assert listening == set(POLICIES) - {"nothing-comes-in"}
    ports = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"] for one in MANIFESTS if one["kind"] == "Service"}
    for name in listening:
        assert POLICIES[name]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": ports[name]}]


def test_the_database_is_reached_by_the_server_alone_and_reaches_nothing():
    rule = POLICIES["postgres"]
    assert rule["ingress"][0]["from"] == [{"podSelector": {"matchLabels": {"app": "prefect"}}}]
    assert "Egress" in rule["policyTypes"]
    assert "egress" not in rule


def test_each_pool_has_a_worker():
    arguments = [container["args"] for pod in pods().values() for container in pod["containers"] if "args" in container]
    pools = {line[line.index("--pool") + 1] for line in arguments if "--pool" in line}
    assert pools == set(POOLS)


class Definition(BaseModel):
    """What Kubeflow's definition of PyTorchJob (v1, operator 1.9) has beside the pods."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class RunPolicy(Definition):
    active_deadline_seconds: int | None = None
    backoff_limit: int | None = None
    clean_pod_policy: Literal["All", "Running", "None"] | None = None
    managed_by: str | None = None
    scheduling_policy: dict[str, Any] | None = None
    suspend: bool | None = None
    ttl_seconds_after_finished: int | None = None


class Replicas(Definition):
    replicas: Annotated[int, Field(ge=1)]
    restart_policy: Literal["Always", "OnFailure", "Never", "ExitCode"] | None = None
    template: dict[str, Any]


class JobSpec(Definition):
    elastic_policy: dict[str, Any] | None = None
    nproc_per_node: str | None = None
    pytorch_replica_specs: dict[Literal["Master", "Worker"], Replicas]
    run_policy: RunPolicy | None = None


class Job(Definition):
    api_version: Literal["kubeflow.org/v1"]
    kind: Literal["PyTorchJob"]
    metadata: dict[str, Any]
    spec: JobSpec


SEVERAL = list(YAML(typ="safe", pure=True).load_all(FOLDER / "several-machines/pretrain.yaml"))


def test_the_training_on_several_machines_fits_the_schemas():
    first, *others = SEVERAL
    replicas = Job.model_validate(first).spec.pytorch_replica_specs
    assert set(replicas) == {"Master", "Worker"}
    for one in replicas.values():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"} | one.template["metadata"]}
        kubernetes_validate.validate(pod | {"spec": one.template["spec"]}, VERSION, strict=True)
        container = one.template["spec"]["containers"][0]
        assert container["name"] == "pytorch"
        assert container["ports"][0]["name"] == "pytorchjob-port"
    for manifest in others:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_training_on_several_machines_is_one_stage_with_its_pods_alike():
    job, claim, policy = copy.deepcopy(SEVERAL)
    master, worker = (job["spec"]["pytorchReplicaSpecs"][name]["template"] for name in ("Master", "Worker"))
    stage = master["spec"]["containers"][0].pop("args")
    command = worker["spec"]["containers"][0].pop("args")
    assert master == worker
    assert stage == ["dvc", "repro", "--single-item", f"pretrain@{command[5]}-{command[7]}"]
    assert command[:4] == ["python", "-m", "ntulm", "pretrain"]
    assert policy["spec"]["podSelector"]["matchLabels"] == master["metadata"]["labels"]
    assert master["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("name", ["Master", "Worker"])
def test_a_pod_of_the_training_has_the_rights_of_the_others(name):
    pod = SEVERAL[0]["spec"]["pytorchReplicaSpecs"][name]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert "memory" in container["resources"]["limits"]
