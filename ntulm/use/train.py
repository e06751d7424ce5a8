"""`ntulm train-classifier`: some hundred labelled posts to a classifier on the frozen vectors of a model.

Reads LABELS and a model directory; cross-validates with the search of the stage `probe`, beside the same model with the
NTUs of every post hidden; then trains on all rows and adds the classifier to the directory, or to a copy.

N posts, H the length of a vector, C classes.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ntulm.errors import UserError
from ntulm.evaluate.bootstrap import Bootstrap, Sample, relative_gain, verdict
from ntulm.inference.model import Model, load
from ntulm.language_model.encoder import hidden_rows
from ntulm.layout import Layout
from ntulm.posts import Posts
from ntulm.printable import printable
from ntulm.probe.classifier import Classifier
from ntulm.probe.metrics import metric, resampled
from ntulm.probe.stage import classifier_of, prepare, solve
from ntulm.probe.systems import Apart
from ntulm.use.add_classifier import check_name, place_in, place_of
from ntulm.use.config import TrainClassifier
from ntulm.use.folds import Folds, divide, validation_rows
from ntulm.use.labels import Labelled, read_labels
from ntulm.yaml_file import read_yaml

METRICS = ["macro_f1", "accuracy"]  # the first is searched for
PRECISION = "float32"  # of the vectors that it learns from
HIDDEN = "this model with the NTUs of every post hidden"


class Vectors(NamedTuple):
    """The posts in two forms, float32 [N, H] each."""

    whole: NDArray[np.float32]
    hidden: NDArray[np.float32] | None  # with no NTU; None where the model looks at none
    known: NDArray[np.bool_] | None = None  # [N], of which the model knows an NTU; None: looked at by no probe


class Validated(NamedTuple):
    """The figures of a cross-validation."""

    figures: dict[str, dict[str, Any]]  # system -> metric -> value, low, high
    gain: dict[str, Any] | None  # in % of `text only`


def run(
    source: Path,
    name: str,
    model_name: str,
    columns: dict[str, str | None],
    settings_file: Path | None,
    out: Path | None,
    again: bool,
) -> None:
    """Train, validate, keep, and say how good it is.

    Args:
        source: LABELS.
        name: of the task that `predict` will be asked for.
        model_name: of the model.
        columns: of `text`, `author` and `label`, None where they are to be guessed.
        settings_file: in place of `classifier.yaml` beside this file.
        out: a copy of the model directory with the classifier; None: the directory itself.
        again: whether a classifier of that name may be replaced.

    Raises:
        UserError: a name or a file that does not fit, or labels that nothing can be learnt from.
    """
    settings = read_settings(settings_file)
    directory = place_of(model_name, out)
    check_name(name, directory, again)
    model = load(directory)
    labelled = read_labels(source, columns, model.settings)
    print("\n".join(labelled.faults.lines()), file=sys.stderr, end="\n" if labelled.faults.count else "")
    labelled.check(settings.least_posts)
    classes = labelled.classes
    labels = np.array([classes.index(label) for label in labelled.labels], np.int64)
    folds = divide(labels, labelled.posts.texts, labelled.posts.authors, settings.folds, settings.seed)
    vectors = vectors_of(model, labelled.posts)
    validated = validate(vectors, labels, folds, settings)
    classifier = final(vectors, labels, folds, settings, about(model, name, classes, settings, folds, validated))
    target = place_in(directory, classifier, name, out)
    known = sum(map(bool, model.known(labelled.posts)))
    print("\n".join(map(printable, report(name, labelled, known, folds, settings, validated))))
    if out is None and directory.resolve() == Layout().model.resolve():
        print(
            f"{directory} is written anew by `dvc repro`; --out DIR keeps a copy with the classifier", file=sys.stderr
        )
    print(f"kept in {target}; now `ntulm predict POSTS --task {name} --model {out or model_name}`")


def read_settings(file: Path | None) -> TrainClassifier:
    """The settings.

    Raises:
        UserError: the file is missing, not YAML, or a key is unknown, missing or wrong.
    """
    path = Path(str(resources.files("ntulm.use") / "classifier.yaml")) if file is None else file
    try:
        return TrainClassifier.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except OSError as error:
        raise UserError(f"{path}: not read: {' '.join(str(error).split())[:200]}") from error


def vectors_of(model: Model, posts: Posts) -> Vectors:
    """The posts as the model sees them, and with their NTUs hidden."""
    whole, variant = model.encode(posts), model.encoder.variant
    if not variant.slots and not variant.words:
        return Vectors(whole, None)
    known = model.encoder.known(posts) if variant.slots else None
    return Vectors(whole, model.encode(posts.without_ntus(np.arange(len(posts)))), known)


def validate(vectors: Vectors, labels: NDArray[np.int64], folds: Folds, settings: TrainClassifier) -> Validated:
    """Each post tested by a classifier that saw neither it nor its group; intervals by a bootstrap of the groups."""
    truth = one_hot(labels)
    scores = {"this model": tested(vectors, labels, folds, settings, "this model")}
    if vectors.hidden is not None:
        alone = Vectors(vectors.hidden, None)
        scores["text only"] = tested(alone, labels, folds, settings, "text only")
    most = np.bincount(labels).argmax()
    scores["most frequent class"] = np.tile(np.arange(truth.shape[1]) == most, (len(labels), 1)).astype(np.float16)
    samples = {
        (system, name): sample(name, truth, own, folds.groups, settings)
        for system, own in scores.items()
        for name in METRICS
    }
    figures: dict[str, dict[str, Any]] = {system: {} for system in scores}
    for (system, name), found in samples.items():
        figures[system][name] = _figure(found, settings.confidence)
    if vectors.hidden is None:
        return Validated(figures, None)
    gain = relative_gain(samples["this model", METRICS[0]], samples["text only", METRICS[0]])
    about = _figure(gain, settings.confidence)
    low, high = (np.nan if about[key] is None else about[key] for key in ("low", "high"))
    return Validated(figures, about | {"verdict": verdict(low, high, len(labels), settings.min_posts)})


def tested(
    vectors: Vectors, labels: NDArray[np.int64], folds: Folds, settings: TrainClassifier, system: str
) -> NDArray[np.float16]:
    """Scores float16 [N, C] of each post, out of its fold."""
    truth = one_hot(labels)
    scores = np.zeros(truth.shape, np.float16)
    for fold in range(settings.folds):
        outside = np.flatnonzero(folds.folds != fold)
        chosen = validation_rows(labels[outside], folds.groups[outside], settings.validation_share, settings.seed)
        split = np.full(len(labels), "test", object)
        split[outside] = np.where(chosen, "validation", "train")
        features, apart = training(vectors, split, settings), apart_of(vectors, settings)
        problem = prepare(_ABOUT, features.shape[1], features, truth, split, apart)
        where = f"{system}, fold {fold + 1} of {settings.folds}"
        print(f"train-classifier: {where}", file=sys.stderr)
        scores[folds.folds == fold] = solve(settings.probe, problem, METRICS, settings.seed, where).scores
    return scores


_ABOUT = {"kind": "single", "metric": METRICS[0]}


def training(vectors: Vectors, split: NDArray, settings: TrainClassifier) -> NDArray[np.float32]:
    """The vectors, those of a share of the training posts without NTUs, as the stage `encode` does it."""
    if vectors.hidden is None:
        return vectors.whole
    features, rows = vectors.whole.copy(), hidden_rows(split.tolist(), 0, settings.hidden_share)
    features[rows] = vectors.hidden[rows]
    return features


def apart_of(vectors: Vectors, settings: TrainClassifier) -> Apart | None:
    """What the probe for rows of which nothing is known learns from; None: there is none."""
    if not settings.apart or vectors.hidden is None or vectors.known is None:
        return None
    return Apart(vectors.hidden, vectors.known)


def final(
    vectors: Vectors, labels: NDArray[np.int64], folds: Folds, settings: TrainClassifier, about: dict[str, Any]
) -> Classifier:
    """The classifier to keep: from all posts, but for those that choose among settings."""
    chosen = validation_rows(labels, folds.groups, settings.validation_share, settings.seed)
    split = np.where(chosen, "validation", "train").astype(object)
    features = training(vectors, split, settings)
    problem = prepare(_ABOUT, vectors.whole.shape[1], features, one_hot(labels), split, apart_of(vectors, settings))
    # All are in use: what it reaches was measured in the folds.
    problem = replace(problem, test=problem.validation)
    if problem.bare is not None and vectors.known is not None:
        bare = replace(problem.bare, test=problem.bare.validation)
        problem = replace(problem, bare=bare, known=vectors.known[split == "validation"])
    print("train-classifier: the classifier to keep", file=sys.stderr)
    solution = solve(settings.probe, problem, METRICS, settings.seed, "the classifier to keep")
    found = classifier_of(problem, solution, {})
    more = {**about, "posts": _sizes(chosen)}
    unknown = found.unknown and replace(found.unknown, about={**found.unknown.about, **more})
    return replace(found, about={**found.about, **more}, unknown=unknown)


def _sizes(chosen: NDArray[np.bool_]) -> dict[str, int]:
    return {"train": int((~chosen).sum()), "validation": int(chosen.sum()), "test": len(chosen)}


def about(
    model: Model, name: str, classes: list[str], settings: TrainClassifier, folds: Folds, validated: Validated
) -> dict[str, Any]:
    """What the classifier says of itself; `test` is the figure of the cross-validation."""
    variant, seed = model.settings.variant, model.settings.seed
    of = {"task": name, "dataset": name, "system": variant, "variant": variant, "seed": seed, "classes": classes}
    how = {"folds": settings.folds, "authors": folds.said, "confidence": settings.confidence, "text only": HIDDEN}
    own = {"systems": validated.figures, "gain": validated.gain, **how}
    value = validated.figures["this model"][METRICS[0]]["value"]
    return of | {"precision": PRECISION, "test": value, "cross_validation": own}


def one_hot(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [N, C]"""
    return np.asarray(labels[:, None] == np.arange(labels.max() + 1))


