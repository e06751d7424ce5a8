"""The task that runs one DVC stage. Its name is the stage's; DVC decides whether there is anything to do."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from prefect import State, Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled

from flows.failure import BusyError, CommandError
from flows.pipeline import family
from flows.supervised import StoppedError
from flows.workspace import Workspace, dvc

BUSY_RETRIES = 40
BUSY_RETRY_SECONDS = 15


class Outcome(StrEnum):
    """What DVC did with a stage."""

    RAN = "ran"
    RAN_IN_POOL = "ran in their pool"
    RESTORED = "restored from the run cache"
    UNCHANGED = "unchanged"


class StageError(Exception):
    """A stage failed; the message is the stage and its own reason."""


async def heals_by_itself(task: Task[..., Any], run: Any, state: State[Any]) -> bool:
    """Only another DVC process in the workspace is worth waiting for."""
    return isinstance(await state.aresult(raise_on_failure=False), BusyError)


stage_like: Callable[[Callable[..., Any]], Task[..., Any]] = task(
    task_run_name="{name}",
    retries=BUSY_RETRIES,
    retry_delay_seconds=BUSY_RETRY_SECONDS,
    retry_condition_fn=heals_by_itself,
    cache_policy=NO_CACHE,  # DVC caches results; a second cache would only disagree with it
    persist_result=False,
)


def settle(name: str, work: Callable[[], Outcome]) -> Outcome | State[Any]:
    """Do the work of a stage; cancelled where its run ended meanwhile.

    Raises:
        StageError: with the stage and the reason.
        BusyError: a DVC process outside this run works on the same files; Prefect retries.
    """
    try:
        return work()
    except StoppedError:
        return Cancelled(message=f"{name}: stopped because its run ended")
    except BusyError:
        raise
    except CommandError as failure:
        raise StageError(f"{name}: {failure}") from None


@stage_like
def run_stage(name: str, force: bool, workspace: Workspace) -> Outcome | State[Any]:
    """Bring one stage up to date, its output in the log of the run.

    Raises:
        StageError: with the stage's own reason.
        BusyError: a DVC process outside this run works on the same files; Prefect retries.
    """
    logger = get_run_logger()
    command = dvc("repro", "--single-item", *(["--force"] if force else []), name)
    return settle(name, lambda: outcome_of(workspace.run(command, logger.info)))


def stage_task(name: str) -> Task[..., Any]:
    """The task under the name that the stage has in dvc.yaml."""
    return run_stage.with_options(name=family(name))


def outcome_of(lines: list[str]) -> Outcome:
    """Read from DVC's output what it did."""
    if any(line.startswith("Running stage ") for line in lines):
        return Outcome.RAN
    if any("is cached - skipping run" in line for line in lines):
        return Outcome.RESTORED
    return Outcome.UNCHANGED
