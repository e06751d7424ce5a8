"""Post embeddings: ours against `encode` of sentence-transformers at its best batch size, exact and in int8.

Run: `python -m benchmarks.encode`. All sides read the same texts with the packaged MiniLM and give the mean of its last
hidden states; the time is from texts to vectors, the weights are loaded. What is in int8 was calibrated on other posts,
before the time starts.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import quantised_peers
from benchmarks.flops import layer_flops
from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.texts import write_texts
from ntulm.device import choose_device, has_bf16
from ntulm.language_model.backbone import load_backbone, packaged_directory
from ntulm.language_model.config import Batches
from ntulm.language_model.encoder import Encoder, freeze
from ntulm.language_model.samples import NO_NTUS
from ntulm.language_model.tokens import tokenise
from ntulm.onnx.graph import export
from ntulm.onnx.int8 import Recorder, to_int8
from ntulm.onnx.network import GRAPH, OnnxNetwork, network_of
from ntulm.posts import Posts
from ntulm.variants import Variant

BATCHES = Batches(max_length=128, mask_urls=False, mask_mentions=False)
BATCH_SIZE = 64
PEER_BATCH_SIZES = (16, 32, 64, 128)
TUNED_ON = 256  # posts
EXACT = "sentence-transformers, float32"
LEAST_COSINE = {"ours": 0.999, "ours, int8": 0.95}
QUANTISED = {"onnx-qint8": quantised_peers.onnx_qint8, "openvino-qint8": quantised_peers.openvino_qint8}
KEPT = 500  # vectors that go into the evidence


def prepare(folder: Path, size: int) -> None:
    """Write the texts, and on a CPU the models in int8: those of the peers and ours, as `ntulm export` makes it."""
    write_texts(folder / "texts.json", posts=size, calibration=quantised_peers.CALIBRATION)
    if torch.cuda.is_available():
        return
    texts, exact = _texts(folder, "calibration"), folder / "float32.onnx"
    model, tokenizer, _ = load_backbone("minilm", 0, torch.device("cpu"))
    export(model, exact)
    quantised_peers.prepare(folder, exact, texts, BATCHES.max_length)
    recorder = Recorder(OnnxNetwork(exact))
    _encoder(recorder, tokenizer).encode(_posts(texts))
    to_int8(exact, folder / GRAPH, recorder.batches)


def ours(folder: Path) -> Outcome:
    """The computation of the stage `encode` for the variant `text`."""
    model, tokenizer, _ = load_backbone("minilm", 0, choose_device())
    return _timed(folder, _encoder(freeze(model), tokenizer))


def ours_int8(folder: Path) -> Outcome:
    """What `ntulm.load` makes of a directory that `ntulm export --int8` wrote."""
    network = network_of(folder / GRAPH)
    print(f"ours, int8: {type(network).__name__}", file=sys.stderr)
    return _timed(folder, _encoder(network, load_backbone("minilm", 0, choose_device()).tokenizer))


def _encoder(model: Any, tokenizer: Any) -> Encoder:
    return Encoder(model, tokenizer, None, NO_NTUS, Variant(), BATCHES, BATCH_SIZE)


def _posts(texts: list[str]) -> Posts:
    return Posts.of(NO_NTUS, {"post_id": [""] * len(texts), "text": texts, "author": [None] * len(texts)})


def _timed(folder: Path, encoder: Encoder) -> Outcome:
    texts = _texts(folder)
    posts = _posts(texts)
    encoder.encode(posts.take(np.arange(min(TUNED_ON, len(posts)))))  # warms up
    started = time.perf_counter()
    vectors = encoder.encode(posts)
    return _outcome(time.perf_counter() - started, vectors, texts)


def sentence_transformers(kind: str, folder: Path) -> Outcome:
    """The peer, whose default is float32, with the batch size that is fastest on a part of the texts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    texts = _texts(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transformer = Transformer(str(packaged_directory()), max_seq_length=BATCHES.max_length)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    if kind in QUANTISED:
        transformer.model = quantised_peers.Backend(transformer.model.config, QUANTISED[kind](folder))
    model = SentenceTransformer(modules=[transformer, pooling], device=device)
    if kind not in QUANTISED:
        model.to(getattr(torch, kind))
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
    print(f"sentence-transformers, {kind}: batch size {best}", file=sys.stderr)
    return _outcome(seconds, vectors, texts)


def _texts(folder: Path, name: str = "posts") -> list[str]:
    texts: list[str] = json.loads((folder / "texts.json").read_text())[name]
    return texts


def _outcome(seconds: float, vectors: np.ndarray, texts: list[str]) -> Outcome:
    """The same number of operations for every side: those of our model on our tokens."""
    model, tokenizer, _ = load_backbone("minilm", 0, torch.device("cpu"))
    flops = layer_flops(model, tokenise(texts, tokenizer, BATCHES))
    return Outcome(seconds, len(vectors), np.asarray(vectors[:KEPT], np.float32).tolist(), flops)


def same(evidence: Any) -> str:
    """The vectors of all sides point where those of the peer in float32 do."""
    expected = np.array(evidence[EXACT])
    said = []
    for side, vectors in evidence.items():
        other = np.array(vectors)
        cosines = (other * expected).sum(1) / np.linalg.norm(other, axis=1) / np.linalg.norm(expected, axis=1)
        if cosines.min() < LEAST_COSINE.get(side, 0.0):
            sys.exit(f"{side}: a vector has cosine {cosines.min():.5f} with that of {EXACT}")
        said.append(f"{side} {cosines.min():.4f} and {cosines.mean():.4f}")
    return f"cosine with {EXACT}, of {len(expected)} posts, the least and the mean: {'; '.join(said)}"


def sides() -> dict[str, Any]:
    """Those that this machine has units for: bfloat16 that is emulated is no peer, int8 is for CPUs."""
    cpu = not torch.cuda.is_available()
    found: dict[str, Any] = {"ours": ours} | ({"ours, int8": ours_int8} if cpu else {})
    kinds = ["float32", *(["bfloat16"] if has_bf16(choose_device()) else []), *(QUANTISED if cpu else [])]
    return found | {f"sentence-transformers, {kind}": partial(sentence_transformers, kind) for kind in kinds}


if __name__ == "__main__":
    run(
        Benchmark(
            module="benchmarks.encode",
            title="Encoding posts",
            unit="posts",
            prepare=prepare,
            sides=sides(),
            same=same,
            size=3000,
            growth=(1500, 3000, 6000),
            limit="products take half of the time where there are matrix units, more elsewhere; copies, softmax, GELU "
            "and normalisation, which go place by place, the rest.",
        )
    )
