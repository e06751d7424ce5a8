"""Link prediction of both engines on a finished graph over some seeds: is their MRR the same, within its spread?

    python -m benchmarks.seed_spread PROJECT [dimension=200 batch_negatives=500 …]

PROJECT holds params.yaml and data/graph. One Markdown row per engine: MRR by seed, its mean and standard deviation,
and Hits@10. Decision 0030 has the rows of `ira` and `stocknet`.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from ntulm.embeddings import pbg, torch_training
from ntulm.embeddings import stage as embeddings
from ntulm.embeddings.config import Embeddings
from ntulm.embeddings.link_prediction import link_prediction, read_relations
from ntulm.layout import Layout
from ntulm.params import load_params

SEEDS = range(3)


def main() -> None:
    """Train with every engine and seed; the seed of the drawn questions stays the same."""
    layout = Layout(Path(sys.argv[1]))
    changes = {name: int(value) for name, _, value in (argument.partition("=") for argument in sys.argv[2:])}
    settings = load_params(layout.params).embeddings.model_dump() | changes
    for engine in ("pbg", "torch"):
        found = [figures(layout, Embeddings(**settings | {"engine": engine, "seed": seed})) for seed in SEEDS]
        mrr = [one["mrr"] for one in found]
        hits = statistics.mean(one["hits@10"] for one in found)
        each = ", ".join(f"{value:.4f}" for value in mrr)
        print(
            f"| {layout.root.name} {changes} | {engine} | {each} | {statistics.mean(mrr):.4f} ± "
            f"{statistics.stdev(mrr):.4f} | {hits:.4f} |",
            flush=True,
        )


def figures(layout: Layout, config: Embeddings) -> dict:
    """The link prediction figures of one training."""
    if config.engine == "torch":
        model, _ = torch_training.train(config, layout.pbg_input, lambda *_: None)
    else:
        with tempfile.TemporaryDirectory() as work:
            model, _ = pbg.train(config, layout.pbg_input, Path(work), lambda *_: None)
    relations = read_relations(layout.pbg_input)
    edges, held_out = embeddings.read_edges(layout.edges, relations, model)
    asked = embeddings.sample(np.flatnonzero(held_out), config.ranked_edges, seed=0)
    return link_prediction(model, edges, held_out, asked, relations)


if __name__ == "__main__":
    main()
