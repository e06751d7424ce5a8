"""Register with a running Prefect server what the project needs: pools, deployments of `prefect.yaml`, automations.

    python -m deploy.registration    # in the root of the project; the server is PREFECT_API_URL

NTULM_POOL_TYPE is the type of the pools: process (the default), docker or kubernetes, with the template that
`deploy/templates/` has for it. A pool that is there keeps its type.
NTULM_ALERT_URL says who is told when something goes wrong (`deploy/alerts.py`).

`prefect deploy` to a pool that does not exist prints a notice and goes on, so the pools come first, and the
deployments are asked for afterwards.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from ruamel.yaml import YAML

from deploy import alerts
from deploy.services import ServiceError
from flows.states import NAMES

DEPLOYMENTS = Path("deploy/prefect.yaml")
TEMPLATES = Path("deploy/templates")
POOL_TYPE = "NTULM_POOL_TYPE"
AUTOMATION = "runs of dead machines are crashed"
SILENCE = "NTULM_SILENCE"  # seconds without a heartbeat after which a run counts as dead
FOUR_LOST_BEATS = "150"  # workers have their runs beat every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = {
    f"prefect.flow-run.{state}"
    for state in ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", *NAMES)  # and how our flows call them
}
POOLS: dict[str, int | None] = {"cpu-pool": None, "gpu-pool": 1}  # one GPU runs one job


async def register(root: Path, environment: Mapping[str, str]) -> str:
    """Create or update pools, deployments and automations; say who is told when something goes wrong.

    Raises:
        ServiceError: a deployment of `prefect.yaml` is not there afterwards, or an address of alerts is none.
    """
    async with get_client() as client:
        for name, limit in POOLS.items():
            await ensure_pool(client, name, limit, environment.get(POOL_TYPE, "process"), root)
        await alerts.ensure(client, heartbeats(timedelta(seconds=float(environment.get(SILENCE, FOUR_LOST_BEATS)))))
        told = await alerts.register(client, environment)
        deploy(root, environment)
        registered = {deployment.name for deployment in await client.read_deployments()}
    missing = set(deployment_names(root)) - registered
    if missing:
        raise ServiceError(f"{DEPLOYMENTS}: not registered: {', '.join(sorted(missing))}")
    return told


async def ensure_pool(client: PrefectClient, name: str, limit: int | None, kind: str, root: Path) -> None:
    """Create the pool from its template, or set limit and template of the one that is there.

    Raises:
        ServiceError: the pool that is there is of another type.
    """
    template = pool_template(root, name, kind)
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(name=name, type=kind, concurrency_limit=limit, base_job_template=template)
        )
        return
    if pool.type != kind:
        raise ServiceError(
            f"{name} is a {pool.type} pool, not a {kind} pool; set {POOL_TYPE}={pool.type}, or delete it"
        )
    await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit, base_job_template=template))


def pool_template(root: Path, name: str, kind: str) -> dict[str, Any]:
    """The template of a type of pool: that of this very pool, or that of all of its type.

    Raises:
        ServiceError: there is none.
    """
    paths = [root / TEMPLATES / f"{kind}.{name}.json", root / TEMPLATES / f"{kind}.json"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ServiceError(f"{POOL_TYPE}={kind}: there is no template in {TEMPLATES}")
    template: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return template


def heartbeats(silence: timedelta) -> AutomationCore:
    """The automation that ends what a dead machine left Running: a flow whose heartbeats stop."""
    message = f"no heartbeat for {silence.total_seconds():.0f} s: its machine died, or was cut off"
    return AutomationCore(
        name=AUTOMATION,
        description="A flow run that has sent heartbeats and then none: its machine died, or its process hangs.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={HEARTBEAT},
            expect={HEARTBEAT, *ENDED},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message=message,
                force=False,
            )
        ],
    )


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
        print(f"alerts: {asyncio.run(register(Path.cwd(), os.environ))}")
    except ServiceError as error:
        sys.exit(f"error: {error}")
