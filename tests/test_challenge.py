"""The challenger against the champion: the same posts for both, a decision that follows from the interval."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from test_encode import write_model

from ntulm import encode, layout
from ntulm.configure import configured
from ntulm.embeddings.table import write_table
from ntulm.errors import UserError
from ntulm.evaluate.config import Evaluate
from ntulm.evaluate.scores import ScoredDataset
from ntulm.files import read_json, write_json
from ntulm.params import check_params
from ntulm.probe import stage as probe
from ntulm.production import challenge
from ntulm.tasks.dataset import Dataset, Row, describe, write_rows

EVALUATE = Evaluate(resamples=300, confidence=0.95, seed=0, min_posts=30)
SETTINGS = [
    "run.variants=[text, author]",
    "run.tasks=[topic]",
    "challenge.variant=author",
    "challenge.tasks=[topic]",
    "encode.dtype=float32",
    "probe.trials=2",
    "evaluate.resamples=200",
]


@pytest.fixture
def built(lm_project, tiny_backbone):
    """A project with a built model `author`, whose task asks for what only the author tells; its parameters."""
    posts = pq.read_table(layout.POSTS).slice(100, 600).to_pylist()
    places = ["train"] * 360 + ["validation"] * 120 + ["test"] * 120
    rows = [
        Row(post["post_id"], place, "we like it", post["author"], [], [int((post["author"] or "").startswith("right"))])
        for post, place in zip(posts, places, strict=True)
    ]
    layout.task("topic").mkdir(parents=True)
    write_rows(layout.task("topic") / "side.parquet", rows)
    dataset = Dataset("Toy", "single", ["left", "right"], ["macro_f1"], rows)
    write_json(layout.task("topic") / "datasets.json", {"side": describe(dataset)})
    text = configured("quickstart", SETTINGS)
    Path("params.yaml").write_text(text)
    params = check_params(YAML(typ="safe", pure=True).load(text), "params.yaml")
    write_model(tiny_backbone, "author")
    encode.run(params.encode, params.batches, "author", 0, "topic")
    probe.run(params.probe, "author", 0, "topic")
    return params


def copied(folder="champion"):
    """The project as it stands, as the one in production."""
    for path in (layout.EMBEDDINGS, layout.pretrain("author", 0)):
        shutil.copytree(path, Path(folder) / path)
    shutil.copy("params.yaml", Path(folder) / "params.yaml")
    return Path(folder)


def blind(directory):
    """Overwrite a table so that it tells no author from another."""
    names = [f"{side}{number}" for side in ("left", "right") for number in range(4)]
    write_table(directory, ["user"] * len(names), names, np.ones((len(names), 4), np.float32))


def decision():
    return read_json(layout.CHALLENGE / "challenge.json")


def test_a_model_is_exactly_as_good_as_itself(built):
    challenge.run(built, copied())
    overall = decision()["overall"]
    assert (overall["gain"], overall["low"], overall["high"]) == (0, 0, 0)
    assert decision()["promote"]
    assert [path.name for path in layout.CHALLENGE.iterdir()] == ["challenge.json"]


def test_the_champion_reads_posts_with_its_own_table(built):
    champion = copied()
    blind(champion / layout.EMBEDDINGS)
    challenge.run(built, champion)
    assert decision()["overall"]["low"] > 20
    assert decision()["datasets"][0]["posts"] == 120


def test_a_worse_challenger_is_kept_out(built):
    champion = copied()
    blind(layout.EMBEDDINGS)
    encode.run(built.encode, built.batches, "author", 0, "topic")
    probe.run(built.probe, "author", 0, "topic")
    challenge.run(built, champion)
    assert not decision()["promote"]
    assert decision()["reason"].endswith(": worse")


def test_a_champion_of_older_parameters_can_be_read(built):
    champion = copied()
    values = YAML(typ="safe", pure=True).load(champion / "params.yaml")
    kept = {"batches": values["batches"], "challenge": values["challenge"], "abolished": {"key": 1}}
    YAML(typ="safe", pure=True).dump(kept, champion / "params.yaml")
    challenge.run(built, champion)
    assert decision()["promote"]


def test_what_is_no_champion_is_said_in_one_line(built, tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml: not found"):
        challenge.run(built, tmp_path / "nowhere")
    champion = copied()
    (champion / "params.yaml").write_text("batches: {}\n")
    with pytest.raises(UserError, match="no model in production can be read"):
        challenge.run(built, champion)


def test_tasks_whose_test_posts_are_not_the_newest_do_not_decide(built):
    topic = built.tasks["topic"].model_copy(update={"split": "author"})
    with pytest.raises(UserError, match="test posts of 'topic' are not the newest"):
        challenge.run(built.model_copy(update={"tasks": {**built.tasks, "topic": topic}}), Path("champion"))


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
