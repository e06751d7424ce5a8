"""Encode the posts of a task with one frozen variant: a vector per post (§3.3).

Reads `data/pretrain/VARIANT/SEED/`, `data/embeddings/`, `data/tasks/TASK/`. Writes one `DATASET.safetensors` per data
set into `data/encode/VARIANT/SEED/TASK/`: `vectors` [N, H] in the order of the data set's rows and, for the variant
`text`, `ntu` [N, D], the mean NTU vector of the slot `encode.post_concat` (of several, or of several types with a
projection each, the vectors one after the other), for the probe's `post-concat` (§5.3) and `ntu`.
With `encode.apart` also `known` [N], 1 where the table knows an NTU that the variant looks at, and what the posts are
where it knows none: `hidden` [N, H], of training and validation posts (0 for test posts, who are as they are), for
`text` in its place `ntu_hidden` [1, D].
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
from ntulm.ntus import NtuScheme, known_posts
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
    with pq.ParquetFile(source) as file:
        shapes = _shapes(encoder, table, encode.apart, concat, file.metadata.num_rows)
        with open_tensors(target, shapes, np.dtype(encode.dtype)) as tensors:
            for part in file.iter_batches(POSTS_AT_ONCE, columns=[*COLUMNS.names, "split"]):
                rows = slice(start, start + len(part))
                hidden = hidden_rows(part["split"].to_pylist(), start, encode.hidden_share)
                posts = Posts(pa.Table.from_batches([part])).without_ntus(hidden)
                tensors["vectors"][rows] = _finite(encoder.encode(posts), source)
                if "ntu" in tensors:
                    tensors["ntu"][rows] = _ntu_vectors(encoder, table, concat, posts)
                if "known" in tensors:
                    roles = concat.roles if "ntu" in tensors else encoder.variant.roles
                    seen = posts.seen_by(encoder.variant)
                    tensors["known"][rows] = known_posts(table, encoder.scheme, seen.ntus, roles)
                if "hidden" in tensors:
                    learnt = np.flatnonzero(np.array(part["split"].to_pylist()) != "test")
                    tensors["hidden"][start + learnt] = _finite(encoder.encode(_bare(posts.take(learnt))), source)
                if "ntu_hidden" in tensors and len(posts):
                    tensors["ntu_hidden"][:] = _ntu_vectors(encoder, table, concat, _bare(posts.take(np.arange(1))))
                start += len(part)
    rate = start / max(time.monotonic() - started, 1e-9)
    print(f"encode: {source.stem}: {start} posts, {rate:.0f} posts per second", file=sys.stderr)


def _shapes(
    encoder: Encoder, table: EmbeddingTable, apart: bool, concat: Variant, posts: int
) -> dict[str, tuple[int, ...]]:
    """The tensors of a file of N posts."""
    shapes: dict[str, tuple[int, ...]] = {"vectors": (posts, encoder.width)}
    if encoder.variant == TEXT:
        width = table.dimension * sum(map(channel_count, describe_slots(encoder.scheme, concat)))
        shapes["ntu"] = (posts, width)
        return shapes | ({"known": (posts,), "ntu_hidden": (1, width)} if apart else {})
    if apart and encoder.variant.slots:
        shapes |= {"known": (posts,), "hidden": (posts, encoder.width)}
    return shapes


def _bare(posts: Posts) -> Posts:
    return posts.without_ntus(np.arange(len(posts)))


def _ntu_vectors(encoder: Encoder, table: EmbeddingTable, concat: Variant, posts: Posts) -> np.ndarray:
    """The mean NTU vectors of posts, float32 [B, D]."""
    slots = Slots.of(table, encoder.scheme, concat, posts.ntus)
    return slots.vectors(np.arange(len(posts)))[0].reshape(len(posts), -1)


def _finite(vectors: np.ndarray, source: Path) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise UserError(f"{source}: a post's vector is not a number; the model of `pretrain` is broken")
    return vectors
