"""What each variant sees of a post: the text, and which NTUs, in the slot (§3.2) or as words. Library only.

`text` is the baseline, the paper's "BERT (MLM fine-tuned)"; `author`, `hashtag` and `author+hashtag` are the paper's
NTULM. Three more answer what a reviewer would ask: `words` writes the NTUs into the text instead of the slot,
`unadapted` is the backbone as it was found, and `shuffled` is `author+hashtag` with the NTUs of another post: its gain
must vanish if nothing leaks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ntulm.errors import UserError

SHUFFLE_SEED = 0


@dataclass(frozen=True)
class Variant:
    """One way to present a post to the language model."""

    slot: tuple[str, ...] = ()  # NTUs in the slot, of "author" and "hashtag"; without any there is no slot
    words: bool = False  # author and hashtags stand before the text
    shuffled: bool = False  # each post has the NTUs of another one
    trained: bool = True  # fine-tuned on posts


VARIANTS: Mapping[str, Variant] = {
    "text": Variant(),
    "author": Variant(slot=("author",)),
    "hashtag": Variant(slot=("hashtag",)),
    "author+hashtag": Variant(slot=("author", "hashtag")),
    "shuffled": Variant(slot=("author", "hashtag"), shuffled=True),
    "words": Variant(words=True),
    "unadapted": Variant(trained=False),
}


def variant_of(name: str) -> Variant:
    """The variant of a name.

    Raises:
        UserError: there is no such variant.
    """
    if name not in VARIANTS:
        raise UserError(f"run.variants: unknown variant {name!r}; valid are {', '.join(VARIANTS)}")
    return VARIANTS[name]


@dataclass(frozen=True)
class Seen:
    """N posts as a variant sees them; None: without author, without hashtags."""

    texts: list[str]
    authors: list[str | None]
    hashtags: list[Sequence[str] | None]


def present(
    variant: Variant,
    texts: Sequence[str],
    authors: Sequence[str | None],
    hashtags: Sequence[Sequence[str] | None],
) -> Seen:
    """N posts as the variant sees them; the NTUs of `shuffled` come from a fixed permutation of these posts."""
    seen = Seen(list(texts), list(authors), list(hashtags))
    if variant.shuffled:
        order = np.random.default_rng(SHUFFLE_SEED).permutation(len(texts))
        seen = Seen(seen.texts, [authors[place] for place in order], [hashtags[place] for place in order])
    if variant.words:
        ntus = ([*([author] if author else []), *(tags or [])] for author, tags in zip(authors, hashtags, strict=True))
        seen = Seen(
            [" ".join([*own, text]) for own, text in zip(ntus, texts, strict=True)], seen.authors, seen.hashtags
        )
    return seen
