"""Masked language modelling: ours against the Trainer of `transformers` with its stock collator.

Run: `python -m benchmarks.pretrain`. Both start from the same weights (the packaged MiniLM, its fresh head included),
see the same posts once, in as many batches, at the same rates; the time is from texts to trained weights.
"""

import json
import math
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.flops import needed_flops
from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.texts import write_texts
from ntulm.device import choose_device
from ntulm.language_model.backbone import load_backbone
from ntulm.language_model.batches import Masking
from ntulm.language_model.config import Adapt, Batches
from ntulm.language_model.tokens import tokenise
from ntulm.language_model.training import Examples, Job, evaluate, train_model

VALIDATION = 400
BATCHES = Batches(max_length=128, mask_urls=True, mask_mentions=True)
SPREAD = 0.1  # bits by which ours may be worse before the benchmark fails


def prepare(folder: Path, size: int) -> None:
    """Write the texts and the weights from which all sides start, with a head that knows how frequent tokens are."""
    write_texts(folder / "texts.json", train=size, validation=VALIDATION)
    model, tokenizer, _ = load_backbone("minilm", 0, torch.device("cpu"))
    texts = json.loads((folder / "texts.json").read_text())["train"]
    counts = np.bincount(tokenise(texts, tokenizer, BATCHES).ids, minlength=model.encoder.config.vocab_size)
    model.start_head(torch.from_numpy(counts))
    model.backbone.save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")


def settings() -> Adapt:
    """The recipe `quickstart`, with one evaluation."""
    return Adapt(
        backbone="start",
        max_posts=1,
        max_validation_posts=VALIDATION,
        epochs=1,
        patience=1,
        evaluations_per_epoch=1,
        batch_size=32,
        learning_rate=5e-4,
        weight_decay=0.01,
        warmup_share=0.05,
        mask_share=0.15,
        seed=0,
    )


def start_job(folder: Path) -> tuple[Job, float]:
    """A training run on the posts of the folder, and the seconds that their tokenisation took."""
    model, tokenizer, _ = load_backbone(str(folder / "start"), 0, choose_device())
    texts = json.loads((folder / "texts.json").read_text())
    started = time.perf_counter()
    train = Examples(tokenise(texts["train"], tokenizer, BATCHES))
    seconds = time.perf_counter() - started
    validation = Examples(tokenise(texts["validation"], tokenizer, BATCHES))
    masking = Masking(tokenizer, settings().mask_share, BATCHES.max_length)
    job = Job("ours", model, train, validation, masking, settings(), 0, None, folder / "checkpoint")
    return job, seconds


def ours(folder: Path) -> Outcome:
    """The loop of the stages `adapt` and `pretrain`; the evaluation at its end is not counted."""
    job, seconds = start_job(folder)
    shutil.rmtree(job.checkpoint, ignore_errors=True)  # of the round before: nothing would be left to do
    outcome = train_model(job)
    posts = len(job.train.tokens)
    return _outcome(job, seconds + posts / outcome.posts_per_second)


def trainer(precision: str, folder: Path) -> Outcome:
    """Trainer and DataCollatorForLanguageModeling as they come; then the same evaluation as ours."""
    from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling, Trainer

    job, seconds = start_job(folder)
    model: Any = AutoModelForMaskedLM.from_pretrained(folder / "start")
    tokenizer = load_backbone(str(folder / "start"), 0, torch.device("cpu")).tokenizer
    texts = json.loads((folder / "texts.json").read_text())["train"]
    started = time.perf_counter()
    rows = tokenizer(texts, truncation=True, max_length=BATCHES.max_length)
    data = [{"input_ids": ids} for ids in rows["input_ids"]]
    with tempfile.TemporaryDirectory() as output:
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=job.settings.mask_share)
        arguments = trainer_arguments(output, precision, job, -(-len(data) // job.settings.batch_size))
        Trainer(model, arguments, data_collator=collator, train_dataset=data).train()
    seconds = time.perf_counter() - started
    job.model.backbone.load_state_dict(model.state_dict())
    return _outcome(job, seconds)


def trainer_arguments(output: str, precision: str, job: Job, steps: int) -> Any:
    """The same settings in the Trainer's words; nothing is saved or logged in between."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=output,
        per_device_train_batch_size=job.settings.batch_size,
        num_train_epochs=1,
        learning_rate=job.settings.learning_rate,
        weight_decay=job.settings.weight_decay,
        warmup_steps=math.ceil(steps * job.settings.warmup_share),
        bf16=precision == "bfloat16",
        use_cpu=job.model.device.type == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _outcome(job: Job, seconds: float) -> Outcome:
    bits = float(np.mean(evaluate(job, job.validation).bits))
    flops = needed_flops(job.model, job.train.tokens, job.settings.mask_share)
    return Outcome(seconds, len(job.train.tokens), bits, flops)


def same(evidence: Any) -> str:
    """The validation loss after the same posts is equal up to the spread of seeds."""
    bits = ", ".join(f"{side} {value:.3f}" for side, value in evidence.items())
    if evidence["ours"] > min(evidence.values()) + SPREAD:
        sys.exit(f"the loss of ours is worse: {bits}")
    return f"bits per masked token of {VALIDATION} validation posts, with the same masks: {bits}"


if __name__ == "__main__":
    run(
        Benchmark(
            module="benchmarks.pretrain",
            title="Fine-tuning the language model",
            unit="posts",
            prepare=prepare,
            sides={
                "ours": ours,
                "Trainer, bfloat16": partial(trainer, "bfloat16"),
                "Trainer, float32": partial(trainer, "float32"),
            },
            same=same,
            size=960,
            rounds=2,
            growth=(480, 960, 1920),
            limit="products take two thirds of a step, those of the layers and of the head over all words at masked "
            "places; softmax, GELU, dropout and their gradients most of the rest.",
        )
    )
