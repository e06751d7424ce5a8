"""Search for the settings at which NTUs help most: of the slot, of the graph and its embedding, of the budget.

Reads what the stages `corpus`, `graph`, `embeddings`, `adapt` and `tasks` wrote. Writes `data/tune/`: an Optuna
journal, from which the search resumes, and `trials.csv`. Validation posts alone are looked at. Command: `ntulm tune`;
not a stage. Several of them, on one machine or on several, share the trials of one study (`ntulm/shared_study.py`).

Two gains over `text` are sought, which is trained on the same posts with the same budget: in bits per masked token, and
in the score of a probe with fixed settings on the task's validation posts.
"""

import csv
import math
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from ntulm.corpus import stage as corpus
from ntulm.embeddings import stage as embeddings
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.files import read_json, sha256
from ntulm.graph import stage as graph
from ntulm.language_model.checkpoint import fingerprint
from ntulm.language_model.encoder import Encoder, freeze, hidden_rows
from ntulm.language_model.training import evaluate, train_model
from ntulm.layout import Layout
from ntulm.params import OneOf, check_params
from ntulm.posts import Posts
from ntulm.pretrain import make_job
from ntulm.probe.search import fit
from ntulm.probe.stage import prepare, read_labels
from ntulm.shared_study import SharedStudy, guarded, open_study
from ntulm.variants import parse_variant

if TYPE_CHECKING:
    from ntulm.params import Params

BASELINE = "text"
STARTUP_TRIALS = 4  # drawn at random before the sampler learns from them
# What may be tuned: nothing that decides which posts are learnt from or tested.
TUNABLE = ("corpus.splits.graph_from", "graph.", "embeddings.", "pretrain.")
STAGES = ("corpus", "graph", "embeddings")  # run anew for a trial that changes what they read
KEPT = ("adapt", "tasks")  # what a trial reads besides: always of the project itself
FIGURES = ("text_bits", "bits", "bits_gain", "text_score", "score", "score_gain")


def run(params: "Params", layout: Layout) -> None:
    """Search, alone or beside other processes that run this command, and print the trials.

    Raises:
        UserError: the space names what may not be tuned or leaves out the present settings, the task is not built, an
            earlier stage has not run, the study cannot be opened, or the present settings cannot be trained.
    """
    start = {key: start_value(params, key) for key in params.tune.space}
    task_datasets(params, layout)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    layout.tune.mkdir(parents=True, exist_ok=True)
    study, place = open_study(study_name(params, layout), ["maximize", "maximize"], layout.tune / "journal.log")
    shared = SharedStudy(study, layout.tune / "trials", partial(draw, params, start), partial(suggest, params))
    count = int(min(params.tune.trials, combinations(params)))
    done = len(shared.trials(TrialState.COMPLETE, TrialState.PRUNED))
    print(f"tune: study {study.study_name} in {place}: {done} of {count} trials", file=sys.stderr, flush=True)

    def objective(trial: optuna.Trial, settings: dict[str, Any], folder: Path) -> tuple[float, float]:
        try:
            return gains(params, shared, trial, settings, Layout(folder), layout)
        except UserError as error:  # settings that diverge, or leave no edge
            if settings == start or not works(shared, trial, start):
                raise
            print(f"tune: trial {trial.number} left out: {error}", file=sys.stderr, flush=True)
            raise optuna.TrialPruned from error

    shared.work(count, objective)
    rows = table(study)
    with guarded(layout.tune / "trials"):
        write_csv(rows, list(params.tune.space), layout.tune / "trials.csv")
    show(rows, params, layout, place)


def works(shared: SharedStudy, trial: optuna.Trial, settings: dict[str, Any]) -> bool:
    """Whether a trial with these settings came to its end; if not, what fails in another one may be the project."""
    while any(other.params == settings for other in shared.before(trial, TrialState.RUNNING)):
        shared.wait("the trial with the present settings")
    return any(other.params == settings for other in shared.trials(TrialState.COMPLETE))


def draw(params: "Params", start: dict[str, Any], before: list[FrozenTrial], number: int) -> dict[str, Any]:
    """The settings of a trial: the present ones, where no trial has them, or else others that none has.

    Drawn in a copy of the study: a sampler that learns from all trials may want one of them again.
    """
    taken = [trial.params for trial in before]
    if start not in taken:
        return start
    seed = int(fingerprint([params.tune.seed, number])[:8], 16)  # no two workers draw alike, nor a resumed search
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    copy = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    copy.add_trials(before)
    drawn = suggest(params, copy.ask())
    copy.sampler = optuna.samplers.RandomSampler(seed=seed)
    while drawn in taken:
        drawn = suggest(params, copy.ask())
    return drawn


def combinations(params: "Params") -> float:
    """How many different trials there are."""

    def values(key: str) -> float:
        space = params.tune.space[key]
        if isinstance(space, OneOf):
            return len(set(space.one_of))
        low, high = space.between
        if isinstance(start_value(params, key), int):
            return int(high) - int(low) + 1
        return math.inf if low < high else 1

    return math.prod(map(values, params.tune.space))


