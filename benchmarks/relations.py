"""What each relation and NTU type adds to a finished text model: hashtag Recall@10 and topic MAP, seeds, intervals.

    python -m benchmarks.relations PROJECT [ADDITION ...]

PROJECT has run `dvc repro encode` with the variant `text`, and its `ntus` have the roles of ROLES
(docs/results/stocknet-relations.md shows how). For each addition and seed, graph and table are made anew in a temporary
folder by the engine `torch`, the project's frozen text vectors are joined with the posts' mean NTU vectors
(`post-concat`, §5.3), and a probe with the settings `probe.fixed` is trained. The seed is that of text model, table and
probe. One Markdown table on standard output: gains over the paper's graph and slot, on the same resampled posts.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ntulm.embeddings import stage as embeddings
from ntulm.embeddings.config import Embeddings
from ntulm.embeddings.table import EmbeddingTable
from ntulm.evaluate.bootstrap import Bootstrap, Sample, metric_samples, relative_gain, verdict
from ntulm.files import read_json
from ntulm.graph import stage as graph
from ntulm.graph.config import Graph
from ntulm.language_model.encoder import hidden_rows
from ntulm.language_model.slots import Slots
from ntulm.layout import Layout
from ntulm.params import Params, load_params
from ntulm.posts import Posts
from ntulm.probe import stage as probe
from ntulm.variants import parse_variant

ROLES = ("mention", "reply_to", "quoted", "link", "cashtag")
PAPER = "author+hashtag"


class Addition(NamedTuple):
    """What is added to the paper's relations and slot."""

    relations: Mapping[str, tuple[str, str]]
    slot: str = PAPER


REPLIED = {"replied": ("author", "reply_to")}
QUOTED = {"quoted": ("author", "quoted")}
MENTIONED = {"mentioned": ("author", "mention")}
LINKED = {"linked": ("author", "link"), "linked_with": ("link", "hashtag")}
TRADED = {"traded": ("author", "cashtag"), "traded_with": ("cashtag", "hashtag")}
ADDITIONS = {
    "the paper's": Addition({}),
    "replied": Addition(REPLIED),
    "quoted": Addition(QUOTED),
    "mentioned": Addition(MENTIONED),
    "mentions in the slot": Addition({}, f"{PAPER}+mention"),
    "mentioned, mentions in the slot": Addition(MENTIONED, f"{PAPER}+mention"),
    "linked": Addition(LINKED),
    "linked, links in the slot": Addition(LINKED, f"{PAPER}+link"),
    "traded": Addition(TRADED),
    "traded, cashtags in the slot": Addition(TRADED, f"{PAPER}+cashtag"),
    "all users": Addition(REPLIED | QUOTED | MENTIONED, f"{PAPER}+mention"),
    "all of these": Addition(REPLIED | QUOTED | MENTIONED | LINKED | TRADED, f"{PAPER}+mention+link+cashtag"),
}


class Measured(NamedTuple):
    """Scores of the test posts of each data set, per seed."""

    scores: dict[tuple[str, str], list[NDArray]]  # (task, data set) -> per seed
    known: dict[tuple[str, str], float]  # share of the test posts with a vector in the slot
    edges: int
    nodes: int


def main() -> None:
    """Measure the additions and print them."""
    layout = Layout(Path(sys.argv[1]))
    params = load_params(layout.params)
    unknown = set(sys.argv[2:]) - ADDITIONS.keys()
    if unknown:
        sys.exit(f"unknown additions: {', '.join(sorted(unknown))}; there are: {', '.join(ADDITIONS)}")
    wanted = dict.fromkeys(["the paper's", *(sys.argv[2:] or ADDITIONS)])
    found = {name: measured(ADDITIONS[name], params, layout) for name in wanted}
    print(markdown(found, params, layout))


def measured(addition: Addition, params: Params, layout: Layout) -> Measured:
    """Graph, table and probes of one addition, for each seed of the project."""
    scores: dict[tuple[str, str], list[NDArray]] = {}
    known: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        own = Layout(Path(folder)).borrowing(layout, "corpus")
        graph.run(_graph(addition, params), params.ntus.scheme, own)
        size = read_json(own.metrics("graph"))
        for seed in params.run.seeds:
            settings = params.embeddings.model_dump() | {"engine": "torch", "seed": seed}
            embeddings.run(Embeddings(**settings), own)
            table = EmbeddingTable.load(own.embeddings)
            for key in _datasets(params, layout):
                one, share = _scores(key, addition.slot, table, params, layout, seed)
                scores.setdefault(key, []).append(one)
                known[key] = share
            print(f"relations: {addition}, seed {seed}", file=sys.stderr, flush=True)
    return Measured(scores, known, _total(size["edges"]), _total(size["nodes"]))


