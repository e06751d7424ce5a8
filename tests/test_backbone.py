"""ntulm/language_model/backbone.py: what is loaded, what is refused."""

import contextlib
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ntulm.errors import UserError
from ntulm.language_model import backbone
from ntulm.language_model.backbone import (
    PACKAGED_SHA256,
    WEIGHTS,
    load_backbone,
    load_model,
    packaged_directory,
    save_model,
)

CPU = torch.device("cpu")


def test_all_that_is_read_of_the_package_is_verified():
    read = {file.name for file in packaged_directory().iterdir() if file.is_file()}
    assert read - set(PACKAGED_SHA256) == {
        ".gitattributes", "README.md", "data_config.json", "modules.json",
        "config_sentence_transformers.json", "sentence_bert_config.json",
    }  # fmt: skip


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_changed_file_of_the_package_is_refused(tmp_path, monkeypatch, name):
    copy = tmp_path / "gt" / "model"
    shutil.copytree(packaged_directory(), copy)
    with (copy / name).open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    spec = type("Spec", (), {"origin": str(tmp_path / "gt" / "__init__.py")})
    monkeypatch.setattr(backbone.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=f"{re.escape(name)}: sha256"):
        load_backbone("minilm", 0, CPU)


def test_minilm_has_a_fresh_tied_head_that_follows_from_the_seed():
    model, tokenizer, fresh = load_backbone("minilm", 1, CPU)
    assert fresh
    same, *_ = load_backbone("minilm", 1, CPU)
    other, *_ = load_backbone("minilm", 2, CPU)
    head, same_head, other_head = (m.backbone.cls.predictions.transform.dense.weight for m in (model, same, other))
    assert torch.equal(head, same_head)
    assert not torch.equal(head, other_head)
    assert model.backbone.cls.predictions.decoder.weight is model.encoder.embeddings.word_embeddings.weight
    assert tokenizer.is_fast
    assert model.config.slot_width == 0


def test_a_saved_model_loads_again_with_its_tokenizer(tiny_backbone, tmp_path):
    model, tokenizer, fresh = load_backbone(str(tiny_backbone), 0, CPU)
    assert not fresh
    save_model(model, tokenizer, tmp_path)
    loaded, loaded_tokenizer = load_model(tmp_path, "adapt", CPU)
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name
    assert loaded_tokenizer("i like it").input_ids == tokenizer("i like it").input_ids
    assert loaded.encoder.config._attn_implementation == "eager"


def test_a_model_that_is_not_there_names_the_stage(tmp_path):
    with pytest.raises(UserError, match="dvc repro adapt"):
        load_model(tmp_path, "adapt", CPU)


EVIL = """from pathlib import Path
Path({mark!r}).touch()
from transformers import BertConfig as EvilConfig, BertForMaskedLM as EvilModel, BertTokenizerFast as EvilTokenizer
"""


@pytest.fixture
def foreign(tiny_backbone, tmp_path, monkeypatch):
    """Gives a directory code of its own that leaves a mark when it runs; asks fail, as a prompt would."""
    mark = tmp_path / "mark"

    def ask(*words):
        mark.touch()
        return "y"

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def spoil(directory):
        (directory / "evil.py").write_text(EVIL.format(mark=str(mark)))
        classes = {"AutoConfig": "evil.EvilConfig", "AutoModelForMaskedLM": "evil.EvilModel"}
        tokenizer = {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}
        for name, auto_map in (("config.json", classes | tokenizer), ("tokenizer_config.json", tokenizer)):
            value = json.loads((directory / name).read_text()) | {"auto_map": auto_map}
            (directory / name).write_text(json.dumps(value | ({"tokenizer_class": "Evil"} if "tok" in name else {})))

    return spoil, mark


