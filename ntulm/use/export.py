"""`ntulm export`: a model directory whose encoder and slots are an ONNX graph, which `ntulm.load` and onnxruntime run.

Reads a model directory, and the posts that int8 is measured on; writes a directory that all commands take as `--model`:
`model.onnx` in the place of the weights, all else as it was, and what was measured in the model card.

N posts, H the length of a vector.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ntulm.errors import UserError
from ntulm.files import whole_directory
from ntulm.inference.card import ELSEWHERE
from ntulm.inference.directory import CARD, CLASSIFIERS, READING, find
from ntulm.inference.model import Model, load
from ntulm.inference.version import version_of
from ntulm.language_model.backbone import TOKENIZER, load_model
from ntulm.language_model.encoder import Encoder
from ntulm.onnx.graph import export
from ntulm.onnx.int8 import Recorder, to_int8
from ntulm.onnx.network import GRAPH, GraphNetwork, OnnxNetwork, network_of
from ntulm.posts import Posts
from ntulm.use.compared import Compared, compare, lines_of
from ntulm.use.sample import LabelledSample, sample_of

CALIBRATED_ON = 300  # posts at most, and half of what there is; the others are measured
TIMED_ON = 256  # posts at most
TABLES = ("table.safetensors", "overlay.safetensors", "relations.safetensors")


@dataclass(frozen=True)
class Measured:
    """What int8 changes."""

    compared: Compared  # from float32
    calibrated: int  # other posts of the source, which the scales come from
    speed: float  # posts per second over those of the model that was exported, on this machine


def run(model_name: str, out: Path, int8: bool, posts: str | None, task: str | None) -> None:
    """Export a model.

    Args:
        model_name: of the model.
        out: a directory that is not there yet.
        int8: whether weights become int8.
        posts: what int8 is calibrated and measured on (`ntulm/use/sample.py`).
        task: whose labels `posts` has.

    Raises:
        UserError: a name or a file that does not fit.
    """
    directory = find(model_name)
    check(directory, out, int8, posts, task)
    model = load(directory, "cpu")
    sample = None if posts is None else sample_of(posts, task, model)  # a mistake in it is told before the work
    with whole_directory(out) as target, tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / GRAPH
        network, _ = load_model(directory, "model", torch.device("cpu"))
        export(network, plain)
        measured = None
        if sample is None:
            shutil.copyfile(plain, target / GRAPH)
        else:
            calibration, rest = parts_of(sample)
            exact = OnnxNetwork(plain)
            recorder = Recorder(exact)
            with_network(model, recorder).encode(calibration)
            to_int8(plain, target / GRAPH, recorder.batches)
            small = network_of(target / GRAPH)
            measured = measure(model, exact, small, rest, len(calibration), Path(str(posts)).name)
        copy_rest(directory, target)
        (target / CARD).write_text(
            card_of(directory) + section(version_of(directory), int8, measured), encoding="utf-8"
        )
    print("\n".join(summary(out, int8, measured)))


def check(directory: Path, out: Path, int8: bool, posts: str | None, task: str | None) -> None:
    """Refuse what cannot work before a model is loaded."""
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out}: is there already; name a new directory")
    if (directory / GRAPH).is_file():
        raise UserError(f"{directory}: was exported already; name the model directory that it came from")
    if int8 and posts is None:
        raise UserError("--int8: what is lost has to be measured; --posts POSTS names posts like those to come")
    if not int8 and posts is not None:
        raise UserError("--posts: measures what int8 loses; expected --int8 with it")
    if task is not None and posts is None:
        raise UserError("--task: says whose labels the posts have; expected --posts with it")


def copy_rest(directory: Path, target: Path) -> None:
    """All of a model directory but the torch network."""
    for name in (*TOKENIZER, *TABLES, READING):
        if (directory / name).is_file():
            shutil.copyfile(directory / name, target / name)
    if (directory / CLASSIFIERS).is_dir():
        shutil.copytree(directory / CLASSIFIERS, target / CLASSIFIERS)


def parts_of(sample: LabelledSample) -> tuple[Posts, LabelledSample]:
    """The posts that scales come from, evenly spread, and the others, which are measured; a single post is both."""
    total = len(sample.posts)
    count = min(CALIBRATED_ON, max(1, total // 2))
    chosen = np.arange(count) * (total // count)
    rest = np.setdiff1d(np.arange(total), chosen) if total > 1 else chosen
    labels = None if sample.labels is None else sample.labels[rest]
    return sample.posts.take(chosen), LabelledSample(sample.posts.take(rest), sample.task, labels)


def measure(
    model: Model, plain: GraphNetwork, small: GraphNetwork, sample: LabelledSample, calibrated: int, source: str
) -> Measured:
    """What int8 changes in vectors, labels and, where there are labels, the score of their classifier."""
    compared = compare(model, with_network(model, plain), with_network(model, small), sample, source)
    return Measured(compared, calibrated, speed(model, small, sample.posts))


def speed(model: Model, small: GraphNetwork, posts: Posts) -> float:
    """How many times as fast as the model the graph is, on a part of the posts."""
    part = posts.take(np.arange(min(TIMED_ON, len(posts))))
    seconds = []
    for encoder in (model.encoder, with_network(model, small)):
        encoder.encode(part)  # warms up
        started = time.perf_counter()
        encoder.encode(part)
        seconds.append(time.perf_counter() - started)
    return seconds[0] / seconds[1]


def with_network(model: Model, network: Any) -> Encoder:
    """The model's encoder with a graph in the place of its own network."""
    return replace(model.encoder, model=network)


def card_of(directory: Path) -> str:
    """The card of a model directory, without what an exported one cannot do."""
    card = (directory / CARD).read_text(encoding="utf-8") if (directory / CARD).is_file() else ""
    return card.replace(ELSEWHERE, "").replace('"ntulm", "sentence-transformers"', '"ntulm", "onnx"')


def section(version: str, int8: bool, measured: Measured | None) -> str:
    """What the card says of the graph."""
    kind = "int8 (scales of weights per channel, of activations from posts)" if int8 else "float32"
    said = (
        f"\n## ONNX\n\n`{GRAPH}` is the encoder with its slots in {kind}, exported from the model of version "
        f"`{version}`. `ntulm.load` runs it with onnxruntime (`pip install 'ntulm[onnx]'`); this directory has no "
        "weights for transformers or sentence-transformers.\n"
    )
    return said if measured is None else said + "\n" + "\n".join(table(measured)) + "\n"


def table(measured: Measured) -> list[str]:
    """Lines of Markdown."""
    first = f"Against float32; {measured.calibrated:,} other posts gave the scales."
    return [first, "", *lines_of(measured.compared, "float32", "int8")]


def summary(out: Path, int8: bool, measured: Measured | None) -> list[str]:
    """What is printed."""
    size = (out / GRAPH).stat().st_size / 1e6
    lines = [f"{out}: {GRAPH} in {'int8' if int8 else 'float32'}, {size:.0f} MB; a model directory for --model"]
    if measured is None:
        return lines
    return [*lines, *table(measured), f"On this machine {measured.speed:.1f} times as fast as the model it came from."]
