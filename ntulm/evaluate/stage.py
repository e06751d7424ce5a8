"""Stage `evaluate`: every system against `text`, by slice, each comparison with its interval (§5, Tables 2 to 5).

Reads `data/tasks/`, `data/embeddings/` (which NTUs are known), the corpus (when posts were written),
`data/pretrain/*/*/test_losses.safetensors` and the test scores under `data/probe/`. Writes `data/evaluate/tables.json`
(every figure with its number of posts), `data/evaluate/slices.json` (flat records for `dvc plots`) and
`metrics/evaluate.json` (the headlines).
Command: `ntulm evaluate`.

A *record* is one figure: what it is about, `posts`, `value` with its interval, and where a `text` baseline was run,
`gain` in % of it with the interval `low` to `high` and a `verdict`. Undefined figures are null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.evaluate.bootstrap import (
    Bootstrap,
    Sample,
    mean_sample,
    metric_samples,
    ratio_samples,
    relative_gain,
    verdict,
)
from ntulm.evaluate.coverage import coverage_of_types
from ntulm.evaluate.familiarity import Graph, about
from ntulm.evaluate.scores import (
    BASELINE,
    SPLITS,
    ScoredDataset,
    TestLosses,
    in_order,
    read_datasets,
    read_test_losses,
    shown_variant,
)
from ntulm.files import whole_directory, write_json
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme, known_posts
from ntulm.probe.metrics import LOWER_IS_BETTER

if TYPE_CHECKING:
    from ntulm.evaluate.config import Evaluate
    from ntulm.params import Run

SLICES = ("overall", "overlap", "non_overlap")
# Tokens by how often they stand in the training posts of the first seed: at least, and less than.
FREQUENCIES = {
    "seen_under_10": (0, 10),
    "seen_under_100": (10, 100),
    "seen_under_1000": (100, 1000),
    "seen_more": (1000, None),
}
OFFICIAL = "official"  # the mean over data sets of a family whose main metrics differ
Record = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """What one metric of one system is on the posts of one slice of one data set."""

    posts: int
    sample: Sample


Figures = dict[tuple[str, str, str], Figure]  # by (metric, system, slice)


def run(config: Evaluate, run: Run, scheme: NtuScheme, layout: Layout) -> None:
    """Compare what was run and write the tables.

    Raises:
        UserError: nothing was probed or pretrained yet, or outputs of earlier stages do not fit together.
    """
    datasets = read_datasets(run, layout)
    losses = read_test_losses(run, layout)
    if losses is None and not any(dataset.scores for dataset in datasets):
        raise UserError("data/probe, data/pretrain: no scores of the variants in `run`; run `dvc repro` first")
    table = EmbeddingTable.load(layout.embeddings)
    bootstrap = Bootstrap(config.resamples, config.seed)
    known = [known_posts(table, scheme, dataset.splits["test"].ntus, config.overlap) for dataset in datasets]
    figures = {
        (dataset.task, dataset.name): dataset_figures(dataset, overlap, bootstrap)
        for dataset, overlap in zip(datasets, known, strict=True)
    }
    tables = {
        "settings": config.model_dump()
        | run.model_dump()
        | {"baseline": BASELINE, "ntulm": shown_variant(run.variants), "types": dict(scheme.types)},
        "perplexity": perplexity_records(losses, bootstrap, config) if losses else [],
        "families": family_records(datasets, figures, config, run.variants),
        "datasets": dataset_records(datasets, figures, config),
        "coverage": [
            record for dataset in datasets for record in coverage_records(table, scheme, dataset, config.overlap)
        ],
        "familiarity": familiarity_records(datasets, known, Graph.read(layout), bootstrap, config),
    }
    with whole_directory(layout.evaluate) as directory:
        write_json(directory / "tables.json", tables)
        write_json(directory / "slices.json", plot_records(tables))
    write_json(layout.metrics("evaluate"), headlines(tables))


def dataset_figures(dataset: ScoredDataset, known: NDArray[np.bool_], bootstrap: Bootstrap) -> Figures:
    """Every metric of every system on every slice of a data set's test posts; a slice without posts is left out."""
    figures: Figures = {}
    if not dataset.scores:
        return figures
    for name, chosen in zip(SLICES, (np.ones_like(known), known, ~known), strict=True):
        if not chosen.any():
            continue
        samples = metric_samples(
            dataset.metrics,
            dataset.labels[chosen],
            {system: [scores[chosen] for scores in seeds] for system, seeds in dataset.scores.items()},
            bootstrap,
            stream=f"{dataset.task}/{dataset.name}/{name}",
        )
        for (metric, system), sample in samples.items():
            figures[metric, system, name] = Figure(int(chosen.sum()), sample)
    return figures


