"""batches.py: posts to batches, and masks that depend on nothing but seed, epoch and place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ntulm.language_model.batches import (
    FIXED,
    LENGTH_STEP,
    MASKED_STEP,
    Masking,
    length_order,
    pad,
    training_order,
)
from ntulm.language_model.config import Batches
from ntulm.language_model.model import IGNORED
from ntulm.language_model.tokens import tokenise

BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone):
    return AutoTokenizer.from_pretrained(tiny_backbone)


@pytest.fixture(scope="module")
def tokens(tokenizer):
    random = np.random.default_rng(0)
    texts = [" ".join(["like", "it", "so"] * int(random.integers(0, 9))) for _ in range(400)]
    return tokenise(texts, tokenizer, BATCHES)


def test_training_order_sees_every_post_once_and_follows_from_the_seed(tokens):
    batches = training_order(tokens.lengths, 16, seed=3, epoch=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(400))
    again = training_order(tokens.lengths, 16, seed=3, epoch=1)
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))
    other = training_order(tokens.lengths, 16, seed=3, epoch=2)
    assert np.concatenate(batches).tolist() != np.concatenate(other).tolist()


def test_batches_hold_as_many_tokens_of_posts_of_like_length_in_few_shapes(tokens):
    batches = training_order(tokens.lengths, 16, seed=0, epoch=0)
    shapes = [(len(posts), pad(tokens, posts, 0, BATCHES.max_length)[0].shape[1]) for posts in batches]
    assert {width % LENGTH_STEP for _, width in shapes} == {0}
    assert sum(height * width for height, width in shapes) < 1.35 * tokens.lengths.sum()
    held = [int(tokens.lengths[posts].sum()) for posts in batches]
    assert max(held) < 2 * min(held)  # as many posts each: 12 times
    assert [len(posts) for posts in length_order(tokens.lengths, 150)] == [150, 150, 100]


@given(st.lists(st.integers(2, 60), min_size=1, max_size=200), st.integers(1, 40))
def test_an_epoch_has_as_many_batches_as_planned_and_none_is_empty(lengths, batch_size):
    batches = training_order(np.array(lengths), batch_size, seed=0, epoch=0)
    assert len(batches) == -(-len(lengths) // batch_size)
    assert min(len(posts) for posts in batches) > 0
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))


def test_masks_follow_from_seed_epoch_and_post_not_from_the_batch(tokenizer, tokens):
    masking = Masking(tokenizer, 0.15, BATCHES.max_length)
    together = masking.batch(tokens, np.arange(300, 340), seed=1, epoch=0)
    alone = [masking.batch(tokens, np.array([post]), seed=1, epoch=0) for post in range(300, 340)]
    assert together.places.tolist() == np.concatenate([batch.places for batch in alone]).tolist()
    for row, batch in enumerate(alone):
        width = batch.input_ids.shape[1]
        assert together.input_ids[row, :width].tolist() == batch.input_ids[0].tolist()
    assert masking.batch(tokens, np.arange(300, 340), 1, 1).places.tolist() != together.places.tolist()
    assert masking.batch(tokens, np.arange(300, 340), 2, 0).places.tolist() != together.places.tolist()


def test_masking_follows_the_shares_and_leaves_special_tokens(tokenizer, tokens):
    masking = Masking(tokenizer, 0.15, BATCHES.max_length)
    batch = masking.batch(tokens, np.arange(400), seed=0, epoch=FIXED)
    count = len(batch.places)
    ordinary = int((~np.isin(tokens.ids, tokenizer.all_special_ids)).sum())
    assert count / ordinary == pytest.approx(0.15, abs=0.02)
    assert (batch.targets[:count].numpy() == tokens.ids[batch.places]).all()
    assert len(batch.positions) % MASKED_STEP == 0
    assert (batch.targets[count:] == IGNORED).all()
    shown = batch.input_ids.reshape(-1)[batch.positions[:count]]
    assert float((shown == tokenizer.mask_token_id).float().mean()) == pytest.approx(0.8, abs=0.06)
    assert float((shown == batch.targets[:count]).float().mean()) == pytest.approx(0.1, abs=0.05)
    untouched = batch.attention_mask.bool().reshape(-1).clone()
    untouched[batch.positions[:count]] = False
    places = pad(tokens, np.arange(400), 0, BATCHES.max_length)[2].reshape(-1)
    assert (batch.input_ids.reshape(-1)[untouched].numpy() == tokens.ids[places[untouched.numpy()]]).all()
