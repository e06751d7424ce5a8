"""The challenger against the champion: the same posts for both, a decision that follows from the interval."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.embeddings.table import write_table
from ntulm.errors import UserError
from ntulm.evaluate.config import Evaluate
from ntulm.evaluate.scores import ScoredDataset
from ntulm.files import read_json
from ntulm.inference.directory import Settings
from ntulm.layout import Layout
from ntulm.params import check_params
from ntulm.production import challenge

EVALUATE = Evaluate(resamples=300, confidence=0.95, seed=0, min_posts=30, overlap=["author"])
layout = Layout()


@pytest.fixture
def built(lm_project, tiny_backbone):
    """A project with a built model `author`, whose task asks for what only the author tells; its parameters."""
    params = tiny_model.params_of("encode.dtype=float32", variant="author")
    tiny_model.build(params, str(tiny_backbone), layout)
    return params


def copied(folder="champion"):
    """The model as it stands, as the one in production."""
    shutil.copytree(layout.model, Layout(Path(folder)).model)
    return Path(folder)


def blind(directory):
    """Overwrite a table so that it tells no author from another."""
    names = [f"{side}{number}" for side in ("left", "right") for number in range(4)]
    write_table(directory, ["user"] * len(names), names, np.ones((len(names), 4), np.float32))


def decision():
    return read_json(layout.challenge / "challenge.json")


def test_a_model_is_exactly_as_good_as_itself(built):
    challenge.run(built, copied(), layout)
    overall = decision()["overall"]
    assert (overall["gain"], overall["low"], overall["high"]) == (0, 0, 0)
    assert decision()["promote"]
    assert [path.name for path in layout.challenge.iterdir()] == ["challenge.json"]


def test_the_champion_reads_posts_with_its_own_table(built):
    champion = copied()
    blind(Layout(champion).model)
    challenge.run(built, champion, layout)
    assert decision()["overall"]["low"] > 20
    assert decision()["datasets"][0]["posts"] == 120


def test_a_worse_challenger_is_kept_out(built):
    champion = copied()
    blind(layout.embeddings)
    tiny_model.run_stages(built, layout)
    challenge.run(built, champion, layout)
    assert not decision()["promote"]
    assert decision()["reason"].endswith(": worse")


def test_a_champion_of_other_roles_and_settings_can_be_compared(built):
    champion = copied()
    path = Layout(champion).model / "reading.json"
    value = json.loads(path.read_text())
    value["ntus"]["types"]["domain"] = "domain"
    value["ntus"]["roles"]["url"] = {"type": "domain", "field": "urls"}
    value["batches"]["max_length"] = 20
    path.write_text(json.dumps(value))
    assert "url" in Settings.read(Layout(champion).model).scheme.roles
    challenge.run(built, champion, layout)
    assert decision()["promote"]


@pytest.mark.parametrize(
    ("role", "types", "words"),
    [
        ({"type": "user", "field": "mentions"}, {}, "field mentions, type user, key form user"),
        ({"type": "writer", "field": "author"}, {"writer": "user"}, "field author, type writer, key form user"),
        ({"type": "user", "field": "author"}, {"user": "verbatim"}, "field author, type user, key form verbatim"),
    ],
)
def test_a_champion_whose_role_meant_something_else_is_refused(built, role, types, words):
    champion = copied()
    path = Layout(champion).model / "reading.json"
    value = json.loads(path.read_text())
    value["ntus"]["types"] |= types
    value["ntus"]["roles"]["author"] = role
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=rf"^ntus\.roles\.author: .*the model in production has {words}, .*$"):
        challenge.run(built, champion, layout)
    assert not layout.challenge.exists()


def test_what_is_no_champion_is_said_in_one_line(built, tmp_path):
    with pytest.raises(UserError, match=r"data/model: no such directory"):
        challenge.run(built, tmp_path / "nowhere", layout)
    champion = copied()
    (Layout(champion).model / "reading.json").unlink()
    with pytest.raises(UserError, match=r"no reading\.json; expected a model directory"):
        challenge.run(built, champion, layout)


def test_tasks_whose_test_posts_are_not_the_newest_do_not_decide(built):
    topic = built.tasks["topic"].model_copy(update={"split": "author"})
    with pytest.raises(UserError, match="test posts of 'topic' are not the newest"):
        challenge.run(built.model_copy(update={"tasks": {**built.tasks, "topic": topic}}), Path("champion"), layout)


def compared(skill, posts=400, seed=0):
    """A champion that is right in 60 % of the posts, a challenger in 60 % + `skill`: of the same posts, or of any."""
    random = np.random.default_rng(seed)
    labels = np.eye(2, dtype=bool)[random.integers(0, 2, posts)]
    luck = random.random(posts)
    other_luck = luck if skill else random.random(posts)

    def scores(share, luck):
        return np.where((luck < share)[:, None], labels, ~labels).astype(np.float32)

    dataset = ScoredDataset("topic", "side", "Toy", ("accuracy",), {}, labels, {})
    return dataset, scores(0.6, luck), scores(0.6 + skill, other_luck)


@pytest.mark.parametrize(
    ("skill", "posts", "promote", "words"),
    [
        (0.1, 400, True, "is ruled out"),
        (0.01, 400, True, "is ruled out"),
        (0.0, 200, False, "is not ruled out"),
        (-0.2, 400, False, "worse"),
        (0.3, 20, False, "20 labelled test posts are too few"),
    ],
)
def test_only_a_challenger_that_is_shown_not_to_lose_is_promoted(built_nothing, skill, posts, promote, words):
    found = challenge.decide([compared(skill, posts)], built_nothing, EVALUATE)
    assert (found["promote"], words in found["reason"]) == (promote, True), found["reason"]


@pytest.fixture
def built_nothing():
    """The section `challenge` of the quickstart, with a small allowance."""
    values = YAML(typ="safe", pure=True).load(configured("quickstart", ["challenge.max_loss=3.0"]))
    return check_params(values, "quickstart").challenge
