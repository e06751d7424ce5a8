"""The searches of probes as Optuna studies, one journal per task: for `optuna-dashboard` and `optuna.load_study`.

    optuna-dashboard monitoring/studies/TASK.log

A study is copied there once its search is done; the search itself stays in memory, and its figures are the same with
and without a journal. A journal holds times and grows with every run, so it is no output of the stage: DVC neither
hashes nor removes it, and a stage that DVC restores from its cache leaves the study of the run that made it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def study_name(dataset: str, system: str, seed: int) -> str:
    """The name of a study in the journal of its task."""
    return f"{dataset} {system} seed {seed}"


def keep_study(study: optuna.Study, name: str, about: Mapping[str, str], journal: Path) -> None:
    """Put a finished study into a journal, in place of an earlier one of that name.

    Where the journal cannot be written, a line on standard error says so: nothing else depends on it.

    Args:
        study: with its trials.
        name: of the study in the journal.
        about: what is shown beside it.
        journal: a file that several processes may write to.
    """
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        if name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
        kept = optuna.create_study(study_name=name, storage=storage, direction=study.direction)
        for key, value in about.items():
            kept.set_user_attr(key, value)
        kept.add_trials(study.get_trials(deepcopy=False))
    except (OSError, ValueError, KeyError) as error:  # the disk, or a line that somebody's kill cut short
        print(f"probe: {journal}: the study {name!r} is not kept: {error}", file=sys.stderr)
