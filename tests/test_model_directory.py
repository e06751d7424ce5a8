"""ntulm/model.py: the directory holds all that is needed and nothing that names a path of the machine."""

import json
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_model
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from ntulm import model
from ntulm.errors import UserError
from ntulm.inference import card
from ntulm.inference.directory import READING, Batches, Settings
from ntulm.layout import Layout
from ntulm.text import Reading

layout = Layout()


@pytest.fixture
def built(lm_project, tiny_backbone):
    """A project with a model directory; its parameters."""
    params = tiny_model.params_of()
    tiny_model.build(params, str(tiny_backbone), layout)
    return params


def facts(**changes):
    settings = Settings.read(layout.model)
    about = json.loads((layout.model / "classifiers/topic.side.json").read_text())
    values = {
        "settings": settings,
        "backbone": "minilm",
        "corpus": json.loads(layout.metrics("corpus").read_text()),
        "languages": ["en", "und"],
        "ntus": {"user": 8},
        "tables": json.loads((layout.evaluate / "tables.json").read_text()),
        "classifiers": [about],
    }
    return card.Facts(**{**values, **changes})


def test_the_directory_holds_what_reading_and_answering_need(built):
    found = {str(path.relative_to(layout.model)) for path in layout.model.rglob("*") if path.is_file()}
    assert found >= {
        "README.md",
        "classifiers/topic.side.json",
        "classifiers/topic.side.safetensors",
        "config.json",
        "model.safetensors",
        "modeling_ntulm.py",
        "reading.json",
        "table.safetensors",
        "tokenizer.json",
    }
    assert "test_losses.safetensors" not in found
    settings = Settings.read(layout.model)
    assert (settings.variant, settings.seed) == ("author+hashtag", 0)
    assert settings.source == Reading(**tiny_model.SOURCE)
    assert settings.batches.max_length == built.batches.max_length
    assert settings.scheme.to_json() == built.ntus.scheme.to_json()
    assert list(settings.scheme.roles) == list(built.ntus.roles)


def test_nothing_names_a_path_of_this_machine(built, lm_project, tiny_backbone):
    for path in layout.model.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for folder in (lm_project, tiny_backbone, lm_project.parent, tiny_backbone.parent.parent):
            assert str(folder).encode() not in content, path
        if path.suffix == ".json":
            assert b"name_or_path" not in content, path


def test_paths_are_taken_out_at_any_depth():
    value = {"a": 1, "_name_or_path": "/x", "backbone": {"_name_or_path": "/y", "b": [{"name_or_path": "z"}]}}
    assert model.without_paths(value) == {"a": 1, "backbone": {"b": [{}]}}


def test_the_card_has_metadata_that_the_hub_reads_and_says_what_is_known(built):
    text = (layout.model / "README.md").read_text()
    data: Any = ModelCard(text).data
    assert data.language == ["en"]
    assert (data.license, data.library_name, data.base_model) == (
        "apache-2.0",
        "ntulm",
        "sentence-transformers/all-MiniLM-L6-v2",
    )
    (result,) = data.eval_results
    assert (result.task_name, result.metric_type, result.metric_value) == ("topic", "macro_f1", 0.9)
    for words in (
        "900 posts of 8 authors, 2020-01-01 to 2020-02-01",
        "synthetic",
        "0.900 [0.850, 0.950]",
        "+5.0 [+1.0",
    ):
        assert words in text
    assert "0.990" not in text  # a slice is not all test posts
    assert "8 of type user" in text
    assert "None: the authors in the table are made up." in text


def test_a_card_on_real_posts_says_what_is_not_known_and_that_the_table_is_personal_data(built):
    corpus = {**facts().corpus, "format": "table"}
    text = card.card(facts(corpus=corpus, backbone="/home/somebody/models/x"))
    assert "/home" not in text
    metadata = YAML(typ="safe").load(text.split("---")[1])
    assert metadata["license"] == "unknown"
    assert "base_model" not in metadata
    assert "Posts: not known" in text
    assert "a backbone of a local directory): not known" in text
    assert "personal data: pass the directory on only" in text


@pytest.mark.parametrize("name", ["models/secret-client", "secret-client"])
def test_a_directory_is_never_published_as_a_name_of_the_hub(built, lm_project, name):
    assert f"Fine-tuned from {name}" in card.card(facts(backbone=name))
    (lm_project / name).mkdir(parents=True)
    text = card.card(facts(backbone=name))
    assert "secret-client" not in text
    assert "base_model" not in text


def test_a_value_cannot_become_a_key_of_the_metadata(built):
    tables = json.loads((layout.evaluate / "tables.json").read_text())
    tables["datasets"][0]["dataset"] = 'x"\n---\nlicense: mit\n#'
    text = card.card(facts(tables=tables))
    data: Any = ModelCard(text).data
    assert data.license == "apache-2.0"


def test_languages_of_a_few_posts_are_not_named(built):
    posts = pq.read_table(layout.posts)
    codes = ["de"] * 40 + ["xx"] * 3 + ["en"] * (len(posts) - 43)
    pq.write_table(posts.drop_columns("lang").append_column("lang", [codes]), layout.posts)
    assert model.languages(layout.posts) == ["en", "de"]


def test_the_same_input_gives_the_same_bytes(built):
    def content():
        return {path.name: path.read_bytes() for path in layout.model.rglob("*") if path.is_file()}

    first = content()
    tiny_model.write_model_directory(built, layout)
    assert content() == first


def test_what_is_missing_is_said_and_leaves_the_old_directory(built):
    def fails(message, params=built):
        with pytest.raises(UserError, match=message):
            tiny_model.write_model_directory(params, layout)
        assert (layout.model / "README.md").is_file()

    fails("gives posts the NTUs of others", tiny_model.params_of(variant="shuffled"))
    (layout.scores("author+hashtag", 0, "topic") / "classifiers/author+hashtag.side.json").unlink()
    fails(r"author\+hashtag\.side\.json: not found; run `dvc repro probe`")
    (layout.pretrain("author+hashtag", 0) / "config.json").unlink()
    fails("run `dvc repro pretrain`")
    layout.reading.unlink()
    fails(r"reading\.json: not found")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (None, {"variant": 3}),
        (None, {"seed": "0"}),
        ("batches", {"max_length": -1}),
        ("batches", {"mask_urls": "yes"}),
        ("source", {"html": None}),
        ("source", {"pseudonyms": 3}),
        ("ntus", {"types": {"user": "sql"}}),
        ("ntus", {"types": {}}),
        ("ntus", {"roles": {"author": {"type": ["user"], "field": "author", "engagement": None}}}),
        ("ntus", {"roles": []}),
    ],
)
def test_settings_of_other_types_are_a_user_error(tmp_path, part, change):
    scheme = tiny_model.params_of().ntus.scheme
    Settings("text", 0, scheme, Batches(48, True, True), Reading(True, False, False, True)).write(tmp_path / READING)
    assert Settings.read(tmp_path).seed == 0
    value = json.loads((tmp_path / READING).read_text())
    (value if part is None else value[part]).update(change)
    (tmp_path / READING).write_text(json.dumps(value))
    with pytest.raises(UserError, match="not the settings of a model directory"):
        Settings.read(tmp_path)
