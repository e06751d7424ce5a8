"""Encode the posts of a task with one frozen variant: a vector a post (§3.3).

Reads `data/pretrain/VARIANT/SEED/`, `data/embeddings/`, `data/tasks/TASK/`. Writes one `DATASET.safetensors` a data set
into `data/encode/VARIANT/SEED/TASK/`: `vectors` [N, H] in the order of the data set's rows and, for the variant `text`,
`ntu` [N, D], the mean NTU vector of author and hashtags, for the probe's `post-concat` (§5.3) and `ntu`.
Run: `ntulm encode --variant VARIANT --seed SEED --task TASK`.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedTokenizerBase

from ntulm import layout
from ntulm.device import choose_device, has_bf16, to_device
from ntulm.embeddings.table import EmbeddingTable, ntu_rows
from ntulm.errors import UserError
from ntulm.files import read_json, whole_directory
from ntulm.language_model.backbone import load_model
from ntulm.language_model.batches import FIXED, Batch, Slots, Tokens, padded_batches, tokenise, uniform
from ntulm.language_model.model import NtulmForMaskedLM
from ntulm.language_model.packed import speed_up
from ntulm.variants import VARIANTS, Variant, present, variant_of

if TYPE_CHECKING:
    from ntulm.language_model.config import Batches, Encode

HIDING_SEED, HIDING_STREAM = 0, 4  # of the draw of training posts without NTUs; the masks and the slot have 0 to 3
POSTS_AT_ONCE = 32768  # read, sorted by length and written together; bounds the memory whatever the file's size
BOTH = VARIANTS["author+hashtag"].slot
_CODES = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32"}


@dataclass(frozen=True)
class Encoder:
    """A frozen variant with what it needs to read posts."""

    model: NtulmForMaskedLM
    tokenizer: PreTrainedTokenizerBase
    table: EmbeddingTable
    variant: Variant
    batches: "Batches"
    batch_size: int
    dtype: np.dtype
    hidden_share: float  # of the training posts of a task, encoded as if the table knew none of their NTUs

    @property
    def width(self) -> int:
        """H, the length of a vector."""
        return int(self.model.encoder.config.hidden_size)

    @property
    def widths(self) -> dict[str, int]:
        """The tensors of an output file and the length of their rows."""
        ntu = {"ntu": self.table.dimension} if self.variant == VARIANTS["text"] else {}
        return {"vectors": self.width, **ntu}


def run(encode: "Encode", batches: "Batches", variant: str, seed: int, task: str) -> None:
    """Encode every data set of `task` with `variant` and `seed`.

    Raises:
        UserError: an unknown variant, or an earlier stage has not run.
    """
    about = variant_of(variant)
    datasets = read_json(layout.task(task) / "datasets.json")
    model, tokenizer = load_model(layout.pretrain(variant, seed), f"pretrain@{variant}-{seed}", choose_device())
    table = EmbeddingTable.load(layout.EMBEDDINGS)
    encoder = Encoder(
        freeze(model), tokenizer, table, about, batches, encode.batch_size, np.dtype(encode.dtype), encode.hidden_share
    )
    with whole_directory(layout.vectors(variant, seed, task)) as directory:
        for dataset in sorted(datasets):
            encode_file(encoder, layout.task(task) / f"{dataset}.parquet", directory / f"{dataset}.safetensors")


def freeze(model: NtulmForMaskedLM) -> NtulmForMaskedLM:
    """Make a model ready for encoding, in place: no dropout, and weights in bfloat16 where the hardware has it.

    Autocast would convert activations back and forth around every product; what is lost is rounding (cosine with the
    vectors of float32 above 0.999), and the mean over positions is taken in float32. On a CPU the model can then only
    encode.
    """
    if not has_bf16(model.device):
        return model.eval()
    model = model.eval().to(torch.bfloat16)
    if model.device.type == "cpu":
        speed_up(model.encoder, model.layers)
    return model


def encode_file(encoder: Encoder, source: Path, target: Path) -> None:
    """Encode the rows of one Parquet file, a part at a time.

    A share of the training posts lose their NTUs, so that probes learn to do without them (docs/decisions/0008); which
    ones follows from their places alone, and is the same for all variants and seeds.

    Raises:
        UserError: the file is missing, or a vector is not a number.
    """
    if not source.is_file():
        raise UserError(f"{source}: not found; run `dvc repro` first, which writes it")
    started, start = time.monotonic(), 0
    with pq.ParquetFile(source) as file:
        shapes = {name: (file.metadata.num_rows, width) for name, width in encoder.widths.items()}
        with open_tensors(target, shapes, encoder.dtype) as tensors:
            for part in file.iter_batches(POSTS_AT_ONCE, columns=["text", "author", "hashtags", "split"]):
                columns: dict[str, list[Any]] = {
                    name: part[name].to_pylist() for name in ("text", "author", "hashtags")
                }
                rows = slice(start, start + len(part))
                for row in hidden_rows(part["split"].to_pylist(), start, encoder.hidden_share):
                    columns["author"][row], columns["hashtags"][row] = None, []
                tensors["vectors"][rows] = _finite(encode_posts(encoder, **columns), source)
                if "ntu" in tensors:
                    tensors["ntu"][rows] = _slots(encoder, columns["author"], columns["hashtags"], BOTH).vectors(
                        np.arange(len(part))
                    )
                start += len(part)
    rate = start / max(time.monotonic() - started, 1e-9)
    print(f"encode: {source.stem}: {start} posts, {rate:.0f} posts/s", file=sys.stderr)


def hidden_rows(splits: list[str], start: int, share: float) -> np.ndarray:
    """Which of the rows int64 [n], the first of them being row `start` of the file, are encoded without NTUs."""
    drawn = uniform(np.arange(start, start + len(splits)), HIDING_SEED, FIXED, HIDING_STREAM) < share
    return np.flatnonzero(drawn & (np.array(splits) == "train"))


def encode_posts(
    encoder: Encoder, text: list[str], author: list[str | None], hashtags: list[list[str] | None]
) -> np.ndarray:
    """The post embeddings of N posts (§3.3): float32 [N, H]."""
    device = encoder.model.device
    seen = present(encoder.variant, text, author, hashtags)
    tokens: Tokens = tokenise(seen.texts, encoder.tokenizer, encoder.batches)
    slots = _slots(encoder, seen.authors, seen.hashtags, encoder.variant.slot) if encoder.variant.slot else None
    vectors = torch.empty(len(text), encoder.width, device=device)

    @torch.inference_mode()  # belongs to a thread
    def encode(numbered: tuple[np.ndarray, Batch]) -> None:
        posts, batch = numbered
        slot = None if slots is None else to_device(torch.from_numpy(slots.vectors(posts)), device)
        input_ids, attention_mask = to_device(batch.input_ids, device), to_device(batch.attention_mask, device)
        found = encoder.model.post_embedding(input_ids, attention_mask, slot)
        vectors[to_device(torch.from_numpy(posts), device)] = found

    padding = int(encoder.tokenizer.pad_token_id or 0)
    batches = padded_batches(tokens, padding, encoder.batch_size, encoder.batches.max_length)
    if device.type == "cpu":  # a batch a core is faster than each batch on all cores (decision 0031)
        with ThreadPoolExecutor(torch.get_num_threads(), initializer=partial(torch.set_num_threads, 1)) as pool:
            list(pool.map(encode, batches))
    else:
        for batch in batches:
            encode(batch)
    return vectors.cpu().numpy()


def _slots(
    encoder: Encoder, authors: Sequence[str | None], hashtags: Sequence[Sequence[str] | None], names: tuple[str, ...]
) -> Slots:
    return Slots(encoder.table, *ntu_rows(encoder.table, authors, hashtags, names))


def _finite(vectors: np.ndarray, source: Path) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise UserError(f"{source}: a post's vector is not a number; the model of `pretrain` is broken")
    return vectors


@contextmanager
def open_tensors(path: Path, shapes: Mapping[str, tuple[int, int]], dtype: np.dtype) -> Iterator[dict[str, np.ndarray]]:
    """Create a safetensors file and yield its tensors, mapped for writing, so that it may be larger than memory."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + shape[0] * shape[1] * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    if end == 0:  # nothing to map
        yield {name: np.empty(shape, dtype) for name, shape in shapes.items()}
        return
    mapped = np.memmap(path, np.uint8, "r+", offset=8 + len(text))
    views = {name: mapped[slice(*header[name]["data_offsets"])].view(dtype).reshape(shapes[name]) for name in shapes}
    yield views
    mapped.flush()
