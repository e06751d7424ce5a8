"""`build`: bring the pipeline up to date, stage by stage, as dvc.yaml orders them, with the results of `dvc repro`.

Runs in the root of the project (the working directory). Deployed by `deploy/prefect.yaml`; in a shell:

    python -m flows.build
"""

import queue
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.states import Completed

from flows.artifacts import Progress, publish_results
from flows.dispatch import pooled_task
from flows.naming import owner, run_name
from flows.parameters import AS_IT_STANDS, WHOLE_PIPELINE, Change, FromStage, Recipe, SideBySide
from flows.pipeline import Pipeline, has_remote, read_pipeline
from flows.running import main, settled
from flows.stage import Outcome, StageError, stage_task
from flows.workspace import Workspace, ntulm, open_workspace


@flow(flow_run_name=run_name, persist_result=False)  # DVC caches results; Prefect does not
@settled
def build(
    recipe: Recipe = AS_IT_STANDS,
    changes: list[Change] = [],  # noqa: B006 (Prefect reads the default for its form)
    from_stage: FromStage = WHOLE_PIPELINE,
    force: bool = False,
    side_by_side: SideBySide = 2,
    by_pool: bool = False,
) -> State[Any]:
    """Bring the pipeline up to date: what changed runs, the rest stays. The same results as `dvc repro`.

    Args:
        recipe: Write params.yaml from this recipe first, or keep it as it stands.
        changes: Values that differ from the recipe, as KEY=VALUE, e.g. `pretrain.epochs=2` or `data=../posts`.
        from_stage: Run this stage and what follows it only, like `dvc repro --downstream`.
        force: Run the stages even if nothing changed.
        side_by_side: How many stages may run at once where neither needs the other.
        by_pool: Send each stage to the work pool that dvc.yaml names for it, and fetch its results from the DVC remote.
    """
    logger = get_run_logger()
    if force and by_pool:
        raise ValueError(
            "force does not go with by_pool: of a stage that runs again, the run cache keeps the old result"
        )
    if changes and recipe == AS_IT_STANDS:
        raise ValueError(f"changes need a recipe to apply to; recipe is {AS_IT_STANDS!r}")
    with open_workspace(Path.cwd(), owner(), logger.info) as workspace:
        if recipe != AS_IT_STANDS:
            workspace.run(ntulm("configure", recipe, *changes), logger.info)
        if by_pool and not has_remote(workspace.root):
            logger.warning("no DVC remote to hand results over: every stage runs in this workspace")
            by_pool = False
        if from_stage == WHOLE_PIPELINE:
            workspace.run(ntulm("params"), logger.info)  # a mistake in a task shows before anything runs
        pipeline = read_pipeline(workspace.root, by_pool)
        if from_stage != WHOLE_PIPELINE:
            pipeline = pipeline.starting_at(from_stage)
        outcomes = run_pipeline(pipeline, workspace, force, side_by_side)
        publish_results(workspace.root)
    return Completed(message=summary(outcomes))


def run_pipeline(pipeline: Pipeline, workspace: Workspace, force: bool, side_by_side: int) -> dict[str, Outcome]:
    """Run each stage as a task as soon as all that it needs is done, at most `side_by_side` at once.

    After a failure no further stage starts; those that run are left to finish, so that their work is kept.

    Raises:
        StageError: at least one stage failed; the message gives each with its reason.
    """
    order = TopologicalSorter(pipeline.upstream)
    order.prepare()
    progress = Progress(len(pipeline.stages))
    futures: dict[str, PrefectFuture[Any]] = {}
    finished: queue.SimpleQueue[str] = queue.SimpleQueue()
    ready: list[str] = []
    outcomes: dict[str, Outcome] = {}
    failures: list[str] = []
    running = 0
    try:
        while running or (order.is_active() and not failures):
            ready = sorted([*ready, *order.get_ready()], key=pipeline.stages.index)
            while ready and running < side_by_side and not failures:
                name = ready.pop(0)
                needed = [futures[other] for other in pipeline.upstream[name]]
                futures[name] = _submit(name, pipeline, workspace, force, needed)
                futures[name].add_done_callback(partial(_report, finished, name))
                running += 1
            name = finished.get()
            running -= 1
            result = futures[name].result(raise_on_failure=False)
            if isinstance(result, Outcome):
                outcomes[name] = result
                order.done(name)
                progress.advance(name)
            else:
                failures.append(str(result))
    finally:
        workspace.stop.set()  # nothing runs any more, or this run was cancelled and its stages have to end
        progress.close()
    if failures:
        raise StageError("; ".join(failures))
    return outcomes


def _submit(
    name: str, pipeline: Pipeline, workspace: Workspace, force: bool, needed: list[PrefectFuture[Any]]
) -> PrefectFuture[Any]:
    """Start the task of a stage: in its pool, or here."""
    if name in pipeline.pools:
        return pooled_task(name).submit(name, pipeline.pools[name], workspace, wait_for=needed)
    return stage_task(name).submit(name, force, workspace, wait_for=needed)


def _report(finished: queue.SimpleQueue[str], name: str, future: PrefectFuture[Any]) -> None:
    finished.put(name)


def summary(outcomes: dict[str, Outcome]) -> str:
    """How many stages ran, were restored, were unchanged."""
    counts = {kind: list(outcomes.values()).count(kind) for kind in Outcome}
    return f"{len(outcomes)} stages: " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


if __name__ == "__main__":
    main(build)
