"""Tokenising: texts to token ids and to the hashtag of each token, against the tokenizer as transformers calls it.

Run: `python -m benchmarks.tokenise`. The peer does less: it gives ids and places, and does not look for hashtags.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.texts import write_texts
from ntulm.language_model.backbone import load_backbone
from ntulm.language_model.config import Batches
from ntulm.language_model.tokens import processes_for_texts, tokenise
from ntulm.text import masked

BATCHES = Batches(max_length=128, mask_urls=True, mask_mentions=True)
PEER_BATCH_SIZE = 1000  # that of the `map` of datasets
EXTRAS = ("", " #so", " #Tag{0} @somebody", " https://t.co/{0} #like #it")


def prepare(folder: Path, size: int) -> None:
    """Write the texts, three of four with hashtags, half with mentions or links."""
    write_texts(folder / "texts.json", posts=size)


def _texts(folder: Path) -> list[str]:
    texts = json.loads((folder / "texts.json").read_text())["posts"]
    return [text + EXTRAS[number % len(EXTRAS)].format(number % 997) for number, text in enumerate(texts)]


def ours(processes: int, folder: Path) -> Outcome:
    """As the stages do it."""
    texts = _texts(folder)
    tokenizer = load_backbone("minilm", 0, torch.device("cpu")).tokenizer
    started = time.perf_counter()
    tokens = tokenise(texts, tokenizer, BATCHES, processes)
    return Outcome(time.perf_counter() - started, len(texts), _evidence(tokens.ids))


def transformers(folder: Path) -> Outcome:
    """The tokenizer called with batches of texts whose links and mentions are masked already."""
    texts = [masked(text, BATCHES.mask_urls, BATCHES.mask_mentions)[0] for text in _texts(folder)]
    tokenizer = load_backbone("minilm", 0, torch.device("cpu")).tokenizer
    started = time.perf_counter()
    ids = []
    for start in range(0, len(texts), PEER_BATCH_SIZE):
        part = texts[start : start + PEER_BATCH_SIZE]
        encoded = tokenizer(part, truncation=True, max_length=BATCHES.max_length, return_offsets_mapping=True)
        ids += [np.array(own, np.int32) for own in encoded["input_ids"]]
    return Outcome(time.perf_counter() - started, len(texts), _evidence(np.concatenate(ids)))


def _evidence(ids: np.ndarray) -> list[Any]:
    return [len(ids), hashlib.sha256(ids.tobytes()).hexdigest()[:12]]


def same(evidence: Mapping[str, Any]) -> str:
    """All sides give the same tokens."""
    if len({tuple(found) for found in evidence.values()}) != 1:
        raise SystemExit(f"the tokens differ: {evidence}")
    count, digest = evidence["ours"]
    return f"the same {count:,} tokens, {digest}."


if __name__ == "__main__":
    run(
        Benchmark(
            module="benchmarks.tokenise",
            title="Tokenising",
            unit="posts",
            prepare=prepare,
            sides={
                "ours": partial(ours, processes_for_texts()),
                "ours, one process": partial(ours, 1),
                "transformers": transformers,
            },
            same=same,
            size=200_000,
            growth=(100_000, 200_000, 400_000),
            limit="the word pieces themselves take two thirds of the time, links, mentions and hashtags a quarter.",
        )
    )
