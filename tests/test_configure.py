import re
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from ntulm.configure import MASTER, OWN_NAMES, configured, recipes, run
from ntulm.errors import UserError

ROOT = Path(__file__).parent.parent
FLOW = (".labels", ".groups")  # written as flow mappings, and so one value


def whole(recipe, folder):
    """The file that a recipe makes."""
    return configured(recipe, [] if recipe == MASTER else [f"data={folder}"])


def recipe_values(recipe):
    return YAML(typ="safe", pure=True).load(ROOT / f"ntulm/recipes/{recipe}.yaml")


def merged(master, own, path=""):
    """What a recipe has to give, said once more in a few lines: its own values, and the master's for the rest."""
    if not isinstance(master, dict) or not isinstance(own, dict) or path.endswith(FLOW):
        return own
    names = own if path in OWN_NAMES else {**master, **own}
    return {
        name: merged(master.get(name), own[name], f"{path}.{name}".lstrip(".")) if name in own else master[name]
        for name in names
    }


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_gives_its_values_and_the_masters_for_the_rest(recipe, tmp_path):
    values = YAML(typ="safe", pure=True).load(whole(recipe, tmp_path).replace(str(tmp_path), "DATA"))
    expected = merged(recipe_values(MASTER), recipe_values(recipe))
    lent = {f"{name}-{what}": name for name in ("hashtag", "topic") for what in ("left-in", "author", "random")}
    for name in expected["tasks"].keys() & lent.keys():
        changed = "remove_target" if name.endswith("left-in") else "split"
        expected["tasks"][name] = {**expected["tasks"][lent[name]], changed: expected["tasks"][name][changed]}
    assert values == expected


