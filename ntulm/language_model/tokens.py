"""From texts to tokens: normalise, tokenise once, and know which tokens stand in which hashtag (§3.2, §4.2).

Library of the stages `adapt`, `pretrain` and `encode` and of `ntulm.load`. Imports neither torch nor transformers, so
that the processes which share the texts of a stage start at once.

Shapes: N posts, T tokens of all posts.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from ntulm.resources import cores
from ntulm.text import Span, masked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_ONCE = 8192  # posts; bounds the memory of the tokenizer's own objects
WORTH_PROCESSES = 8 * AT_ONCE  # with fewer posts, starting them takes longer than they save
MOST_PROCESSES = 16
FEWEST_CORES = 4


class TextSettings(Protocol):
    """How a text becomes tokens: the section `batches` of params.yaml, or the same of a model directory."""

    @property
    def max_length(self) -> int: ...
    @property
    def mask_urls(self) -> bool: ...
    @property
    def mask_mentions(self) -> bool: ...


@dataclass(frozen=True)
class Tokens:
    """N tokenised posts, one after the other."""

    ids: np.ndarray  # int32 [T], special tokens included
    offsets: np.ndarray  # int64 [N + 1]; post n owns ids[offsets[n] : offsets[n + 1]]
    hashtag: np.ndarray  # int32 [T], which of `hashtags` the token lies in (its `#` included), -1 for none
    hashtags: list[str]  # of the texts, in normal form, in order of appearance

    @property
    def in_hashtag(self) -> np.ndarray:
        """bool [T]."""
        return self.hashtag >= 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [N]."""
        return np.diff(self.offsets)

    def fingerprint(self) -> str:
        """A hash of the content."""
        digest = hashlib.sha256()
        for array in (self.ids, self.offsets):
            digest.update(array.tobytes())
        return digest.hexdigest()

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """The posts of all parts, in order."""
        before = np.cumsum([0, *(len(part.hashtags) for part in parts)])
        numbers = [
            np.where(part.hashtag < 0, np.int32(-1), part.hashtag + np.int32(first))
            for part, first in zip(parts, before, strict=False)
        ]
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        none = np.zeros(0, np.int32)
        return cls(
            np.concatenate([none, *(part.ids for part in parts)]),
            np.cumsum(lengths),
            np.concatenate([none, *numbers]),
            list(chain.from_iterable(part.hashtags for part in parts)),
        )


def tokenise(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", batches: TextSettings, processes: int = 1
) -> Tokens:
    """Normalise and tokenise N texts, each cut to `batches.max_length` tokens.

    Args:
        texts: of the posts.
        tokenizer: of the backbone.
        batches: how a text becomes tokens.
        processes: that share the texts where there are many (`processes_for_texts`); from two on, the caller must be a
            command, or a script that can be imported.
    """
    backend = _backend(tokenizer, batches.max_length)
    masks = batches.mask_urls, batches.mask_mentions
    parts = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
    if processes == 1 or len(texts) < WORTH_PROCESSES:
        return Tokens.joined([_tokenise(backend, *masks, part) for part in parts])
    given = backend.to_str(), *masks
    with ProcessPoolExecutor(min(processes, len(parts)), get_context("spawn"), _start, given) as pool:
        return Tokens.joined(list(pool.map(_tokenise_here, parts)))


def processes_for_texts() -> int:
    """How many processes of a stage may share texts: one per core, of those that each of several ranks has.

    On few cores one: the tokenizer has threads of its own.
    """
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_PROCESSES, share) if share >= FEWEST_CORES else 1


def _backend(tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Tokenizer:
    """What is behind a tokenizer, set to cut and not to pad: called itself, it makes lists of all that it knows."""
    from transformers.tokenization_utils_base import PaddingStrategy, TruncationStrategy

    fast: Any = tokenizer
    cut, padded = TruncationStrategy.LONGEST_FIRST, PaddingStrategy.DO_NOT_PAD
    fast.set_truncation_and_padding(padded, cut, max_length, stride=0, pad_to_multiple_of=None, padding_side=None)
    if fast.backend_tokenizer.encode_special_tokens != fast.split_special_tokens:
        fast.backend_tokenizer.encode_special_tokens = fast.split_special_tokens
    backend: Tokenizer = fast.backend_tokenizer
    return backend


_here: dict[str, Any] = {}  # of a process of `tokenise`


def _start(tokenizer: str, mask_urls: bool, mask_mentions: bool) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the other cores have processes of their own
    _here.update(backend=Tokenizer.from_str(tokenizer), masks=(mask_urls, mask_mentions))


def _tokenise_here(texts: Sequence[str]) -> Tokens:
    mask_urls, mask_mentions = _here["masks"]
    return _tokenise(_here["backend"], mask_urls, mask_mentions, texts)


def _tokenise(backend: Tokenizer, mask_urls: bool, mask_mentions: bool, texts: Sequence[str]) -> Tokens:
    part = [masked(text, mask_urls, mask_mentions) for text in texts]
    encoded = backend.encode_batch([text for text, _ in part])
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    ids = np.fromiter(chain.from_iterable(one.ids for one in encoded), np.int32, offsets[-1])
    found = [spans for _, spans in part]
    return Tokens(ids, offsets, _hashtag_of(encoded, offsets, found), [tag for own in found for _, _, tag in own])


def _hashtag_of(encoded: Sequence[Any], offsets: np.ndarray, found: Sequence[Sequence[Span]]) -> np.ndarray:
    """Which hashtag each token lies in: int32 [T], -1 for none.

    Args:
        encoded: the N posts, with the places of their tokens in the text; special tokens have the empty place (0, 0).
        offsets: int64 [N + 1], as in `Tokens`.
        found: of each post its hashtags, in order of their places, which do not overlap.
    """
    inside = np.full(offsets[-1], -1, np.int32)
    having = [post for post, own in enumerate(found) if own]
    if not having:
        return inside
    pairs = chain.from_iterable(encoded[post].offsets for post in having)
    places = np.fromiter(chain.from_iterable(pairs), np.int64).reshape(-1, 2)
    tags = np.array([span[:2] for post in having for span in found[post]], np.int64)
    # One long text of all posts: what stands at place p of the k-th of them stands at k * room + p.
    room = 1 + max(places.max(), tags.max())
    counts = offsets[1:][having] - offsets[having]
    token_shift = np.repeat(np.arange(len(having)) * room, counts)
    tag_shift = np.repeat(np.arange(len(having)) * room, [len(found[post]) for post in having])
    starts, ends = places.T + token_shift
    first, last = tags.T + tag_shift
    number = np.searchsorted(first, ends) - 1  # the last hashtag that begins before the token ends
    lies = (starts < ends) & (number >= 0) & (last[number] > starts)
    tokens = np.repeat(offsets[having], counts) + np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
    inside[tokens] = np.where(lies, number, -1)
    return inside
