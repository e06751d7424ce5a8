"""Adapt the backbone: fine-tune it with its MLM head on the texts of training posts, without NTUs.

Reads `data/corpus/` and the backbone. Writes `data/adapt/` (a model directory of the variant `text`) and
`metrics/adapt.json`. Run: `ntulm adapt`.

The paper starts each variant from a pretrained head. Where the head starts fresh, learning it would eat the budget in
which variants differ; so it is learnt here once, and `pretrain` starts every variant from the result.
"""

import sys
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ntulm.device import choose_device
from ntulm.errors import UserError
from ntulm.files import whole_directory, write_json
from ntulm.language_model.backbone import load_backbone, save_model
from ntulm.language_model.batches import Masking
from ntulm.language_model.checkpoint import Checkpoint
from ntulm.language_model.model import NtulmForMaskedLM
from ntulm.language_model.ranks import Ranks, joined
from ntulm.language_model.samples import FIXED_SEED, NO_NTUS, sample_posts
from ntulm.language_model.tokens import Tokens, processes_for_texts, tokenise
from ntulm.language_model.training import Examples, Job, Outcome, train_model
from ntulm.layout import Layout

if TYPE_CHECKING:
    from ntulm.language_model.config import Adapt, Batches


def run(adapt: "Adapt", batches: "Batches", layout: Layout) -> None:
    """Adapt the backbone; `max_posts: 0` keeps it as it is. One of several processes takes part, and the first writes.

    Raises:
        UserError: no corpus, no such backbone, or posts longer than it can read.
    """
    with joined() as ranks:
        _adapt(adapt, batches, layout, ranks)


def _adapt(adapt: "Adapt", batches: "Batches", layout: Layout, ranks: Ranks) -> None:
    model, tokenizer, fresh_head = load_backbone(adapt.backbone, adapt.seed, choose_device())
    check_length(model, batches.max_length)
    trained = Outcome(0, 0.0, [])
    train_posts = 0
    checkpoint = layout.checkpoint("adapt")
    if adapt.max_posts:
        train = sample_posts("train", adapt.max_posts, adapt.seed, NO_NTUS, layout).texts
        validation = sample_posts("validation", adapt.max_validation_posts, FIXED_SEED, NO_NTUS, layout).texts
        train_posts, train_tokens = len(train), tokenise(train, tokenizer, batches, processes_for_texts())
        if fresh_head:
            model.start_head(_token_counts(train_tokens, model))
        job = Job(
            name="adapt",
            model=model,
            train=Examples(train_tokens),
            validation=Examples(tokenise(validation, tokenizer, batches)),
            masking=Masking(tokenizer, adapt.mask_share, batches.max_length),
            settings=adapt,
            seed=adapt.seed,
            slot=None,
            checkpoint=checkpoint,
            ranks=ranks,
        )
        trained = train_model(job)
    if ranks.leads:
        _write(model, tokenizer, trained, train_posts, layout)
        Checkpoint(checkpoint, "").remove()


def check_length(model: NtulmForMaskedLM, max_length: int) -> None:
    """Refuse posts that are longer than the backbone's positions reach.

    Raises:
        UserError: names the longest length that works.
    """
    embeddings = model.encoder.embeddings
    reserved = embeddings.padding_idx + 1 if hasattr(embeddings, "padding_idx") else 0  # RoBERTa counts from there
    longest = embeddings.position_embeddings.num_embeddings - reserved
    if max_length > longest:
        raise UserError(f"batches.max_length: {max_length} is more than the backbone's {longest} positions")


def _token_counts(tokens: Tokens, model: NtulmForMaskedLM) -> Tensor:
    size = int(model.encoder.embeddings.word_embeddings.num_embeddings)
    return torch.from_numpy(np.bincount(tokens.ids, minlength=size))


def _write(
    model: NtulmForMaskedLM, tokenizer: PreTrainedTokenizerBase, trained: Outcome, train_posts: int, layout: Layout
) -> None:
    with whole_directory(layout.adapt) as directory:
        save_model(model, tokenizer, directory)
    write_json(
        layout.metrics("adapt"),
        {
            "train_posts": train_posts,
            "steps": trained.steps,
            "validation_bits": min((entry["validation_bits"] for entry in trained.history), default=None),
            "history": trained.history,
        },
    )
    rate = f"{trained.posts_per_second:.0f} posts per second"
    print(f"adapt: {train_posts} posts, {trained.steps} steps, {rate} -> {layout.adapt}", file=sys.stderr)
