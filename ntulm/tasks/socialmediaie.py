"""SocialMediaIE's classification sets (§4.1), in the layout of its own repository: `GROUP/SET/{train,dev,test}.json`.

Reads the folder at the task's `path`; a file holds one JSON object per line with `text` and `label` (the sets come as
ids, so whoever has the posts writes these files). Data sets are named as in the paper's Table 3, which numbers the sets
of a group in alphabetical order. No authors; NTUs are taken from the text. The metric is macro-F1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.tasks.dataset import Dataset, posts_of_texts, sample
from ntulm.tasks.records import records
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.tasks.config import SocialMediaIETask

PARTS = {"train": "train", "validation": "dev", "test": "test"}
SETS = {
    "abusive-1": "ABUSIVE/Founta",
    "abusive-2": "ABUSIVE/WaseemSRW",
    "sentiment-1": "SENTIMENT/Airline",
    "sentiment-2": "SENTIMENT/Clarin",
    "sentiment-3": "SENTIMENT/GOP",
    "sentiment-4": "SENTIMENT/Healthcare",
    "sentiment-5": "SENTIMENT/Obama",
    "sentiment-6": "SENTIMENT/SemEval",
    "uncertainty-1": "UNCERTAINITY/Riloff",  # as the folder is spelt there
    "uncertainty-2": "UNCERTAINITY/Swamy",
}


def build(
    name: str, task: SocialMediaIETask, scheme: NtuScheme, reading: Reading, layout: Layout
) -> dict[str, Dataset]:
    """One single-label data set for each folder that is there."""
    root = layout.root / task.path
    present = {dataset: root / folder for dataset, folder in SETS.items() if (root / folder).is_dir()}
    if not present:
        raise UserError(f"path: {root}: none of {', '.join(SETS.values())} is a folder there")
    return {dataset: _dataset(folder, task, scheme, reading) for dataset, folder in present.items()}


def _dataset(folder: Path, task: SocialMediaIETask, scheme: NtuScheme, reading: Reading) -> Dataset:
    found: list[tuple[str, str, str, str]] = []
    dropped = 0
    for split, part in PARTS.items():
        for number, record in enumerate(records(folder / f"{part}.json", ["text", "label"]), 1):
            text, label = record.values["text"].strip(), record.values["label"].strip()
            if not label:
                raise UserError(f"{record.where}: no label; expected a string")
            if text:
                found.append((f"{part}-{number}", split, text, label))
            dropped += not text
    classes = sorted({label for *_, label in found})
    index = {label: place for place, label in enumerate(classes)}
    posts = posts_of_texts(
        scheme,
        reading,
        post_ids=[key for key, *_ in found],
        splits=[split for _, split, _, _ in found],
        texts=[text for _, _, text, _ in found],
        labels=[index[label] for *_, label in found],
    )
    chosen = sample(posts, task.max_posts, task.seed)
    return Dataset("SocialMediaIE", "single", classes, ["macro_f1", "accuracy"], chosen, {"empty text": dropped})
