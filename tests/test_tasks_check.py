"""Mistakes in tasks are told before anything is trained, and each message begins with the key to change."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.corpus import stage as corpus_stage
from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.params import check_params
from ntulm.tasks.check import check_task, check_tasks, corpus_notes
from ntulm.tasks.config import Task
from ntulm.tasks.records import columns

LAYOUT = Layout()
MAX = {"train": 100, "validation": 100, "test": 100}
TABLE: dict[str, Any] = {
    "kind": "table", "path": "posts.csv", "text_column": "text", "label_column": "label", "author_column": None,
    "casefold_users": True, "split_column": None, "validation_share": 0.2, "test_share": 0.2, "seed": 0,
    "max_posts": MAX,
}  # fmt: skip
LABELLED: dict[str, Any] = {
    "kind": "labelled", "path": "own", "split": "corpus", "seed": 0, "max_posts": MAX,
    "labels": {"file": "labels.csv", "id_column": "id", "label_column": "label", "separator": None},
}  # fmt: skip
OF_CORPUS = {**LABELLED, "path": "data/corpus", "labels": {"file": "labels.parquet", "field": "topic"}}
TOPIC: dict[str, Any] = {
    **LABELLED, "kind": "topic", "mask": [], "mask_words": [],
    "groups": {"file": "groups.csv", "label_column": "label", "group_column": "group", "word_columns": ["name"]},
}  # fmt: skip
HASHTAG = {
    "kind": "hashtag", "path": "data/corpus", "classes": 50, "balanced": True, "split": "corpus", "seed": 0,
    "remove_target": True, "max_posts": MAX,
}  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own").mkdir()
    Path("posts.csv").write_text(
        "text,label,part\n" + "".join(f"text {n},{'ab'[n % 2]},{('train', 'dev', 'test')[n % 3]}\n" for n in range(60))
    )
    Path("own/labels.csv").write_text("id,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(60)))
    Path("own/groups.csv").write_text("label,group,name\na,x,A\nb,y,B\n")


def problem(task, kept=None):
    """What is wrong with a task; empty if nothing is."""
    try:
        check_task("mine", TypeAdapter(Task).validate_python(task), kept, LAYOUT)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("task", [TABLE, {**TABLE, "split_column": "part"}, LABELLED, OF_CORPUS, TOPIC, HASHTAG])
def test_tasks_as_they_should_be_pass_without_a_corpus(task):
    assert problem(task) == ""


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (TABLE, {"path": "none.csv"}, "path: none.csv: not found"),
        (TABLE, {"path": "own"}, "path: own: a folder; expected one file"),
        (TABLE, {"label_column": "lable"}, "label_column: 'lable' is no column of posts.csv; it has text, label, part"),
        (TABLE, {"author_column": "who"}, "author_column: 'who' is no column"),
        (TABLE, {"split_column": "split"}, "split_column: 'split' is no column"),
        (TABLE, {"label_column": "text"}, "label_column: 'text' has 60 different values in 60 rows of posts.csv;"),
        (TABLE, {"test_share": 0.0}, "validation_share and test_share: no test posts in posts.csv ("),
        (TABLE, {"split_column": "label"}, "posts.csv:2: label: 'a'; expected one of train"),
        (LABELLED, {"path": "gone"}, "path: gone: not found"),
        (LABELLED, {"labels": {**LABELLED["labels"], "file": "l.csv"}}, "labels.file: own/l.csv: not found"),
        (LABELLED, {"labels": {**LABELLED["labels"], "id_column": "key"}}, "labels.id_column: 'key' is no column"),
        (LABELLED, {"labels": {**LABELLED["labels"], "label_column": "id"}}, "labels.label_column: 'id' has 60"),
        (OF_CORPUS, {"path": "elsewhere"}, "path: elsewhere: not found; labels that came with the posts are in"),
        (TOPIC, {"groups": {**TOPIC["groups"], "file": "g.csv"}}, "groups.file: own/g.csv: not found"),
        (TOPIC, {"groups": {**TOPIC["groups"], "group_column": "g"}}, "groups.group_column: 'g' is no column"),
        (TOPIC, {"groups": {**TOPIC["groups"], "word_columns": ["w"]}}, "groups.word_columns.0: 'w' is no column"),
        (HASHTAG, {"classes": 101}, "max_posts.train: 100 posts for 101 classes"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_key(task, change, message):
    assert problem({**task, **change}).startswith(message)


def test_one_class_is_none():
    Path("posts.csv").write_text("text,label\n" + "".join(f"text {n},a\n" for n in range(60)))
    assert problem(TABLE) == "label_column: 'label' has 1 class ('a') in posts.csv; a task needs at least two"
    rows = "".join(f"text {n},{'b' if n % 3 == 2 else 'a'},{('train', 'dev', 'test')[n % 3]}\n" for n in range(60))
    Path("posts.csv").write_text("text,label,part\n" + rows)
    assert "all training posts of posts.csv are of class 'a'" in problem({**TABLE, "split_column": "part"})


def test_a_label_of_the_corpus_has_to_be_kept_by_its_table():
    assert problem(OF_CORPUS, ["topic", "sense"]) == ""
    assert problem(OF_CORPUS, ["sense"]).startswith("labels.field: 'topic' is not among corpus.labels (sense)")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "tweeteval", "path": "te", "datasets": ["mood"]}, "path: te: not found"),
        ({"kind": "tweeteval", "path": "own", "datasets": ["mood"]}, "datasets: 'mood' is not a folder of own"),
        ({"kind": "socialmediaie", "path": "own"}, "path: own: none of ABUSIVE"),
        ({"kind": "semeval", "path": "own", "subtasks": ["A"], "validation_share": 0.2}, "path: own: no file like"),
    ],
)  # fmt: skip
def test_benchmarks_are_built_without_being_written(task, message):
    assert problem({**task, "seed": 0, "max_posts": MAX}).startswith(message)


def test_columns_of_every_kind_of_table():
    import pyarrow as pa
    import pyarrow.parquet as pq

    Path("a.tsv").write_text('a\t"b\n1\t2\n')
    Path("a.jsonl").write_text(json.dumps({"a": 1, '"b': 2}) + "\n")
    pq.write_table(pa.table({"a": [1], '"b': [2]}), "a.parquet")
    for name in ("a.tsv", "a.jsonl", "a.parquet"):
        assert columns(Path(name)) == ["a", '"b']
    with pytest.raises(UserError, match="unknown kind of table"):
        columns(Path("a.txt"))


def params(*changes):
    """The recipe `own` on a table of 60 posts."""
    rows = "".join(f"2024-01-01T00:{n:02d}:00Z,a{n % 5},text {n} #t{n % 13}\n" for n in range(60))
    Path("export.csv").write_text("created_at,author,text\n" + rows)
    keys = {"created_at": "created_at", "author": "author", "text": "text", "html": False, "casefold_users": True}
    table = {**dict.fromkeys(_table_keys()), **keys, "mention_hosts": False}
    text = configured("own", ["data=export.csv", f"corpus.table={json.dumps(table)}", *changes])
    return check_params(YAML(typ="safe", pure=True).load(text), "params.yaml")


def _table_keys():
    from ntulm.corpus.config import TableMapping

    return TableMapping.model_fields


def test_every_mistake_is_told_at_once():
    made = [f"tasks.one={json.dumps({**TABLE, 'path': 'x.csv'})}", f"tasks.two={json.dumps(OF_CORPUS)}"]
    own = params(*made, "run.tasks=[hashtag, one, two]")
    with pytest.raises(UserError) as caught:
        check_tasks(own, LAYOUT)
    assert str(caught.value).split("; ")[0] == "tasks.one: path: x.csv: not found"
    assert "tasks.two: labels.field: 'topic' is not among corpus.labels (none)" in str(caught.value)


def test_a_task_that_is_not_run_may_be_wrong():
    own = params(f"tasks.one={json.dumps({**TABLE, 'path': 'x.csv'})}", "tasks.hashtag.classes=12")
    check_tasks(own, LAYOUT)
    corpus_stage.run(own.corpus, LAYOUT)
    assert corpus_notes(own, LAYOUT) == []  # hashtag-left-in would need 50 classes


def test_what_the_corpus_is_too_small_for_is_a_note():
    own = params("tasks.hashtag-left-in.classes=12", "run.tasks=[hashtag, hashtag-left-in]")
    check_tasks(own, LAYOUT)
    assert corpus_notes(own, LAYOUT) == []
    corpus_stage.run(own.corpus, LAYOUT)
    notes = corpus_notes(own, LAYOUT)
    assert "tasks.hashtag: classes: 50, but the training posts use only 13 hashtags; ask for fewer classes" in notes
    assert not any(note.startswith("tasks.hashtag-left-in") for note in notes)
