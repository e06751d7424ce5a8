"""What a stage needs to run in another workspace, as data: parameters, lock entries, and hashes to compare.

The results themselves go through the DVC remote. Sender: `pack`. Receiver: `write_params`, `write_lock`, `differing`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML

from flows.failure import CommandError
from flows.mending import LOCK_FILE
from flows.pipeline import stage_name
from flows.workspace import LOCK

PARAMS = Path("params.yaml")
LOCK_SCHEMA = "2.0"
MISSING = "missing"
LARGEST_PARAMS = 200_000  # characters; the longest recipe has 10,000


class Handover(BaseModel):
    """Sent from the workspace of a build to that of a worker of a pool. It holds no secret: those stay in each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    builder: str = Field(description="Who holds the lock of the workspace that sends.")
    params: str = Field(description="The text of params.yaml.", max_length=LARGEST_PARAMS)
    lock: dict[str, dict[str, Any]] = Field(description="Entries in dvc.lock of the stages whose results it reads.")
    inputs: dict[str, str] = Field(description="The hash of each file and folder that it reads, its code included.")


def pack(root: Path, stage: str, makers: frozenset[str]) -> Handover:
    """Collect what `stage` needs in another workspace; all that it reads has to be up to date in this one."""
    entries = _read_lock(root)["stages"]
    return Handover(
        builder=(root / LOCK).read_text(encoding="utf-8"),
        params=(root / PARAMS).read_text(encoding="utf-8"),
        lock={maker: entries[maker] for maker in sorted(makers) if maker in entries},
        inputs=input_hashes(root, stage),
    )


def input_hashes(root: Path, stage: str) -> dict[str, str]:
    """The hash, as DVC takes it, of each file and folder that the stage reads; parameters are compared as a whole.

    Raises:
        CommandError: DVC cannot read the pipeline or what it names.
    """
    try:
        with Repo(str(root)) as repo:
            found = next(one for one in repo.index.stages if stage_name(one) == stage)
            files = [dep for dep in found.deps if not isinstance(dep, ParamsDependency)]
            return {dep.def_path: (dep.get_hash().value if dep.exists else None) or MISSING for dep in files}
    except DvcException as error:
        raise CommandError(f"dvc.yaml: {' '.join(str(error).split())}") from error


def differing(root: Path, stage: str, handover: Handover) -> list[str]:
    """The inputs of the stage that are not those of the sender."""
    here = input_hashes(root, stage)
    return sorted(path for path in here.keys() | handover.inputs.keys() if here.get(path) != handover.inputs.get(path))


@contextmanager
def params_beside(root: Path, handover: Handover) -> Iterator[Path]:
    """Write the parameters beside params.yaml, to be checked there; they take its place if nothing is raised."""
    partial = root / LOCK.parent / "handover.params.yaml"
    partial.write_text(handover.params, encoding="utf-8")
    try:
        yield partial
        os.replace(partial, root / PARAMS)
    finally:
        partial.unlink(missing_ok=True)


def write_lock(root: Path, handover: Handover) -> None:
    """Let dvc.lock say of the makers what the sender's says; its other entries stay."""
    lock = _read_lock(root)
    lock["stages"].update(handover.lock)
    partial = root / LOCK.parent / "handover.dvc.lock"
    with partial.open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(lock, stream)
    os.replace(partial, root / LOCK_FILE)


def _read_lock(root: Path) -> dict[str, Any]:
    path = root / LOCK_FILE
    lock = YAML(typ="safe", pure=True).load(path) if path.is_file() else None
    return {"schema": LOCK_SCHEMA, "stages": {}} | (lock or {})
