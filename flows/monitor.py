"""`monitor`: do arriving posts still look like those that the model in production was trained on? Nothing is trained.

Runs in the root of the project (the working directory). Deployed by `deploy/prefect.yaml`; in a shell:

    python -m flows.monitor
"""

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.states import Completed, Failed
from ruamel.yaml import YAML

from flows.champion import fetch
from flows.decision import publish_checks, publish_decision
from flows.failure import CommandError
from flows.naming import owner, run_name
from flows.parameters import Exports
from flows.registry import production
from flows.running import main, settled
from flows.workspace import Workspace, ntulm, open_workspace


@flow(flow_run_name=run_name, persist_result=False)
@settled
def monitor(exports: Exports = "") -> State[Any]:
    """Check arriving posts against the training window of the model in production. Fails where a check fails.

    Args:
        exports: A file or folder of raw exports; empty: corpus.path of params.yaml. What production knows is left out.
    """
    logger = get_run_logger()
    with open_workspace(Path.cwd(), owner(), logger.info) as workspace:
        version = production(workspace.root)
        if version is None:
            raise CommandError("monitor: nothing is in production yet; run `retrain` first")
        champion = fetch(workspace, version, logger.info)
        reason = refusal(workspace, str(champion), f"--exports={exports or corpus_path(workspace.root)}")
    decision = f"The arriving posts do not fit {version.version}: {reason}" if reason else ""
    publish_decision(decision or f"The arriving posts fit {version.version}: all checks passed.")
    return Failed(message=decision) if decision else Completed(message=f"all checks passed for {version.version}")


def corpus_path(root: Path) -> str:
    """Where the raw exports are, as params.yaml has it."""
    return str(YAML(typ="safe", pure=True).load(root / "params.yaml")["corpus"]["path"])


def refusal(workspace: Workspace, *arguments: str) -> str | None:
    """Run `ntulm check` and show what it found; its reason where it refuses."""
    logger = get_run_logger()
    try:
        workspace.run(ntulm("check", *arguments), logger.info)
    except CommandError as failure:
        return str(failure)
    finally:
        publish_checks(workspace)
    return None


if __name__ == "__main__":
    main(monitor)
