"""Register with the running Prefect server what the project needs: both pools and the deployments of `prefect.yaml`.

`prefect deploy` to a pool that does not exist prints a notice and goes on, so the pools come first, and the
deployments are asked for afterwards.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from ruamel.yaml import YAML

from deploy.services import ServiceError

DEPLOYMENTS = Path("deploy/prefect.yaml")
POOLS: dict[str, int | None] = {"cpu-pool": None, "gpu-pool": 1}  # one GPU runs one job


async def register(root: Path, environment: Mapping[str, str]) -> None:
    """Create or update pools and deployments.

    Raises:
        ServiceError: a deployment of `prefect.yaml` is not there afterwards.
    """
    async with get_client() as client:
        for name, limit in POOLS.items():
            await ensure_pool(client, name, limit)
        deploy(root, environment)
        registered = {deployment.name for deployment in await client.read_deployments()}
    missing = set(deployment_names(root)) - registered
    if missing:
        raise ServiceError(f"{DEPLOYMENTS}: not registered: {', '.join(sorted(missing))}")


async def ensure_pool(client: PrefectClient, name: str, limit: int | None) -> None:
    """Create the process pool, or set the limit of the one that is there."""
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", concurrency_limit=limit))
        return
    await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))


def deploy(root: Path, environment: Mapping[str, str]) -> None:
    """Run `prefect deploy`, which works from the root of the project only."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(DEPLOYMENTS), "--all"]
    done = subprocess.run(  # noqa: S603
        command, cwd=root, env=dict(environment), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServiceError(f"prefect deploy failed:\n{done.stdout}{done.stderr}")


def deployment_names(root: Path) -> list[str]:
    """The names in `prefect.yaml`."""
    return [item["name"] for item in YAML(typ="safe", pure=True).load(root / DEPLOYMENTS)["deployments"]]
