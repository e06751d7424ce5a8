"""Encoding posts with the graph of `ntulm export`, float32 and int8, beside `Model.encode`, on two cores or more.

The model is the packaged backbone with a fresh slot, as a model directory without classifiers; the texts are those of
`benchmarks/encode.py`, every other one with a known author. Time does not depend on what the weights are.

    python -m benchmarks.onnx
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

import ntulm
from benchmarks.encode import BATCHES, KEPT, TUNED_ON
from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.texts import write_texts
from ntulm.configure import configured
from ntulm.embeddings.table import write_table
from ntulm.inference.directory import READING, Batches, Settings
from ntulm.language_model.backbone import load_backbone, save_model
from ntulm.language_model.slots import describe_slots
from ntulm.onnx.network import GRAPH
from ntulm.params import check_params
from ntulm.text import Reading
from ntulm.use import export
from ntulm.variants import parse_variant

VARIANT, DIMENSION, USERS = "author+hashtag", 64, 100
LEAST_COSINE = {"onnxruntime, float32": 0.999, "onnxruntime, int8": 0.9}


def prepare(folder: Path, size: int) -> None:
    """Write the texts and the model directory, and export it twice."""
    write_texts(folder / "texts.json", posts=size)
    write_model(folder / "model")
    posts = folder / "posts.jsonl"
    texts = json.loads((folder / "texts.json").read_text())["posts"][:200]
    posts.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    export.run(str(folder / "model"), folder / "float32", False, None, None)
    export.run(str(folder / "model"), folder / "int8", True, str(posts), None)


def write_model(directory: Path) -> None:
    """A model directory as the stage `model` writes it, but for classifiers and card."""
    params = check_params(YAML(typ="safe", pure=True).load(configured("quickstart", [])), "quickstart")
    scheme = params.ntus.scheme
    variant = parse_variant(VARIANT, scheme.of_posts)
    network, tokenizer, _ = load_backbone("minilm", 0, torch.device("cpu"))
    network.add_slots(VARIANT, describe_slots(scheme, variant), DIMENSION, [1.0], params.pretrain.slot, seed=0)
    directory.mkdir()
    save_model(network, tokenizer, directory)
    vectors = np.random.default_rng(0).standard_normal((USERS, DIMENSION)).astype(np.float32)
    write_table(directory, ["user"] * USERS, [f"user{number:03d}" for number in range(USERS)], vectors / 8)
    reading = Reading(casefold_users=True, mention_hosts=False, html=False, mentions_in_text=True)
    batches = Batches(BATCHES.max_length, BATCHES.mask_urls, BATCHES.mask_mentions)
    Settings(VARIANT, 0, scheme, batches, reading).write(directory / READING)


def encode(name: str, folder: Path) -> Outcome:
    """The vectors of a directory."""
    texts = json.loads((folder / "texts.json").read_text())["posts"]
    posts = [{"text": text, "author": f"user{row % USERS:03d}" if row % 2 else None} for row, text in enumerate(texts)]
    model = ntulm.load(folder / name, None if (folder / name / GRAPH).is_file() else "cpu")
    read = model.read(posts)
    model.encode(read.take(np.arange(TUNED_ON)))  # warms up
    started = time.perf_counter()
    vectors = model.encode(read)
    seconds = time.perf_counter() - started
    return Outcome(seconds, len(vectors), vectors[:KEPT].tolist())


def same(evidence: Any) -> str:
    """The vectors point the same way."""
    ours, said = np.array(evidence["ntulm.load(…).encode"]), []
    for side, least in LEAST_COSINE.items():
        other = np.array(evidence[side])
        cosines = (ours * other).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(other, axis=1)
        if cosines.min() < least:
            sys.exit(f"{side}: a vector has cosine {cosines.min():.5f} with that of `encode`")
        said.append(f"{side}: cosine with `encode` {cosines.mean():.4f} on average, {cosines.min():.4f} at least")
    return f"{'; '.join(said)}; of {len(ours)} posts, half of them with a known author"


if __name__ == "__main__":
    run(
        Benchmark(
            module="benchmarks.onnx",
            title="Encoding posts with an exported model",
            unit="posts",
            prepare=prepare,
            sides={
                "ntulm.load(…).encode": partial(encode, "model"),
                "onnxruntime, float32": partial(encode, "float32"),
                "onnxruntime, int8": partial(encode, "int8"),
            },
            same=same,
            size=3000,
            growth=(1500, 3000, 6000),
            limit="`encode` has bfloat16 products where the machine has units for them; int8 products need VNNI.",
        )
    )
