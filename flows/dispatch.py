"""The task that runs one stage in its work pool: send, wait, fetch the result from the DVC remote.

The other side is `flows/single_stage.py`, the deployment `stage/POOL`. Results never pass through Prefect.
"""

import os
import shutil
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
from prefect import State, Task, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from flows.failure import BusyError, CommandError, not_transferred
from flows.handover import Handover, pack
from flows.pipeline import family, read_pipeline
from flows.stage import Outcome, StageError, outcome_of, settle, stage_like
from flows.supervised import StoppedError
from flows.workspace import Workspace, dvc

ATTEMPTS = 2  # a machine that died may come back, or have a sibling; what fails by itself is not sent again
POLL_SECONDS = 2.0
REMIND_SECONDS = 60.0
WORKER_PATIENCE = "NTULM_WORKER_PATIENCE"  # seconds that a stage waits for a worker of its pool to be online
NOTHING_RUNS = {"SHELL": shutil.which("false") or "/bin/false"}  # DVC restores results; a command that it starts fails


@stage_like
def run_in_pool(name: str, pool: str, workspace: Workspace) -> Outcome | State[Any]:
    """Bring one stage up to date without running it here.

    Raises:
        StageError: with stage, pool and reason.
        BusyError: a DVC process outside this run works on the same files; Prefect retries.
    """
    return settle(name, lambda: fetch_from_pool(name, pool, workspace))


def fetch_from_pool(name: str, pool: str, workspace: Workspace) -> Outcome:
    """Restore the stage's result, after its pool has made it where no cache has it yet."""
    logger = get_run_logger()
    known = restore(name, workspace, logger.debug)
    if known:
        logger.info(f"{name}: {known}")
        return known
    makers = read_pipeline(workspace.root).upstream[name]
    if makers:
        workspace.run(dvc("push", *sorted(makers)), logger.info)
    done = send(name, pool, pack(workspace.root, name, makers), workspace, logger.warning)
    if not restore(name, workspace, logger.info, "--pull"):
        raise CommandError(f"{pool} says {done!r}, but its result is not in the DVC remote of this workspace")
    return Outcome.RAN_IN_POOL if done == Outcome.RAN else Outcome.RESTORED


def pooled_task(name: str) -> Task[..., Any]:
    """The task under the name that the stage has in dvc.yaml."""
    return run_in_pool.with_options(name=family(name))


def restore(name: str, workspace: Workspace, log: Callable[[str], None], *options: str) -> Outcome | None:
    """Let DVC take the stage's result from its caches; None where it has none and would run the stage.

    Raises:
        CommandError: the result could not be fetched, or something else than the caches is in the way.
    """
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        log(line)

    try:
        workspace.run(dvc("repro", *options, "--single-item", name), keep, NOTHING_RUNS)
    except BusyError:
        raise
    except CommandError:
        if outcome_of(lines) is not Outcome.RAN:
            raise
        if broken := not_transferred(lines):
            raise CommandError(f"the DVC remote did not give its result: {broken}; run it again") from None
        return None  # it tried to run
    return outcome_of(lines)


def send(name: str, pool: str, handover: Handover, workspace: Workspace, warn: Callable[[str], None]) -> str:
    """Run the stage in the pool and return what became of it; once more if its machine died.

    Raises:
        StageError: it failed there, its machines died, or nobody works for the pool.
    """
    parameters = {"name": name, "handover": handover.model_dump(mode="json")}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            run = run_deployment(f"stage/{pool}", parameters=parameters, flow_run_name=name, timeout=0)
        except ObjectNotFound:
            raise StageError(
                f"{name}: there is no deployment stage/{pool}; deploy/prefect.yaml has to have it"
            ) from None
        assert isinstance(run, FlowRun)
        state = wait(name, pool, run.id, workspace, warn)
        if state.is_completed():
            return state.message or ""
        problem = f"{name}: {str(state.name).lower()} in {pool}: {state.message}"
        if not state.is_crashed() or attempt == ATTEMPTS:
            break
        warn(f"{problem}; sending it again")
    raise StageError(problem)


def wait(name: str, pool: str, run: UUID, workspace: Workspace, warn: Callable[[str], None]) -> State[Any]:
    """Wait for the run's final state; cancel it when this one has to stop.

    Raises:
        StoppedError: this run ends.
        StageError: no worker of the pool was online for too long.
    """
    online = reminded = time.monotonic()
    patience = float(os.environ.get(WORKER_PATIENCE, "600"))
    with get_client(sync_client=True) as client:
        while not workspace.stop.wait(POLL_SECONDS):
            try:
                state = client.read_flow_run(run).state
                assert state is not None
                if state.is_final():
                    return state
                if not (state.is_scheduled() or state.is_pending()) or works(client, pool):
                    online = time.monotonic()
            except httpx.TransportError as error:  # the server restarts; the run goes on without it
                warn(f"{name}: the Prefect server does not answer: {error}")
                continue
            now = time.monotonic()
            if now - online > patience:
                client.set_flow_run_state(run, Cancelled(message=f"no worker of {pool} was online"), force=True)
                raise StageError(f"{name}: no worker of {pool} is online, for {patience:.0f} s now; start one")
            if now - reminded > REMIND_SECONDS:
                reminded = now
                warn(
                    f"{name}: {str(state.name).lower()} in {pool}" + ("" if now == online else ", no worker is online")
                )
        client.set_flow_run_state(run, Cancelling(message="the build that asked for it ended"))
    raise StoppedError


def works(client: SyncPrefectClient, pool: str) -> bool:
    """Whether somebody works for the pool."""
    return any(worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool))
