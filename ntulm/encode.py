"""Encode the posts of a task with one frozen variant: a vector per post (§3.3).

Reads `data/pretrain/VARIANT/SEED/`, `data/embeddings/`, `data/tasks/TASK/`. Writes one `DATASET.safetensors` per data
set into `data/encode/VARIANT/SEED/TASK/`: `vectors` [N, H] in the order of the data set's rows and, for the variant
`text`, `ntu` [N, D], the mean NTU vector of the slot `encode.post_concat` (of several, or of several types with a
projection each, the vectors one after the other), for the probe's `post-concat` (§5.3) and `ntu`.
Run: `ntulm encode --variant VARIANT --seed SEED --task TASK`.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ntulm.device import choose_device
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.files import read_json, whole_directory
from ntulm.language_model.backbone import load_model
from ntulm.language_model.encoder import Encoder, freeze, hidden_rows
from ntulm.language_model.model import channel_count
from ntulm.language_model.slots import Slots, describe_slots
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.posts import COLUMNS, Posts
from ntulm.tensors import open_tensors
from ntulm.variants import Variant, parse_variant

if TYPE_CHECKING:
    from ntulm.language_model.config import Batches, Encode

POSTS_AT_ONCE = 32768  # read, sorted by length and written together; bounds the memory whatever the file's size
TEXT = Variant()


def run(
    encode: "Encode", batches: "Batches", scheme: NtuScheme, variant: str, seed: int, task: str, layout: Layout
) -> None:
    """Encode every data set of `task` with `variant` and `seed`.

    Raises:
        UserError: an unknown variant, or an earlier stage has not run.
    """
    about = parse_variant(variant, scheme.of_posts)
    datasets = read_json(layout.task(task) / "datasets.json")
    model, tokenizer = load_model(layout.pretrain(variant, seed), f"pretrain@{variant}-{seed}", choose_device())
    table = EmbeddingTable.load(layout.embeddings)
    encoder = Encoder(freeze(model), tokenizer, table, scheme, about, batches, encode.batch_size)
    with whole_directory(layout.vectors(variant, seed, task)) as directory:
        for dataset in sorted(datasets):
            encode_file(
                encoder, table, encode, layout.task(task) / f"{dataset}.parquet", directory / f"{dataset}.safetensors"
            )


def encode_file(encoder: Encoder, table: EmbeddingTable, encode: "Encode", source: Path, target: Path) -> None:
    """Encode the rows of one Parquet file, a part at a time.

    A share of the training posts lose their NTUs, so that probes learn to do without them (docs/decisions/0008); which
    ones follows from their places alone, and is the same for all variants and seeds.

    Raises:
        UserError: the file is missing, or a vector is not a number.
    """
    if not source.is_file():
        raise UserError(f"{source}: not found; run `dvc repro` first, which writes it")
    started, start = time.monotonic(), 0
    concat = parse_variant(encode.post_concat, encoder.scheme.of_posts)
    widths = {"vectors": encoder.width}
    if encoder.variant == TEXT:
        widths["ntu"] = table.dimension * sum(map(channel_count, describe_slots(encoder.scheme, concat)))
    with pq.ParquetFile(source) as file:
        shapes = {name: (file.metadata.num_rows, width) for name, width in widths.items()}
        with open_tensors(target, shapes, np.dtype(encode.dtype)) as tensors:
            for part in file.iter_batches(POSTS_AT_ONCE, columns=[*COLUMNS.names, "split"]):
                rows = slice(start, start + len(part))
                hidden = hidden_rows(part["split"].to_pylist(), start, encode.hidden_share)
                posts = Posts(pa.Table.from_batches([part])).without_ntus(hidden)
                tensors["vectors"][rows] = _finite(encoder.encode(posts), source)
                if "ntu" in tensors:
                    slots = Slots.of(table, encoder.scheme, concat, posts.ntus)
                    tensors["ntu"][rows] = slots.vectors(np.arange(len(posts)))[0].reshape(len(posts), -1)
                start += len(part)
    rate = start / max(time.monotonic() - started, 1e-9)
    print(f"encode: {source.stem}: {start} posts, {rate:.0f} posts per second", file=sys.stderr)


def _finite(vectors: np.ndarray, source: Path) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise UserError(f"{source}: a post's vector is not a number; the model of `pretrain` is broken")
    return vectors
