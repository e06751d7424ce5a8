"""The perplexity of finished models with other shares of the tokens masked than they were trained with.

    python -m benchmarks.mask_share PROJECT [0.15 0.6 …]

PROJECT holds params.yaml and what `dvc repro` wrote. One Markdown row per share and group of tokens: bits per masked
token of `text` and of `author+hashtag`, on the same posts and masks, and the gain with its interval over posts and
seeds.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ntulm.device import choose_device
from ntulm.embeddings.table import EmbeddingTable
from ntulm.evaluate.bootstrap import Bootstrap, ratio_samples, relative_gain
from ntulm.language_model.backbone import load_model
from ntulm.language_model.batches import Masking
from ntulm.language_model.samples import FIXED_SEED, sample_posts
from ntulm.language_model.training import Job, evaluate
from ntulm.layout import Layout
from ntulm.params import Params, load_params
from ntulm.pretrain import Preparation
from ntulm.variants import parse_variant

BASELINE, SYSTEM = "text", "author+hashtag"


def main() -> None:
    """Measure and print."""
    shares = [float(argument) for argument in sys.argv[2:]] or [0.15]
    layout = Layout(Path(sys.argv[1]))
    params = load_params(layout.params)
    print("| masked | tokens | posts | text | author+hashtag | gain |")
    print("| --: | :-- | --: | --: | --: | --: |")
    for share in shares:
        rows(params, share, layout)


def rows(params: Params, share: float, layout: Layout) -> None:
    """The rows of one share."""
    found = {
        system: [losses(params, system, seed, share, layout) for seed in params.run.seeds]
        for system in (BASELINE, SYSTEM)
    }
    _, post, inside = found[BASELINE][0]
    bootstrap = Bootstrap(params.evaluate.resamples, params.evaluate.seed)
    for name, chosen in {"all": np.ones_like(inside), "in hashtags": inside, "others": ~inside}.items():
        posts, ordinal = np.unique(post[chosen], return_inverse=True)
        sums = {
            system: [np.bincount(ordinal, bits[chosen]).astype(np.float64) for bits, _, _ in seeds]
            for system, seeds in found.items()
        }
        samples = ratio_samples(sums, np.bincount(ordinal).astype(np.float64), bootstrap, f"masked/{share}/{name}")
        gain = relative_gain(samples[SYSTEM], samples[BASELINE], lower_is_better=True)
        low, high = gain.interval(params.evaluate.confidence)
        print(
            f"| {share:.0%} | {name} | {len(posts):,} | {samples[BASELINE].value:.3f} | {samples[SYSTEM].value:.3f} | "
            f"{gain.value:+.2f} % [{low:+.2f}, {high:+.2f}] |",
            flush=True,
        )


def losses(params: Params, system: str, seed: int, share: float, layout: Layout) -> tuple[NDArray, NDArray, NDArray]:
    """Of the masked tokens of the test posts: bits float32 [M], post int64 [M], in a hashtag bool [M]."""
    scheme = params.ntus.scheme
    about = parse_variant(system, scheme.of_posts)
    model, tokenizer = load_model(layout.pretrain(system, seed), f"pretrain@{system}-{seed}", choose_device())
    table = EmbeddingTable.load(layout.embeddings) if about.slots else None
    prepare = Preparation(tokenizer, params.batches, table, scheme, about, model.leaves_out)
    posts = prepare.examples(sample_posts("test", params.pretrain.max_test_posts, FIXED_SEED, scheme, layout))
    job = Job(
        name=f"{system} {seed}",
        model=model,
        train=posts,
        validation=posts,
        masking=Masking(tokenizer, share, params.batches.max_length),
        settings=params.pretrain,
        seed=seed,
        slot=None,
        checkpoint=Path("unused"),
    )
    measured = evaluate(job, posts)
    owners = np.searchsorted(posts.tokens.offsets, measured.places, side="right") - 1
    return measured.bits, owners, posts.tokens.in_hashtag[measured.places]


if __name__ == "__main__":
    main()
