"""`ntulm embed` and `ntulm predict` from a CSV to a Parquet file, start included, beside a script around `encode` of
sentence-transformers.

Run: `python -m benchmarks.commands`. The packaged MiniLM with an untrained slot, which takes as long, and a classifier
that `ntulm train-classifier` makes of 300 rows.
"""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.serve import AUTHORS, LEAST_COSINE, write_model
from benchmarks.texts import write_texts

NTULM = str(Path(sys.executable).parent / "ntulm")
LABELLED, COMPARED = 300, 200
TASK, LABELS = "length", ("short", "long")
# As its users write it: a table in, a batch size that suits a CPU, a table out.
PEER = """
import sys, pandas as pd
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from ntulm.language_model.backbone import packaged_directory
source, target = sys.argv[1:]
posts = pd.read_csv(source, dtype=str)
transformer = Transformer(str(packaged_directory()), max_seq_length=128)
model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")], device="cpu")
vectors = model.encode(posts["text"].tolist(), batch_size=32, show_progress_bar=False)
pd.DataFrame({"post_id": posts["post_id"], "vector": list(vectors)}).to_parquet(target)
"""


def prepare(folder: Path, size: int) -> None:
    """Posts, a model, and a classifier that tells short posts from long ones."""
    write_texts(folder / "texts.json", posts=size, labelled=LABELLED)
    texts = json.loads((folder / "texts.json").read_text())
    write_table(folder / "posts.csv", texts["posts"])
    middle = float(np.median([len(text) for text in texts["labelled"]]))
    write_table(folder / "labels.csv", texts["labelled"], [LABELS[len(text) > middle] for text in texts["labelled"]])
    write_model(folder / "model")
    seconds = timed(folder, NTULM, "train-classifier", "labels.csv", "--name", TASK, "--model", "model")
    print(f"train-classifier of {LABELLED} rows: {seconds:.0f} s", file=sys.stderr)


def write_table(path: Path, texts: list[str], labels: list[str] | None = None) -> None:
    """A CSV of posts by the model's authors."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["post_id", "author", "text", *(["label"] if labels else [])])
        for number, text in enumerate(texts):
            own = [labels[number]] if labels else []
            rows.writerow([f"p{number}", f"author{number % AUTHORS}", text, *own])


def clean(folder: Path) -> Path:
    """The file to write, which is not there."""
    out = folder / "out.parquet"
    for path in folder.glob(f"{out.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return out


def timed(folder: Path, *command: str) -> float:
    """Seconds of a command, start included."""
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
    return time.perf_counter() - started


def embed(again: bool, folder: Path) -> Outcome:
    """Into a new file; or the second of two times, when nothing is new."""
    out = clean(folder)
    arguments = (NTULM, "embed", "posts.csv", "--model", "model", "--out", out.name)
    for _ in range(1 + again):
        seconds = timed(folder, *arguments)
    return outcome(folder, out, seconds)


def predict(folder: Path) -> Outcome:
    """Labels and probabilities."""
    out = clean(folder)
    seconds = timed(folder, NTULM, "predict", "posts.csv", "--model", "model", "--task", TASK, "--out", out.name)
    return Outcome(seconds, posts_in(folder), pq.read_metadata(out).num_rows)


def peer(folder: Path) -> Outcome:
    """The script."""
    out = clean(folder)
    return outcome(folder, out, timed(folder, sys.executable, "-c", PEER, "posts.csv", out.name))


def outcome(folder: Path, out: Path, seconds: float) -> Outcome:
    """How many posts, and some of their vectors."""
    table = pq.read_table(out, columns=["post_id", "vector"]).sort_by("post_id")
    return Outcome(seconds, posts_in(folder), [len(table), table["vector"][:COMPARED].to_pylist()])


def posts_in(folder: Path) -> int:
    return len(json.loads((folder / "texts.json").read_text())["posts"])


def same(evidence: Mapping[str, Any]) -> str:
    """Every post has a row; embedding again changes no vector."""
    counts = {count for count, _ in (evidence[side] for side in evidence if side != "ntulm predict")}
    if counts != {evidence["ntulm predict"]}:
        sys.exit(f"rows differ: {counts}, {evidence['ntulm predict']}")
    first, again = (np.array(evidence[side][1]) for side in ("ntulm embed", "ntulm embed, nothing new"))
    cosines = (first * again).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(again, axis=1)
    if cosines.min() < LEAST_COSINE:
        sys.exit(f"a vector differs after embedding again: cosine {cosines.min():.5f}")
    return f"{counts.pop():,} rows from each side"


if __name__ == "__main__":
    run(
        Benchmark(
            module="benchmarks.commands",
            title="Commands, from a CSV to a Parquet file",
            unit="posts",
            prepare=prepare,
            sides={
                "ntulm embed": partial(embed, False),
                "ntulm embed, nothing new": partial(embed, True),
                "ntulm predict": predict,
                "sentence-transformers, a script": peer,
            },
            same=same,
            size=5000,
            growth=(2000, 8000, 32000),
            limit="encoding; of few posts the imports of torch and transformers, some seconds.",
            notes=[f"Start included. NTUs are looked up for each post, in a table of {AUTHORS:,} authors."],
        )
    )
