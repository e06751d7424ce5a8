"""TweetEval (§4.1), or anything in its layout: `DATASET/{train,val,test}_{text,labels}.txt` and `mapping.txt`.

Reads the folder at the task's `path`. No authors; NTUs are taken from the text. `stance` stands for one data set per
target (`stance/abortion` becomes `stance-abortion`). The metric is the benchmark's official one, macro-F1 beside it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.tasks.dataset import Dataset, posts_of_texts, sample
from ntulm.tasks.records import lines
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.tasks.config import TweetEvalTask

_PARTS = {"train": "train", "validation": "val", "test": "test"}
# What the benchmark ranks by (Barbieri et al., 2020, table 2); macro-F1 for the other data sets.
_OFFICIAL = {"irony": "f1_1", "sentiment": "macro_recall", "stance": "stance_f1"}


def build(name: str, task: TweetEvalTask, scheme: NtuScheme, reading: Reading, layout: Layout) -> dict[str, Dataset]:
    """One single-label data set for each of the task's `datasets`, several for one that has targets."""
    root = layout.root / task.path
    if not root.is_dir():
        raise UserError(f"path: {root}: not a folder; expected one with {', '.join(task.datasets)} inside")
    found: dict[str, Dataset] = {}
    for dataset in task.datasets:
        for folder in _folders(root, dataset):
            key = "-".join(folder.relative_to(root).parts)
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", key):
                raise UserError(f"datasets: {key!r}; a data set's name holds letters, digits and hyphens only")
            found[key] = _dataset(dataset.partition("/")[0], folder, task, scheme, reading)
    return found


def _folders(root: Path, dataset: str) -> list[Path]:
    folder = root / dataset
    if ".." in Path(dataset).parts or not folder.is_dir():
        present = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir()))
        raise UserError(f"datasets: {dataset!r} is not a folder of {root}; it has {present or 'none'}")
    targets = sorted(path for path in folder.iterdir() if (path / "train_text.txt").is_file())
    return [folder] if (folder / "train_text.txt").is_file() or not targets else targets


def _dataset(official: str, folder: Path, task: TweetEvalTask, scheme: NtuScheme, reading: Reading) -> Dataset:
    classes = _classes(folder)
    found: list[tuple[str, str, str, int]] = []
    dropped = 0
    for split, part in _PARTS.items():
        texts_file, labels_file = folder / f"{part}_text.txt", folder / f"{part}_labels.txt"
        texts, labels = lines(texts_file), lines(labels_file)
        if len(texts) != len(labels):
            raise UserError(
                f"{texts_file}: {len(texts)} lines, but {labels_file.name} has {len(labels)}; one label per text"
            )
        for line, (text, label) in enumerate(zip(texts, labels, strict=True), 1):
            own = _label(label, len(classes), f"{labels_file}:{line}")
            if text.strip():
                found.append((f"{part}-{line}", split, text.strip(), own))
            dropped += not text.strip()
    metrics = list(dict.fromkeys([_OFFICIAL.get(official, "macro_f1"), "macro_f1"]))
    posts = posts_of_texts(
        scheme,
        reading,
        post_ids=[key for key, *_ in found],
        splits=[split for _, split, _, _ in found],
        texts=[text for _, _, text, _ in found],
        labels=[own for *_, own in found],
    )
    chosen = sample(posts, task.max_posts, task.seed)
    return Dataset("TweetEval", "single", classes, metrics, chosen, {"empty text": dropped})


def _classes(folder: Path) -> list[str]:
    """The second column of `mapping.txt`, which stands in the folder or, for targets, in the one above."""
    own, above = folder / "mapping.txt", folder.parent / "mapping.txt"
    path = own if own.is_file() or not above.is_file() else above
    classes = []
    for at, line in enumerate(lines(path)):
        number, _, rest = line.partition("\t")
        if number.strip() != str(at) or not rest.strip():
            raise UserError(f"{path}:{at + 1}: {line!r}; expected {at}, a tab and the name of the class")
        classes.append(rest.split("\t")[0].strip())
    return classes


def _label(value: str, classes: int, where: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value.strip(), re.ASCII) or int(value) >= classes:
        raise UserError(f"{where}: label {value!r}; expected a whole number from 0 to {classes - 1} (mapping.txt)")
    return int(value)