def dataset_records(
    datasets: Sequence[ScoredDataset], figures: Mapping[tuple[str, str], Figures], config: Evaluate
) -> list[Record]:
    """Table 3, for each slice: one record per data set, metric, system and slice."""
    return [
        {"task": dataset.task, "family": dataset.family, "dataset": dataset.name}
        | {"metric": metric, "main": metric == dataset.metrics[0], "system": system, "slice": name}
        | {"posts": figure.posts, "seeds": len(dataset.scores[system])}
        | _compared(
            figure.sample, _baseline(own, metric, name), system, figure.posts, config, metric in LOWER_IS_BETTER
        )
        for dataset in datasets
        for own in [figures[dataset.task, dataset.name]]
        for (metric, system, name), figure in own.items()
    ]


def family_records(
    datasets: Sequence[ScoredDataset],
    figures: Mapping[tuple[str, str], Figures],
    config: Evaluate,
    variants: Sequence[str],
) -> list[Record]:
    """Tables 2 and 4: one record per family, metric, system and slice, the mean over the family's data sets.

    Data sets are resampled apart from one another. A slice of fewer than `min_posts` posts stays out of the mean, for
    a bootstrap of a handful of posts is too narrow; where all are that small, all count and no verdict is given.
    """
    groups: dict[tuple[str, str], list[ScoredDataset]] = defaultdict(list)
    for dataset in datasets:
        if dataset.scores:
            groups[dataset.task, dataset.family].append(dataset)
    records = []
    for (task, family), members in groups.items():
        for position, (label, metrics) in enumerate(_family_metrics(members).items()):
            chosen = [(figures[task, one.name], metric) for one, metric in zip(members, metrics, strict=True)]
            about: Record = {"task": task, "family": family, "metric": label}
            about |= {"main": position == 0, "of_datasets": len(members)}
            records += [about | record for record in _family_slices(chosen, config, variants)]
    return records


def _family_slices(
    members: Sequence[tuple[Figures, str]], config: Evaluate, variants: Sequence[str]
) -> Iterable[Record]:
    systems = in_order(set.intersection(*({key[1] for key in figures} for figures, _ in members)), variants)
    for name in SLICES:
        present = [pair for pair in members if (pair[1], systems[0], name) in pair[0]] if systems else []
        large = [pair for pair in present if pair[0][pair[1], systems[0], name].posts >= config.min_posts]
        used = large or present
        if not used:
            continue
        own = {system: [figures[metric, system, name] for figures, metric in used] for system in systems}
        means = {system: mean_sample([figure.sample for figure in own[system]]) for system in systems}
        posts = sum(figure.posts for figure in own[systems[0]])
        judged = min(figure.posts for figure in own[systems[0]])
        for system in systems:
            yield {"system": system, "slice": name, "posts": posts, "datasets": len(used)} | _compared(
                means[system], means.get(BASELINE), system, judged, config, used[0][1] in LOWER_IS_BETTER
            )


def _family_metrics(members: Sequence[ScoredDataset]) -> dict[str, list[str]]:
    """The metrics to average over a family: the main ones, then each other one that all members have."""
    main = [dataset.metrics[0] for dataset in members]
    shared = [name for name in members[0].metrics if all(name in dataset.metrics for dataset in members)]
    return {main[0] if len(set(main)) == 1 else OFFICIAL: main} | {
        name: [name] * len(members) for name in shared if set(main) != {name}
    }


def familiarity_records(
    datasets: Sequence[ScoredDataset],
    known: Sequence[NDArray[np.bool_]],
    graph: Graph | None,
    bootstrap: Bootstrap,
    config: Evaluate,
) -> list[Record]:
    """The main metric by how far the posts are from the graph: one record per data set, group and system."""
    records: list[Record] = []
    for dataset, of_posts in zip(datasets, known, strict=True):
        if graph is None or not dataset.scores:
            continue
        metric = dataset.metrics[0]
        own = {"task": dataset.task, "family": dataset.family, "dataset": dataset.name, "metric": metric}
        for (by, name), chosen in graph.groups(dataset.splits["test"].table).items():
            scores = {system: [one[chosen] for one in seeds] for system, seeds in dataset.scores.items()}
            stream = f"{dataset.task}/{dataset.name}/{by}/{name}"
            samples = metric_samples([metric], dataset.labels[chosen], scores, bootstrap, stream)
            base, posts = samples.get((metric, BASELINE)), int(chosen.sum())
            records += [
                own
                | about(by, name, of_posts, chosen)
                | {"system": system}
                | _compared(sample, base, system, posts, config, metric in LOWER_IS_BETTER)
                for (_, system), sample in samples.items()
            ]
    return records


