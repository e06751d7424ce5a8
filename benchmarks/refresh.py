"""A model with the table of a newer graph: as it was trained, and turned into the model's space (`ntulm refresh`).

    python -m benchmarks.refresh MODEL NEWER_TABLE data/tasks/TASK/DATASET.parquet ...

Scores of the model's classifiers on the test posts of its tasks; gains over the model as it is, with intervals of 95 %
(paired bootstrap over posts). Prints a Markdown table.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ntulm import load
from ntulm.embeddings.alignment import Turn, turn_onto, write_turned
from ntulm.embeddings.table import EmbeddingTable
from ntulm.evaluate.bootstrap import Bootstrap, metric_samples, relative_gain
from ntulm.inference.directory import find
from ntulm.inference.model import Model
from ntulm.use.sample import of_dataset

CONFIDENCE = 0.95
BOOTSTRAP = Bootstrap(resamples=1000, seed=0)
HEADER = "| data set | posts | table | known | metric | score | gain | cosine of the vectors |"
AS_IS = "as it is"


def tables(model: Model, newer: Path, folder: Path) -> tuple[Turn, dict[str, EmbeddingTable]]:
    """What is compared."""
    later = EmbeddingTable.load(newer)
    turn = turn_onto(model.table, later)
    write_turned(folder, model.table, newer, turn)
    return turn, {AS_IS: model.table, "newer, as trained": later, "newer, turned": EmbeddingTable.load(folder)}


def rows(model: Model, compared: dict[str, EmbeddingTable], dataset: Path) -> Iterator[str]:
    """A row per table."""
    sample = of_dataset(dataset, model)
    assert sample.labels is not None
    classifier = dict(zip(model.tasks, model.classifiers.values(), strict=True))[sample.task or ""]
    name = classifier.about["metric"]
    vectors, known, scores = {}, {}, {}
    for side, table in compared.items():
        encoder = replace(model.encoder, table=table)
        vectors[side], known[side] = encoder.encode(sample.posts), encoder.known(sample.posts)
        scores[side] = [classifier.scores(vectors[side], known[side])]
    samples = metric_samples([name], sample.labels, scores, BOOTSTRAP, f"refresh/{dataset.stem}")
    before = samples[name, AS_IS]
    for side in compared:
        found = samples[name, side]
        gain = relative_gain(found, before)
        low, high = gain.interval(CONFIDENCE)
        said = "" if side == AS_IS else f"{gain.value:+.1f} % [{low:+.1f}, {high:+.1f}]"
        one, other = vectors[AS_IS], vectors[side]
        cosine = ((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).mean()
        cells = (dataset.stem, f"{len(sample.posts):,}", side, f"{known[side].mean():.1%}", name, f"{found.value:.3f}")
        yield f"| {' | '.join(cells)} | {said} | {cosine:.3f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("newer", type=Path, help="data/embeddings of a project whose graph ends later")
    parser.add_argument("datasets", type=Path, nargs="+")
    given = parser.parse_args()
    model = load(find(given.model))
    with tempfile.TemporaryDirectory() as folder:
        turn, compared = tables(model, given.newer, Path(folder))
        print(f"{turn.common:,} NTUs in common; cosine {turn.before:.2f} as trained, {turn.after:.2f} turned.\n")
        print(HEADER, "| --- " * HEADER.count("| ") + "|", sep="\n")
        for dataset in given.datasets:
            print(*rows(model, compared, dataset), sep="\n", flush=True)


if __name__ == "__main__":
    main()
