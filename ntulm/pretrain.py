"""Fine-tune one variant: the adapted backbone, with NTU slots unless the variant is `text` (§3.2, §4.2, §5.1).

Reads `data/corpus/`, `data/embeddings/`, `data/adapt/`. Writes `data/pretrain/VARIANT/SEED/` (a model directory and
`test_losses.safetensors`) and `metrics/pretrain/VARIANT-SEED.json`.
Run: `ntulm pretrain --variant VARIANT --seed SEED`.

Variants of a seed differ in the slots and in nothing else: posts, their order, masks, budget and settings are the same.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from ntulm.device import choose_device
from ntulm.embeddings.table import EmbeddingTable
from ntulm.files import whole_directory, write_json
from ntulm.language_model.backbone import load_backbone, load_model, save_model
from ntulm.language_model.batches import Masking
from ntulm.language_model.checkpoint import Checkpoint
from ntulm.language_model.model import LEFT_OUT
from ntulm.language_model.ranks import ALONE, Ranks, joined
from ntulm.language_model.samples import FIXED_SEED, sample_posts
from ntulm.language_model.slots import Slots, describe_slots, ntus_of_tokens
from ntulm.language_model.tokens import processes_for_texts, tokenise
from ntulm.language_model.training import Examples, Job, Outcome, TokenLosses, evaluate, train_model
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.posts import Posts
from ntulm.variants import Variant, parse_variant

if TYPE_CHECKING:
    from ntulm.language_model.config import Batches, Pretrain

TEST_LOSSES = "test_losses.safetensors"


@dataclass(frozen=True)
class Preparation:
    """What turns posts into model input."""

    tokenizer: PreTrainedTokenizerBase
    batches: "Batches"
    table: EmbeddingTable | None  # None for a variant without slots
    scheme: NtuScheme
    variant: Variant
    leave_out: bool  # see `NtulmConfig.leaves_out`

    def examples(self, posts: Posts, hide_masked: bool = False) -> Examples:
        """Tokenise the texts and look up the NTUs; `hide_masked`: and which of them each masked token hides."""
        seen = posts.seen_by(self.variant)
        tokens = tokenise(seen.texts, self.tokenizer, self.batches, processes_for_texts())
        if self.table is None:
            return Examples(tokens)
        slots = Slots.of(self.table, self.scheme, self.variant, seen.ntus, self.leave_out)
        if not hide_masked or self.variant.shuffled:
            return Examples(tokens, slots)
        return Examples(tokens, slots, ntus_of_tokens(slots, tokens, self.scheme, self.variant, seen.ntus))


@dataclass(frozen=True)
class Measured:
    """Test posts and their losses."""

    posts: Posts
    examples: Examples
    losses: TokenLosses


def run(
    pretrain: "Pretrain",
    batches: "Batches",
    scheme: NtuScheme,
    backbone: str,
    variant: str,
    seed: int,
    layout: Layout,
) -> None:
    """Fine-tune `variant` with `seed` and measure its perplexity on test posts; `unadapted` is only copied.

    One of several processes takes part, and the first writes.

    Raises:
        UserError: an unknown variant, or an earlier stage has not run.
    """
    about = parse_variant(variant, scheme.of_posts)
    with joined() as ranks:
        if not about.trained and ranks.leads:
            _copy_backbone(backbone, variant, seed, layout)
        if not about.trained:
            return
        checkpoint = layout.checkpoint("pretrain", variant, seed)
        job, prepare = make_job(pretrain, batches, scheme, variant, seed, checkpoint, layout, ranks)
        trained = train_model(job)
        posts = sample_posts("test", pretrain.max_test_posts, FIXED_SEED, scheme, layout)
        examples = prepare.examples(posts)
        measured = Measured(posts, examples, evaluate(job, examples))
        if ranks.leads:
            _write(variant, job, prepare, trained, measured, layout)


def _write(variant: str, job: Job, prepare: Preparation, trained: Outcome, measured: Measured, layout: Layout) -> None:
    posts, losses, seed = measured.posts, measured.losses, job.seed
    with whole_directory(layout.pretrain(variant, seed)) as directory:
        save_model(job.model, prepare.tokenizer, directory)
        if not prepare.variant.words:  # other tokens, other masks: no comparison
            counts = np.bincount(job.train.tokens.ids, minlength=len(prepare.tokenizer))
            save_losses(directory / TEST_LOSSES, posts, measured.examples, losses, counts)
    write_json(
        layout.metrics("pretrain", variant, seed),
        _metrics(variant, seed, trained, losses, len(posts), len(job.train.tokens)),
    )
    Checkpoint(job.checkpoint, "").remove()


def make_job(
    pretrain: "Pretrain",
    batches: "Batches",
    scheme: NtuScheme,
    variant: str,
    seed: int,
    checkpoint: Path,
    layout: Layout,
    ranks: Ranks = ALONE,
) -> tuple[Job, Preparation]:
    """The training of one variant, ready to start from the adapted model."""
    about = parse_variant(variant, scheme.of_posts)
    model, tokenizer = load_model(layout.adapt, "adapt", choose_device())
    table = EmbeddingTable.load(layout.embeddings) if about.slots else None
    leave_out = bool(about.slots) and pretrain.slot.unknown == LEFT_OUT
    prepare = Preparation(tokenizer, batches, table, scheme, about, leave_out)
    train = prepare.examples(sample_posts("train", pretrain.max_posts, seed, scheme, layout), pretrain.slot.hide_masked)
    if train.slots is not None:
        model.add_slots(
            variant,
            describe_slots(scheme, about),
            width=train.slots.table.dimension,
            norms=train.slots.typical_norms(),
            settings=pretrain.slot,
            seed=seed,
        )
    validation = sample_posts("validation", pretrain.max_validation_posts, FIXED_SEED, scheme, layout)
    job = Job(
        name=f"pretrain {variant} {seed}",
        model=model,
        train=train,
        validation=prepare.examples(validation),
        masking=Masking(tokenizer, pretrain.mask_share, batches.max_length),
        settings=pretrain,
        seed=seed,
        slot=pretrain.slot if about.slots else None,
        checkpoint=checkpoint,
        ranks=ranks,
    )
    return job, prepare


def _copy_backbone(backbone: str, variant: str, seed: int, layout: Layout) -> None:
    model, tokenizer, _ = load_backbone(backbone, seed, choose_device())
    with whole_directory(layout.pretrain(variant, seed)) as directory:
        save_model(model, tokenizer, directory)
    write_json(layout.metrics("pretrain", variant, seed), {"variant": variant, "seed": seed, "train_posts": 0})


def save_losses(path: Path, posts: Posts, test: Examples, losses: TokenLosses, counts: np.ndarray) -> None:
    """Write the loss of each masked test token; `post` counts all posts of the test split, from 0.

    `counts` int64 [V] says how often each token stands in the training posts.
    """
    owners = np.searchsorted(test.tokens.offsets, losses.places, side="right") - 1
    save_file(
        {
            "post": posts.table["ordinal"].to_numpy()[owners],
            "token": test.tokens.ids[losses.places],
            "train_count": counts[test.tokens.ids[losses.places]],
            "bits": losses.bits,
            "in_hashtag": test.tokens.in_hashtag[losses.places],
        },
        path,
    )


def _metrics(
    variant: str, seed: int, trained: Outcome, losses: TokenLosses, test_posts: int, train_posts: int
) -> dict[str, object]:
    bits = float(losses.bits.mean(dtype=np.float64))
    rate = f"{trained.posts_per_second:.0f} posts per second"
    said = f"test perplexity {bits:.4f} bits on {len(losses.bits)} tokens, trained at {rate}"
    print(f"pretrain {variant} {seed}: {said}", file=sys.stderr)
    return {
        "variant": variant,
        "seed": seed,
        "perplexity_bits": bits,
        "masked_tokens": len(losses.bits),
        "test_posts": test_posts,
        "train_posts": train_posts,
        "steps": trained.steps,
        "history": trained.history,
    }
