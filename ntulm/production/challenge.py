"""`ntulm challenge PROJECT`: is the model just built at least as good as the one in production, on the newest posts?

PROJECT is a folder laid out like this one that holds `params.yaml`, `data/embeddings` and the model directory of the
champion, the model in production. Its frozen model with its own embedding table encodes the posts of the tasks
`challenge.tasks` of this folder; probes are trained on its vectors by the same search and on the same posts as those of
the challenger, and both are scored on the same test posts (docs/decisions/0015).

Reads `data/tasks/` and `data/probe/`; writes `data/challenge/challenge.json`: `promote`, `reason`, a record a data set.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from ruamel.yaml import YAML

from ntulm import layout
from ntulm.device import choose_device
from ntulm.embeddings.table import EmbeddingTable
from ntulm.encode import Encoder, encode_file, freeze
from ntulm.errors import UserError
from ntulm.evaluate.bootstrap import Bootstrap, Sample, mean_sample, metric_samples, relative_gain
from ntulm.evaluate.scores import ScoredDataset, read_datasets
from ntulm.files import read_json, whole_directory, write_json
from ntulm.language_model.backbone import load_model
from ntulm.language_model.config import Batches
from ntulm.params import check_challenge
from ntulm.probe.stage import prepare, read_labels, solve, systems
from ntulm.variants import variant_of

if TYPE_CHECKING:
    from ntulm.evaluate.config import Evaluate
    from ntulm.params import Params
    from ntulm.production.config import Challenge

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Champion:
    """The model in production: which variant and seed, and how it reads posts."""

    project: Path
    variant: str
    seed: int
    batches: Batches

    @property
    def model(self) -> Path:
        return self.project / layout.pretrain(self.variant, self.seed)


def run(params: Params, project: Path) -> None:
    """Compare and write the decision.

    Raises:
        UserError: the section `challenge` does not fit the pipeline, or something was not built.
    """
    check_challenge(params)
    champion = read_champion(project)
    variant, tasks = params.challenge.variant, params.challenge.tasks
    own = params.run.model_copy(update={"variants": [variant], "seeds": [params.challenge.seed], "tasks": tasks})
    with whole_directory(layout.CHALLENGE) as directory, tempfile.TemporaryDirectory(dir=directory) as vectors:
        compared = []
        for dataset in read_datasets(own):
            if variant not in dataset.scores:
                raise UserError(f"data/probe: no scores of {variant} on {dataset.name}; run `dvc repro`")
            theirs = champion_scores(params, champion, dataset, Path(vectors))
            compared.append((dataset, theirs, dataset.scores[variant][0]))
        decision = decide(compared, params.challenge, params.evaluate)
        write_json(directory / "challenge.json", decision)
    print(f"challenge: {decision['reason']}")


def read_champion(project: Path) -> Champion:
    """What the champion's own params.yaml says of it; its other sections may be of an older version.

    Raises:
        UserError: there is no such file, or it names no promoted model.
    """
    path = project / layout.PARAMS
    if not path.is_file():
        raise UserError(f"{path}: not found; expected the params.yaml of the model in production")
    try:
        values = YAML(typ="safe", pure=True).load(path)
        batches = Batches.model_validate(values["batches"])
        return Champion(project, str(values["challenge"]["variant"]), int(values["challenge"]["seed"]), batches)
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{path}: no model in production can be read from its `challenge` and `batches`") from error


def champion_scores(params: Params, champion: Champion, dataset: ScoredDataset, work: Path) -> NDArray[np.floating]:
    """The champion's scores of the test posts of a data set, [T, C]: its vectors, a probe as the challenger's."""
    model, tokenizer = load_model(champion.model, "pretrain", choose_device())
    table = EmbeddingTable.load(champion.project / layout.EMBEDDINGS)
    encode, variant = params.encode, variant_of(champion.variant)
    size, dtype = encode.batch_size, np.dtype(encode.dtype)
    encoder = Encoder(freeze(model), tokenizer, table, variant, champion.batches, size, dtype, encode.hidden_share)
    posts, vectors = layout.task(dataset.task) / f"{dataset.name}.parquet", work / f"{dataset.name}.safetensors"
    encode_file(encoder, posts, vectors)
    about = read_json(layout.task(dataset.task) / "datasets.json")[dataset.name]
    split, labels = read_labels(posts, len(about["classes"]))
    _, features, width = systems(vectors, champion.variant)[0]
    problem = prepare(about, width, features, labels, split)
    seed = params.challenge.seed
    scores, _, _ = solve(params.probe, problem, about["metrics"], seed, f"{CHAMPION} on {dataset.name}")
    return scores


def decide(
    compared: list[tuple[ScoredDataset, NDArray[np.floating], NDArray[np.floating]]],
    challenge: Challenge,
    evaluate: Evaluate,
) -> dict[str, Any]:
    """The decision and its grounds.

    Args:
        compared: data sets with the champion's and the challenger's scores of their test posts.
        challenge: `max_loss`.
        evaluate: how to resample, the confidence, and the number of posts that a verdict needs.
    """
    bootstrap = Bootstrap(evaluate.resamples, evaluate.seed)
    records: list[dict[str, Any]] = []
    pairs: list[tuple[Sample, Sample]] = []
    for dataset, theirs, own in compared:
        metric = dataset.metrics[0]
        stream = f"challenge/{dataset.task}/{dataset.name}"
        samples = metric_samples([metric], dataset.labels, {CHAMPION: [theirs], CHALLENGER: [own]}, bootstrap, stream)
        pair = samples[metric, CHAMPION], samples[metric, CHALLENGER]
        pairs.append(pair)
        about = {"task": dataset.task, "dataset": dataset.name, "metric": metric, "posts": len(dataset.labels)}
        records.append(about | _figures(*pair, evaluate.confidence))
    champions, challengers = zip(*pairs, strict=True)
    overall = _figures(mean_sample(champions), mean_sample(challengers), evaluate.confidence)
    posts = min(record["posts"] for record in records)
    promote, reason = verdict(overall, posts, challenge.max_loss, evaluate)
    return {"promote": promote, "reason": reason, "overall": overall, "datasets": records}


def _figures(champion: Sample, challenger: Sample, confidence: float) -> dict[str, float | None]:
    gain = relative_gain(challenger, champion)
    low, high = gain.interval(confidence)
    figures = {CHAMPION: champion.value, CHALLENGER: challenger.value, "gain": gain.value, "low": low, "high": high}
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()}


def verdict(overall: dict[str, float | None], posts: int, max_loss: float, evaluate: Evaluate) -> tuple[bool, str]:
    """Whether to promote, and why in words. Too little evidence is no reason to promote."""
    gain, low, high = (overall[name] for name in ("gain", "low", "high"))
    if posts < evaluate.min_posts:
        return (
            False,
            f"{posts} labelled test posts are too few; evaluate.min_posts is {evaluate.min_posts}",
        )
    if gain is None or low is None or high is None:
        return False, "the gain over the champion is undefined on some resamples; more labelled test posts are needed"
    said = f"{gain:+.1f} % against the champion, {evaluate.confidence:.0%} interval {low:+.1f} to {high:+.1f}"
    if low >= -max_loss:
        return True, f"{said}: a loss of more than {max_loss:g} % is ruled out"
    if high < 0:
        return False, f"{said}: worse"
    return False, f"{said}: a loss of more than {max_loss:g} % is not ruled out"
