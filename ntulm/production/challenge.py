"""`ntulm challenge PROJECT`: is the model just built at least as good as the one in production, on the newest posts?

PROJECT is a folder laid out like this one that holds `data/model`, the model directory of the champion, the model in
production. It encodes the posts of the tasks `challenge.tasks` of this folder, as `ntulm.load` does it; probes are
trained on its vectors by the same search and on the same posts as those of the challenger, and both are scored on the
same test posts (docs/decisions/0015).

Reads `data/tasks/` and `data/probe/`; writes `data/challenge/challenge.json`: `promote`, `reason`, a record per data
set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ntulm.errors import UserError
from ntulm.evaluate.bootstrap import Bootstrap, Sample, mean_sample, metric_samples, relative_gain
from ntulm.evaluate.scores import ScoredDataset, read_datasets
from ntulm.files import read_json, whole_directory, write_json
from ntulm.inference.model import Model, load
from ntulm.language_model.encoder import hidden_rows
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.params import check_challenge
from ntulm.posts import COLUMNS, Posts
from ntulm.probe.stage import prepare, read_labels, solve
from ntulm.probe.systems import Apart

if TYPE_CHECKING:
    from pathlib import Path

    from ntulm.evaluate.config import Evaluate
    from ntulm.params import Params
    from ntulm.production.config import Challenge

CHAMPION, CHALLENGER = "champion", "challenger"


def run(params: Params, project: Path, layout: Layout) -> None:
    """Compare and write the decision.

    Raises:
        UserError: the section `challenge` does not fit the pipeline, something was not built, or the champion's roles
            mean something else today.
    """
    check_challenge(params)
    champion = load(Layout(project).model)
    check_roles(champion, params.ntus.scheme)
    variant = params.model.variant
    update = {"variants": [variant], "seeds": [params.model.seed], "tasks": params.challenge.tasks}
    compared = []
    for dataset in read_datasets(params.run.model_copy(update=update), layout):
        if variant not in dataset.scores:
            raise UserError(f"data/probe: no scores of {variant} on {dataset.name}; run `dvc repro`")
        compared.append((dataset, champion_scores(params, champion, dataset, layout), dataset.scores[variant][0]))
    decision = decide(compared, params.challenge, params.evaluate)
    with whole_directory(layout.challenge) as directory:
        write_json(directory / "challenge.json", decision)
    print(f"challenge: {decision['reason']}")


def check_roles(champion: Model, scheme: NtuScheme) -> None:
    """Refuse a champion that would read the NTUs of today's data sets as something that they are not.

    Raises:
        UserError: a role that it looks at has another field, type or key form today, or is gone.
    """
    own = champion.settings.scheme
    for name in champion.encoder.variant.roles:
        then, now = _meaning(own, name), _meaning(scheme, name)
        if then != now:
            raise UserError(
                f"ntus.roles.{name}: {now}; the model in production has {then}, so that the two cannot be compared; "
                "write it as it was, or promote the next model without a comparison (docs/how-to/retrain.md)"
            )


def _meaning(scheme: NtuScheme, role: str) -> str:
    about = scheme.of_posts.get(role)
    if about is None:
        return "no such role of posts"
    return f"field {about.field}, type {about.type}, key form {scheme.types[about.type]}"


def champion_scores(params: Params, champion: Model, dataset: ScoredDataset, layout: Layout) -> NDArray[np.floating]:
    """The champion's scores of the test posts of a data set, [T, C]: its vectors, a probe as the challenger's."""
    path = layout.task(dataset.task) / f"{dataset.name}.parquet"
    about = read_json(layout.task(dataset.task) / "datasets.json")[dataset.name]
    split, labels = read_labels(path, len(about["classes"]))
    posts, encoder = Posts(pq.read_table(path, columns=COLUMNS.names)), champion.encoder

    def vectors_of(posts: Posts) -> NDArray[np.float32]:
        return encoder.encode(posts).astype(params.encode.dtype).astype(np.float32)

    # The same training posts lose their NTUs as in the stage `encode`.
    shown = posts.without_ntus(hidden_rows(split.tolist(), 0, params.encode.hidden_share))
    apart = None
    if params.encode.apart and encoder.variant.slots:
        apart = Apart(vectors_of(posts.without_ntus(np.arange(len(posts)))), encoder.known(posts))
    problem = prepare(about, encoder.width, vectors_of(shown), labels, split, apart)
    where = f"{CHAMPION} on {dataset.name}"
    return solve(params.probe, problem, about["metrics"], params.model.seed, where).scores


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
        return False, f"{posts} labelled test posts are too few; evaluate.min_posts is {evaluate.min_posts}"
    if gain is None or low is None or high is None:
        return False, "the gain over the champion is undefined on some resamples; more labelled test posts are needed"
    said = f"{gain:+.1f} % against the champion, {evaluate.confidence:.0%} interval {low:+.1f} to {high:+.1f}"
    if low >= -max_loss:
        return True, f"{said}: a loss of more than {max_loss:g} % is ruled out"
    if high < 0:
        return False, f"{said}: worse"
    return False, f"{said}: a loss of more than {max_loss:g} % is not ruled out"