def _graph(addition: Addition, params: Params) -> Graph:
    settings = params.graph.model_dump()
    settings["relations"] |= {
        name: {"left": left, "right": right} for name, (left, right) in addition.relations.items()
    }
    return Graph.model_validate(settings)


def _datasets(params: Params, layout: Layout) -> list[tuple[str, str]]:
    return [(task, name) for task in params.run.tasks for name in read_json(layout.task(task) / "datasets.json")]


def _scores(
    key: tuple[str, str], slot: str, table: EmbeddingTable, params: Params, layout: Layout, seed: int
) -> tuple[NDArray, float]:
    """Of the test posts, by a probe on text vectors and mean NTU vectors; and the share of them with a known NTU."""
    task, name = key
    dataset = read_json(layout.task(task) / "datasets.json")[name]
    path = layout.task(task) / f"{name}.parquet"
    split, labels = probe.read_labels(path, len(dataset["classes"]))
    text = probe.systems(layout.vectors("text", seed, task) / f"{name}.safetensors", "text")[0]
    posts = Posts(pq.read_table(path, columns=["post_id", "text", "author", "ntus"]))
    posts = posts.without_ntus(hidden_rows(split.tolist(), 0, params.encode.hidden_share))
    scheme = params.ntus.scheme
    slots = Slots.of(table, scheme, parse_variant(slot, scheme.of_posts), posts.ntus)
    ntu = slots.vectors(np.arange(len(posts)))[0].reshape(len(posts), -1)
    features = np.hstack([text.features, ntu.astype(np.float32)])
    problem = probe.prepare(dataset, text.width, features, labels, split)
    fixed = params.probe.model_copy(update={"search": False})
    rows = slots.slots[0]
    known = np.concatenate([[0], np.cumsum(rows.rows >= 0)])[rows.offsets]
    share = float((np.diff(known)[split == "test"] > 0).mean())
    return probe.solve(fixed, problem, dataset["metrics"], seed, name).scores, share


def _total(counts: object) -> int:
    return sum(map(_total, counts.values())) if isinstance(counts, Mapping) else int(counts)  # type: ignore[call-overload]


def markdown(found: Mapping[str, Measured], params: Params, layout: Layout) -> str:
    """One row per addition; for each data set its score, and the gain over the paper's graph and slot."""
    keys = _datasets(params, layout)
    about = {key: read_json(layout.task(key[0]) / "datasets.json")[key[1]] for key in keys}
    gains = {key: _gains(key, found, about[key], params, layout) for key in keys}
    heads = [f"{name} ({about[task, name]['metric']}) | gain | posts with a known NTU" for task, name in keys]
    line = f"| :-- | --: | --: |{' --: | :-- | --: |' * len(keys)}"
    lines = [f"| added | nodes | edges | {' | '.join(heads)} |", line]
    for name, one in found.items():
        cells = [f"{gains[key][name]} | {one.known[key]:.1%}" for key in keys]
        lines.append(f"| {name} | {one.nodes:,} | {one.edges:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gains(
    key: tuple[str, str], found: Mapping[str, Measured], dataset: dict, params: Params, layout: Layout
) -> dict[str, str]:
    split, labels = probe.read_labels(layout.task(key[0]) / f"{key[1]}.parquet", len(dataset["classes"]))
    config = params.evaluate
    samples = metric_samples(
        [dataset["metric"]],
        labels[split == "test"],
        {name: one.scores[key] for name, one in found.items()},
        Bootstrap(config.resamples, config.seed),
        key[1],
    )
    base = samples[dataset["metric"], "the paper's"]
    return {
        name: _cell(name, samples[dataset["metric"], name], base, config.confidence, int((split == "test").sum()))
        for name in found
    }


def _cell(name: str, sample: Sample, base: Sample, confidence: float, posts: int) -> str:
    if name == "the paper's":
        return f"{sample.value:.3f} | "
    gain = relative_gain(sample, base)
    low, high = gain.interval(confidence)
    return f"{sample.value:.3f} | {gain.value:+.1f} % [{low:+.1f}, {high:+.1f}] {verdict(low, high, posts, 0)}"


if __name__ == "__main__":
    main()
