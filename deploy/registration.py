"""Register with a running Prefect server what the project needs: pools, deployments of `prefect.yaml`, an automation.

    python -m deploy.registration    # in the root of the project; the server is PREFECT_API_URL

A pool that is there keeps its type and its template; without it a process pool is created.

`prefect deploy` to a pool that does not exist prints a notice and goes on, so the pools come first, and the
deployments are asked for afterwards.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from ruamel.yaml import YAML

from deploy.services import ServiceError

DEPLOYMENTS = Path("deploy/prefect.yaml")
AUTOMATION = "runs of dead machines are crashed"
SILENCE = timedelta(seconds=75)  # workers have their runs beat every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
POOLS: dict[str, int | None] = {"cpu-pool": None, "gpu-pool": 1}  # one GPU runs one job


async def register(root: Path, environment: Mapping[str, str]) -> None:
    """Create or update pools, deployments and the automation.

    Raises:
        ServiceError: a deployment of `prefect.yaml` is not there afterwards.
    """
    async with get_client() as client:
        for name, limit in POOLS.items():
            await ensure_pool(client, name, limit)
        await ensure_automation(client)
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


async def ensure_automation(client: PrefectClient) -> None:
    """Create or update the automation that ends what a dead machine left Running: a flow whose heartbeats stop."""
    automation = AutomationCore(
        name=AUTOMATION,
        description="A flow run that has sent heartbeats and then none: its machine died, or its process hangs.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={HEARTBEAT},
            expect={HEARTBEAT, *ENDED},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"no heartbeat for {SILENCE.total_seconds():.0f} s: its machine died"
            )
        ],
    )
    known = [item for item in await client.read_automations_by_name(AUTOMATION) if item.name == AUTOMATION]
    if known:
        await client.update_automation(known[0].id, automation)
    else:
        await client.create_automation(automation)


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


if __name__ == "__main__":
    try:
        asyncio.run(register(Path.cwd(), os.environ))
    except ServiceError as error:
        sys.exit(f"error: {error}")
