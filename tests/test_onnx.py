"""ntulm/onnx/ and `ntulm export`: the graph gives the vectors of the model, int8 is measured, mistakes are told."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_model

import ntulm
from ntulm.cli import app
from ntulm.errors import UserError
from ntulm.inference.version import version_of
from ntulm.language_model import encoder as encoder_module
from ntulm.layout import Layout

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
graph = pytest.importorskip("ntulm.onnx.graph")

ATOL = 1e-4  # between vectors of the graph and of `encode` in float32
DATASET = "data/tasks/topic/side.parquet"
POSTS = [
    "we like it",
    {"text": "we like it", "author": "left1"},
    {"text": "we like it", "author": "right2", "hashtags": ["so"]},
    {"text": "see it again " * 30, "author": "nobody"},
    {"text": "it #so", "author": "@Left3"},
]


def export(*words):
    assert app(["export", *map(str, words)], standalone_mode=False) in (None, 0)


def build(root, backbone, variant="author+hashtag", kind="single", *changes) -> Path:
    layout = Layout(root)
    tiny_model.build(tiny_model.params_of(*changes, variant=variant), str(backbone), layout, kind)
    return layout.model


_GRAPHS: dict[Any, bytes] = {}  # the exporter takes seconds, and gives each model the same graph


@pytest.fixture
def once(monkeypatch):
    """A graph is made once for all tests of a variant."""

    def export(network, file):
        key = (network.config.variant, network.config.slot_width, network.config.slot_unknown)
        if key not in _GRAPHS:
            graph.export(network, file)
            _GRAPHS[key] = file.read_bytes()
        file.write_bytes(_GRAPHS[key])

    monkeypatch.setattr("ntulm.use.export.export", export)


@pytest.fixture
def directory(lm_project, tiny_backbone, once) -> Path:
    return build(lm_project, tiny_backbone)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["author+hashtag", "text", "author++hashtag"])
def test_vectors_are_those_of_encode(lm_project, tiny_backbone, once, monkeypatch, variant):
    monkeypatch.setattr(encoder_module, "has_bf16", lambda device: False)  # vectors of torch are not rounded
    directory = build(lm_project, tiny_backbone, variant)
    export(directory, "--out", "exported")
    model, exported = ntulm.load(directory), ntulm.load("exported")
    posts = [*POSTS, *tiny_model.corpus_posts(Layout(lm_project), 580, 120)]
    vectors = exported.encode(posts)
    assert (vectors.dtype, vectors.shape) == (np.float32, (125, 32))
    np.testing.assert_allclose(vectors, model.encode(posts), atol=ATOL)
    for post in POSTS:  # a batch of one
        np.testing.assert_allclose(exported.encode([post]), model.encode([post]), atol=ATOL)
    apart = np.abs(vectors[1] - vectors[2]).max()
    assert (apart > 10 * ATOL) == (variant != "text")  # the slot is in the graph
    assert exported.encode([]).shape == (0, 32)
    labels = [[one.labels for one in each.predict(posts, "topic")] for each in (model, exported)]
    assert np.mean([a == b for a, b in zip(*labels, strict=True)]) > 0.97  # float16 scores may tie otherwise


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["author+hashtag", "author.hashtag"])
def test_the_graph_leaves_slots_out_as_the_model_does(lm_project, tiny_backbone, once, monkeypatch, variant):
    monkeypatch.setattr(encoder_module, "has_bf16", lambda device: False)
    directory = build(lm_project, tiny_backbone, variant, "single", "pretrain.slot.unknown=left_out")
    export(directory, "--out", "exported")
    model, exported = ntulm.load(directory), ntulm.load("exported")
    posts = [*POSTS, *tiny_model.corpus_posts(Layout(lm_project), 580, 40)]
    vectors = exported.encode(posts)
    np.testing.assert_allclose(vectors, model.encode(posts), atol=ATOL)
    unknown = [{"text": "we like it", "author": "nobody"}, "we like it"]
    first, second = exported.encode(unknown)
    np.testing.assert_allclose(first, second, atol=ATOL)
    model.encoder.model.config.slot_unknown = "mean"
    assert np.abs(model.encode(unknown) - exported.encode(unknown)).max() > 10 * ATOL


def test_beside_weights_in_bfloat16_the_graph_points_the_same_way(directory):
    export(directory, "--out", "exported")
    ours, other = (ntulm.load(name).encode(POSTS) for name in (directory, "exported"))
    cosines = (ours * other).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > 0.999


def test_the_directory_stands_alone_and_all_commands_take_it(directory, lm_project, capsys):
    export(directory, "--out", "exported")
    names = {path.name for path in Path("exported").iterdir()}
    assert names == {
        "README.md", "classifiers", "model.onnx", "reading.json", "table.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    card = Path("exported/README.md").read_text(encoding="utf-8")
    assert version_of(directory) in card
    assert "SentenceTransformer" not in card
    assert '"onnx"' in card.split("---")[1]
    assert version_of(Path("exported")) != version_of(directory)
    Path("posts.csv").write_text("text,author\nwe like it,left1\nwe see,right2\n")
    for line in (
        "embed posts.csv --model exported --out vectors.parquet",
        "similar we --model exported --store vectors.parquet",
        "predict posts.csv --model exported --task topic --out labels.csv",
    ):
        assert app(line.split(), standalone_mode=False) in (None, 0)
    labels = [line.split(",")[1] for line in Path("labels.csv").read_text().splitlines()[1:]]
    assert labels == ["left", "right"]
    assert pq.read_table("vectors.parquet").num_rows == 2


def test_int8_is_measured_on_a_data_set_and_the_card_says_so(directory, lm_project, capsys):
    export(directory, "--out", "plain")
    export(directory, "--out", "small", "--int8", "--posts", DATASET)
    printed = capsys.readouterr().out
    card = Path("small/README.md").read_text(encoding="utf-8")
    assert "Against float32; 60 other posts gave the scales." in card
    said = r"On 60 posts of `side.parquet`: cosine of the vectors ([\d.]+) on average, ([\d.]+)"
    found = re.search(said, card)
    assert found is not None
    mean, least = map(float, found.groups())
    posts = tiny_model.corpus_posts(Layout(lm_project), 580, 120)[1::2]
    plain, small = (ntulm.load(name).encode(posts) for name in ("plain", "small"))
    cosines = (plain * small).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(small, axis=1)
    assert (mean, least) == pytest.approx((cosines.mean(), cosines.min()), abs=2e-4)
    assert 0.98 < least <= mean <= 1
    np.testing.assert_allclose(ntulm.load("small").encode(posts[:1])[0], small[0], atol=1e-5)  # by itself
    assert "times as fast as the model it came from" in printed
    assert not np.array_equal(plain, small)
    row = re.search(r"\| topic \| ([\d.]+)% \| macro_f1 \| ([\d.]+) \| ([\d.]+) \|", card)
    assert row is not None
    about = json.loads((directory / "classifiers/topic.side.json").read_text())
    assert float(row[2]) == pytest.approx(about["test"], abs=0.03)  # float32 beside what the pipeline measured
    assert float(row[1]) > 90
    assert row[0] in printed


def test_int8_is_measured_on_labelled_rows_and_on_posts_without_labels(lm_project, tiny_backbone, once):
    directory = build(lm_project, tiny_backbone, kind="multi")
    rows = "".join(f"we like it again,{side}{number},{side}\n" for side in ("left", "right") for number in range(4))
    Path("rows.csv").write_text("text,author,label\n" + rows)
    export(directory, "--out", "one", "--int8", "--posts", "rows.csv", "--task", "topic")
    assert "4 other posts gave the scales.\n\nOn 4 posts of `rows.csv`:" in Path("one/README.md").read_text()
    assert re.search(r"\| topic \| [\d.]+% \| map \| [\d.]+ \| [\d.]+ \|", Path("one/README.md").read_text())
    export(directory, "--out", "other", "--int8", "--posts", "rows.csv")
    assert re.search(r"\| topic \| [\d.]+% \|  \|  \|  \|", Path("other/README.md").read_text())


def test_mistakes_are_told_before_the_work(directory, monkeypatch):
    Path("there").mkdir()
    Path("rows.csv").write_text("text,author,label\nwe,left1,middle\n")
    Path("exported").mkdir()
    Path("exported/model.onnx").write_bytes(b"no graph")
    monkeypatch.setattr("ntulm.use.export.export", lambda *_: pytest.fail("the graph is made"))
    for words, message in {
        ("none", "--out", "new"): "no such directory",
        (directory, "--out", "there"): "is there already",
        ("exported", "--out", "new"): "was exported already",
        (directory, "--out", "new", "--int8"): "--posts POSTS names posts",
        (directory, "--out", "new", "--posts", "rows.csv"): "expected --int8",
        (directory, "--out", "new", "--int8", "--posts", "no.csv"): "not found",
        (directory, "--out", "new", "--int8", "--posts", "rows.csv", "--task", "topic"): "'middle' is no class",
        (directory, "--out", "new", "--int8", "--posts", "rows.csv", "--task", "x"): "not in this model",
        (directory, "--out", "new", "--task", "topic"): "expected --posts",
    }.items():
        with pytest.raises(UserError, match=re.escape(message)):
            export(*words)
        assert not Path("new").exists()


def test_a_damaged_graph_and_another_device_are_told(directory):
    export(directory, "--out", "exported")
    with pytest.raises(UserError, match="runs on the CPU"):
        ntulm.load("exported", "cuda")
    graph = Path("exported/model.onnx")
    graph.write_bytes(graph.read_bytes()[:5000])
    with pytest.raises(UserError, match="the graph cannot be read"):
        ntulm.load("exported")
    Path("exported/tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        ntulm.load("exported")


def test_loading_a_model_does_not_import_onnxruntime(directory):
    code = f"import sys, ntulm; ntulm.load({str(directory)!r}); print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
