"""Which posts NTUs put right, and which wrong."""

from typing import Any

import numpy as np
import pytest
from fake_run import HERE, SCHEME, write_embeddings

from ntulm.embeddings.table import EmbeddingTable
from ntulm.evaluate.scores import ScoredDataset
from ntulm.files import write_json
from ntulm.posts import Posts
from ntulm.report.examples import LONGEST, shown, turned

BOTH = "author+hashtag"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_embeddings(users=2, hashtags=2)
    return tmp_path


def dataset(right_before, right_after, task="mood"):
    """A data set of two classes, of which every post has the second one; with two seeds."""
    count = len(right_before)
    fields: dict[str, Any] = {
        "post_id": [f"p{place}" for place in range(count)],
        "text": [f"post {place}" for place in range(count)],
        "author": ["u0", None] * (count // 2),
        "hashtags": [["h1", "new"], []] * (count // 2),
    }
    labels = np.zeros((count, 2), bool)
    labels[:, 1] = True
    scores = {
        system: [np.array([[0.2, 0.8] if one else [0.9, 0.1] for one in right], np.float32)] * 2
        for system, right in (("text", right_before), (BOTH, right_after))
    }
    HERE.task(task).mkdir(parents=True, exist_ok=True)
    write_json(HERE.task(task) / "datasets.json", {task: {"classes": ["sad <b>", "glad"]}})
    splits = {"test": Posts.of(SCHEME, fields)}
    return ScoredDataset(task, task, task.title(), ("macro_f1",), splits, labels, scores)


def compared(*datasets, count=5, variant=BOTH):
    return turned(datasets, variant, EmbeddingTable.load(HERE.embeddings), SCHEME, count, HERE)


def test_posts_are_counted_and_told_with_their_ntus():
    found = compared(dataset([False, True, True, False], [True, True, False, False]))
    assert found.counts == [("Mood", 4, 1, 1)]
    (right,), (wrong,) = found.right, found.wrong
    assert (right.text, right.labels) == ("post 0", ["glad"])
    assert right.ntus == [("@u0", True), ("#h1", True), ("#new", False)]
    assert (right.before.label, right.after.label) == ("sad <b>", "glad")
    assert (right.before.score, right.after.score) == pytest.approx((0.9, 0.8))
    assert (wrong.text, wrong.before.label, wrong.after.label) == ("post 2", "glad", "sad <b>")


def test_examples_come_in_turn_from_each_data_set_and_no_more_than_wanted():
    wrong, right = [False] * 8, [True] * 8
    found = compared(dataset(wrong, right), dataset(wrong, right, "topic"), count=3)
    assert [one.dataset for one in found.right] == ["Mood", "Topic", "Mood"]
    assert found.wrong == []
    assert found.right == compared(dataset(wrong, right), dataset(wrong, right, "topic"), count=3).right
    none = compared(dataset(wrong, right), count=0)
    assert (none.counts, none.right) == ([("Mood", 8, 8, 0)], [])


def test_nothing_to_compare():
    assert compared() is None
    assert compared(dataset([True, True], [True, True]), variant="author") is None


def test_a_post_is_one_short_line_without_signs_that_act():
    assert shown("a\n\tb\x00\x1b[31m\u202ec") == "a b [31m c"
    assert shown("👩\u200d👧") == "👩\u200d👧"
    assert len(shown("x" * 999)) == LONGEST
