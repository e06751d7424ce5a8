"""Fine-tune one variant: the adapted backbone, with an NTU slot unless the variant is `text` (§3.2, §4.2, §5.1).

Reads `data/corpus/`, `data/embeddings/`, `data/adapt/`. Writes `data/pretrain/VARIANT/SEED/` (a model directory and
`test_losses.safetensors`) and `metrics/pretrain/VARIANT-SEED.json`.
Run: `ntulm pretrain --variant VARIANT --seed SEED`.

Variants of a seed differ in the slot and in nothing else: posts, their order, masks, budget and settings are the same.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from ntulm import layout
from ntulm.backbone import load_model, save_model
from ntulm.batches import Masking, Slots, tokenise
from ntulm.checkpoint import Checkpoint
from ntulm.device import choose_device
from ntulm.files import whole_directory, write_json
from ntulm.samples import FIXED_SEED, Sample, sample_posts
from ntulm.table import EmbeddingTable, ntu_names, ntu_rows
from ntulm.training import Job, Outcome, Posts, TokenLosses, evaluate, train_model

if TYPE_CHECKING:
    from ntulm.config import Batches, Pretrain

TEST_LOSSES = "test_losses.safetensors"


@dataclass(frozen=True)
class Preparation:
    """What turns posts into model input."""

    tokenizer: PreTrainedTokenizerBase
    batches: "Batches"
    table: EmbeddingTable | None  # None for the variant `text`
    names: Sequence[str]

    def posts(self, sample: Sample) -> Posts:
        """Tokenise the texts and look up the NTUs."""
        tokens = tokenise(sample.texts, self.tokenizer, self.batches)
        if self.table is None:
            return Posts(tokens, None)
        return Posts(tokens, Slots(self.table, *ntu_rows(self.table, sample.authors, sample.hashtags, self.names)))


def run(pretrain: "Pretrain", batches: "Batches", variant: str, seed: int) -> None:
    """Fine-tune `variant` with `seed` and measure its perplexity on test posts.

    Raises:
        UserError: an unknown variant, or an earlier stage has not run.
    """
    names = ntu_names(variant)
    model, tokenizer = load_model(layout.ADAPT, "adapt", choose_device())
    prepare = Preparation(tokenizer, batches, EmbeddingTable.load(layout.EMBEDDINGS) if names else None, names)
    train = prepare.posts(sample_posts("train", pretrain.max_posts, seed))
    if train.slots is not None:
        model.add_slot(
            variant,
            width=train.slots.table.dimension,
            norm=train.slots.typical_norm(),
            scale=pretrain.slot_scale,
            layer_norm=pretrain.slot_layer_norm,
            seed=seed,
        )
    job = Job(
        name=f"pretrain {variant} {seed}",
        model=model,
        train=train,
        validation=prepare.posts(sample_posts("validation", pretrain.max_validation_posts, FIXED_SEED)),
        masking=Masking(tokenizer, pretrain.mask_share, batches.max_length),
        settings=pretrain,
        seed=seed,
        slot_learning_rate_factor=pretrain.slot_learning_rate_factor,
        checkpoint=layout.checkpoint("pretrain", variant, seed),
    )
    trained = train_model(job)
    test = sample_posts("test", pretrain.max_test_posts, FIXED_SEED)
    test_posts = prepare.posts(test)
    losses = evaluate(job, test_posts)
    with whole_directory(layout.pretrain(variant, seed)) as directory:
        save_model(model, tokenizer, directory)
        save_losses(directory / TEST_LOSSES, test, test_posts, losses)
    write_json(
        layout.metrics("pretrain", variant, seed),
        _metrics(variant, seed, trained, losses, len(test), len(train.tokens)),
    )
    Checkpoint(job.checkpoint, "").remove()


def save_losses(path: Path, test: Sample, posts: Posts, losses: TokenLosses) -> None:
    """Write the loss of each masked test token; `post` counts all posts of the test split, from 0."""
    owners = np.searchsorted(posts.tokens.offsets, losses.places, side="right") - 1
    save_file(
        {
            "post": test.ordinals[owners],
            "token": posts.tokens.ids[losses.places],
            "bits": losses.bits,
            "in_hashtag": posts.tokens.in_hashtag[losses.places],
        },
        path,
    )


def _metrics(
    variant: str, seed: int, trained: Outcome, losses: TokenLosses, test_posts: int, train_posts: int
) -> dict[str, object]:
    bits = float(losses.bits.mean(dtype=np.float64))
    print(f"pretrain {variant} {seed}: test perplexity {bits:.4f} bits on {len(losses.bits)} tokens", file=sys.stderr)
    return {
        "variant": variant,
        "seed": seed,
        "perplexity_bits": bits,
        "masked_tokens": len(losses.bits),
        "test_posts": test_posts,
        "train_posts": train_posts,
        "steps": trained.steps,
        "posts_per_second": trained.posts_per_second,
        "history": trained.history,
    }
