import re

import pytest
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.errors import UserError
from ntulm.params import check_params, load_params


def write(path, changes=(), replace=("", "")):
    path.write_text(configured("quickstart", list(changes)).replace(*replace))
    return path


def test_params_are_frozen_and_typed(tmp_path):
    params = load_params(write(tmp_path / "params.yaml"))
    assert params.pretrain.learning_rate == 3e-4
    with pytest.raises(ValueError, match="frozen"):
        params.pretrain.epochs = 3


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (("  seeds:", "  sedes:"), "run.sedes: unknown key"),
        (("  memory_limit: 2GB", "  memory_limit: lots"), "graph.memory_limit: .* got 'lots'"),
        (("  dimension: 64", "  dimension: many"), "embeddings.dimension: .* got 'many'"),
        (("  - text\n", "  - texts\n"), "run.variants: variant 'texts': unknown role 'texts'"),
        (("  - topic\n  - hashtag\n  - sense", "  - topics\n  - sense"), "run.tasks names 'topics'"),
        (("    kind: hashtag", "    kind: hashtags"), "tasks.hashtag: .*'hashtags'"),
        (("  confidence: 0.95\n", ""), "evaluate.confidence: missing"),
    ],
)
def test_a_bad_parameter_names_file_key_and_value(tmp_path, replace, message):
    path = write(tmp_path / "params.yaml", replace=replace)
    with pytest.raises(UserError, match=f"params.yaml: {message}") as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_write_one(tmp_path):
    with pytest.raises(UserError, match="ntulm configure"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["run: [", "a: b: c", "\x00", "- 1"])
def test_what_is_not_a_mapping_in_yaml_is_a_user_error(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


def test_a_file_of_an_earlier_version_is_told_what_moved(tmp_path):
    path = write(tmp_path / "params.yaml", replace=("  relations: #", "  relations: [authored]\n  unknown: #"))
    text = path.read_text().replace("  slot: #", "  slot_scale: 10.0\n  slot: #")
    path.write_text(text.replace("challenge: #", "challenge:\n  variant: author #"))
    with pytest.raises(UserError, match=r"params\.yaml: of an earlier version: ") as caught:
        load_params(path)
    assert "graph.relations is now relations with a role on each side" in str(caught.value)
    assert "pretrain.slot_scale is now pretrain.slot.scale" in str(caught.value)
    assert "challenge.variant is now model.variant" in str(caught.value)
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"roles": {"tag": {"type": "hashtag", "field": "text"}}}, "cannot be read from the field 'text'"),
        ({"roles": {"who": {"type": "hashtag", "engagement": "favorited"}}}, "whoever engaged is a user"),
        ({"roles": {"tfidf": {"type": "user", "field": "author"}}}, "the name of a variant or system"),
        ({"roles": {"tag": {"type": "hashtag", "field": "hashtag"}}}, "ntus.roles.tag.field.field: Input should be"),
    ],
)
def test_roles_that_mean_nothing_are_refused(change, message):
    values = YAML(typ="safe", pure=True).load(configured("quickstart", []))
    values["ntus"]["roles"] |= change["roles"]
    with pytest.raises(UserError, match=re.escape(message)) as error:
        check_params(values, "params.yaml")
    assert str(error.value).count("ntus") == 1


def test_relations_and_systems_that_cannot_be_are_refused():
    values = YAML(typ="safe", pure=True).load(configured("quickstart", []))
    values["graph"]["relations"]["alone"] = {"left": "author", "right": "author"}
    with pytest.raises(UserError, match="a post has one author"):
        check_params(values, "params.yaml")
    del values["graph"]["relations"]["alone"]
    values["encode"]["post_concat"] = "shuffled"
    with pytest.raises(UserError, match="has the NTUs of other posts"):
        check_params(values, "params.yaml")
