"""`ntulm predict`: the labels of posts, with probabilities, and whether the model knew the posts' NTUs.

Reads POSTS and a model directory with a classifier of the task; writes a row per post, in the order of the posts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa

from ntulm.errors import UserError
from ntulm.inference.incoming import Faults
from ntulm.inference.model import Model, Prediction, load
from ntulm.inference.progress import Progress
from ntulm.posts import Posts
from ntulm.use.output import Output, Record, check_ending, opened
from ntulm.use.posts import check_source, read_incoming

SCHEMA = pa.schema(
    [
        ("post_id", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("probabilities", pa.map_(pa.string(), pa.float32())),
        ("known", pa.bool_()),
    ]
)
DIGITS = ".4g"  # as many as scores have


def run(source: str, task: str, model_name: str, threshold: float | None, top: int | None, out: Path | None) -> None:
    """Label the posts of `source`.

    Args:
        source: POSTS.
        task: one of the model's.
        model_name: of the model.
        threshold: the probability from which on a class is a label; None: what the classifier found best. Where posts
            have one label, the likeliest class, if it reaches the threshold.
        top: how many of the likeliest classes are shown with their probabilities; None: all.
        out: a file; None: standard output.

    Raises:
        UserError: a value out of range, no such posts, model or task, or a file that cannot be written.
    """
    check_ending(out)
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold}: expected a probability, from 0 to 1")
    if top is not None and top < 1:
        raise UserError(f"--top {top}: expected at least 1")
    check_source(source)
    model = load(model_name)
    plain = ["labels"] if model.kind(task) == "single" else []
    with opened(out, SCHEMA, plain) as output:
        said = label_all(model, source, task, threshold, top, output, quiet=out is None and sys.stdout.isatty())
    print("\n".join(said), file=sys.stderr)


def label_all(
    model: Model, source: str, task: str, threshold: float | None, top: int | None, output: Output, quiet: bool
) -> list[str]:
    """Label and write part by part; what to say at the end."""
    faults, progress, known = Faults(), Progress("predict"), 0
    for part in read_incoming(source, model.settings):
        faults.add(part.faults)
        found = records(model, part.posts, task, threshold, top)
        output.write(found)
        known += sum(record["known"] for record in found)
        progress.add(len(found), None if quiet else part.share)
    progress.done()
    if faults.count and not progress.posts:
        raise UserError(f"{source}: none of {faults.count:,} rows is a post; {faults.first}")
    line = (
        f"{progress.posts:,} posts, {known:,} of them with NTUs that the model knows; {progress.rate:,.0f} per second"
    )
    return [f"{task}: {line}", *faults.lines()]


def records(model: Model, posts: Posts, task: str, threshold: float | None, top: int | None) -> list[Record]:
    """What is said of N posts."""
    found = model.predict(posts, task)
    ids, kind = posts.table["post_id"].to_pylist(), model.kind(task)
    return [
        {
            "post_id": post_id,
            "labels": one.labels if threshold is None else reaching(one, threshold, kind),
            "probabilities": likeliest(one, top),
            "known": one.known,
        }
        for post_id, one in zip(ids, found, strict=True)
    ]


def reaching(prediction: Prediction, threshold: float, kind: str) -> list[str]:
    """The classes from a threshold on, the likeliest first; where posts have one label, at most the likeliest."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    found = [name for name, probability in ranked if probability >= threshold]
    return found[:1] if kind == "single" else found


def likeliest(prediction: Prediction, top: int | None) -> dict[str, float]:
    """The probabilities of the likeliest classes, the likeliest first."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:top]
    return {name: float(f"{probability:{DIGITS}}") for name, probability in ranked}
