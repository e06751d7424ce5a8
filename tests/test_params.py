import pytest

from ntulm.configure import configured
from ntulm.errors import UserError
from ntulm.params import load_params


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
        (("variants: [text,", "variants: [texts,"), "run.variants: variant 'texts': unknown role 'texts'"),
        (("tasks: [topic,", "tasks: [topics,"), "run.tasks names 'topics'"),
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