@pytest.mark.parametrize("recipe", recipes())
def test_a_configured_file_explains_whatever_the_master_explains(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a long path has a line of its own
    text = whole(recipe, ".")
    outside = text[: text.index("\ntasks:")] + text[text.index("\nprobe:") :]
    lines = (ROOT / f"ntulm/recipes/{MASTER}.yaml").read_text().split("\ntasks:")
    for line in (lines[0] + lines[1][lines[1].index("\nprobe:") :]).splitlines():
        key = re.match(r" *[\w.]+:", line)
        if key and " # " in line:
            assert re.search(rf"^{key[0]}.* # ", outside, re.M), line
    assert "\n\n\n" not in text
    for section in recipe_values(MASTER):
        assert f"\n\n{section}:" in text or section == "ntus"  # below the lists of `run`, where DVC keeps no empty line


def test_a_comment_of_a_recipe_takes_the_place_of_the_masters(tmp_path):
    text = whole("paper", tmp_path)
    assert "  epochs: 15 # with early stopping" in text
    assert "scale: 1.0 # open; the projection" in text
    assert "  dimension: 200\n" in text
    assert text.startswith("# paper: the settings of Li et al.")
    assert "differs from quickstart.yaml" not in text
    assert "# Every value that changes a result stands in this file" in text


def test_a_change_reaches_its_key_and_comments_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("quickstart", ["pretrain.epochs=3", "run.seeds=[0, 1]", "corpus.languages=[en]"])
    text = (tmp_path / "params.yaml").read_text()
    values = YAML(typ="safe", pure=True).load(text)
    assert values["pretrain"]["epochs"] == 3
    assert values["run"]["seeds"] == [0, 1]
    assert "# keep these language codes only" in text


def test_a_change_of_one_task_leaves_those_it_shares_settings_with(tmp_path):
    text = configured("ira", [f"data={tmp_path}", "tasks.hashtag-author.max_posts.train=111"])
    tasks = YAML(typ="safe", pure=True).load(text)["tasks"]
    assert tasks["hashtag-author"]["max_posts"]["train"] == 111
    assert tasks["hashtag-author"]["max_posts"]["test"] == tasks["hashtag"]["max_posts"]["test"]
    assert tasks["hashtag"]["max_posts"]["train"] == tasks["hashtag-random"]["max_posts"]["train"] == 8000


def test_the_file_that_is_there_is_changed_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("quickstart", ["pretrain.epochs=3"])
    assert not (tmp_path / "params.yaml.old").exists()
    run(".", ["run.seeds=[5]", "model.seed=5"])
    values = YAML(typ="safe", pure=True).load((tmp_path / "params.yaml").read_text())
    assert (values["pretrain"]["epochs"], values["run"]["seeds"]) == (3, [5])
    run("quickstart", [])
    before = YAML(typ="safe", pure=True).load((tmp_path / "params.yaml.old").read_text())
    assert before == values
    assert "params.yaml.old has what was there" in capsys.readouterr().out


def test_own_posts_need_nothing_beside_them(tmp_path):
    (tmp_path / "posts.csv").write_text("text\n")
    values = YAML(typ="safe", pure=True).load(configured("own", [f"data={tmp_path}/posts.csv"]))
    assert values["corpus"]["path"] == f"{tmp_path}/posts.csv"
    assert {task["path"] for task in values["tasks"].values()} == {"data/corpus"}


@pytest.mark.parametrize("cut", ["2016-10-01", "'2016-10-01'"])
def test_a_date_needs_no_quotes(cut):
    assert "graph_from: 2016-10-01" in configured("quickstart", [f"corpus.splits.graph_from={cut}"]).replace("'", "")


def test_the_data_folder_fills_every_path(tmp_path):
    text = configured("ira", [f"data={tmp_path}/"])
    assert f"{tmp_path}/ira/posts" in text
    assert "DATA/" not in text


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("quickstat", [], "recipe 'quickstat': unknown; there are ira, own, paper, quickstart, stocknet"),
        ("x; rm -rf /", [], "unknown; there are"),
        ("../quickstart", [], "unknown; there are"),
        ("ira", [], "recipe ira needs the folder of its data"),
        ("ira", ["data=nowhere"], "data=nowhere: no such file or folder"),
        ("quickstart", ["data=."], "reads no outside data"),
        ("quickstart", ["pretrain.epoch=3"], "pretrain.epoch: unknown key"),
        ("quickstart", ["pretrain.slot_scale=3.0"], "pretrain.slot_scale: unknown key; it is now pretrain.slot.scale"),
        ("quickstart", ["epochs=3"], "epochs: unknown key"),
        ("quickstart", ["graph.min_degre={user: 2}"], "graph.min_degre: unknown key"),
        ("quickstart", ["run.variants=[text]"], r"not among run.variants \(text\).*set model.variant and model.seed"),
        ("quickstart", ["model.variant=shuffled"], "model: shuffled, seed 0: not among run.variants"),
        (
            "quickstart",
            ["tasks.mine={kind: table, path: x.csv, text_column: t, label_column: l, seed: 0}", "run.tasks=[mine]"],
            "quickstart: tasks.mine: author_column, casefold_users, split_column, validation_share, test_share, "
            "max_posts missing; docs/how-to/your-own-posts.md has each kind of task whole$",
        ),
        ("quickstart", ["tasks.mine={kind: tables}"], "tasks.mine: .*'tables'"),
        ("quickstart", ["pretrain"], "expected key=value"),
        ("quickstart", ["pretrain.epochs=[1"], "not valid YAML"),
        ("quickstart", ["probe.dropout=[0.5, 0.1]"], "probe.dropout: .*low end 0.5 is above the high end 0.1"),
        ("quickstart", ["probe.learning_rate=[0.0, 0.1]"], "probe.learning_rate.0: .*greater than 0"),
        (".", ["pretrain.epochs=2"], "params.yaml: not found; `.` changes the file that is there"),
        ("quickstart", ["challenge.tasks=[nope]"], "challenge.tasks names 'nope'"),
        ("quickstart", ["pretrain.epochs=many"], "pretrain.epochs: .*got 'many'"),
    ],
)
def test_a_bad_call_is_named_and_writes_nothing(tmp_path, monkeypatch, recipe, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(recipe, changes)
    assert list(tmp_path.iterdir()) == []


def set_by_dvc(path, change):
    """Set one value as `dvc exp run -S` does; the lines that are new, and those that are gone."""
    before = path.read_text().splitlines()
    apply_overrides(path, [change])
    after = path.read_text().splitlines()
    return [line for line in after if line not in before], [line for line in before if line not in after]


@pytest.mark.parametrize("recipe", recipes())
def test_an_experiment_changes_the_line_of_its_value_and_no_other(recipe, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(whole(recipe, tmp_path))
    new, gone = set_by_dvc(path, "graph.held_out_share=0.07")
    assert (len(new), len(gone)) == (1, 1)
    assert new[0].startswith("  held_out_share: 0.07 # of the pairs of nodes")
    new, gone = set_by_dvc(path, "run.seeds=[0,1]")
    assert (new, gone) == (["  - 1"], [])
