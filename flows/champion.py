"""The model in production as a folder: what `ntulm check` and `ntulm challenge` compare with.

The folder is laid out like the project: `params.yaml`, and of the outputs of the promoted run what its commit names,
from DVC's cache or remote. Where it is, is no output of a stage: it is fetched anew by each run.
"""

import shutil
from pathlib import Path

from flows.failure import CommandError
from flows.registry import CORPUS, PARAMS_FILE, Version, git, model_path
from flows.workspace import Log, Workspace, dvc

FOLDER = Path("data/champion")
TABLE = "data/embeddings"


def fetch(workspace: Workspace, version: Version, log: Log, with_model: bool) -> Path:
    """Put the champion's corpus, table and, where wanted, model into `data/champion`; return that folder.

    Raises:
        CommandError: an output is neither in the cache nor in a remote.
    """
    folder = workspace.root / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    params = git(workspace.root, "show", f"{version.commit}:./{PARAMS_FILE}")
    (folder / PARAMS_FILE).write_text(params + "\n", encoding="utf-8")
    model = [model_path(workspace.root, version.commit)] if with_model else []
    for path in [CORPUS, TABLE, *model]:
        try:
            workspace.run(dvc("get", ".", path, "--rev", version.commit, "--out", str(FOLDER / path)), log)
        except CommandError as failure:
            raise CommandError(f"{version.version}: {path} cannot be fetched: {failure}") from None
    return FOLDER
