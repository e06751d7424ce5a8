import pytest
from ruamel.yaml import YAML

from ntulm.configure import configured, run
from ntulm.errors import UserError


def test_a_change_reaches_its_key_and_comments_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("quickstart", ["pretrain.epochs=3", "run.seeds=[0, 1]", "corpus.languages=[en]"])
    text = (tmp_path / "params.yaml").read_text()
    values = YAML(typ="safe", pure=True).load(text)
    assert values["pretrain"]["epochs"] == 3
    assert values["run"]["seeds"] == [0, 1]
    assert "# keep these language codes only" in text


def test_the_data_folder_fills_every_path(tmp_path):
    text = configured("ira", [f"data={tmp_path}/"])
    assert f"{tmp_path}/ira/posts" in text
    assert "DATA/" not in text


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("quickstat", [], "recipe 'quickstat': unknown; there are ira, paper, quickstart, stocknet"),
        ("x; rm -rf /", [], "unknown; there are"),
        ("../quickstart", [], "unknown; there are"),
        ("ira", [], "recipe ira needs the folder of its data"),
        ("ira", ["data=nowhere"], "data=nowhere: no such folder"),
        ("quickstart", ["data=."], "reads no outside data"),
        ("quickstart", ["pretrain.epoch=3"], "pretrain.epoch: unknown key"),
        ("quickstart", ["epochs=3"], "epochs: unknown key"),
        ("quickstart", ["pretrain"], "expected key=value"),
        ("quickstart", ["pretrain.epochs=[1"], "not valid YAML"),
        ("quickstart", ["pretrain.epochs=many"], "pretrain.epochs: .*got 'many'"),
    ],
)
def test_a_bad_call_is_named_and_writes_nothing(tmp_path, monkeypatch, recipe, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(recipe, changes)
    assert list(tmp_path.iterdir()) == []
