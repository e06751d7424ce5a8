"""ntulm/encode.py: vectors in row order, equal to the plain computation up to rounding."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from schemes import SCHEME, slot_settings

from ntulm import adapt, encode
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.language_model import encoder as encoder_module
from ntulm.language_model.backbone import load_backbone, load_model, save_model
from ntulm.language_model.config import Batches, Encode
from ntulm.language_model.encoder import Encoder, freeze
from ntulm.language_model.slots import Slots, describe_slots
from ntulm.layout import Layout
from ntulm.ntus import ntus_of
from ntulm.posts import Posts
from ntulm.text import masked
from ntulm.variants import parse_variant

CPU = torch.device("cpu")
BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)
ENCODE = Encode(batch_size=8, dtype="float32", hidden_share=0.0, apart=False, post_concat="author+hashtag")
LAYOUT = Layout()


@pytest.fixture
def task(lm_project):
    """A task `words` with one data set `some` of 70 posts."""
    posts = pq.read_table(LAYOUT.posts).slice(0, 70).select(["post_id", "text", "author", "hashtags"])
    own = ntus_of(SCHEME, {name: posts[name].to_pylist() for name in ("author", "hashtags")})
    posts = posts.append_column("split", pa.array(["train"] * 50 + ["test"] * 20)).append_column("ntus", own)
    folder = LAYOUT.task("words")
    folder.mkdir(parents=True)
    pq.write_table(posts.drop(["hashtags"]), folder / "some.parquet")
    (folder / "datasets.json").write_text(json.dumps({"some": {"family": "words"}}))
    return posts.to_pylist()


def write_model(backbone, variant, **slot):
    model, tokenizer, _ = load_backbone(str(backbone), 0, CPU)
    about = describe_slots(SCHEME, parse_variant(variant, SCHEME.of_posts))
    if about:
        model.add_slots(variant, about, 4, [1.0] * len(about), slot_settings(**slot), 0)
    save_model(model, tokenizer, LAYOUT.pretrain(variant, 0))
    return load_model(LAYOUT.pretrain(variant, 0), "pretrain", CPU)


def expected_vectors(model, tokenizer, posts, slots):
    """One post at a time, float32, no padding."""
    model.eval()
    vectors = []
    for post, slot in zip(posts, slots, strict=True):
        text, _ = masked(post["text"], BATCHES.mask_urls, BATCHES.mask_mentions)
        encoded = tokenizer([text], truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            vectors.append(model.post_embedding(encoded["input_ids"], encoded["attention_mask"], **slot)[0].numpy())
    return np.stack(vectors)


def cosines(one, other):
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_text_vectors_stand_in_row_order_with_the_mean_ntu_vector(task, tiny_backbone):
    model, tokenizer = write_model(tiny_backbone, "text")
    encode.run(ENCODE, BATCHES, SCHEME, "text", 0, "words", LAYOUT)
    tensors = load_file(LAYOUT.vectors("text", 0, "words") / "some.safetensors")
    assert tensors["vectors"].shape == (70, 32)
    assert cosines(tensors["vectors"], expected_vectors(model, tokenizer, task, [{}] * 70)).min() > 0.999
    table = EmbeddingTable.load(LAYOUT.embeddings)
    for post, ntu in zip(task, tensors["ntu"], strict=True):
        rows = [int(table.rows("user", [post["author"]])[0])] if post["author"] else []
        vectors = [table.vectors[row] for row in rows] + [table.mean for _ in post["hashtags"]]
        np.testing.assert_allclose(ntu, np.mean(vectors or [table.mean], axis=0), rtol=1e-5)


def test_slot_vectors_feed_the_variant_and_parts_change_nothing(task, tiny_backbone, monkeypatch):
    model, tokenizer = write_model(tiny_backbone, "author")
    monkeypatch.setattr(encode, "POSTS_AT_ONCE", 32)
    encode.run(ENCODE, BATCHES, SCHEME, "author", 0, "words", LAYOUT)
    tensors = load_file(LAYOUT.vectors("author", 0, "words") / "some.safetensors")
    assert set(tensors) == {"vectors"}
    table = EmbeddingTable.load(LAYOUT.embeddings)
    rows = table.rows("user", [post["author"] for post in task])
    slots = [
        {"slot": torch.from_numpy(table.mean if row < 0 else np.array(table.vectors[row]))[None, None]} for row in rows
    ]
    expected = expected_vectors(model, tokenizer, task, slots)
    assert cosines(tensors["vectors"], expected).min() > 0.999


@pytest.mark.parametrize("variant", ["author.hashtag", "author++hashtag"])
def test_several_slots_and_projections_per_type_feed_the_variant(task, tiny_backbone, variant):
    model, tokenizer = write_model(tiny_backbone, variant)
    encode.run(ENCODE, BATCHES, SCHEME, variant, 0, "words", LAYOUT)
    vectors = load_file(LAYOUT.vectors(variant, 0, "words") / "some.safetensors")["vectors"]
    table, ntus = EmbeddingTable.load(LAYOUT.embeddings), pq.read_table(LAYOUT.task("words") / "some.parquet")["ntus"]
    slots = Slots.of(table, SCHEME, parse_variant(variant, SCHEME.of_posts), ntus.combine_chunks())
    tensors = [slots.tensors(np.array([row]), CPU) for row in range(70)]
    assert cosines(vectors, expected_vectors(model, tokenizer, task, tensors)).min() > 0.999
    assert cosines(vectors, expected_vectors(model, tokenizer, task, [{}] * 70)).min() < 0.999


@pytest.mark.parametrize(("name", "width"), [("author", 4), ("author.hashtag", 8), ("author++hashtag", 8)])
def test_the_mean_ntu_vector_is_that_of_the_slots_of_post_concat(task, tiny_backbone, name, width):
    write_model(tiny_backbone, "text")
    encode.run(ENCODE.model_copy(update={"post_concat": name}), BATCHES, SCHEME, "text", 0, "words", LAYOUT)
    assert load_file(LAYOUT.vectors("text", 0, "words") / "some.safetensors")["ntu"].shape == (70, width)


def test_float16_output_and_an_empty_data_set(task, tiny_backbone):
    write_model(tiny_backbone, "text")
    empty = pq.read_table(LAYOUT.task("words") / "some.parquet").slice(0, 0)
    pq.write_table(empty, LAYOUT.task("words") / "some.parquet")
    encode.run(ENCODE.model_copy(update={"dtype": "float16"}), BATCHES, SCHEME, "text", 0, "words", LAYOUT)
    tensors = load_file(LAYOUT.vectors("text", 0, "words") / "some.safetensors")
    assert tensors["vectors"].shape == (0, 32)
    assert tensors["vectors"].dtype == np.float16


def test_some_training_posts_lose_their_ntus_the_same_for_every_variant(task, tiny_backbone, monkeypatch):
    monkeypatch.setattr(encode, "POSTS_AT_ONCE", 32)
    found = {}
    for variant in ("text", "author"):
        write_model(tiny_backbone, variant)
        for share in (0.0, 0.5):
            settings = ENCODE.model_copy(update={"hidden_share": share})
            encode.run(settings, BATCHES, SCHEME, variant, 0, "words", LAYOUT)
            found[variant, share] = load_file(LAYOUT.vectors(variant, 0, "words") / "some.safetensors")
    table = EmbeddingTable.load(LAYOUT.embeddings)
    hidden = np.isclose(found["text", 0.5]["ntu"], table.mean).all(1) & ~np.isclose(
        found["text", 0.0]["ntu"], table.mean
    ).all(1)
    assert 10 < hidden.sum() < 40
    assert not hidden[50:].any()  # test posts are as they are
    changed = (found["author", 0.0]["vectors"] != found["author", 0.5]["vectors"]).any(1)
    assert (changed[hidden]).all()
    assert not changed[50:].any()
    np.testing.assert_array_equal(found["text", 0.0]["vectors"], found["text", 0.5]["vectors"])


@pytest.mark.parametrize("variant", ["author+hashtag", "author.hashtag", "author++hashtag"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_slot_of_which_nothing_is_known_is_left_out(lm_project, tiny_backbone, monkeypatch, variant, packed):
    if not packed:
        monkeypatch.setattr(encoder_module, "has_bf16", lambda device: False)
    tolerance: dict[str, Any] = {"rtol": 2e-2, "atol": 2e-2} if packed else {"rtol": 1e-4, "atol": 1e-5}
    fields: dict[str, list[Any]] = {
        "text": ["we like it", "see it again and again", "so", "we like it so much", "no author here", "like it"],
        "author": ["left1", "nobody", "nobody", None, None, "right2"],
        "hashtags": [[], ["unheard"], [], [], ["unheard", "of"], ["unheard"]],
    }
    posts = Posts.of(SCHEME, fields | {"post_id": [str(number) for number in range(6)]})
    table, about = EmbeddingTable.load(LAYOUT.embeddings), parse_variant(variant, SCHEME.of_posts)
    vectors = {}
    for unknown in ("mean", "left_out"):
        model, tokenizer = write_model(tiny_backbone, variant, unknown=unknown, weight=0.3)
        encoder = Encoder(freeze(model), tokenizer, table, SCHEME, about, BATCHES, 4)
        vectors[unknown] = encoder.encode(posts)
        alone = [encoder.encode(posts.take(np.array([row])))[0] for row in range(6)]
        np.testing.assert_allclose(vectors[unknown], np.stack(alone), **tolerance)
        assert encoder.known(posts).tolist() == [True, False, False, False, False, True]
    bare = Encoder(encoder.model, tokenizer, None, SCHEME, parse_variant("text", {}), BATCHES, 4).encode(posts)
    np.testing.assert_allclose(vectors["left_out"][1:5], bare[1:5], **tolerance)
    assert (np.abs(vectors["mean"] - vectors["left_out"])[1:5].max(1) > 0.05).all()
    if variant != "author.hashtag":  # one slot: a post of which something is known has it as ever
        np.testing.assert_allclose(vectors["left_out"][[0, 5]], vectors["mean"][[0, 5]], **tolerance)


def test_apart_the_file_holds_what_posts_are_with_nothing_known(task, tiny_backbone, monkeypatch):
    monkeypatch.setattr(encode, "POSTS_AT_ONCE", 32)
    apart, found = ENCODE.model_copy(update={"apart": True}), {}
    for variant in ("text", "author"):
        write_model(tiny_backbone, variant)
        for settings in (ENCODE, apart):
            encode.run(settings, BATCHES, SCHEME, variant, 0, "words", LAYOUT)
            found[variant, settings.apart] = load_file(LAYOUT.vectors(variant, 0, "words") / "some.safetensors")
    LAYOUT.pretrain("text", 0).parent.rename(LAYOUT.pretrain("words", 0).parent)
    encode.run(apart, BATCHES, SCHEME, "words", 0, "words", LAYOUT)
    words = load_file(LAYOUT.vectors("words", 0, "words") / "some.safetensors")
    assert set(words) == {"vectors"}  # there is no slot of which something could be known
    assert set(found["text", True]) == {"vectors", "ntu", "known", "ntu_hidden"}
    table = EmbeddingTable.load(LAYOUT.embeddings)
    np.testing.assert_allclose(found["text", True]["ntu_hidden"], table.mean[None], rtol=1e-6)
    own = found["author", True]
    assert set(own) == {"vectors", "known", "hidden"}
    np.testing.assert_array_equal(own["vectors"], found["author", False]["vectors"])
    expected = table.rows("user", [post["author"] for post in task]) >= 0
    np.testing.assert_array_equal(own["known"] > 0, expected)
    hidden = ENCODE.model_copy(update={"hidden_share": 0.999999})
    encode.run(hidden, BATCHES, SCHEME, "author", 0, "words", LAYOUT)
    bare = load_file(LAYOUT.vectors("author", 0, "words") / "some.safetensors")["vectors"]
    np.testing.assert_allclose(own["hidden"][:50], bare[:50], rtol=2e-2, atol=2e-2)
    assert (own["hidden"][50:] == 0).all()


@pytest.mark.slow
def test_minilm_in_the_machines_precision_equals_float32(lm_project, adapt_settings):
    adapt.run(adapt_settings(backbone="minilm", max_posts=0), BATCHES, LAYOUT)
    model, tokenizer = load_model(LAYOUT.adapt, "adapt", CPU)
    posts = pq.read_table(LAYOUT.posts).slice(0, 32).to_pylist()
    expected = expected_vectors(model, tokenizer, posts, [{}] * 32)
    encoder = Encoder(freeze(model), tokenizer, None, SCHEME, parse_variant("text", {}), BATCHES, 8)
    fields = {name: [post[name] for post in posts] for name in ("post_id", "text", "author")}
    vectors = encoder.encode(Posts.of(SCHEME, fields))
    assert vectors.shape == (32, encoder.width)
    assert cosines(vectors, expected).min() > 0.999


def test_missing_inputs_and_unknown_variants_are_user_errors(lm_project, task, tiny_backbone):
    with pytest.raises(UserError, match="dvc repro pretrain@text-0"):
        encode.run(ENCODE, BATCHES, SCHEME, "text", 0, "words", LAYOUT)
    with pytest.raises(UserError, match="variant 'place': unknown role"):
        encode.run(ENCODE, BATCHES, SCHEME, "place", 0, "words", LAYOUT)
    write_model(tiny_backbone, "text")
    (LAYOUT.task("words") / "some.parquet").unlink()
    with pytest.raises(UserError, match=r"some\.parquet: not found"):
        encode.run(ENCODE, BATCHES, SCHEME, "text", 0, "words", LAYOUT)
    assert not LAYOUT.vectors("text", 0, "words").exists()
