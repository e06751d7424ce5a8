"""Search for the slot's settings: does another start or another learning rate give better post embeddings?

Reads what the stages `corpus`, `embeddings`, `adapt` and `tasks` wrote. Writes `data/tune/`: an Optuna journal, from
which the search goes on, and `trials.csv`. Validation posts alone are looked at. Command: `ntulm tune`; not a stage.

Two figures are sought: bits a masked token, the lower the better, and the score of a probe with fixed settings on the
task's validation posts. `text`, trained on the same posts, is what both are compared with.
"""

import csv
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich import box
from rich.console import Console
from rich.table import Table

from ntulm import layout
from ntulm.checkpoint import fingerprint
from ntulm.encode import Encoder, encode_posts, freeze
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.pretrain import make_job
from ntulm.probe import fit, prepare, read_labels
from ntulm.table import EmbeddingTable
from ntulm.training import evaluate, train_model
from ntulm.variants import variant_of

if TYPE_CHECKING:
    from ntulm.config import Params, Pretrain

BASELINE = "text"
SETTINGS = ("slot_scale", "slot_learning_rate_factor", "slot_dropout")


def run(params: "Params") -> None:
    """Search, and print the trials beside the baseline.

    Raises:
        UserError: the task is not built, or an earlier stage has not run.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    layout.TUNE.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=study_name(params),
        directions=["minimize", "maximize"],
        sampler=optuna.samplers.TPESampler(seed=params.tune.seed),
        storage=JournalStorage(JournalFileBackend(str(layout.TUNE / "journal.log"))),
        load_if_exists=True,
    )
    if BASELINE not in study.user_attrs:
        study.set_user_attr(BASELINE, measure(params, BASELINE, params.pretrain))
        study.enqueue_trial({name: getattr(params.pretrain, name) for name in SETTINGS})

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        bits, score = measure(params, params.tune.variant, suggest(params, trial))
        return bits, score

    done = sum(trial.state.is_finished() for trial in study.trials)
    study.optimize(objective, n_trials=max(0, params.tune.trials - done))
    rows = table(study)
    write_csv(rows, layout.TUNE / "trials.csv")
    show(rows, params)


def study_name(params: "Params") -> str:
    """The same for parameters that give comparable trials."""
    kept = {"corpus", "graph", "embeddings", "batches", "adapt", "pretrain", "encode", "tasks", "probe", "tune"}
    values = params.model_dump(mode="json", include=kept)
    del values["tune"]["trials"]
    return fingerprint(values)[:16]


def suggest(params: "Params", trial: optuna.Trial) -> "Pretrain":
    """The section `pretrain` with the settings of a trial."""
    tune = params.tune
    drawn = {
        "slot_scale": trial.suggest_float("slot_scale", *tune.slot_scale, log=True),
        "slot_learning_rate_factor": trial.suggest_float(
            "slot_learning_rate_factor", *tune.slot_learning_rate_factor, log=True
        ),
        "slot_dropout": trial.suggest_float("slot_dropout", *tune.slot_dropout),
    }
    return params.pretrain.model_copy(update=drawn)


def measure(params: "Params", variant: str, pretrain: "Pretrain") -> tuple[float, float]:
    """Train a variant; its bits a masked validation token and its probe's score on the task's validation posts."""
    tune, checkpoint = params.tune, layout.checkpoint("tune", variant, params.tune.seed)
    job, made = make_job(pretrain, params.batches, variant, tune.seed, checkpoint)
    train_model(job)
    shutil.rmtree(checkpoint, ignore_errors=True)
    bits = float(np.mean(evaluate(job, job.validation).bits))
    embeddings = EmbeddingTable.load(layout.EMBEDDINGS)
    model, size, dtype = freeze(job.model), params.encode.batch_size, np.dtype("float32")
    encoder = Encoder(model, made.tokenizer, embeddings, variant_of(variant), params.batches, size, dtype, 0.0)
    score = probe_score(params, encoder)
    print(f"tune: {variant}: {bits:.4f} bits, {tune.task} {score:.4f}", file=sys.stderr, flush=True)
    return bits, score


def probe_score(params: "Params", encoder: Encoder) -> float:
    """The main metric of the task's first data set on validation posts, of a probe with fixed settings."""
    tune = params.tune
    path = layout.task(tune.task)
    if not (path / "datasets.json").is_file():
        raise UserError(f"tune.task: {path} not found; run `dvc repro tasks@{tune.task} adapt embeddings` first")
    name, dataset = sorted(read_json(path / "datasets.json").items())[0]
    file = path / f"{name}.parquet"
    split, labels = read_labels(file, len(dataset["classes"]))
    sizes = {"train": tune.train_posts, "validation": tune.validation_posts}
    rows = sample_rows(split, sizes, tune.seed)
    posts: dict[str, Any] = pq.read_table(file, columns=["text", "author", "hashtags"]).take(pa.array(rows)).to_pydict()
    vectors = encode_posts(encoder, posts["text"], posts["author"], posts["hashtags"])
    problem = prepare(dataset, vectors.shape[1], vectors, labels[rows], split[rows])
    return fit(problem, params.probe, params.probe.fixed, tune.seed).value


def sample_rows(split: np.ndarray, sizes: Mapping[str, int], seed: int) -> np.ndarray:
    """At most so many rows of each split, drawn once: int64, ascending."""
    random = np.random.default_rng(seed)
    chosen = [random.permutation(np.flatnonzero(split == name))[:size] for name, size in sizes.items()]
    return np.sort(np.concatenate(chosen))


def table(study: optuna.Study) -> list[dict[str, Any]]:
    """One row a trial, the baseline first; gains in % of the baseline, positive where the trial is better."""
    base_bits, base_score = study.user_attrs[BASELINE]
    rows: list[dict[str, Any]] = [{"trial": BASELINE, "bits": base_bits, "score": base_score}]
    for trial in study.trials:
        if trial.values:
            bits, score = trial.values
            gains = {"bits_gain": 100 * (1 - bits / base_bits), "score_gain": 100 * (score / base_score - 1)}
            rows.append({"trial": str(trial.number), "bits": bits, "score": score, **gains, **trial.params})
    return rows


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """The trials as a table for whoever wants to look closer."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["trial", "bits", "bits_gain", "score", "score_gain", *SETTINGS])
        writer.writeheader()
        writer.writerows(rows)


def show(rows: list[dict[str, Any]], params: "Params") -> None:
    """Print the trials, the best score first."""
    console = Console(highlight=False)
    found = Table(title=f"{params.tune.variant}, validation posts", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("trial", "bits", "gain", params.tune.task, "gain", *SETTINGS):
        found.add_column(name, justify="right")
    base, *others = rows
    found.add_row(base["trial"], f"{base['bits']:.4f}", "", f"{base['score']:.4f}", "")
    for row in sorted(others, key=lambda row: -row["score"]):
        settings = [f"{row[name]:.3g}" for name in SETTINGS]
        gains = [f"{row[name]:+.2f} %" for name in ("bits_gain", "score_gain")]
        found.add_row(row["trial"], f"{row['bits']:.4f}", gains[0], f"{row['score']:.4f}", gains[1], *settings)
    console.print(found)
    console.print(f"{layout.TUNE / 'trials.csv'}; the study: {layout.TUNE / 'journal.log'}", soft_wrap=True)
