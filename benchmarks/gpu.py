"""How far a GPU is used: fine-tuning, encoding and graph embedding beside their peers, in one table, in 8 minutes.

    python -m benchmarks.gpu [--seconds 25]          # of each side; on a CPU: --quick, to see that it runs

Needs torch, transformers, numpy, pyarrow, safetensors, h5py and, for the peers, accelerate and sentence-transformers;
a peer that is not installed is left out of the table. Texts are drawn words of the packaged vocabulary. *Share of peak*
is the work that the task needs over a large matrix product in bfloat16, measured in the same run.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from benchmarks.flops import layer_flops, needed_flops
from benchmarks.harness import machine_peaks
from benchmarks.synthetic_graph import RELATIONS, synthetic_edges, write_pbg_input
from ntulm.device import attention_kernel, choose_device, has_bf16
from ntulm.embeddings import torch_training
from ntulm.embeddings.link_prediction import Relation
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.language_model import training
from ntulm.language_model.backbone import load_backbone, packaged_directory
from ntulm.language_model.batches import Masking, training_order
from ntulm.language_model.encoder import Encoder, freeze
from ntulm.language_model.model import NtulmForMaskedLM
from ntulm.language_model.slots import Slots, describe_slots
from ntulm.language_model.tokens import Tokens, processes_for_texts, tokenise
from ntulm.language_model.training import Examples, Job, make_optimizer, train_step
from ntulm.ntus import NtuScheme, Role
from ntulm.posts import Posts
from ntulm.variants import Variant, parse_variant

BATCHES = SimpleNamespace(max_length=128, mask_urls=True, mask_mentions=True)
TRAINING = SimpleNamespace(learning_rate=5e-5, weight_decay=0.01, warmup_share=0.0, mask_share=0.15)
SLOT = SimpleNamespace(
    layer_norm=False, scale=10.0, learning_rate_factor=10.0, weight=0.3, unknown="mean", dropout=0.0, hidden_posts=0.0,
    hide_masked=False,
)  # fmt: skip
SCHEME = NtuScheme({"user": "user"}, {"author": Role("user", "author")})
AUTHORS, TABLE_WIDTH = 1000, 200
WARM_UP = 0.3  # of a side's time, which does not count: kernels are chosen, memory is reserved
WORDS_MEDIAN, WORDS_SPREAD, WORDS_LONGEST = 16.0, 0.55, 60
BATCH_SIZES = [32, 128, 512]
PROFILED_STEPS = 30


class Row(NamedTuple):
    """A side of the table."""

    loop: str
    side: str
    amount: float  # per second
    unit: str
    flops: float = 0.0  # per second


class Input(NamedTuple):
    """What all sides read."""

    posts: Posts
    table: EmbeddingTable
    tokens: Tokens
    tokenizer: Any


def made_input(folder: Path, count: int) -> Input:
    """Posts of drawn words by drawn authors, and a table of the authors."""
    random = np.random.default_rng(0)
    _, tokenizer, _ = load_backbone("minilm", 0, torch.device("cpu"))
    words = np.array(sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha()))
    lengths = np.clip(WORDS_MEDIAN * np.exp(WORDS_SPREAD * random.standard_normal(count)), 3, WORDS_LONGEST).astype(int)
    drawn = words[(len(words) * random.random(int(lengths.sum())) ** 3).astype(int)]
    texts = [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
    authors = [f"a{number}" for number in random.integers(AUTHORS, size=count)]
    posts = Posts.of(SCHEME, {"post_id": [str(number) for number in range(count)], "text": texts, "author": authors})
    vectors = random.standard_normal((AUTHORS, TABLE_WIDTH)).astype(np.float32)
    write_table(folder, ["user"] * AUTHORS, [f"a{number}" for number in range(AUTHORS)], vectors)
    return Input(posts, EmbeddingTable.load(folder), tokenise(texts, tokenizer, BATCHES), tokenizer)


def fine_tuning(given: Input, shape: str, batch_size: int, seconds: float, attention: str = "") -> Iterator[Row]:
    """Steps of `pretrain` with a slot: all of them, and those after WARM_UP of the time."""
    job = new_job(given, shape, batch_size)
    optimizer = make_optimizer(job.model, job.settings, job.slot)
    order = training_order(given.tokens.lengths, batch_size, 0, 0)
    per_post = needed_flops(job.model, given.tokens, TRAINING.mask_share) / len(given.tokens)
    marks: list[tuple[float, int]] = [(time.perf_counter(), 0)]  # after the start and after the warm-up
    done = step = 0
    while (now := time.perf_counter()) - marks[0][0] < seconds or done in (0, marks[-1][1]):
        posts = order[step % len(order)]
        train_step(job, optimizer, posts, step // len(order), step, 1.0)
        done, step = done + len(posts), step + 1
        if len(marks) == 1 and now - marks[0][0] > WARM_UP * seconds:
            _wait()
            marks.append((time.perf_counter(), done))
    _wait()
    ended = time.perf_counter()
    for name, (started, before) in zip(("from the first step on", "warm"), marks, strict=False):
        rate = (done - before) / (ended - started)
        yield Row(f"fine-tune {shape}, batch {batch_size}", f"ours, {name}{attention}", rate, "posts", rate * per_post)


def new_job(given: Input, shape: str, batch_size: int) -> Job:
    """A training run of the packaged MiniLM, or of random weights in the shape of BERT-base."""
    device = choose_device()
    if shape == "MiniLM":
        model = load_backbone("minilm", 0, device).model
    else:
        torch.manual_seed(0)
        text: Any = NtulmForMaskedLM.around(BertForMaskedLM(BertConfig()), attention_kernel(device))
        model = text.to(device)
    variant = parse_variant("author", SCHEME.of_posts)
    slots = Slots.of(given.table, SCHEME, variant, given.posts.ntus)
    described, norms = describe_slots(SCHEME, variant), slots.typical_norms()
    model.add_slots("author", described, TABLE_WIDTH, norms, SLOT, seed=0)  # type: ignore[arg-type]
    masking = Masking(given.tokenizer, TRAINING.mask_share, BATCHES.max_length)
    settings: Any = SimpleNamespace(**vars(TRAINING), batch_size=batch_size)
    examples = Examples(given.tokens, slots)
    return Job("benchmark", model, examples, examples, masking, settings, 0, SLOT, Path("none"))  # type: ignore[arg-type]


def trainer(given: Input, batch_size: int, posts: int) -> Row:
    """The Trainer of transformers with its stock collator, in bfloat16, on the first posts."""
    from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling, Trainer, TrainingArguments

    texts = given.posts.texts[:posts]
    model = AutoModelForMaskedLM.from_pretrained(packaged_directory())
    bf16 = has_bf16(choose_device())
    rows = given.tokenizer(texts, truncation=True, max_length=BATCHES.max_length)["input_ids"]
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, per_device_train_batch_size=batch_size, num_train_epochs=1, bf16=bf16, save_strategy="no",
            logging_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(given.tokenizer, mlm_probability=TRAINING.mask_share)
        data: Any = [{"input_ids": ids} for ids in rows]
        started = time.perf_counter()
        Trainer(model, arguments, data_collator=collator, train_dataset=data).train()
        _wait()
    rate = posts / (time.perf_counter() - started)
    return Row(f"fine-tune MiniLM, batch {batch_size}", "Trainer, bfloat16, no slot", rate, "posts")


def encoding(given: Input, posts: int) -> Iterator[Row]:
    """Texts to vectors, tokenising included, and the peer."""
    model, tokenizer, _ = load_backbone("minilm", 0, choose_device())
    encoder = Encoder(freeze(model), tokenizer, None, SCHEME, Variant(), BATCHES, 512)
    some = given.posts.take(np.arange(posts))
    per_post = layer_flops(model, given.tokens) / len(given.tokens)
    encoder.encode(some.take(np.arange(min(posts, 4096))))
    rate = posts / _seconds(partial(encoder.encode, some))
    yield Row("encode", "ours", rate, "posts", rate * per_post)
    seconds = _seconds(partial(tokenise, some.texts, tokenizer, BATCHES))
    yield Row("tokenise", "ours, one process", posts / seconds, "posts")
    seconds = _seconds(partial(tokenise, some.texts, tokenizer, BATCHES, processes_for_texts()))
    yield Row("tokenise", f"ours, {processes_for_texts()} processes", posts / seconds, "posts")
    if not find_spec("sentence_transformers"):
        return
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(packaged_directory()), max_seq_length=BATCHES.max_length)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    peer = SentenceTransformer(modules=[transformer, pooling], device=choose_device().type).to(torch.bfloat16)
    peer.encode(some.texts[:4096], batch_size=512, show_progress_bar=False)
    rate = posts / _seconds(partial(peer.encode, some.texts, batch_size=512, show_progress_bar=False))
    yield Row("encode", "sentence-transformers, bfloat16", rate, "posts", rate * per_post)


def graph(folder: Path, edges: int, batch_size: int) -> Row:
    """Epochs 2 and 3 of the engine `torch` at the paper's setting."""
    user, relation, hashtag = synthetic_edges(edges)
    users, lhs = np.unique(user, return_inverse=True)
    hashtags, rhs = np.unique(hashtag, return_inverse=True)
    counts = {"user": len(users), "hashtag": len(hashtags)}
    write_pbg_input(folder, (lhs, relation, rhs), counts, [Relation(name, "user", "hashtag") for name in RELATIONS])
    settings: Any = SimpleNamespace(
        dimension=TABLE_WIDTH, epochs=3, learning_rate=0.1, batch_size=batch_size, batch_negatives=500,
        uniform_negatives=500, partitions=1, seed=0,
    )  # fmt: skip
    ends: list[float] = []
    torch_training.train(settings, folder, lambda *_: ends.append(time.perf_counter()))
    rate = 2 * edges / (ends[-1] - ends[0])
    # Scores of the positives' block serve both sides; a product forward, two back.
    scores = settings.batch_negatives + 2 * settings.uniform_negatives
    return Row(f"graph, batch {batch_size:,}", "ours", rate, "edges", rate * scores * TABLE_WIDTH * 2 * 3)


