"""ntulm/inference/: new posts are read, encoded and scored as in the pipeline, from a moved directory alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

import ntulm
from ntulm.errors import UserError
from ntulm.inference import directory as directory_module
from ntulm.inference.auto import NtulmModel
from ntulm.inference.directory import Settings, find
from ntulm.inference.reading import read_posts
from ntulm.language_model.model import NtulmConfig, NtulmForMaskedLM
from ntulm.layout import Layout
from ntulm.text import Reading

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "numpy", "pyarrow", "pydantic")
# What a machine that only embeds posts does not have.
ABSENT = ("duckdb", "dvc", "evidently", "optuna", "pandas", "prefect", "pydantic", "ruamel", "scipy", "sklearn")
SCHEME = tiny_model.params_of().ntus.scheme
HANDLES = Reading(**tiny_model.SOURCE)


@pytest.fixture
def moved(lm_project, tiny_backbone):
    """A model directory, moved out of its project; the project's layout."""
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    return Path(shutil.move(layout.model, lm_project / "elsewhere")), layout


def test_import_ntulm_is_light():
    code = f"import sys, ntulm; print([name for name in {HEAVY} if name in sys.modules], ntulm.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[] 0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        ntulm.x  # noqa: B018


def test_vectors_and_scores_are_those_of_the_stages(moved):
    directory, layout = moved
    model = ntulm.load(directory)
    name = model.settings.variant
    posts = tiny_model.corpus_posts(layout, 580, 120)  # the test posts of the task
    stored = load_file(layout.vectors(name, 0, "topic") / "side.safetensors")["vectors"][480:]
    vectors = model.encode(posts)
    assert (vectors.dtype, vectors.shape, stored.dtype) == (np.float32, (120, 32), np.float16)
    np.testing.assert_allclose(vectors.astype(np.float16), stored, atol=2e-3)
    scores = load_file(layout.scores(name, 0, "topic") / f"{name}.side.safetensors")["scores"]
    found = model.predict(posts, "topic")
    given = np.array([list(one.probabilities.values()) for one in found])
    np.testing.assert_allclose(given, scores, atol=5e-3)
    assert [one.labels for one in found] == [[tiny_model.CLASSES[place]] for place in given.argmax(1)]
    right = [one.labels[0] == ("right" if (post["author"] or "").startswith("right") else "left")
             for one, post in zip(found, posts, strict=True)]  # fmt: skip
    assert np.mean(right) > 0.9  # which only the author tells
    assert [one.known for one in found] == [post["author"] is not None for post in posts]


def test_a_model_of_before_has_the_mean_row_and_one_probe_for_all(moved):
    directory, _ = moved
    posts = ["we like it", {"text": "we like it", "author": "left1"}]
    model = ntulm.load(directory)
    vectors, found = model.encode(posts), model.predict(posts, "topic")
    for path, key in (
        (directory / "config.json", "slot_unknown"),
        (directory / "classifiers/topic.side.json", "unknown"),
    ):
        value = json.loads(path.read_text())
        del value[key]
        path.write_text(json.dumps(value))
    before = ntulm.load(directory)
    np.testing.assert_array_equal(before.encode(posts), vectors)
    again = before.predict(posts, "topic")
    assert again[1] == found[1]
    assert again[0].probabilities != found[0].probabilities
    assert (model.encoder.model.leaves_out, before.encoder.model.leaves_out) == (False, False)


def test_labels_of_several_classes_are_those_from_the_threshold_on(lm_project, tiny_backbone):
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout, kind="multi")
    model = ntulm.load(layout.model)
    classifier = model.classifiers["topic.side"]
    assert classifier.unknown is not None
    for one in model.predict(tiny_model.corpus_posts(layout, 580, 120), "topic"):
        threshold = (classifier if one.known else classifier.unknown).about["threshold"]
        chosen = {name for name, probability in one.probabilities.items() if probability >= threshold}
        assert set(one.labels) == chosen
        assert one.labels == sorted(one.labels, key=lambda name: -one.probabilities[name])


def test_one_author_in_any_spelling_and_posts_of_any_make(moved):
    directory, _ = moved
    model = ntulm.load(directory)
    spelled = [{"text": "we like it #So", "author": name} for name in ("@Right0", "RIGHT0", "right0", "＠right0 ")]
    vectors = model.encode(spelled)
    assert (vectors == vectors[0]).all()
    assert not np.allclose(vectors[0], model.encode([{"text": "we like it #So"}])[0])
    assert model.known(spelled) == [[("author", "user", "right0")]] * 4
    post = {"text": "@Left1 see #so", "author": "nobody"}
    assert model.known([post]) == [[("mention", "user", "left1")]]
    assert sorted(model.unknown([post])[0]) == [("author", "user", "nobody"), ("hashtag", "hashtag", "so")]
    table = {"text": ["we like it #so"] * 2, "author": ["right0", None], "hashtags": [["so"], []]}
    expected = model.encode(pa.table(table).to_pylist())
    for posts in (pa.table(table), pd.DataFrame(table)):
        np.testing.assert_array_equal(model.encode(posts), expected)
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(model.encode(polars.DataFrame(table)), expected)


