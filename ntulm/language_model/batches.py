"""From tokens to batches: group posts of like length, mask tokens (§3.2, §4.2).

Library only; the stages `adapt`, `pretrain` and `encode` use it. Which posts share a batch, in which order, and
which tokens are masked follow from seeds and from the posts alone, so that every variant sees the same ones.

Shapes: N posts, T tokens of all posts, B posts of a batch, L tokens of a post, M masked tokens of a batch.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ntulm.language_model.model import IGNORED
from ntulm.language_model.tokens import Tokens

LENGTH_STEP = 4  # lengths are padded to multiples of it: few shapes, so that memory stays bounded on a CPU
MASKED_STEP = 16  # numbers of masked tokens likewise
POSTS_STEP = 4  # numbers of posts likewise
WINDOW_BATCHES = 64  # batches among whose posts those of like length are grouped
FIXED = 2**32 - 1  # the "epoch" of masks that never change: those of validation and test posts


def training_order(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch: each an int64 array of post numbers, of like length and in random order.

    Batches have about as many tokens each, those of `batch_size` posts on average: with as many posts each, a batch of
    short ones would have few masked tokens, and a say in the weights as large as any (docs/decisions/0031).

    Args:
        lengths: int64 [N].

    Returns:
        N / batch_size batches, rounded up.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    batches: list[np.ndarray] = []
    window = batch_size * WINDOW_BATCHES
    for start in range(0, len(shuffled), window):
        posts = shuffled[start : start + window]
        posts = posts[np.argsort(lengths[posts], kind="stable")]
        count = -(-len(posts) // batch_size)
        grouped = np.split(posts, _equal_shares(np.cumsum(lengths[posts]), count))
        batches += [grouped[place] for place in random.permutation(count)]
    return batches


def _equal_shares(tokens: np.ndarray, count: int) -> list[int]:
    """Where to cut posts into `count` batches of about as many tokens; `tokens` int64 [N] are summed up."""
    wanted = tokens[-1] * np.arange(1, count) / count
    cuts = np.searchsorted(tokens, wanted) // POSTS_STEP * POSTS_STEP
    cuts = np.maximum.accumulate(cuts - np.arange(count - 1)) + np.arange(count - 1)  # no two are the same
    return np.clip(cuts, np.arange(1, count), len(tokens) - count + np.arange(1, count)).tolist()


def length_order(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All posts by length, longest first (so that memory peaks at once), in batches; for evaluation and encoding."""
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class Batch:
    """B posts, padded."""

    input_ids: Tensor  # int64 [B, L], L a multiple of 4
    attention_mask: Tensor  # int64 [B, L]


@dataclass(frozen=True)
class MaskedBatch(Batch):
    """B posts with masked tokens; the number of masked tokens is padded to a multiple of 16."""

    positions: Tensor  # int64 [M], flat places in [B, L] of the masked tokens, by post and place; 0 where padded
    targets: Tensor  # int64 [M], the true tokens; -100 where padded
    places: np.ndarray  # int64 [M without padding], places in `Tokens.ids`


def pad(tokens: Tokens, posts: np.ndarray, padding: int, max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay posts side by side.

    Returns:
        ids int64 [B, L] padded with `padding`; the mask bool [B, L] of real tokens; places int64 [B, L] in `tokens`.
    """
    starts, lengths = tokens.offsets[posts], tokens.lengths[posts]
    longest = min(-(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP, max(max_length, int(lengths.max())))
    columns = np.arange(longest)
    real = columns < lengths[:, None]
    places = np.where(real, starts[:, None] + columns, 0)
    return np.where(real, tokens.ids[places], padding).astype(np.int64), real, places


class Masking:
    """Chooses and replaces masked tokens: 80 % by the mask token, 10 % by a random token, 10 % left (§3.2).

    Each draw is a hash of (seed, epoch, place of the token), so it depends neither on the variant nor on the batch.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, share: float, max_length: int) -> None:
        if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no mask or no padding token")
        self.share = share
        self.max_length = max_length
        self.mask_id = int(tokenizer.mask_token_id)
        self.padding = int(tokenizer.pad_token_id)
        special = np.array(tokenizer.all_special_ids)  # the unknown token too: nothing is learnt from guessing it
        self.maskable = ~np.isin(np.arange(len(tokenizer)), special)
        self.ordinary = np.flatnonzero(self.maskable)

    def batch(self, tokens: Tokens, posts: np.ndarray, seed: int, epoch: int) -> MaskedBatch:
        """Mask `posts` int64 [B] of `tokens`."""
        ids, real, places = pad(tokens, posts, self.padding, self.max_length)
        flat = np.flatnonzero(self._chosen(ids, real, places, seed, epoch))
        targets, chosen_places = ids.reshape(-1)[flat], places.reshape(-1)[flat]
        ids.reshape(-1)[flat] = self._replaced(targets, chosen_places, seed, epoch)
        padded = max(1, -(-len(flat) // MASKED_STEP)) * MASKED_STEP - len(flat)
        return MaskedBatch(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(real.astype(np.int64)),
            positions=torch.from_numpy(np.pad(flat, (0, padded))),
            targets=torch.from_numpy(np.pad(targets, (0, padded), constant_values=IGNORED)),
            places=chosen_places,
        )

    def count(self, tokens: Tokens, posts: np.ndarray, seed: int, epoch: int) -> int:
        """How many tokens `batch` masks in `posts` int64 [B]."""
        return int(self._chosen(*pad(tokens, posts, self.padding, self.max_length), seed, epoch).sum())

    def _chosen(self, ids: np.ndarray, real: np.ndarray, places: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Which tokens are masked: bool [B, L]."""
        return real & self.maskable[ids] & (uniform(places, seed, epoch, 0) < self.share)

    def _replaced(self, targets: np.ndarray, places: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        kind = uniform(places, seed, epoch, 1)
        drawn = self.ordinary[(uniform(places, seed, epoch, 2) * len(self.ordinary)).astype(np.int64)]
        return np.where(kind < 0.8, self.mask_id, np.where(kind < 0.9, drawn, targets))


def padded_batches(
    tokens: Tokens, padding: int, batch_size: int, max_length: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Unmasked batches by length, each with its post numbers int64 [B]."""
    for posts in length_order(tokens.lengths, batch_size):
        ids, real, _ = pad(tokens, posts, padding, max_length)
        yield posts, Batch(torch.from_numpy(ids), torch.from_numpy(real.astype(np.int64)))


def uniform(places: np.ndarray, seed: int, epoch: int, stream: int) -> np.ndarray:
    """Numbers in [0, 1), one for each place: the finaliser of SplitMix64 over a key and a counter."""
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{epoch}/{stream}".encode(), digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        bits = places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)) * 2.0**-53