def perplexity_records(losses: TestLosses, bootstrap: Bootstrap, config: Evaluate) -> list[Record]:
    """Perplexity in bits on the same masks for every variant (§5.1), for all masked tokens and for groups of them.

    Tokens inside hashtags and outside them apart: a hashtag's NTU tells what a masked token of the hashtag was, so the
    claim is on the others, which are then grouped by frequency.
    """
    records = []
    for name, chosen in token_groups(losses).items():
        if not chosen.any():
            continue
        posts, ordinal = np.unique(losses.post[chosen], return_inverse=True)
        sums = {
            system: [np.bincount(ordinal, bits[chosen]).astype(np.float64) for bits in seeds]
            for system, seeds in losses.bits.items()
        }
        samples = ratio_samples(sums, np.bincount(ordinal).astype(np.float64), bootstrap, f"perplexity/{name}")
        records += [
            {"system": system, "tokens": name, "posts": len(posts), "masked_tokens": int(chosen.sum())}
            | {"seeds": len(losses.bits[system])}
            | _compared(sample, samples.get(BASELINE), system, len(posts), config, lower_is_better=True)
            for system, sample in samples.items()
        ]
    return records


def token_groups(losses: TestLosses) -> dict[str, NDArray[np.bool_]]:
    """Which masked tokens belong to each group: bool [M]."""
    groups = {"all": np.ones_like(losses.in_hashtag), "in_hashtag": losses.in_hashtag, "other": ~losses.in_hashtag}
    for name, (least, below) in FREQUENCIES.items():
        counted = (losses.train_count >= least) & (losses.train_count < (np.inf if below is None else below))
        groups[name] = ~losses.in_hashtag & counted
    return groups


def coverage_records(
    table: EmbeddingTable, scheme: NtuScheme, dataset: ScoredDataset, roles: Sequence[str]
) -> list[Record]:
    """Table 5: what share of the posts of each split have NTUs, and known ones; by type of the roles, and any."""
    about = {"task": dataset.task, "family": dataset.family, "dataset": dataset.name}
    return [
        about | {"split": split} | record
        for split in SPLITS
        if len(dataset.splits[split])
        for record in coverage_of_types(table, scheme, dataset.splits[split].ntus, roles)
    ]


def plot_records(tables: Mapping[str, Any]) -> list[Record]:
    """The gain of each data set's main metric by system and slice, flat, as `dvc plots` wants it."""
    keys = ("family", "dataset", "system", "slice", "posts", "value", "gain", "low", "high")
    shown = (record for record in tables["datasets"] if record["main"] and record["system"] != BASELINE)
    return [{key: record[key] for key in keys} for record in shown]


def headlines(tables: Mapping[str, Any]) -> dict[str, Any]:
    """What `dvc metrics show` prints: the main figure of each family and the perplexity, by system."""
    keys = ("posts", "value", "gain", "low", "high")
    chosen = [("perplexity_bits", record) for record in tables["perplexity"] if record["tokens"] == "all"]
    chosen += [(record["family"], record) for record in tables["families"] if record["main"] and _overall(record)]
    nested: dict[str, Any] = defaultdict(dict)
    for name, record in chosen:
        shown = keys[:2] if record["system"] == BASELINE else keys
        nested[name][record["system"]] = {key: record[key] for key in shown}
    return dict(nested)


def _overall(record: Record) -> bool:
    return bool(record["slice"] == "overall")


def _baseline(figures: Figures, metric: str, name: str) -> Sample | None:
    figure = figures.get((metric, BASELINE, name))
    return figure.sample if figure else None


def _compared(
    sample: Sample, base: Sample | None, system: str, posts: int, config: Evaluate, lower_is_better: bool = False
) -> Record:
    """The value with its interval, and unless this is the baseline, its gain with interval and verdict."""
    value_low, value_high = sample.interval(config.confidence)
    record: Record = {"value": sample.value, "value_low": value_low, "value_high": value_high}
    record |= {"gain": np.nan, "low": np.nan, "high": np.nan, "verdict": None}
    if base is not None and system != BASELINE:
        gain = relative_gain(sample, base, lower_is_better)
        low, high = gain.interval(config.confidence)
        record |= {"gain": gain.value, "low": low, "high": high}
        record["verdict"] = None if np.isnan(gain.value) else verdict(low, high, posts, config.min_posts)
    return {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in record.items()}
