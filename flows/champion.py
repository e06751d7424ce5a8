"""The model in production as a folder: what `ntulm check` and `ntulm challenge` compare with.

The folder is laid out like the project: of the outputs of the promoted run, the corpus and the model directory that its
commit names, from DVC's cache or remote. Where it is, is no output of a stage: it is fetched anew by each run.
"""

import shutil
from pathlib import Path

from flows.failure import CommandError
from flows.registry import CHAMPION, CORPUS, MODEL, STAGE, Version, model_path
from flows.workspace import Log, Workspace, dvc

PARTIAL = CHAMPION.with_name("champion.partial")  # what a broken connection leaves is no model in production
MODEL_DIRECTORY = "data/model"  # where `ntulm` looks for it, wherever the promoted commit had it
READING = "reading.json"  # how the model reads posts; what was promoted earlier has none


def fetch(workspace: Workspace, version: Version, log: Log) -> Path:
    """Put the champion's corpus and model directory into `data/champion`; return that folder.

    Raises:
        CommandError: an output is neither in the cache nor in a remote, or the champion is no model directory.
    """
    folder, partial = workspace.root / CHAMPION, workspace.root / PARTIAL
    for earlier in (folder, partial):
        shutil.rmtree(earlier, ignore_errors=True)
    partial.mkdir(parents=True)
    for path, target in ((CORPUS, CORPUS), (model_path(workspace.root, version.commit), MODEL_DIRECTORY)):
        try:
            workspace.run(dvc("get", ".", path, "--rev", version.commit, "--out", str(PARTIAL / target)), log)
        except CommandError as failure:
            raise CommandError(f"{version.version}: {path} cannot be fetched: {failure}") from None
    if not (partial / MODEL_DIRECTORY / READING).is_file():
        raise CommandError(
            f"{version.version} was promoted before model directories existed; take it out of production with "
            f"`gto deprecate {MODEL} {version.version} {STAGE}`, and the next model is promoted without a comparison"
        )
    partial.rename(folder)
    return CHAMPION
