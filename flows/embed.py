"""`embed`: posts that arrive, encoded and labelled by the model in production, into the store `data/arrivals`.

After a promotion, earlier posts are encoded anew by the new model, `arrivals.backlog_per_run` of params.yaml in a run.
Runs in the root of the project (the working directory). Deployed by `deploy/prefect.yaml`; in a shell:

    python -m flows.embed
"""

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.states import Completed

from flows.champion import fetch
from flows.decision import publish_arrivals, read_arrivals
from flows.monitor import corpus_path
from flows.naming import owner, run_name
from flows.parameters import Exports
from flows.registry import production
from flows.running import main, settled
from flows.states import no_model, quiet
from flows.workspace import ntulm, open_workspace


@flow(flow_run_name=run_name, persist_result=False)
@settled
def embed(exports: Exports = "") -> State[Any]:
    """Embed and label the posts that arrived. Ends as Quiet where none did, as NoModel where nothing is in production.

    Args:
        exports: A file or folder of raw exports; empty: corpus.path of params.yaml. What production knows is left out.
    """
    logger = get_run_logger()
    with open_workspace(Path.cwd(), owner(), logger.info) as workspace:
        version = production(workspace.root)
        if version is None:
            return no_model()
        champion = fetch(workspace, version, logger.info)
        where = exports or corpus_path(workspace.root)
        workspace.run(ntulm("arrivals", str(champion), f"--exports={where}"), logger.info)
        done = read_arrivals(workspace.root)
    publish_arrivals(done, version.version)
    if done["nothing"]:
        return quiet(f"no new post for {version.version}; {done['stored']:,} are stored")
    left = f"; {done['backlog_left']:,} of the backlog left for the next runs" if done["backlog_left"] else ""
    return Completed(
        message=f"{version.version}: {done['embedded']:,} new posts, {done['backlog']:,} embedded anew{left}; "
        f"{done['stored']:,} are stored"
    )


if __name__ == "__main__":
    main(embed)