def test_code_that_a_directory_comes_with_is_neither_run_nor_asked_about(tiny_backbone, tmp_path, foreign):
    spoil, mark = foreign
    model, tokenizer, _ = load_backbone(str(tiny_backbone), 0, CPU)
    written, copy = tmp_path / "written", tmp_path / "copy"
    written.mkdir()
    save_model(model, tokenizer, written)
    shutil.copytree(tiny_backbone, copy)
    spoil(written)
    spoil(copy)
    with pytest.raises(UserError, match=r"^[^\n]*written: the language model cannot be loaded: [^\n]*$"):
        load_model(written, "model", CPU)
    with contextlib.suppress(UserError):  # a family that transformers knows is loaded by its own code
        load_backbone(str(copy), 0, CPU)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (WEIGHTS, None),
        (WEIGHTS, b"cut short"),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "bert"}'),
        ("tokenizer.json", None),
        ("tokenizer.json", b'{"a": 1}'),
        ("tokenizer_config.json", None),
        ("tokenizer_config.json", b"{"),
    ],
)
def test_a_damaged_model_directory_is_one_line_that_names_it(tiny_backbone, tmp_path, name, content):
    model, tokenizer, _ = load_backbone(str(tiny_backbone), 0, CPU)
    save_model(model, tokenizer, tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        load_model(tmp_path, "model", CPU)
    assert str(refused.value).startswith(f"{tmp_path}: the language model cannot be loaded: ")
    assert "\n" not in str(refused.value)


def test_pickled_weights_are_refused(tiny_backbone, tmp_path):
    directory = tmp_path / "pickled"
    shutil.copytree(tiny_backbone, directory)
    (directory / WEIGHTS).rename(directory / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights"):
        load_backbone(str(directory), 0, CPU)


@pytest.mark.parametrize("named", ["pytorch_model.bin", "../other.safetensors", 1])
def test_an_index_that_names_other_files_is_refused(tiny_backbone, tmp_path, named):
    directory = tmp_path / "indexed"
    shutil.copytree(tiny_backbone, directory)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": named}}))
    with pytest.raises(UserError, match=r"index\.json names .*; expected \*\.safetensors"):
        load_backbone(str(directory), 0, CPU)
    with pytest.raises(UserError, match=r"index\.json names .*; expected \*\.safetensors"):
        load_model(directory, "model", CPU)


def test_a_model_that_lacks_weights_is_refused(tiny_backbone, tmp_path):
    model, tokenizer, _ = load_backbone(str(tiny_backbone), 0, CPU)
    save_model(model, tokenizer, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    gone = next(name for name in tensors if "attention" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(UserError, match=f"missing weights: {re.escape(gone)}; write or copy it again"):
        load_model(tmp_path, "model", CPU)


def test_truncated_weights_are_a_user_error(tiny_backbone, tmp_path):
    directory = tmp_path / "cut"
    shutil.copytree(tiny_backbone, directory)
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backbone(str(directory), 0, CPU)


def test_a_directory_without_a_model_or_that_does_not_exist_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        load_backbone(str(tmp_path), 0, CPU)
    with pytest.raises(UserError, match=r"no such directory.*minilm"):
        load_backbone(str(tmp_path / "nowhere"), 0, CPU)


def test_an_unreachable_hub_model_names_the_local_alternatives(monkeypatch):
    def unreachable(*arguments, **settings):
        raise OSError("We couldn't connect to the hub.")

    monkeypatch.setattr(backbone, "snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"bert-base-uncased.*minilm.*directory"):
        load_backbone("bert-base-uncased", 0, CPU)


def test_a_model_of_the_hub_is_loaded_from_its_local_copy(monkeypatch, tiny_backbone):
    monkeypatch.setattr(backbone, "snapshot_download", lambda name, **settings: str(tiny_backbone))
    from_hub, local = load_backbone("some/model", 0, CPU), load_backbone(str(tiny_backbone), 0, CPU)
    for one, other in zip(from_hub.model.parameters(), local.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_unsupported_family_is_refused(monkeypatch, tiny_backbone):
    settings = type("Settings", (), {"model_type": "gpt2"})
    monkeypatch.setattr(backbone.AutoConfig, "from_pretrained", lambda *arguments, **keywords: settings)
    with pytest.raises(UserError, match="gpt2"):
        load_backbone(str(tiny_backbone), 0, CPU)
