"""The model in production as a folder: what `ntulm check` and `ntulm challenge` compare with.

The folder is laid out like the project: of the outputs of the promoted run, the corpus and the model directory that its
commit names, from DVC's cache or remote. Where it is, is no output of a stage: it is fetched anew by each run.
"""

import shutil
from pathlib import Path

from flows.failure import CommandError
from flows.registry import CORPUS, Version, model_path
from flows.workspace import Log, Workspace, dvc

FOLDER = Path("data/champion")
MODEL_DIRECTORY = "data/model"  # where `ntulm` looks for it, wherever the promoted commit had it


def fetch(workspace: Workspace, version: Version, log: Log) -> Path:
    """Put the champion's corpus and model directory into `data/champion`; return that folder.

    Raises:
        CommandError: an output is neither in the cache nor in a remote.
    """
    folder = workspace.root / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, target in ((CORPUS, CORPUS), (model_path(workspace.root, version.commit), MODEL_DIRECTORY)):
        try:
            workspace.run(dvc("get", ".", path, "--rev", version.commit, "--out", str(FOLDER / target)), log)
        except CommandError as failure:
            raise CommandError(f"{version.version}: {path} cannot be fetched: {failure}") from None
    return FOLDER
