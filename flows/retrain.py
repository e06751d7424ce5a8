"""`retrain`: new posts to a new model, promoted only if the posts pass their checks and the model is not worse.

corpus, checks of the arriving posts, build, comparison with the model in production, promotion. Runs in the root of the
project (the working directory). Deployed by `deploy/prefect.yaml`; in a shell:

    python -m flows.retrain
"""

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.states import Completed

from flows.artifacts import publish_results
from flows.build import run_pipeline
from flows.champion import fetch
from flows.decision import publish_challenge, publish_decision, read_challenge
from flows.failure import CommandError
from flows.monitor import checked
from flows.naming import owner, run_name
from flows.parameters import AS_IT_STANDS, Change, Recipe, SideBySide
from flows.pipeline import has_remote, read_pipeline
from flows.registry import Version, production, promote
from flows.running import main, settled
from flows.stage import StageError
from flows.states import quiet, refused
from flows.workspace import Workspace, dvc, ntulm, open_workspace

FIRST_STAGE = "corpus"  # what has to run before arriving posts can be checked


@dataclass(frozen=True)
class Decision:
    """What became of the new posts, in words, and whether somebody should look at it, or nobody need to."""

    words: str
    alarm: bool = False
    quiet: bool = False

    def state(self) -> State[Any]:
        """How the run ends."""
        if self.alarm:
            return refused(self.words)
        return quiet(self.words) if self.quiet else Completed(message=self.words)


@flow(flow_run_name=run_name, persist_result=False)  # DVC caches results; Prefect does not
@settled
def retrain(
    recipe: Recipe = AS_IT_STANDS,
    changes: list[Change] = [],  # noqa: B006 (Prefect reads the default for its form)
    side_by_side: SideBySide = 2,
) -> State[Any]:
    """Train on the posts that arrived; promote the new model if it is not worse than the one in production.

    Args:
        recipe: Write params.yaml from this recipe first, or keep it as it stands: the raw files are at corpus.path.
        changes: Values that differ from the recipe, as KEY=VALUE, e.g. `data=../posts` or `corpus.path=../posts`.
        side_by_side: How many stages may run at once where neither needs the other.
    """
    logger = get_run_logger()
    if changes and recipe == AS_IT_STANDS:
        raise ValueError(f"changes need a recipe to apply to; recipe is {AS_IT_STANDS!r}")
    with open_workspace(Path.cwd(), owner(), logger.info) as workspace:
        champion = production(workspace.root)
        try:
            if recipe != AS_IT_STANDS:
                workspace.run(ntulm("configure", recipe, *changes), logger.info)
            decision = decided(workspace, champion, side_by_side)
        except (CommandError, StageError) as failure:
            decision = Decision(f"refused: {failure}; {stays(champion)}", alarm=True)
    publish_decision(decision.words)
    return decision.state()


def decided(workspace: Workspace, champion: Version | None, side_by_side: int) -> Decision:
    """Check, build, compare, promote.

    Raises:
        CommandError, StageError: something could not be done; nothing was promoted.
    """
    logger = get_run_logger()
    pipeline = read_pipeline(workspace.root)
    run_pipeline(pipeline.up_to(FIRST_STAGE), again(workspace), False, side_by_side)
    reference = [] if champion is None else [str(fetch(workspace, champion, logger.info))]
    found = checked(workspace, *reference)
    if found.verdict == "failed":
        said = f"refused: the arriving posts fail their checks: {found.reason}; {stays(champion)}"
        return Decision(said, alarm=True)
    if found.verdict == "quiet":
        return Decision(f"nothing to train on: {found.reason}; {stays(champion)}", quiet=True)
    run_pipeline(pipeline, again(workspace), False, side_by_side)
    publish_results(workspace.root)
    why = "the first model"
    if champion is not None:
        workspace.run(ntulm("challenge", *reference), logger.info)
        challenge = read_challenge(workspace.root)
        publish_challenge(challenge)
        why = str(challenge["reason"])
        if not challenge["promote"]:
            return Decision(f"not promoted: {why}; {stays(champion)}")
    refuse_edits(workspace)
    if has_remote(workspace.root):
        workspace.run(dvc("push"), logger.info)  # first: what is in production can be fetched
    return Decision(f"promoted {promote(workspace.root, why)}: {why}")


def again(workspace: Workspace) -> Workspace:
    """The workspace for one more pipeline: each sets the request to stop when it ends."""
    return replace(workspace, stop=threading.Event())


def refuse_edits(workspace: Workspace) -> None:
    """A promotion commits the files as they are now: they have to be those that built the model.

    Raises:
        CommandError: code, parameters or data were changed while the run was building.
    """
    try:
        workspace.run(dvc("status", "--quiet"), get_run_logger().info)
    except CommandError as failure:
        raise CommandError("files were edited while the model was built; `dvc status` names them") from failure


def stays(champion: Version | None) -> str:
    """What that means for production."""
    return f"{champion} stays in production" if champion else "nothing is in production yet"


if __name__ == "__main__":
    main(retrain)
