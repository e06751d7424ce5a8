"""Add a classifier to a model directory: it is there whole or not at all, whenever the process is stopped."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ntulm.errors import UserError
from ntulm.files import whole_directory, whole_file
from ntulm.inference.directory import CARD, CLASSIFIERS, READING, find
from ntulm.probe.classifier import Classifier, save_classifier

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
HEADING = "## Added classifiers"


def place_of(model_name: str, out: Path | None) -> Path:
    """The model directory that a classifier is to be added to, or copied from.

    Raises:
        UserError: there is none, it is one that was fetched and has to stay as it is, or `out` is there already.
    """
    directory = find(model_name)
    if out is None and not Path(model_name).expanduser().is_dir():
        raise UserError(f"{model_name}: a fetched model stays as it is; --out DIR writes a copy with the classifier")
    if out is None and not os.access(directory, os.W_OK):
        raise UserError(f"{model_name}: cannot be written; --out DIR writes a copy with the classifier")
    if out is not None and (out.exists() or out.is_symlink()):
        raise UserError(f"--out {out}: is there already; name a new directory")
    return directory


def check_name(name: str, directory: Path, again: bool) -> None:
    """Refuse a name that is none, or that a classifier has.

    Raises:
        UserError: says which.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"--name {name}: expected small letters, digits, - and _, a letter first")
    taken = [path.name.removesuffix(".json") for path in (directory / CLASSIFIERS).glob(f"{name}.*.json")]
    if taken and taken != [f"{name}.{name}"]:
        raise UserError(f"--name {name}: a task of the pipeline ({', '.join(taken)}); take another name")
    if taken and not again:
        raise UserError(f"--name {name}: a classifier of this model; --replace trains it anew, or take another name")


def place_in(directory: Path, classifier: Classifier, name: str, out: Path | None) -> Path:
    """Add the classifier to the directory, or to a copy of it; where it lies."""
    try:
        if out is None:
            return add(directory, classifier, name)
        with whole_directory(out) as copy:
            shutil.copytree(directory, copy, dirs_exist_ok=True)
            add(copy, classifier, name)
        return out / CLASSIFIERS / f"{name}.{name}"
    except OSError as error:
        raise UserError(f"{out or directory}: cannot be written: {error.strerror or error}") from error


def add(directory: Path, classifier: Classifier, name: str) -> Path:
    """Write both files; a classifier is there when its .json is, so that goes first and comes last."""
    folder, stem = directory / CLASSIFIERS, f"{name}.{name}"
    assert (directory / READING).is_file()
    folder.mkdir(exist_ok=True)
    with _folder(folder / f".partial-{stem}") as partial:
        save_classifier(classifier, partial / stem)
        (folder / f"{stem}.json").unlink(missing_ok=True)
        os.replace(partial / f"{stem}.safetensors", folder / f"{stem}.safetensors")
        os.replace(partial / f"{stem}.json", folder / f"{stem}.json")
    note(directory / CARD, classifier)
    return folder / stem


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def note(card: Path, classifier: Classifier) -> None:
    """A line of the card that tells of the classifier, in place of an earlier one."""
    about = classifier.about
    systems = about["cross_validation"]["systems"]
    figures = [f"{system} {of[about['metric']]['value']:.3f}" for system, of in systems.items()]
    start = f"- `{about['task']}`: "
    line = f"{start}{len(about['classes'])} classes, {about['posts']['test']} rows, cross-validated {about['metric']}: "
    before = card.read_text(encoding="utf-8") if card.is_file() else ""
    kept = [one for one in before.splitlines() if not one.startswith(start)]
    kept += [] if HEADING in kept else ["", HEADING, ""]
    with whole_file(card) as partial:
        partial.write_text("\n".join([*kept, line + "; ".join(figures)]) + "\n", encoding="utf-8")
