"""ntulm/inference/hub.py: a model goes to a stand-in of the hub and comes back; nothing private becomes public."""

from typing import Any

import fake_hub
import numpy as np
import pytest
import tiny_model
from huggingface_hub import ModelCard, constants

import ntulm
from ntulm.errors import UserError
from ntulm.inference import hub as hub_module
from ntulm.inference.sentence_module import NtulmPosts
from ntulm.layout import Layout

TEXT = "we like it #so"


@pytest.fixture
def directory(lm_project, tiny_backbone):
    """A model directory."""
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    return layout.model


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What the stand-in of the hub holds; huggingface_hub asks it and nobody else, and keeps copies in `cache`."""
    with fake_hub.hub() as (address, repositories):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
        yield repositories


def test_a_model_goes_to_the_hub_and_comes_back(directory, hub, tmp_path):
    model = ntulm.load(directory)
    (directory / "notes.md").write_text("not of the model")
    address = model.push_to_hub("owner/posts")
    repository = hub["owner/posts"]
    assert address == f"{constants.ENDPOINT}/owner/posts/commit/{repository.sha}"
    assert (repository.private, repository.commits) == (True, 1)
    there = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert set(repository.files) == there - {"notes.md"}
    data: Any = ModelCard(repository.files["README.md"].decode()).data
    assert data.library_name == "ntulm"

    repository.files["classifiers/earlier.side.json"] = b"{}"
    model.push_to_hub("hf://owner/posts")
    assert "classifiers/earlier.side.json" not in repository.files

    np.testing.assert_array_equal(ntulm.load("hf://owner/posts").encode([TEXT]), model.encode([TEXT]))
    assert not list((tmp_path / "cache").rglob("modeling_ntulm.py"))  # `ntulm.load` takes no code
    assert NtulmPosts.load("owner/posts").get_embedding_dimension() == 32  # as sentence-transformers asks for it


def test_what_is_private_does_not_become_public_by_itself(directory, hub):
    hub["owner/open"] = fake_hub.Repository(private=False)
    with pytest.raises(UserError, match="hf://owner/open: is public already"):
        hub_module.push(directory, "owner/open", private=True)
    assert hub["owner/open"].files == {}
    hub_module.push(directory, "owner/open", private=False)
    assert "README.md" in hub["owner/open"].files


def test_a_hub_that_refuses_or_is_not_there_is_one_line(directory, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(UserError, match=r"^hf://owner/posts: the Hugging Face hub took nothing \(.*401"):
        hub_module.push(directory, "owner/posts", private=True)
    assert hub == {}
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the Hugging Face hub took nothing"):
        hub_module.push(directory, "owner/posts", private=True)


@pytest.mark.parametrize("name", ["posts", "a/b/c", "../x/y", "", "hf://", "a b/c"])
def test_what_is_no_name_asks_nobody(tmp_path, name):
    with pytest.raises(UserError, match="expected `owner/name`"):
        hub_module.push(tmp_path, name, private=True)
