"""ntulm/adapt.py and ntulm/language_model/samples.py: from corpus files to the adapted text model."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from schemes import SCHEME

from ntulm import adapt
from ntulm.errors import UserError
from ntulm.language_model.backbone import load_backbone, load_model
from ntulm.language_model.config import Batches
from ntulm.language_model.samples import NO_NTUS, sample_posts
from ntulm.layout import Layout

CPU = torch.device("cpu")
LAYOUT = Layout()
BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)


def test_adapt_writes_a_text_model_and_its_metrics(lm_project, adapt_settings):
    adapt.run(adapt_settings(), BATCHES, LAYOUT)
    model, tokenizer = load_model(LAYOUT.adapt, "adapt", CPU)
    assert model.config.variant == "text"
    assert not model.projections
    assert len(tokenizer("i like it").input_ids) == 5
    metrics = json.loads(LAYOUT.metrics("adapt").read_text())
    assert (metrics["train_posts"], metrics["steps"]) == (64, 4)
    assert metrics["validation_bits"] == metrics["history"][0]["validation_bits"]
    assert not LAYOUT.checkpoint("adapt").exists()
    assert not list(LAYOUT.adapt.glob("*.bin"))


def test_no_posts_keeps_the_backbone_as_it_is(lm_project, adapt_settings, tiny_backbone):
    adapt.run(adapt_settings(max_posts=0), BATCHES, LAYOUT)
    model, _ = load_model(LAYOUT.adapt, "adapt", CPU)
    original, *_ = load_backbone(str(tiny_backbone), 0, CPU)
    for name, parameter in original.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))
    assert json.loads(LAYOUT.metrics("adapt").read_text())["validation_bits"] is None


def test_posts_longer_than_the_backbone_reads_are_refused(lm_project, adapt_settings):
    with pytest.raises(UserError, match=r"batches\.max_length: 400"):
        adapt.run(adapt_settings(), Batches(max_length=400, mask_urls=True, mask_mentions=True), LAYOUT)
    assert not LAYOUT.adapt.exists()


def test_samples_hold_posts_of_the_split_that_have_an_author(lm_project):
    posts = pq.read_table(LAYOUT.posts).to_pylist()[800:]
    everything = sample_posts("test", 10_000, 0, SCHEME, LAYOUT)
    ordinals = everything.table["ordinal"].to_pylist()
    eligible = [ordinal for ordinal, post in enumerate(posts) if post["author"] is not None]
    assert ordinals == eligible
    assert everything.texts == [posts[ordinal]["text"] for ordinal in eligible]
    for post, own in zip((posts[ordinal] for ordinal in ordinals), everything.ntus.to_pylist(), strict=True):
        expected = [("author", post["author"])] + [("hashtag", tag) for tag in post["hashtags"]]
        assert [(ntu["role"], ntu["key"]) for ntu in own] == expected
    some = sample_posts("test", 20, 0, NO_NTUS, LAYOUT)
    drawn = some.table["ordinal"].to_numpy()
    assert len(some) == 20
    assert some.texts == [posts[ordinal]["text"] for ordinal in drawn]
    assert some.table["post_id"].to_pylist() == [posts[ordinal]["post_id"] for ordinal in drawn]
    assert (np.diff(drawn) > 0).all()
    assert not any(some.ntus.to_pylist())
    other = sample_posts("test", 20, 1, NO_NTUS, LAYOUT)
    assert other.table["ordinal"].to_pylist() != drawn.tolist()


def test_a_missing_or_mismatched_corpus_is_a_user_error(lm_project):
    with pytest.raises(UserError, match="no nowhere post"):
        sample_posts("nowhere", 5, 0, NO_NTUS, LAYOUT)
    pq.write_table(pa.table({"post_id": ["a"], "split": ["train"]}), LAYOUT.splits)
    with pytest.raises(UserError, match="1 rows for 900 posts"):
        sample_posts("train", 5, 0, NO_NTUS, LAYOUT)
    LAYOUT.splits.unlink()
    with pytest.raises(UserError, match="dvc repro corpus"):
        sample_posts("train", 5, 0, NO_NTUS, LAYOUT)
