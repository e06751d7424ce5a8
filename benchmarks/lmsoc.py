"""The toy task of LMSOC (Kulkarni et al. 2021, Figure 2): who is president in a year of which no sentence was read?

    python -m benchmarks.lmsoc FOLDER [--seeds 0 1 2] [--reach 1]

FOLDER holds `pairs.csv.gz` (year, text: sentences of every fifth year, "The president is Bob") and `cloze.csv.gz`
(year, seen, text with [MASK], answer: every year). The year is an NTU, as the author of a sentence, in a graph in which
each year has edges to the next ones; the engine `torch` embeds it, MiniLM with a fresh head is fine-tuned on the
sentences with the year in its slot, and without. Mean reciprocal rank of the answer in the whole vocabulary; intervals
of 95 % over questions and seeds (bootstrap). Published: BERT 0.180 / 0.180 / 0.180 (seen, unseen, all), control codes
1.000 / 0.141 / 0.313, LMSOC 1.000 / 0.730 / 0.784.
"""

import argparse
import csv
import gzip
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.synthetic_graph import write_pbg_input
from ntulm.device import choose_device, mixed_precision
from ntulm.embeddings import torch_training
from ntulm.embeddings.link_prediction import Relation
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.language_model.backbone import load_backbone
from ntulm.language_model.batches import Masking
from ntulm.language_model.config import Adapt, Slot
from ntulm.language_model.slots import Slots, describe_slots
from ntulm.language_model.tokens import tokenise
from ntulm.language_model.training import Examples, Job, train_model
from ntulm.ntus import NtuScheme, Role
from ntulm.posts import Posts
from ntulm.variants import parse_variant

Rows = list[dict[str, str]]
SCHEME = NtuScheme({"year": "verbatim"}, {"author": Role("year", "author")})
BATCHES = SimpleNamespace(max_length=16, mask_urls=False, mask_mentions=False)
GRAPH = {"dimension": 32, "epochs": 300, "learning_rate": 0.1, "batch_size": 50, "batch_negatives": 10,
         "uniform_negatives": 10, "partitions": 1}  # fmt: skip
TRAINING = Adapt(
    backbone="minilm", seed=0, max_posts=1, max_validation_posts=1, epochs=1, patience=9, evaluations_per_epoch=1,
    batch_size=32, learning_rate=3e-4, weight_decay=0.01, warmup_share=0.05, mask_share=0.3,
)  # fmt: skip
SLOT = Slot(
    layer_norm=False, scale=10.0, learning_rate_factor=10.0, weight=None, unknown="mean", dropout=0.0, hidden_posts=0.0,
    hide_masked=False,
)  # fmt: skip
READ = 8000  # sentences: each of the forty 200 times
RESAMPLES = 2000


def rows_of(path: Path) -> Rows:
    """The rows of a packed CSV file."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def embed_years(folder: Path, years: list[str], reach: int, seed: int) -> EmbeddingTable:
    """The table of a graph in which each year has edges to the `reach` years after it."""
    ends = np.array([(one, one + step) for step in range(1, reach + 1) for one in range(len(years) - step)])
    edges = ends[:, 0], np.zeros(len(ends), np.int64), ends[:, 1]
    write_pbg_input(folder, edges, {"year": len(years)}, [Relation("next", "year", "year")])
    settings: Any = SimpleNamespace(**GRAPH, seed=seed)
    model, _ = torch_training.train(settings, folder, lambda *_: None)
    write_table(folder, ["year"] * len(years), years, model.nodes["year"])
    return EmbeddingTable.load(folder)


def ranks(pairs: Rows, cloze: Rows, table: EmbeddingTable | None, seed: int) -> np.ndarray:
    """Fine-tune on the sentences, with the year or (no table) without, and rank the answer of each question."""
    device = choose_device()
    model, tokenizer, _ = load_backbone("minilm", seed, device)
    read = [pairs[place] for place in np.random.default_rng(seed).permutation(len(pairs))[:READ]]
    tokens = tokenise([row["text"] for row in read], tokenizer, BATCHES)
    counts = np.bincount(tokens.ids, minlength=int(model.encoder.config.vocab_size))
    model.start_head(torch.from_numpy(counts))
    variant = parse_variant("author", SCHEME.of_posts)
    train, asked = (_slots(rows, table, variant) for rows in (read, cloze))
    if train is not None:
        described, norms = describe_slots(SCHEME, variant), train.typical_norms()
        model.add_slots("author", described, train.table.dimension, norms, SLOT, seed)
    masking = Masking(tokenizer, TRAINING.mask_share, BATCHES.max_length)
    with tempfile.TemporaryDirectory() as folder:
        few = tokens if len(tokens) < 64 else tokenise([row["text"] for row in read[:64]], tokenizer, BATCHES)
        validation = Examples(few, None if table is None else _slots(read[:64], table, variant))
        slot = None if table is None else SLOT
        train_model(
            Job("lmsoc", model, Examples(tokens, train), validation, masking, TRAINING, seed, slot, Path(folder) / "c")
        )
    model.eval()
    found = tokenizer([row["text"] for row in cloze], padding=True, return_tensors="pt").to(device)
    more = {} if asked is None else asked.tensors(np.arange(len(cloze)), device)
    masked = found["input_ids"] == tokenizer.mask_token_id
    with torch.inference_mode(), mixed_precision(device):
        logits = model(found["input_ids"], found["attention_mask"], **more).logits[masked].float()
    answers = torch.tensor(tokenizer.convert_tokens_to_ids([row["answer"] for row in cloze]), device=device)
    if (answers == tokenizer.unk_token_id).any():
        raise SystemExit("an answer is no word of the vocabulary")
    own = logits.gather(1, answers[:, None])
    return (logits > own).sum(1).cpu().numpy() + 1


def _slots(rows: Rows, table: EmbeddingTable | None, variant: Any) -> Slots | None:
    if table is None:
        return None
    fields = {"post_id": [""] * len(rows), "text": [row["text"] for row in rows], "author": [r["year"] for r in rows]}
    return Slots.of(table, SCHEME, variant, Posts.of(SCHEME, fields).ntus)


def interval(reciprocal: np.ndarray) -> str:
    """The mean of [S, N] reciprocal ranks, with an interval over questions and seeds."""
    random = np.random.default_rng(0)
    seeds, questions = reciprocal.shape
    draws = [
        reciprocal[random.integers(seeds, size=seeds)][:, random.integers(questions, size=questions)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{reciprocal.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--reach", type=int, default=1, help="edges of a year to so many years after it")
    given = parser.parse_args()
    pairs, cloze = rows_of(given.folder / "pairs.csv.gz"), rows_of(given.folder / "cloze.csv.gz")
    seen = np.array([row["seen"] == "1" for row in cloze])
    years = sorted({row["year"] for row in cloze})
    print("| model | seen | unseen | all |", "| --- | --- | --- | --- |", sep="\n", flush=True)
    for name in ("text", "year in the slot"):
        reciprocal = []
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as folder:
                table = embed_years(Path(folder) / "graph", years, given.reach, seed) if name != "text" else None
                reciprocal.append(1 / ranks(pairs, cloze, table, seed))
        scores = np.array(reciprocal)
        cells = (interval(scores[:, seen]), interval(scores[:, ~seen]), interval(scores))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