def sample(
    name: str, truth: NDArray[np.bool_], scores: NDArray, groups: NDArray[np.int64], settings: TrainClassifier
) -> Sample:
    """A metric on all posts and on resamples of the groups, the same ones for every system."""
    bootstrap = Bootstrap(settings.resamples, settings.seed)
    draws = [
        resampled(name, truth, scores, counts[:, groups])
        for counts in bootstrap.counts("groups", int(groups.max()) + 1)
    ]
    return Sample(metric(name, truth, scores), np.concatenate(draws))


def _figure(found: Sample, confidence: float) -> dict[str, Any]:
    low, high = found.interval(confidence)
    values = {"value": found.value, "low": low, "high": high}
    return {key: None if np.isnan(value) else float(value) for key, value in values.items()}


def report(
    name: str, labelled: Labelled, known: int, folds: Folds, settings: TrainClassifier, validated: Validated
) -> list[str]:
    """What to say; `known` rows have NTUs that the table knows."""
    sizes = Counter(labelled.labels)
    classes = ", ".join(f"{label} {count:,}" for label, count in sizes.most_common())
    authors = len({author for author in labelled.posts.authors if author is not None})
    lines = [f"{name}: {len(labelled.labels):,} rows, {authors:,} authors, {len(sizes)} classes ({classes})"]
    lines.append(f"{known:,} of the rows have NTUs that the model knows")
    lines.append(
        f"{settings.folds}-fold cross-validation, stratified, {folds.said}; {settings.confidence:.0%} intervals"
    )
    lines.append(f"  {'':<22}{'macro-F1':<24}accuracy")
    for system, figures in validated.figures.items():
        star = " *" if system == "text only" else ""
        cells = [_shown(figures[one], ".3f") for one in METRICS]
        lines.append(f"  {system + star:<22}{cells[0]:<24}{cells[1]}")
    if validated.gain is None:
        return [*lines, "  the model looks at no NTUs: there is nothing to compare with text only"]
    lines.append(f"  gain over text only   {_shown(validated.gain, '+.1f')} %: {validated.gain['verdict']}")
    return [*lines, f"  * {HIDDEN}"]


def _shown(figure: dict[str, Any], form: str) -> str:
    value, low, high = (
        "undefined" if figure[key] is None else f"{figure[key]:{form}}" for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"
