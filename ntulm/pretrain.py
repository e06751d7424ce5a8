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
from ntulm.device import choose_device
from ntulm.embeddings.table import EmbeddingTable, ntu_rows
from ntulm.files import whole_directory, write_json
from ntulm.language_model.backbone import load_backbone, load_model, save_model
from ntulm.language_model.batches import Masking, Slots, tokenise
from ntulm.language_model.checkpoint import Checkpoint
from ntulm.language_model.samples import FIXED_SEED, Sample, sample_posts
from ntulm.language_model.training import Job, Outcome, Posts, SlotTraining, TokenLosses, evaluate, train_model
from ntulm.variants import Variant, present, variant_of

if TYPE_CHECKING:
    from ntulm.language_model.config import Batches, Pretrain

TEST_LOSSES = "test_losses.safetensors"


@dataclass(frozen=True)
class Preparation:
    """What turns posts into model input."""

    tokenizer: PreTrainedTokenizerBase
    batches: "Batches"
    table: EmbeddingTable | None  # None for a variant without a slot
    variant: Variant

    def posts(self, sample: Sample) -> Posts:
        """Tokenise the texts and look up the NTUs."""
        seen = present(self.variant, sample.texts, sample.authors, sample.hashtags)
        tokens = tokenise(seen.texts, self.tokenizer, self.batches)
        if self.table is None:
            return Posts(tokens, None)
        return Posts(tokens, Slots(self.table, *ntu_rows(self.table, seen.authors, seen.hashtags, self.variant.slot)))


def run(pretrain: "Pretrain", batches: "Batches", backbone: str, variant: str, seed: int) -> None:
    """Fine-tune `variant` with `seed` and measure its perplexity on test posts; `unadapted` is only copied.

    Raises:
        UserError: an unknown variant, or an earlier stage has not run.
    """
    about = variant_of(variant)
    if not about.trained:
        _copy_backbone(backbone, variant, seed)
        return
    job, prepare = make_job(pretrain, batches, variant, seed, layout.checkpoint("pretrain", variant, seed))
    trained = train_model(job)
    test = sample_posts("test", pretrain.max_test_posts, FIXED_SEED)
    test_posts = prepare.posts(test)
    losses = evaluate(job, test_posts)
    with whole_directory(layout.pretrain(variant, seed)) as directory:
        save_model(job.model, prepare.tokenizer, directory)
        if not about.words:  # other tokens, other masks: no comparison
            counts = np.bincount(job.train.tokens.ids, minlength=len(prepare.tokenizer))
            save_losses(directory / TEST_LOSSES, test, test_posts, losses, counts)
    write_json(
        layout.metrics("pretrain", variant, seed),
        _metrics(variant, seed, trained, losses, len(test), len(job.train.tokens)),
    )
    Checkpoint(job.checkpoint, "").remove()


def make_job(
    pretrain: "Pretrain", batches: "Batches", variant: str, seed: int, checkpoint: Path
) -> tuple[Job, Preparation]:
    """The training of one variant, ready to start from the adapted model."""
    about = variant_of(variant)
    model, tokenizer = load_model(layout.ADAPT, "adapt", choose_device())
    prepare = Preparation(tokenizer, batches, EmbeddingTable.load(layout.EMBEDDINGS) if about.slot else None, about)
    sample = sample_posts("train", pretrain.max_posts, seed)
    train = prepare.posts(sample)
    if train.slots is not None:
        model.add_slot(
            variant,
            width=train.slots.table.dimension,
            norm=train.slots.typical_norm(),
            scale=pretrain.slot_scale,
            layer_norm=pretrain.slot_layer_norm,
            seed=seed,
        )
        model.config.slot_weight = pretrain.slot_weight
    job = Job(
        name=f"pretrain {variant} {seed}",
        model=model,
        train=train,
        validation=prepare.posts(sample_posts("validation", pretrain.max_validation_posts, FIXED_SEED)),
        masking=Masking(tokenizer, pretrain.mask_share, batches.max_length),
        settings=pretrain,
        seed=seed,
        slot=slot_training(pretrain, train, sample, about),
        checkpoint=checkpoint,
    )
    return job, prepare


def slot_training(pretrain: "Pretrain", train: Posts, sample: Sample, variant: Variant) -> SlotTraining:
    """How the slot of a variant is trained on the posts of a sample."""
    hidden = None
    if pretrain.hide_masked_hashtags and train.slots is not None and not variant.shuffled:
        hidden = ntu_of_token(train, sample.hashtags, variant.slot)
    return SlotTraining(pretrain.slot_learning_rate_factor, pretrain.slot_dropout, hidden)


def ntu_of_token(posts: Posts, hashtags: Sequence[Sequence[str]], slot: Sequence[str]) -> np.ndarray:
    """The NTU of the slot in whose hashtag each token stands: int64 [T], a place in `Slots.rows`, -1 for none."""
    tokens, slots = posts.tokens, posts.slots
    found = np.full(len(tokens.ids), -1, np.int64)
    if slots is None or "hashtag" not in slot:
        return found
    inside = np.flatnonzero(tokens.in_hashtag)
    owners = np.searchsorted(tokens.offsets, inside, side="right") - 1
    for token, post in zip(inside.tolist(), owners.tolist(), strict=True):
        tags, tag = hashtags[post], tokens.hashtags[tokens.hashtag[token]]
        if tag in tags:  # a post's author stands before its hashtags
            found[token] = slots.offsets[post + 1] - len(tags) + list(tags).index(tag)
    return found


def _copy_backbone(backbone: str, variant: str, seed: int) -> None:
    model, tokenizer, _ = load_backbone(backbone, seed, choose_device())
    with whole_directory(layout.pretrain(variant, seed)) as directory:
        save_model(model, tokenizer, directory)
    write_json(layout.metrics("pretrain", variant, seed), {"variant": variant, "seed": seed, "train_posts": 0})


def save_losses(path: Path, test: Sample, posts: Posts, losses: TokenLosses, counts: np.ndarray) -> None:
    """Write the loss of each masked test token; `post` counts all posts of the test split, from 0.

    `counts` int64 [V] says how often each token stands in the training posts.
    """
    owners = np.searchsorted(posts.tokens.offsets, losses.places, side="right") - 1
    save_file(
        {
            "post": test.ordinals[owners],
            "token": posts.tokens.ids[losses.places],
            "train_count": counts[posts.tokens.ids[losses.places]],
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
