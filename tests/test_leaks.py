"""What would show that a gain is a leak: NTUs of other posts must bring nothing, a target left in must show.

The same on real posts: the variant `shuffled`, and the task `hashtag-left-in` of the recipes.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from schemes import SCHEME, slot_settings

from ntulm import adapt, encode, pretrain
from ntulm.files import read_json, write_json
from ntulm.language_model.config import Batches, Encode, Pretrain
from ntulm.layout import Layout
from ntulm.ntus import ntus_of
from ntulm.probe import stage as probe
from ntulm.probe.baselines import Posts, linear, parts_of
from ntulm.probe.config import Probe
from ntulm.tasks import hashtag
from ntulm.tasks.config import HashtagTask
from ntulm.text import extract

LAYOUT = Layout()
BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)
PRETRAIN = Pretrain(
    max_posts=700,
    max_validation_posts=100,
    max_test_posts=90,
    epochs=1,
    patience=1,
    evaluations_per_epoch=1,
    batch_size=16,
    learning_rate=1e-3,
    weight_decay=0.01,
    warmup_share=0.1,
    mask_share=0.3,
    slot=slot_settings(scale=3.0, weight=0.5),
)
ENCODE = Encode(batch_size=64, dtype="float32", hidden_share=0.0, apart=False, post_concat="author+hashtag")
PROBE = Probe.model_validate(
    {
        "search": False,
        "trials": 1,
        "trials_at_once": 1,
        "startup_trials": 1,
        "warmup_epochs": 0,
        "max_epochs": 1,
        "patience": 20,
        "averaged_epochs": 1.0,
        "learning_rate": [1e-3, 1e-2],
        "weight_decay": [1e-6, 1e-5],
        "dropout": [0.0, 0.1],
        "batch_size": [32],
        "fixed": {"epochs": 20, "learning_rate": 3e-3, "weight_decay": 0.0, "dropout": 0.0, "batch_size": 32},
        "baselines": ["tfidf", "tfidf+ntu"],
        "baseline_strengths": [1.0],
    }
)
TAGS = [f"tag{letter}" for letter in "abcdefghijklmnop"]


def write_side_task():
    """Posts without a word about the side of their authors, which is the label."""
    random = np.random.default_rng(1)
    authors = [f"{side}{number}" for side in ("left", "right") for number in range(4)]
    rows = []
    for number in range(600):
        author = str(random.choice(authors))
        text = " ".join(str(word) for word in random.choice(["i", "like", "it", "so", "very", "much"], 6))
        split = "train" if number < 300 else "validation" if number < 400 else "test"
        row = {"post_id": str(number), "split": split, "text": text, "author": author}
        rows.append(row | {"labels": [int(author.startswith("right"))]})
    LAYOUT.task("side").mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    table = table.append_column("ntus", ntus_of(SCHEME, {"author": table["author"].to_pylist()}))
    pq.write_table(table, LAYOUT.task("side") / "side.parquet")
    about = {"family": "Side", "kind": "single", "classes": ["left", "right"], "metric": "accuracy"}
    write_json(LAYOUT.task("side") / "datasets.json", {"side": about | {"metrics": ["accuracy"]}})


@pytest.mark.slow
def test_the_gain_vanishes_with_the_ntus_of_other_posts(lm_project, adapt_settings):
    adapt.run(adapt_settings(max_posts=0), BATCHES, LAYOUT)
    write_side_task()
    accuracy: dict[str, float] = {}
    for variant in ("text", "author+hashtag", "shuffled"):
        pretrain.run(PRETRAIN, BATCHES, SCHEME, "minilm", variant, 0, LAYOUT)
        encode.run(ENCODE, BATCHES, SCHEME, variant, 0, "side", LAYOUT)
        probe.run(PROBE, variant, 0, "side", LAYOUT)
        results = read_json(LAYOUT.metrics("probe", variant, 0, "side"))
        accuracy |= {system: datasets["side"]["accuracy"] for system, datasets in results.items()}
    assert accuracy["author+hashtag"] > 0.95  # there is something to gain
    assert accuracy["ntu"] > 0.95
    assert accuracy["tfidf+ntu"] > 0.95
    chance = 3 * 0.5 / 200**0.5  # three standard deviations of 200 tosses of a coin
    for blind in ("text", "tfidf", "shuffled"):
        assert abs(accuracy[blind] - 0.5) < chance, blind


def hashtag_recall(remove_target):
    """Recall@10 of TF-IDF on the hashtag task, on posts whose other words say nothing about the hashtag."""
    task = HashtagTask.model_validate(
        {
            "kind": "hashtag",
            "path": "data/corpus",
            "classes": len(TAGS),
            "balanced": True,
            "split": "corpus",
            "seed": 0,
            "remove_target": remove_target,
            "max_posts": {"train": 800, "validation": 200, "test": 200},
        }
    )
    dataset = hashtag.build("hashtag", task, SCHEME, LAYOUT)["hashtag"]
    labels = np.eye(len(dataset.classes), dtype=bool)[[own[0] for own in dataset.posts.table["labels"].to_pylist()]]
    split = np.array(dataset.posts.table["split"].to_pylist())
    texts = dataset.posts.texts
    parts = parts_of(Posts(texts, [None] * len(texts), split, None), ["tfidf"])
    found = linear("tfidf", parts, labels, split, "single", "recall@10", [10.0])
    assert found is not None
    scores = found.scores
    order = np.argsort(-scores.astype(np.float64) + 1e-9 * np.random.default_rng(0).random(scores.shape), axis=1)
    truth = labels[split == "test"].argmax(1)
    return float(np.mean((order[:, :10] == truth[:, None]).any(1))), dataset


def tags_of(dataset):
    """The hashtags of each post among its NTUs."""
    return [[ntu["key"] for ntu in own if ntu["role"] == "hashtag"] for own in dataset.posts.ntus.to_pylist()]


def test_a_target_left_in_on_purpose_makes_the_score_jump(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    LAYOUT.corpus.mkdir(parents=True)
    posts, splits = [], []
    for number in range(1200):
        tag, words = str(random.choice(TAGS)), " ".join(random.choice(["so", "it", "very", "much", "we"], 5))
        hashtags = [tag]
        post = {"post_id": str(number), "text": f"{words} #{tag}", "author": "ada", "hashtags": hashtags}
        posts.append(post | {"mentions": [], "urls": [], "places": []})
        splits.append(
            {"post_id": str(number), "split": "train" if number < 800 else "validation" if number < 1000 else "test"}
        )
    pq.write_table(pa.Table.from_pylist(posts), LAYOUT.posts)
    pq.write_table(pa.Table.from_pylist(splits), LAYOUT.splits)
    honest, dataset = hashtag_recall(remove_target=True)
    assert not any(extract(text) or tags for text, tags in zip(dataset.posts.texts, tags_of(dataset), strict=True))
    leaked, dataset = hashtag_recall(remove_target=False)
    assert all(extract(text) == tags != [] for text, tags in zip(dataset.posts.texts, tags_of(dataset), strict=True))
    assert leaked > 0.99
    assert abs(honest - 10 / len(TAGS)) < 0.15