def test_tasks_and_classes_have_names(moved):
    directory, _ = moved
    model = ntulm.load(str(directory))
    assert (model.tasks, model.classes("topic")) == (["topic"], ["left", "right"])
    assert model.classes("topic.side") == ["left", "right"]
    with pytest.raises(UserError, match=r"task 'hashtag': not in this model; it has topic"):
        model.predict(["a post"], "hashtag")
    for suffix in (".json", ".safetensors"):
        shutil.copy(directory / f"classifiers/topic.side{suffix}", directory / f"classifiers/topic.other{suffix}")
    assert ntulm.load(directory).tasks == ["topic.other", "topic.side"]
    assert model.encode([]).shape == (0, 32)
    assert (model.predict([], "topic"), model.known([])) == ([], [])


def test_a_variant_with_two_slots_and_one_with_none_load_too(lm_project, tiny_backbone):
    layout = Layout(lm_project)
    tiny_model.write_corpus(layout)
    for variant in ("author.hashtag", "author++hashtag", "words", "unadapted"):
        params = tiny_model.params_of("probe.search=false", variant=variant)
        tiny_model.write_task(params, layout)
        tiny_model.write_language_model(params, str(tiny_backbone), layout)
        tiny_model.run_stages(params, layout)
        tiny_model.write_model_directory(params, layout)
        (one,) = ntulm.load(layout.model).predict([{"text": "we like it", "author": "left0"}], "topic")
        assert one.known == (variant in ("author.hashtag", "author++hashtag"))
        assert len(one.labels) == 1


def read(post, source=HANDLES, scheme=SCHEME):
    (found,) = read_posts([post], scheme, source).table.to_pylist()
    return found["text"], found["author"], [(ntu["role"], ntu["key"]) for ntu in found["ntus"]]


def test_what_is_not_given_is_read_from_the_text_and_what_is_given_counts():
    said = "@Eve see #Cats &amp; dogs"
    assert read(said) == ("@Eve see #Cats & dogs", None, [("mention", "eve"), ("hashtag", "cats")])
    assert read({"text": said, "author": "@Bob", "hashtags": None, "mentions": float("nan")}) == (
        "@Eve see #Cats & dogs", "bob", [("author", "bob"), ("mention", "eve"), ("hashtag", "cats")],
    )  # fmt: skip
    assert read({"text": said, "hashtags": [], "mentions": ["@Kim"]})[2] == [("mention", "kim")]
    assert read({"text": said, "hashtags": np.array(["#DOGS", "dogs"]), "mentions": ()})[2] == [("hashtag", "dogs")]


def test_a_text_is_read_as_its_source_writes_texts_and_users():
    ids = Reading(casefold_users=False, mention_hosts=False, html=False, mentions_in_text=False)
    assert read({"text": "@eve see #Cats", "author": 12}, ids)[1:] == ("12", [("author", "12"), ("hashtag", "cats")])
    hosts = Reading(casefold_users=True, mention_hosts=True, html=True, mentions_in_text=True)
    assert read("<p>Hi @Eve@B.example</p><p>#Cats</p>", hosts) == (
        "Hi @Eve@B.example\n#Cats", None, [("mention", "eve@b.example"), ("hashtag", "cats")],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("posts", "message"),
    [
        ("a post", "posts: one str; expected a list of posts"),
        ({"text": "a post"}, "posts: one dict"),
        (7, "posts: int; expected a list"),
        (["a", " "], r"posts\[1\]\.text: ' '; expected a text that is not empty"),
        (["a", None], r"posts\[1\]: NoneType; expected a text, or a dict"),
        ([{"author": "a"}], r"posts\[0\]\.text: None; expected a text"),
        ([{"text": 3}], r"posts\[0\]\.text: 3"),
        (["a\ud800"], r"posts\[0\]\.text: half a character"),
        (["a", {"text": "a", "user": "b"}], r"posts\[1\]: unknown field 'user'; a post has post_id, text, author"),
        ([{"text": "a", "author": 1.5}], r"posts\[0\]\.author: 1\.5; expected a string or null"),
        ([{"text": "a", "author": True}], r"posts\[0\]\.author: True"),
        ([{"text": "a", "hashtags": "b c"}], r"posts\[0\]\.hashtags: 'b c'; expected a list of strings or null"),
        ([{"text": "a", "urls": [["b"]]}], r"posts\[0\]\.urls: \['b'\]"),
        ([{"text": "a", "created_at": []}], r"posts\[0\]\.created_at: \[\]; expected a date"),
        (pd.DataFrame({"text": ["a", 3]}), "posts: a column holds values of several types"),
        (pa.table({"text": ["a"], "likes": [1]}), r"posts\[0\]: unknown field 'likes'"),
    ],
)
def test_posts_that_are_not_understood_are_errors_that_name_the_row(posts, message):
    with pytest.raises(UserError, match=message):
        read_posts(posts, SCHEME, HANDLES)


