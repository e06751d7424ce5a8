"""`stage`: run one stage of somebody else's build in the workspace of this worker, and push its result.

Deployed once per pool, as `stage/POOL`; `flows/dispatch.py` starts it. Runs in the root of the project, in a clone of
its own with the same DVC remote as the build's; it overwrites params.yaml and dvc.lock there.
"""

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.states import Completed, Failed

from flows.failure import CommandError
from flows.handover import Handover, differing, params_beside, write_lock
from flows.naming import owner
from flows.pipeline import read_pipeline
from flows.running import settled
from flows.stage import Outcome, outcome_of
from flows.workspace import LOCK, Log, Workspace, dvc, ntulm, open_workspace


@flow(flow_run_name="{name}", persist_result=False)
@settled
def stage(name: str, handover: Handover) -> State[Any]:
    """Run one stage of a build in this worker's workspace. Builds start this flow; people start `build`.

    Args:
        name: The stage, as `dvc stage list` writes it.
        handover: What the build says about parameters and inputs.
    """
    root = Path.cwd()
    if (root / LOCK).is_file() and (root / LOCK).read_text(encoding="utf-8") == handover.builder:
        return Failed(message=f"this worker works in the build's own folder ({root}); give it a clone of its own")
    with open_workspace(root, owner(), get_run_logger().info) as workspace:
        outcome = run_handed_over(name, handover, workspace, get_run_logger().info)
    return Completed(message=str(outcome))


def run_handed_over(name: str, handover: Handover, workspace: Workspace, log: Log) -> Outcome:
    """Make the workspace's inputs those of the build, run the stage, push its outputs and the run cache.

    Raises:
        CommandError: the parameters are wrong, an input is not the build's, or a command failed.
    """
    with params_beside(workspace.root, handover) as params:
        workspace.run(ntulm("params", str(params)), log)  # before DVC reads it: dvc.yaml makes commands of some values
    write_lock(workspace.root, handover)
    makers = read_pipeline(workspace.root).upstream.get(name)
    if makers is None:
        raise CommandError(f"stage {name!r}: unknown in dvc.yaml here; bring both clones to one commit")
    if makers:
        workspace.run(dvc("pull", "--force", *sorted(makers)), log)
    others = differing(workspace.root, name, handover)
    if others:
        raise CommandError(f"not the same here as in the build: {', '.join(others)}; bring both clones to one commit")
    outcome = outcome_of(workspace.run(dvc("repro", "--pull", "--single-item", name), log))
    workspace.run(dvc("push", "--run-cache", name), log)
    return outcome
