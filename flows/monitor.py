"""`monitor`: do arriving posts still look like those that the model in production was trained on? Nothing is trained.

Compared are the posts themselves with the training window (`ntulm check`), and their vectors and predicted labels, as
far as the flow `embed` has made them, with those of the posts that the model was measured on (`ntulm drift`).

Runs in the root of the project (the working directory). Deployed by `deploy/prefect.yaml`; in a shell:

    python -m flows.monitor
"""

import shutil
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.states import Completed, Failed
from ruamel.yaml import YAML

from flows.champion import fetch
from flows.decision import CHECK, DRIFT, publish_checks, publish_decision, publish_drift
from flows.failure import CommandError
from flows.naming import owner, run_name
from flows.parameters import Exports
from flows.registry import production
from flows.running import main, settled
from flows.states import drifted, no_model, quiet
from flows.verdict import Verdict, read_verdict
from flows.workspace import Workspace, ntulm, open_workspace


@flow(flow_run_name=run_name, persist_result=False)
@settled
def monitor(exports: Exports = "") -> State[Any]:
    """Compare arriving posts with those of the model in production. Ends as Drifted where a check fails, as Quiet where
    too few have arrived, as NoModel where nothing is in production.

    Args:
        exports: A file or folder of raw exports; empty: corpus.path of params.yaml. What production knows is left out.
    """
    logger = get_run_logger()
    with open_workspace(Path.cwd(), owner(), logger.info) as workspace:
        version = production(workspace.root)
        if version is None:
            return no_model()
        champion = str(fetch(workspace, version, logger.info))
        try:
            posts = checked(workspace, champion, f"--exports={exports or corpus_path(workspace.root)}")
            state = outcome(version.version, posts, compared(workspace, champion))
        except CommandError as failure:
            state = Failed(message=f"{version.version}: the arriving posts could not be checked: {failure}")
    publish_decision(str(state.message))
    return state


def outcome(version: str, posts: Verdict, seen: Verdict) -> State[Any]:
    """How the run ends, from what was found of the posts and of what the model sees in them."""
    failed = [one.reason for one in (posts, seen) if one.verdict == "failed"]
    if failed:
        return drifted(f"The arriving posts do not fit {version}: {'; '.join(failed)}")
    if posts.verdict == "quiet":
        return quiet(f"Nothing can be said of {version}: {posts.reason}")
    said = "" if seen.verdict == "passed" else f"; of vectors and labels nothing can be said yet: {seen.reason}"
    return Completed(message=f"The arriving posts fit {version}: all checks passed{said}")


def corpus_path(root: Path) -> str:
    """Where the raw exports are, as params.yaml has it."""
    return str(YAML(typ="safe", pure=True).load(root / "params.yaml")["corpus"]["path"])


def checked(workspace: Workspace, *arguments: str) -> Verdict:
    """Run `ntulm check` and show what it found.

    Raises:
        CommandError: it could not check.
    """
    try:
        return _verdict(workspace, CHECK, "check", *arguments)
    finally:
        publish_checks(workspace)


def compared(workspace: Workspace, champion: str) -> Verdict:
    """Run `ntulm drift` and show what it found.

    Raises:
        CommandError: it could not compare.
    """
    try:
        return _verdict(workspace, DRIFT, "drift", champion)
    finally:
        publish_drift(workspace)


def _verdict(workspace: Workspace, folder: Path, *command: str) -> Verdict:
    """What a command came to, which it leaves in its folder."""
    shutil.rmtree(workspace.root / folder, ignore_errors=True)  # what an earlier run found is not this one's
    try:
        workspace.run(ntulm(*command), get_run_logger().info)
    except CommandError:
        if (found := read_verdict(workspace.root / folder)) is not None:
            return found
        raise
    found = read_verdict(workspace.root / folder)
    if found is None:
        raise CommandError(f"ntulm {command[0]}: {folder} has no verdict; the code of ntulm is of another version")
    return found


if __name__ == "__main__":
    main(monitor)