def study_name(params: "Params", layout: Layout) -> str:
    """The same for parameters and inputs that give comparable trials."""
    kept = {"ntus", "corpus", "graph", "embeddings", "batches", "adapt", "pretrain", "encode", "tasks", "probe", "tune"}
    values = params.model_dump(mode="json", include=kept)
    del values["tune"]["trials"]
    folders = (layout.corpus, layout.task(params.tune.task), layout.adapt, layout.embeddings)
    inputs = [path for folder in folders for path in sorted(folder.glob("*")) if path.is_file()]
    return fingerprint(values, [sha256(path) for path in inputs])[:16]


def start_value(params: "Params", key: str) -> Any:
    """The present value of a setting that may be tuned; keys have dots, as for `ntulm configure`.

    Raises:
        UserError: there is no such setting, it may not be tuned, or its present value is outside its space.
    """
    node: Any = params.model_dump()
    for part in key.split("."):
        if not key.startswith(TUNABLE) or not isinstance(node, dict) or part not in node:
            allowed = ", ".join(f"{name}*" if name.endswith(".") else name for name in TUNABLE)
            raise UserError(f"tune.space: {key}: no setting that can be tuned; those are {allowed}")
        node = node[part]
    space = params.tune.space[key]
    if isinstance(space, OneOf):
        inside, wanted = any(node == value and type(node) is type(value) for value in space.one_of), str(space.one_of)
    else:
        number = isinstance(node, int | float) and not isinstance(node, bool)
        inside, wanted = number and space.between[0] <= node <= space.between[1], str(space.between)
    if not inside:
        raise UserError(f"tune.space: {key}: its present value {node} is not in {wanted}; the search starts there")
    return node


def gains(
    params: "Params",
    shared: SharedStudy,
    trial: optuna.Trial,
    settings: dict[str, Any],
    own: Layout,
    layout: Layout,
) -> tuple[float, float]:
    """Train with the settings of a trial, in a folder of its own; the gains over `text` in %, in bits and in score."""
    drawn = with_settings(params, settings)
    known = baseline(params, shared, trial, drawn, own, layout)
    bits, score = measure(drawn, params.tune.variant, made_anew(drawn, params.tune.space, own, layout))
    while known is None:  # another worker trains it, or has died over it
        shared.wait(f"{BASELINE}, which another worker trains")
        known = baseline(params, shared, trial, drawn, own, layout)
    base_bits, base_score = known
    if not base_score > 0:
        raise UserError(f"tune.task: {BASELINE} scores {base_score} in {params.tune.task}: no gain in % over that")
    found = 100 * (1 - bits / base_bits), 100 * (score / base_score - 1)
    for figure, value in zip(FIGURES, (base_bits, bits, found[0], base_score, score, found[1]), strict=True):
        trial.set_user_attr(figure, value)
    return found


def baseline(
    params: "Params", shared: SharedStudy, trial: optuna.Trial, drawn: "Params", own: Layout, layout: Layout
) -> tuple[float, float] | None:
    """Bits and score of `text` with the same budget, trained by the oldest trial that needs it; None: not yet."""
    name = baseline_name(drawn)
    others = shared.before(trial, TrialState.RUNNING)  # before the figures: a trial keeps them, then it is finished
    figures = shared.study.user_attrs.get(name)
    if figures is None:
        if any(baseline_name(with_settings(params, other.params)) == name for other in others):
            return None
        figures = measure(drawn, BASELINE, own.borrowing(layout, *STAGES, *KEPT))
        shared.study.set_user_attr(name, figures)
    bits, score = figures
    return bits, score


def baseline_name(params: "Params") -> str:
    """The same for trials that share a baseline."""
    of_text = params.pretrain.model_dump(mode="json", exclude={"slot"})  # which `text` does not have
    return f"{BASELINE} {fingerprint(of_text)[:16]}"


def suggest(params: "Params", trial: optuna.Trial) -> dict[str, Any]:
    """A value for each setting of `tune.space`, drawn in log space where both ends are above zero."""
    drawn: dict[str, Any] = {}
    for key, space in params.tune.space.items():
        if isinstance(space, OneOf):
            drawn[key] = trial.suggest_categorical(key, space.one_of)
            continue
        low, high = space.between
        if isinstance(start_value(params, key), int):
            drawn[key] = trial.suggest_int(key, int(low), int(high), log=low > 0)
        else:
            drawn[key] = trial.suggest_float(key, low, high, log=low > 0)
    return drawn


def with_settings(params: "Params", settings: Mapping[str, Any]) -> "Params":
    """The parameters with other values.

    Raises:
        UserError: a value that does not fit its key.
    """
    values = params.model_dump(mode="json")
    for key, value in settings.items():
        *parents, last = key.split(".")
        node = values
        for part in parents:
            node = node[part]
        node[last] = value
    return check_params(values, "tune.space")


