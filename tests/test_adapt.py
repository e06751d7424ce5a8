"""ntulm/adapt.py and ntulm/language_model/samples.py: from corpus files to the adapted text model."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ntulm import adapt, layout
from ntulm.errors import UserError
from ntulm.language_model.backbone import load_backbone, load_model
from ntulm.language_model.config import Batches
from ntulm.language_model.samples import sample_posts

CPU = torch.device("cpu")
BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)


def test_adapt_writes_a_text_model_and_its_metrics(lm_project, adapt_settings):
    adapt.run(adapt_settings(), BATCHES)
    model, tokenizer = load_model(layout.ADAPT, "adapt", CPU)
    assert model.config.variant == "text"
    assert model.slot is None
    assert len(tokenizer("i like it").input_ids) == 5
    metrics = json.loads(layout.metrics("adapt").read_text())
    assert (metrics["train_posts"], metrics["steps"]) == (64, 4)
    assert metrics["validation_bits"] == metrics["history"][0]["validation_bits"]
    assert not layout.checkpoint("adapt").exists()
    assert not list(layout.ADAPT.glob("*.bin"))


def test_no_posts_keeps_the_backbone_as_it_is(lm_project, adapt_settings, tiny_backbone):
    adapt.run(adapt_settings(max_posts=0), BATCHES)
    model, _ = load_model(layout.ADAPT, "adapt", CPU)
    original, *_ = load_backbone(str(tiny_backbone), 0, CPU)
    for name, parameter in original.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))
    assert json.loads(layout.metrics("adapt").read_text())["validation_bits"] is None


def test_posts_longer_than_the_backbone_reads_are_refused(lm_project, adapt_settings):
    with pytest.raises(UserError, match=r"batches\.max_length: 400"):
        adapt.run(adapt_settings(), Batches(max_length=400, mask_urls=True, mask_mentions=True))
    assert not layout.ADAPT.exists()


def test_samples_hold_posts_of_the_split_that_have_an_author(lm_project):
    posts = pq.read_table(layout.POSTS).to_pylist()[800:]
    everything = sample_posts("test", 10_000, 0)
    eligible = [ordinal for ordinal, post in enumerate(posts) if post["author"] is not None]
    assert everything.ordinals.tolist() == eligible
    assert everything.texts == [posts[ordinal]["text"] for ordinal in eligible]
    some = sample_posts("test", 20, 0)
    assert len(some) == 20
    assert some.texts == [posts[ordinal]["text"] for ordinal in some.ordinals]
    assert (np.diff(some.ordinals) > 0).all()
    assert sample_posts("test", 20, 1).ordinals.tolist() != some.ordinals.tolist()


def test_a_missing_or_mismatched_corpus_is_a_user_error(lm_project):
    with pytest.raises(UserError, match="no nowhere post"):
        sample_posts("nowhere", 5, 0)
    pq.write_table(pa.table({"post_id": ["a"], "split": ["train"]}), layout.SPLITS)
    with pytest.raises(UserError, match="1 rows for 900 posts"):
        sample_posts("train", 5, 0)
    layout.SPLITS.unlink()
    with pytest.raises(UserError, match="dvc repro corpus"):
        sample_posts("train", 5, 0)
