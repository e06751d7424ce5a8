"""Post embeddings: ours against `encode` of sentence-transformers at its best batch size.

Run: `python -m benchmarks.encode`. All sides read the same texts with the packaged MiniLM and give the mean of its last
hidden states; the time is from texts to vectors, the weights are loaded.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.flops import layer_flops
from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.texts import write_texts
from ntulm.device import choose_device
from ntulm.language_model.backbone import load_backbone, packaged_directory
from ntulm.language_model.config import Batches
from ntulm.language_model.encoder import Encoder, freeze
from ntulm.language_model.samples import NO_NTUS
from ntulm.language_model.tokens import tokenise
from ntulm.posts import Posts
from ntulm.variants import Variant

BATCHES = Batches(max_length=128, mask_urls=False, mask_mentions=False)
BATCH_SIZE = 64
PEER_BATCH_SIZES = (16, 32, 64, 128)
TUNED_ON = 256  # posts
LEAST_COSINE = 0.999
KEPT = 500  # vectors that go into the evidence


def prepare(folder: Path, size: int) -> None:
    """Write the texts."""
    write_texts(folder / "texts.json", posts=size)


def ours(folder: Path) -> Outcome:
    """The computation of the stage `encode` for the variant `text`."""
    texts = _texts(folder)
    model, tokenizer, _ = load_backbone("minilm", 0, choose_device())
    encoder = Encoder(freeze(model), tokenizer, None, NO_NTUS, Variant(), BATCHES, BATCH_SIZE)
    posts = Posts.of(NO_NTUS, {"post_id": [""] * len(texts), "text": texts, "author": [None] * len(texts)})
    encoder.encode(posts.take(np.arange(TUNED_ON)))  # warms up
    started = time.perf_counter()
    vectors = encoder.encode(posts)
    return _outcome(time.perf_counter() - started, vectors, texts)


def sentence_transformers(precision: str, folder: Path) -> Outcome:
    """The peer, whose default is float32, with the batch size that is fastest on a part of the texts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    texts = _texts(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transformer = Transformer(str(packaged_directory()), max_seq_length=BATCHES.max_length)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling], device=device)
    model.to(getattr(torch, precision))
    encode = partial(model.encode, show_progress_bar=False)
    times = {}
    for size in [PEER_BATCH_SIZES[0], *PEER_BATCH_SIZES]:  # the first one twice: it also warms up
        started = time.perf_counter()
        encode(texts[:TUNED_ON], batch_size=size)
        times[size] = time.perf_counter() - started
    best = min(times, key=lambda size: times[size])
    started = time.perf_counter()
    vectors = encode(texts, batch_size=best)
    seconds = time.perf_counter() - started
    print(f"sentence-transformers, {precision}: batch size {best}", file=sys.stderr)
    return _outcome(seconds, vectors, texts)


def _texts(folder: Path) -> list[str]:
    texts: list[str] = json.loads((folder / "texts.json").read_text())["posts"]
    return texts


def _outcome(seconds: float, vectors: np.ndarray, texts: list[str]) -> Outcome:
    """The same number of operations for every side: those of our model on our tokens."""
    model, tokenizer, _ = load_backbone("minilm", 0, torch.device("cpu"))
    flops = layer_flops(model, tokenise(texts, tokenizer, BATCHES))
    return Outcome(seconds, len(vectors), np.asarray(vectors[:KEPT], np.float32).tolist(), flops)


def same(evidence: Any) -> str:
    """The vectors of ours point where those of the peer in float32 do."""
    ours, expected = (np.array(evidence[side]) for side in ("ours", "sentence-transformers, float32"))
    cosines = (ours * expected).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
    if cosines.min() < LEAST_COSINE:
        sys.exit(f"a vector of ours has cosine {cosines.min():.5f} with that of sentence-transformers in float32")
    return f"least cosine with sentence-transformers in float32 {cosines.min():.5f}, of {len(ours)} posts"


if __name__ == "__main__":
    run(
        Benchmark(
            module="benchmarks.encode",
            title="Encoding posts",
            unit="posts",
            prepare=prepare,
            sides={
                "ours": ours,
                "sentence-transformers, float32": partial(sentence_transformers, "float32"),
                "sentence-transformers, bfloat16": partial(sentence_transformers, "bfloat16"),
            },
            same=same,
            size=3000,
            growth=(1500, 3000, 6000),
            limit="products take half of the time; copies, softmax, GELU and normalisation, which go place by place, "
            "the rest.",
        )
    )