def made_anew(params: "Params", keys: Mapping[str, Any], own: Layout, layout: Layout) -> Layout:
    """Where a trial finds its corpus, graph and embedding table: in the project, or from the first that may differ
    made anew in its own folder.
    """
    touched = {key.split(".")[0] for key in keys}
    first = next((place for place, stage in enumerate(STAGES) if stage in touched), len(STAGES))
    again = STAGES[first:]
    trial = own.borrowing(layout, *STAGES[:first], *KEPT)
    if "corpus" in again:
        paths = {key: str((layout.root / getattr(params.corpus, key)).absolute()) for key in ("path", "forget")}
        corpus.run(params.corpus.model_copy(update=paths), trial)
    if "graph" in again:
        graph.run(params.graph, params.ntus.scheme, trial)
    if again:
        embeddings.run(params.embeddings, trial)
    return trial


def measure(params: "Params", variant: str, layout: Layout) -> tuple[float, float]:
    """Train a variant; its bits per masked validation token and its probe's score on the task's validation posts."""
    tune, scheme = params.tune, params.ntus.scheme
    checkpoint = layout.checkpoint("tune", variant, tune.seed)
    job, made = make_job(params.pretrain, params.batches, scheme, variant, tune.seed, checkpoint, layout)
    train_model(job)
    shutil.rmtree(checkpoint, ignore_errors=True)
    bits = float(np.mean(evaluate(job, job.validation).bits))
    table, about = EmbeddingTable.load(layout.embeddings), parse_variant(variant, scheme.of_posts)
    size = params.encode.batch_size
    encoder = Encoder(freeze(job.model), made.tokenizer, table, scheme, about, params.batches, size)
    score = probe_score(params, encoder, layout)
    print(f"tune: {variant}: {bits:.4f} bits, {tune.task} {score:.4f}", file=sys.stderr, flush=True)
    return bits, score


def probe_score(params: "Params", encoder: Encoder, layout: Layout) -> float:
    """The main metric of the task's first data set on validation posts, of a probe with fixed settings.

    As in the stage `encode`, a share of the training posts is encoded without NTUs.
    """
    tune = params.tune
    name, dataset = task_datasets(params, layout)[0]
    file = layout.task(tune.task) / f"{name}.parquet"
    split, labels = read_labels(file, len(dataset["classes"]))
    sizes = {"train": tune.train_posts, "validation": tune.validation_posts}
    rows = sample_rows(split, sizes, tune.seed)
    hidden = np.flatnonzero(np.isin(rows, hidden_rows(split.tolist(), 0, params.encode.hidden_share)))
    vectors = encoder.encode(Posts(pq.read_table(file)).take(rows).without_ntus(hidden))
    problem = prepare(dataset, vectors.shape[1], vectors, labels[rows], split[rows])
    return fit(problem, params.probe, params.probe.fixed, tune.seed).value


def task_datasets(params: "Params", layout: Layout) -> list[tuple[str, Any]]:
    """Names and descriptions of the task's data sets.

    Raises:
        UserError: the task is not built.
    """
    path = layout.task(params.tune.task)
    if not (path / "datasets.json").is_file():
        raise UserError(f"tune.task: {path} not found; run `dvc repro tasks@{params.tune.task} adapt embeddings` first")
    return sorted(read_json(path / "datasets.json").items())


def sample_rows(split: np.ndarray, sizes: Mapping[str, int], seed: int) -> np.ndarray:
    """At most so many rows of each split, drawn once: int64, ascending."""
    random = np.random.default_rng(seed)
    chosen = [random.permutation(np.flatnonzero(split == name))[:size] for name, size in sizes.items()]
    return np.sort(np.concatenate(chosen))


def table(study: optuna.Study) -> list[dict[str, Any]]:
    """One row per trial: figures and settings; gains in % of `text`, positive where the trial is better.

    `best` are those that no other trial beats in both gains.
    """
    finished = [trial for trial in study.trials if trial.values]
    best = {trial.number for trial in study.best_trials} if finished else set()
    return [
        {
            "trial": trial.number,
            "best": trial.number in best,
            **{figure: trial.user_attrs[figure] for figure in FIGURES},
            **trial.params,
        }
        for trial in finished
    ]


def write_csv(rows: list[dict[str, Any]], keys: list[str], path: Path) -> None:
    """The trials as a table for whoever wants to look closer."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["trial", "best", *FIGURES, *keys])
        writer.writeheader()
        writer.writerows(rows)


def show(rows: list[dict[str, Any]], params: "Params", layout: Layout, place: str) -> None:
    """Print the trials, the best score first."""
    console = Console(highlight=False)
    title = f"{params.tune.variant}, validation posts, gains over {BASELINE} with the same budget"
    found = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    keys = list(params.tune.space)
    for name in ("trial", "bits", "gain", params.tune.task, "gain", *(key.split(".", 1)[1] for key in keys)):
        found.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -row["score_gain"]):
        settings = [f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in keys]
        figures = (
            f"{row['bits']:.4f}",
            f"{row['bits_gain']:+.2f} %",
            f"{row['score']:.4f}",
            f"{row['score_gain']:+.2f} %",
        )
        found.add_row(f"{row['trial']}{' *' if row['best'] else ''}", *figures, *settings)
    console.print(found)
    console.print(
        f"*: no other is better in both. {layout.tune / 'trials.csv'}; the study: {place}",
        soft_wrap=True,
    )
