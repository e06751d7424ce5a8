"""ntulm/inference/sentence_module.py: sentence-transformers loads the directory and gives the same vectors."""

import json
import shutil

import numpy as np
import pytest
import tiny_model
import torch
from transformers import AutoModel

import ntulm
from ntulm.device import has_bf16
from ntulm.errors import UserError
from ntulm.inference.auto import NtulmModel
from ntulm.inference.sentence_module import NtulmPosts
from ntulm.layout import Layout

TEXTS = ["we like it #so", "so", "today and again and again and on"]
POSTS = [
    "we like it #so",
    {"text": "see it again", "author": "@Right0"},
    {"text": "see it again", "author": "left0", "hashtags": ["so", "on"]},
    {"text": "today", "author": None, "hashtags": []},
]


@pytest.fixture
def directory(lm_project, tiny_backbone):
    """A model directory, moved out of its project."""
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), Layout())
    return shutil.move(Layout(lm_project).model, lm_project / "elsewhere")


def close(vectors, expected):
    """Equal but for rounding: of float32, or of bfloat16 where the hardware has it."""
    rough = has_bf16(torch.device("cpu"))
    np.testing.assert_allclose(vectors, expected, atol=2e-2 if rough else 1e-5)


def test_sentence_transformers_takes_texts_and_posts_and_gives_the_vectors_of_encode(directory):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    loaded = sentence_transformers.SentenceTransformer(str(directory), trust_remote_code=True)
    model = ntulm.load(directory)
    close(loaded.encode(TEXTS), model.encode(TEXTS))
    vectors = loaded.encode(POSTS, batch_size=2)
    assert (vectors.dtype, vectors.shape) == (np.float32, (4, 32))
    close(vectors, model.encode(POSTS))
    assert not np.allclose(vectors[1], vectors[2], atol=1e-2)  # of two authors
    close(loaded.encode(POSTS[1]), model.encode(POSTS[1:2])[0])
    close(loaded.encode([TEXTS[1]], prompt="we like it "), model.encode(["we like it so"]))
    assert loaded.get_embedding_dimension() == 32
    assert (loaded.max_seq_length, loaded.similarity_fn_name) == (model.settings.batches.max_length, "cosine")
    assert loaded.similarity(vectors[:1], vectors).shape == (1, 4)
    with pytest.raises(UserError, match=r"posts\[0\]: unknown field 'user'"):
        loaded.encode([{"text": "a", "user": "b"}])


def test_what_sentence_transformers_saves_is_a_model_directory_again(directory, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    loaded = sentence_transformers.SentenceTransformer(str(directory), trust_remote_code=True)
    loaded.save(str(tmp_path / "saved"))
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(POSTS), loaded.encode(POSTS))
    model = ntulm.load(tmp_path / "saved")
    close(model.encode(POSTS), loaded.encode(POSTS))
    assert model.tasks == ["topic"]


def test_without_trust_nothing_of_it_runs(directory):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        sentence_transformers.SentenceTransformer(str(directory))


def test_transformers_still_loads_the_directory(directory):
    assert json.loads((directory / "modules.json").read_text())[0]["type"].startswith("ntulm.")
    assert isinstance(AutoModel.from_pretrained(directory), NtulmModel)


def test_the_module_needs_nothing_of_sentence_transformers(directory):
    module = NtulmPosts.load(str(directory), "", trust_remote_code=True, backend="torch")
    with torch.inference_mode():
        vectors = module(module.preprocess(POSTS))["sentence_embedding"]
    close(vectors.float().numpy(), ntulm.load(directory).encode(POSTS))
    with torch.inference_mode():
        plain = module(module.tokenize(TEXTS))["sentence_embedding"]
    assert plain.shape == (3, module.get_sentence_embedding_dimension())
    module.max_seq_length = 4
    assert module.preprocess(TEXTS)["attention_mask"].sum(1).tolist() == [4, 3, 4]
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_type_of_the_weights_can_be_chosen(directory):
    module = NtulmPosts.load(str(directory), model_kwargs={"dtype": "bfloat16"})
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        vectors = module(module.preprocess(POSTS))["sentence_embedding"]
    assert vectors.dtype == torch.float32
    expected = torch.from_numpy(ntulm.load(directory).encode(POSTS))
    assert torch.cosine_similarity(vectors, expected).min() > 0.999


def test_a_variant_with_a_projection_per_type_and_one_without_slots(lm_project, tiny_backbone):
    layout = Layout(lm_project)
    tiny_model.write_corpus(layout)
    for variant in ("author++hashtag", "author.hashtag", "words"):
        params = tiny_model.params_of("probe.search=false", variant=variant)
        tiny_model.write_task(params, layout)
        tiny_model.write_language_model(params, str(tiny_backbone), layout)
        tiny_model.run_stages(params, layout)
        tiny_model.write_model_directory(params, layout)
        module = NtulmPosts(layout.model)
        with torch.inference_mode():
            vectors = module(module.preprocess(POSTS))["sentence_embedding"]
        close(vectors.numpy(), ntulm.load(layout.model).encode(POSTS))
