"""The texts of the benchmarks: the synthetic world's words in posts whose lengths are spread like those of real ones.

Library of `benchmarks/pretrain.py` and `benchmarks/encode.py`.
"""

import json
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.synthetic import read

WORLD = ROOT / "worlds/quickstart.yaml"
WORDS = {"median": 16.0, "spread": 0.55, "longest": 60}  # log-normal: most posts are short, some are very long


def write_texts(path: Path, **sizes: int) -> None:
    """Write a JSON file of lists of texts, by name."""
    texts = _texts()
    path.write_text(json.dumps({name: [next(texts) for _ in range(size)] for name, size in sizes.items()}))


def _texts() -> Iterator[str]:
    """Posts without end: words of the world's posts, one after the other, cut at drawn lengths."""
    random = np.random.default_rng(0)
    words = cycle(_words())
    while True:
        drawn = WORDS["median"] * np.exp(WORDS["spread"] * random.standard_normal())
        yield " ".join(islice(words, int(np.clip(drawn, 3, WORDS["longest"]))))


def _words() -> list[str]:
    """Of all posts of the world, in order."""
    texts = (text for batch in read([File.of(WORLD)], None) for text in batch["text"].to_pylist())
    return [word for text in texts for word in text.split()]
