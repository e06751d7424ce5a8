"""ntulm/pretrain.py: variants that differ in the slot alone, and a signal that only the slot carries."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ntulm import adapt, layout, pretrain
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.language_model import training
from ntulm.language_model.backbone import load_model
from ntulm.language_model.batches import MaskedBatch
from ntulm.language_model.config import Batches, Pretrain
from ntulm.language_model.samples import Sample
from ntulm.language_model.training import SlotTraining
from ntulm.variants import VARIANTS

BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)
BACKBONE = "minilm"  # of `unadapted` alone


def settings(**changes):
    values = {
        "max_posts": 700,
        "max_validation_posts": 100,
        "max_test_posts": 90,
        "epochs": 15,
        "patience": 15,
        "evaluations_per_epoch": 1,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "weight_decay": 0.01,
        "warmup_share": 0.1,
        "mask_share": 0.3,
        "slot_layer_norm": False,
        "slot_scale": 0.3,
        "slot_learning_rate_factor": 2.0,
        "slot_weight": 0.5,
        "slot_dropout": 0.0,
        "hide_masked_hashtags": False,
    }
    return Pretrain(**{**values, **changes})


@pytest.fixture
def adapted(lm_project, adapt_settings):
    adapt.run(adapt_settings(max_posts=0), BATCHES)
    return lm_project


def losses(variant):
    return load_file(layout.pretrain(variant, 0) / pretrain.TEST_LOSSES)


@pytest.mark.slow
def test_a_word_that_only_the_author_decides_is_learnt_from_the_slot(adapted):
    variants = ("text", "author", "shuffled")
    for variant in variants:
        pretrain.run(settings(), BATCHES, BACKBONE, variant, 0)
    bits = {}
    secret = {}
    for variant in variants:
        metrics = json.loads(layout.metrics("pretrain", variant, 0).read_text())
        bits[variant] = metrics["perplexity_bits"]
        _, tokenizer = load_model(layout.pretrain(variant, 0), "pretrain", torch.device("cpu"))
        words = tokenizer.convert_tokens_to_ids(["apple", "stone"])
        table = losses(variant)
        secret[variant] = table["bits"][np.isin(table["token"], words)].mean()
    assert bits["author"] < bits["text"]
    assert secret["author"] < 0.6 * secret["text"]
    assert secret["shuffled"] > 0.95 * secret["text"]  # the author of another post says nothing: no leak


def test_outputs_follow_the_contract(adapted):
    for variant in ("text", "author+hashtag"):
        pretrain.run(settings(epochs=1), BATCHES, BACKBONE, variant, 0)
    text, both = losses("text"), losses("author+hashtag")
    for name, dtype in {
        "post": np.int32,
        "token": np.int32,
        "bits": np.float32,
        "in_hashtag": np.bool_,
        "train_count": np.int64,
    }.items():
        assert text[name].dtype == dtype
        if name != "bits":
            np.testing.assert_array_equal(text[name], both[name])  # the same masks, in the same order
    assert text["in_hashtag"].any()
    assert not text["in_hashtag"].all()
    assert (np.diff(text["post"]) >= 0).all()
    metrics = json.loads(layout.metrics("pretrain", "text", 0).read_text())
    assert metrics["masked_tokens"] == len(text["bits"])
    assert metrics["perplexity_bits"] == pytest.approx(text["bits"].mean(), rel=1e-5)
    assert (metrics["test_posts"], metrics["variant"], metrics["seed"]) == (90, "text", 0)
    assert set(metrics["history"][0]) == {"step", "train_bits", "validation_bits"}
    model, tokenizer = load_model(layout.pretrain("author+hashtag", 0), "pretrain", torch.device("cpu"))
    assert (model.config.variant, model.config.slot_width) == ("author+hashtag", 4)
    assert tokenizer.is_fast
    assert not layout.checkpoint("pretrain", "text", 0).exists()


def test_variants_see_the_same_batches_masks_and_rates(adapted, monkeypatch):
    seen: dict[str, list] = {"text": [], "author": []}
    plain = training.masked_losses

    def spy(model, batch, slot):
        if model.training:
            parts = (batch.input_ids, batch.attention_mask, batch.positions, batch.targets)
            seen[model.config.variant].append([part.clone() for part in parts])
        return plain(model, batch, slot)

    monkeypatch.setattr(training, "masked_losses", spy)
    for variant in seen:
        pretrain.run(settings(epochs=1), BATCHES, BACKBONE, variant, 3)
    assert len(seen["text"]) == len(seen["author"]) == 43
    for text, author in zip(*seen.values(), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(text, author, strict=True))


def test_every_variant_starts_from_the_adapted_weights(adapted, monkeypatch):
    started = {}

    def stop(job):
        started[job.model.config.variant] = {name: p.detach().clone() for name, p in job.model.named_parameters()}
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "train_model", stop)
    for variant in ("text", "author", "hashtag"):
        with pytest.raises(KeyboardInterrupt):
            pretrain.run(settings(), BATCHES, BACKBONE, variant, 0)
    assert set(started["author"]) - set(started["text"]) == {"slot.weight", "slot.bias"}
    for name, weight in started["text"].items():
        assert torch.equal(weight, started["author"][name])
        assert torch.equal(weight, started["hashtag"][name])


def test_an_unknown_variant_and_a_missing_stage_are_user_errors(lm_project):
    with pytest.raises(UserError, match="unknown variant 'emoji'"):
        pretrain.run(settings(), BATCHES, BACKBONE, "emoji", 0)
    with pytest.raises(UserError, match="dvc repro adapt"):
        pretrain.run(settings(), BATCHES, BACKBONE, "text", 0)
    assert not layout.pretrain("text", 0).exists()


def test_each_token_of_a_hashtag_knows_its_ntu(adapted):
    _, tokenizer = load_model(layout.ADAPT, "adapt", torch.device("cpu"))
    table = EmbeddingTable.load(layout.EMBEDDINGS)
    sample = Sample(
        ["so #like it", "#LIKE #so", "plain"], ["ada", "bob", "eve"], [["like"], ["like", "so"], []], np.arange(3)
    )
    prepare = pretrain.Preparation(tokenizer, BATCHES, table, VARIANTS["author+hashtag"])
    posts = prepare.posts(sample)
    found = pretrain.ntu_of_token(posts, sample.hashtags, ("author", "hashtag"))
    start, second, third = posts.tokens.offsets[:3]
    assert set(found[start:second]) == {-1, 1}  # the author has place 0
    assert set(found[second:third]) == {-1, 3, 4}
    assert set(found[third:]) == {-1}
    assert (found[posts.tokens.in_hashtag] >= 0).all()


def test_a_masked_hashtag_and_dropped_ntus_are_hidden():
    nothing = torch.zeros(0)
    batch = MaskedBatch(nothing, nothing, nothing, nothing, places=np.array([2, 5]))

    def hidden(training, epoch=0):
        hide = training.hide(batch, 0, epoch)
        return hide(np.arange(4000))

    assert SlotTraining().hide(batch, 0, 0) is None
    own = SlotTraining(ntu_of_token=np.array([-1, -1, 7, 8, 8, 9]))
    assert np.flatnonzero(hidden(own)).tolist() == [7, 9]
    dropped = [hidden(SlotTraining(dropout=0.25), epoch) for epoch in (0, 0, 1)]
    assert (dropped[0] == dropped[1]).all()
    assert (dropped[0] != dropped[2]).any()
    assert dropped[0].mean() == pytest.approx(0.25, abs=0.03)