def test_transformers_loads_the_directory(moved):
    directory, _ = moved
    assert isinstance(AutoConfig.from_pretrained(directory), NtulmConfig)
    masked = AutoModelForMaskedLM.from_pretrained(directory).eval()
    assert isinstance(masked, NtulmForMaskedLM)
    model = AutoModel.from_pretrained(directory).eval()
    assert isinstance(model, NtulmModel)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    encoded = tokenizer(["we like it", "so"], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**encoded)
        expected, _ = masked.encode(encoded["input_ids"], encoded["attention_mask"])
    torch.testing.assert_close(found.last_hidden_state, expected)
    guesses = pipeline("fill-mask", model=str(directory))("we like [MASK]")
    assert len(guesses) == 5


@pytest.mark.slow
def test_with_trusted_code_the_directory_loads_where_ntulm_is_not_imported(moved, tmp_path):
    directory, _ = moved
    code = (
        "from transformers import AutoModelForMaskedLM\n"
        f"model = AutoModelForMaskedLM.from_pretrained({str(directory)!r}, trust_remote_code=True)\n"
        "print(type(model).__name__)"
    )
    environment = {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip() == "NtulmForMaskedLM", done.stderr[-2000:]


@pytest.mark.slow
def test_a_moved_directory_answers_without_network_and_with_the_light_install_alone(moved):
    directory, _ = moved
    code = f"""
import socket, sys
class Light:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {ABSENT} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Light, sys.meta_path)
def refuse(*arguments, **options):
    raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import ntulm
model = ntulm.load({str(directory)!r})
print(model.encode(["we like it"]).shape, model.predict(["we like it"], "topic")[0].labels != [])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "(1, 32) True", done.stderr[-2000:]


def test_a_promoted_version_is_one_that_was_fetched(moved, monkeypatch):
    directory, layout = moved
    with pytest.raises(UserError, match=r"`dvc artifacts get . ntulm --stage production -o data/champion/data/model`"):
        ntulm.load("production")
    with pytest.raises(
        UserError, match=r"v2\.0\.0: not in .*`dvc artifacts get \. ntulm --rev v2\.0\.0 -o data/versions"
    ):
        ntulm.load("v2.0.0")
    shutil.copytree(directory, layout.champion.model)
    shutil.copytree(directory, layout.version("v2.0.0"))
    monkeypatch.chdir(layout.root)
    assert find("production") == Layout().champion.model
    assert ntulm.load("v2.0.0").tasks == ["topic"]


def test_only_a_name_of_the_hub_is_looked_for_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def download(name):
        asked.append(name)
        return tmp_path

    monkeypatch.setattr(directory_module, "download", download)
    for name in ("nowhere", "./a/b", "/a/b", "a/b/c", "~/a", "data/model", "hf://a", "hf://a/b/c"):
        with pytest.raises(UserError, match="no such directory; expected a model directory"):
            find(name)
    with pytest.raises(UserError, match="no such directory"):
        find(Path("hf://owner/name"))
    assert asked == []
    assert find("hf://owner/name") == tmp_path
    assert asked == ["owner/name"]


def test_a_hub_that_gives_nothing_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    import huggingface_hub

    def refuse(name, allow_patterns):
        assert not any(pattern.endswith("py") for pattern in allow_patterns)
        raise OSError("no route.\nlines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"^hf://owner/name: the Hugging Face hub gave nothing \(no route\.\)$"):
        find("hf://owner/name")


def test_what_is_no_model_directory_is_said(moved):
    directory, layout = moved
    with pytest.raises(UserError, match=r"no reading\.json; expected a model directory"):
        ntulm.load(layout.pretrain("author+hashtag", 0))
    path = directory / "reading.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"format": "ntulm-model-9"}))
    with pytest.raises(UserError, match="this version of ntulm reads 'ntulm-model-1'"):
        Settings.read(directory)
    for broken in ("[]", "{", json.dumps({"format": "ntulm-model-1"})):
        path.write_text(broken)
        with pytest.raises(UserError, match="not the settings of a model directory"):
            Settings.read(directory)


def test_the_stored_table_is_the_one_of_the_stage(moved):
    directory, layout = moved
    assert (directory / "table.safetensors").read_bytes() == (layout.embeddings / "table.safetensors").read_bytes()
    assert pq.read_table(layout.posts).num_rows == 900