def profile(given: Input, batch_size: int) -> str:
    """The ten operators that take longest in steps of fine-tuning."""
    from torch.profiler import ProfilerActivity, profile

    job = new_job(given, "MiniLM", batch_size)
    optimizer = make_optimizer(job.model, job.settings, job.slot)
    order = training_order(given.tokens.lengths, batch_size, 0, 0)
    for step in range(3):
        train_step(job, optimizer, order[step % len(order)], 0, step, 1.0)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=kinds) as found:
        for step in range(PROFILED_STEPS):
            train_step(job, optimizer, order[step % len(order)], 0, step, 1.0)
        _wait()
    return str(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def table(rows: list[Row], peak: float) -> str:
    """As Markdown."""
    lines = ["| loop | side | per second | share of peak |", "| --- | --- | ---: | ---: |"]
    for row in rows:
        share = f"{row.flops / peak:.1%}" if row.flops else ""
        lines.append(f"| {row.loop} | {row.side} | {row.amount:,.0f} {row.unit} | {share} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, and the profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=25.0, help="of each side of fine-tuning")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see on a CPU that it runs")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peaks = machine_peaks()
    peak = max(peaks.values() if name == "CPU" else [peaks["bfloat16"]])
    print(f"{name}; torch {torch.__version__}; product {peak / 1e12:.2f} TFLOP/s in bfloat16\n", flush=True)
    count, edges = (64, 3000) if options.quick else (200_000, 20_000_000)
    batch_sizes = [8] if options.quick else BATCH_SIZES
    seconds = 2.0 if options.quick else options.seconds
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        given = made_input(Path(folder), count)
        print(f"{given.tokens.lengths.mean():.1f} tokens per post\n", flush=True)
        for shape in ("MiniLM", "BERT-base"):
            for batch_size in batch_sizes:
                rows += fine_tuning(given, shape, batch_size, seconds)
                print(table(rows[-2:], peak), file=sys.stderr, flush=True)
        if torch.cuda.is_available():
            with patch.object(training, "attention_without_plans", lambda _: nullcontext()):
                rows += fine_tuning(given, "MiniLM", batch_sizes[1], seconds, ", any attention, cuDNN's too")
        if find_spec("accelerate"):
            rows += [trainer(given, batch_size, min(count, 16_000)) for batch_size in batch_sizes[:2]]
        rows += encoding(given, min(count, 60_000))
        rows += [graph(Path(folder), edges, batch_size) for batch_size in (1000, 100_000)][: 1 if options.quick else 2]
        print(table(rows, peak), "", profile(given, batch_sizes[-1]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
