"""The manifests of deploy/kubernetes and the jobs of its pools: valid, whole, without rights or secrets to spare."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
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
