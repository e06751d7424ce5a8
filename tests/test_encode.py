"""ntulm/encode.py: vectors in row order, equal to the plain computation up to rounding."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from ntulm import adapt, encode, layout
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.language_model.backbone import load_backbone, load_model, save_model
from ntulm.language_model.batches import normalise_text
from ntulm.language_model.config import Batches, Encode
from ntulm.variants import VARIANTS

CPU = torch.device("cpu")
BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)
ENCODE = Encode(batch_size=8, dtype="float32", hidden_share=0.0)


@pytest.fixture
def task(lm_project):
    """A task `words` with one data set `some` of 70 posts."""
    posts = pq.read_table(layout.POSTS).slice(0, 70).select(["post_id", "text", "author", "hashtags"])
    posts = posts.append_column("split", pa.array(["train"] * 50 + ["test"] * 20))
    folder = layout.task("words")
    folder.mkdir(parents=True)
    pq.write_table(posts, folder / "some.parquet")
    (folder / "datasets.json").write_text(json.dumps({"some": {"family": "words"}}))
    return posts.to_pylist()


def write_model(backbone, variant, directory=None):
    model, tokenizer, _ = load_backbone(str(backbone), 0, CPU)
    if variant != "text":
        model.add_slot(variant, 4, norm=1.0, scale=1.0, layer_norm=False, seed=0)
    save_model(model, tokenizer, layout.pretrain(variant, 0))
    return load_model(layout.pretrain(variant, 0), "pretrain", CPU)


def expected_vectors(model, tokenizer, posts, slots):
    """One post at a time, float32, no padding."""
    model.eval()
    vectors = []
    for post, slot in zip(posts, slots, strict=True):
        encoded = tokenizer(
            [normalise_text(post["text"], BATCHES)], truncation=True, max_length=24, return_tensors="pt"
        )
        with torch.no_grad():
            vectors.append(model.post_embedding(encoded["input_ids"], encoded["attention_mask"], slot)[0].numpy())
    return np.stack(vectors)


def cosines(one, other):
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_text_vectors_stand_in_row_order_with_the_mean_ntu_vector(task, tiny_backbone):
    model, tokenizer = write_model(tiny_backbone, "text")
    encode.run(ENCODE, BATCHES, "text", 0, "words")
    tensors = load_file(layout.vectors("text", 0, "words") / "some.safetensors")
    assert tensors["vectors"].shape == (70, 32)
    assert cosines(tensors["vectors"], expected_vectors(model, tokenizer, task, [None] * 70)).min() > 0.999
    table = EmbeddingTable.load(layout.EMBEDDINGS)
    for post, ntu in zip(task, tensors["ntu"], strict=True):
        rows = [int(table.rows("user", [post["author"]])[0])] if post["author"] else []
        vectors = [table.vectors[row] for row in rows] + [table.mean for _ in post["hashtags"]]
        np.testing.assert_allclose(ntu, np.mean(vectors or [table.mean], axis=0), rtol=1e-5)


def test_slot_vectors_feed_the_variant_and_parts_change_nothing(task, tiny_backbone, monkeypatch):
    model, tokenizer = write_model(tiny_backbone, "author")
    monkeypatch.setattr(encode, "POSTS_AT_ONCE", 32)
    encode.run(ENCODE, BATCHES, "author", 0, "words")
    tensors = load_file(layout.vectors("author", 0, "words") / "some.safetensors")
    assert set(tensors) == {"vectors"}
    table = EmbeddingTable.load(layout.EMBEDDINGS)
    rows = table.rows("user", [post["author"] for post in task])
    slots = [torch.from_numpy(table.mean if row < 0 else np.array(table.vectors[row]))[None] for row in rows]
    expected = expected_vectors(model, tokenizer, task, slots)
    assert cosines(tensors["vectors"], expected).min() > 0.999


def test_float16_output_and_an_empty_data_set(task, tiny_backbone):
    write_model(tiny_backbone, "text")
    empty = pq.read_table(layout.task("words") / "some.parquet").slice(0, 0)
    pq.write_table(empty, layout.task("words") / "some.parquet")
    encode.run(Encode(batch_size=8, dtype="float16", hidden_share=0.0), BATCHES, "text", 0, "words")
    tensors = load_file(layout.vectors("text", 0, "words") / "some.safetensors")
    assert tensors["vectors"].shape == (0, 32)
    assert tensors["vectors"].dtype == np.float16


def test_some_training_posts_lose_their_ntus_the_same_for_every_variant(task, tiny_backbone, monkeypatch):
    monkeypatch.setattr(encode, "POSTS_AT_ONCE", 32)
    found = {}
    for variant in ("text", "author"):
        write_model(tiny_backbone, variant)
        for share in (0.0, 0.5):
            settings = ENCODE.model_copy(update={"hidden_share": share})
            encode.run(settings, BATCHES, variant, 0, "words")
            found[variant, share] = load_file(layout.vectors(variant, 0, "words") / "some.safetensors")
    table = EmbeddingTable.load(layout.EMBEDDINGS)
    hidden = np.isclose(found["text", 0.5]["ntu"], table.mean).all(1) & ~np.isclose(
        found["text", 0.0]["ntu"], table.mean
    ).all(1)
    assert 10 < hidden.sum() < 40
    assert not hidden[50:].any()  # test posts are as they are
    changed = (found["author", 0.0]["vectors"] != found["author", 0.5]["vectors"]).any(1)
    assert (changed[hidden]).all()
    assert not changed[50:].any()
    np.testing.assert_array_equal(found["text", 0.0]["vectors"], found["text", 0.5]["vectors"])


@pytest.mark.slow
def test_minilm_in_the_machines_precision_equals_float32(lm_project, adapt_settings):
    adapt.run(adapt_settings(backbone="minilm", max_posts=0), BATCHES)
    model, tokenizer = load_model(layout.ADAPT, "adapt", CPU)
    posts = pq.read_table(layout.POSTS).slice(0, 32).to_pylist()
    table = EmbeddingTable.load(layout.EMBEDDINGS)
    expected = expected_vectors(model, tokenizer, posts, [None] * 32)
    dtype = np.dtype("float32")
    encoder = encode.Encoder(encode.freeze(model), tokenizer, table, VARIANTS["text"], BATCHES, 8, dtype, 0.0)
    vectors = encode.encode_posts(encoder, *([post[name] for post in posts] for name in ("text", "author", "hashtags")))
    assert cosines(vectors, expected).min() > 0.999


def test_missing_inputs_and_unknown_variants_are_user_errors(lm_project, task, tiny_backbone):
    with pytest.raises(UserError, match="dvc repro pretrain@text-0"):
        encode.run(ENCODE, BATCHES, "text", 0, "words")
    with pytest.raises(UserError, match="unknown variant"):
        encode.run(ENCODE, BATCHES, "place", 0, "words")
    write_model(tiny_backbone, "text")
    (layout.task("words") / "some.parquet").unlink()
    with pytest.raises(UserError, match=r"some\.parquet: not found"):
        encode.run(ENCODE, BATCHES, "text", 0, "words")
    assert not layout.vectors("text", 0, "words").exists()


def test_an_aligned_table_survives_the_safetensors_reader(tmp_path):
    path = tmp_path / "t.safetensors"
    with encode.open_tensors(path, {"a": (3, 5), "b": (3, 2)}, np.dtype(np.float16)) as tensors:
        tensors["a"][:] = 1
        tensors["b"][1] = [2, 3]
    loaded = load_file(path)
    assert loaded["a"].sum() == 15
    assert loaded["b"].tolist() == [[0, 0], [2, 3], [0, 0]]
    assert pa.types.is_floating(pa.from_numpy_dtype(loaded["a"].dtype))
