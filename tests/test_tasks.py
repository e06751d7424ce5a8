"""Corpus tasks on hand-made posts: splits, samples, balance, and above all that no label is left where it shows."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme, Role
from ntulm.posts import Posts
from ntulm.tasks import stage as tasks
from ntulm.tasks.config import MaxPosts, Task
from ntulm.tasks.dataset import SCHEMA, Dataset, check, labelled_posts, sample
from ntulm.tasks.hashtag import fill, targets, without_targets
from ntulm.tasks.masking import Mask
from ntulm.tasks.posts import redraw
from ntulm.text import extract, normalise, remove

LAYOUT = Layout()
SCHEME = NtuScheme(
    {"user": "user", "hashtag": "hashtag", "domain": "domain", "cashtag": "cashtag"},
    {
        "author": Role("user", "author"),
        "mention": Role("user", "mentions"),
        "hashtag": Role("hashtag", "hashtags"),
        "place": Role("hashtag", "places"),  # another role of hashtags
        "url": Role("domain", "urls"),
        "symbol": Role("cashtag", "text"),
    },
)
MAX = {"train": 1000, "validation": 1000, "test": 1000}
TOPIC: dict[str, Any] = {
    "kind": "topic",
    "path": "data/corpus",
    "labels": {"file": "labels.parquet", "field": "topic"},
    "groups": None,
    "split": "corpus",
    "seed": 0,
    "mask": [],
    "mask_words": [],
    "max_posts": MAX,
}
HASHTAG = {
    "kind": "hashtag",
    "path": "data/corpus",
    "classes": 12,
    "balanced": True,
    "split": "corpus",
    "seed": 0,
    "remove_target": True,
    "max_posts": MAX,
}
LABELLED = {
    "kind": "labelled",
    "path": "data/corpus",
    "labels": {"file": "labels.parquet", "field": "topic"},
    "split": "corpus",
    "seed": 0,
    "max_posts": MAX,
}
PARTS = ("train", "train", "validation", "test")


def task(section, **changes):
    return TypeAdapter(Task).validate_python({**section, **changes})


def run(name, section):
    tasks.run(name, section, SCHEME, LAYOUT)


def post(number, text, author="ann", split="train", hashtags=None, **fields):
    hashtags = extract(text) if hashtags is None else hashtags
    own = {"post_id": f"p{number}", "text": text, "author": author, "hashtags": hashtags, "split": split}
    return own | dict.fromkeys(("mentions", "urls", "places"), ()) | fields


def write_corpus(posts, labels=(), layout=LAYOUT):
    layout.corpus.mkdir(parents=True)
    lists = dict.fromkeys(("mentions", "hashtags", "urls", "places"), pa.list_(pa.string()))
    schema = pa.schema({**dict.fromkeys(("post_id", "author", "text"), pa.string()), **lists})
    pq.write_table(pa.Table.from_pylist(posts, schema=schema), layout.posts)
    splits = pa.schema({"post_id": pa.string(), "split": pa.string(), "graph": pa.bool_()})
    rows = [{"post_id": p["post_id"], "split": p["split"], "graph": True} for p in posts]
    pq.write_table(pa.Table.from_pylist(rows, schema=splits), layout.splits)
    columns = pa.schema(dict.fromkeys(("post_id", "field", "value"), pa.string()))
    found = [dict(zip(columns.names, label, strict=True)) for label in labels]
    pq.write_table(pa.Table.from_pylist(found, schema=columns), layout.labels)


def rows_of(name, dataset=None):
    return pq.read_table(LAYOUT.task(name) / f"{dataset or name}.parquet").to_pylist()


def keys(row, role):
    """The keys of the NTUs that play a role in a row."""
    return [ntu["key"] for ntu in row["ntus"] if ntu["role"] == role]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """240 posts of 8 authors; each has the hashtag of its class of 12, every third a common one beside it."""
    monkeypatch.chdir(tmp_path)
    posts = [
        post(i, f"look #tag{i % 12} here" + " #Common" * (i % 3 == 0), f"author{i % 8}", PARTS[i // 12 % 4])
        for i in range(240)
    ]
    write_corpus(posts, [(p["post_id"], "topic", f"topic{i % 3}") for i, p in enumerate(posts)])
    return posts


def test_topic_writes_the_contract(corpus):
    run("topic", task(TOPIC))
    description = json.loads((LAYOUT.task("topic") / "datasets.json").read_text())["topic"]
    assert description["family"] == "Topic"
    assert (description["kind"], description["metric"], description["metrics"]) == ("multi", "map", ["map"])
    assert description["classes"] == ["topic0", "topic1", "topic2"]
    assert description["posts"] == {"train": 120, "validation": 60, "test": 60}
    table = pq.read_table(LAYOUT.task("topic") / "topic.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["split"].to_pylist() == ["train"] * 120 + ["validation"] * 60 + ["test"] * 60
    counts = json.loads(LAYOUT.metrics("tasks", "topic").read_text())["topic"]
    assert counts["train"]["posts"] == 120
    assert counts["train"]["authors"] == 8
    assert counts["train"]["ntus"]["author"] == {"posts": 120, "distinct": 8}
    assert counts["train"]["ntus"]["hashtag"] == {"posts": 120, "distinct": 13}
    assert counts["train"]["ntus"]["url"] == {"posts": 0, "distinct": 0}


def test_posts_without_author_or_split_are_not_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    posts = [post(i, "words", split=s) for i, s in enumerate([*PARTS, *PARTS])]
    posts += [post(90, "no author", author=None), post(91, "no split", split=None)]
    write_corpus(posts, [(p["post_id"], "topic", f"t{i % 2}") for i, p in enumerate(posts)])
    run("topic", task(TOPIC))
    assert {row["post_id"] for row in rows_of("topic")} == {f"p{i}" for i in range(8)}


def test_the_same_parameters_draw_the_same_posts_and_another_seed_others(corpus):
    small = {"train": 20, "validation": 5, "test": 5}
    drawn = []
    for seed in (0, 0, 1):
        run("topic", task(TOPIC, seed=seed, max_posts=small))
        drawn.append(rows_of("topic"))
    assert drawn[0] == drawn[1] != drawn[2]
    assert Counter(row["split"] for row in drawn[0]) == small


@pytest.mark.parametrize("split", ["author", "random"])
def test_splits_are_drawn_anew(corpus, split):
    run("topic", task(TOPIC, split=split))
    rows = rows_of("topic")
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    of_author = {(row["author"], row["split"]) for row in rows}
    assert (len(of_author) == 8) == (split == "author")


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60), st.integers(0, 5))
def test_redraw_keeps_groups_together_whatever_the_order(keys, seed):
    sizes = Counter(test=len(keys) // 4, validation=len(keys) // 4)
    drawn = redraw(keys, sizes, seed)
    assert len(set(zip(keys, drawn, strict=True))) == len(set(keys))
    assert redraw(keys[::-1], sizes, seed) == drawn[::-1]


def test_hashtag_task_is_balanced_and_its_target_is_gone(corpus):
    run("hashtag", task(HASHTAG))
    description = json.loads((LAYOUT.task("hashtag") / "datasets.json").read_text())["hashtag"]
    assert description["classes"][0] == "common"  # in a third of the posts
    sizes = Counter((row["split"], row["labels"][0]) for row in rows_of("hashtag"))
    assert len({sizes["train", c] for c in range(12)}) == 1
    for row in rows_of("hashtag"):
        target = description["classes"][row["labels"][0]]
        assert target not in keys(row, "hashtag")
        assert f"#{target}" not in row["text"].lower().split()
        assert len(extract(row["text"])) == len(keys(row, "hashtag"))  # the other one stayed, on both sides


@pytest.mark.parametrize(
    ("base", "change", "family"),
    [
        (HASHTAG, {}, "Hashtag"),
        (HASHTAG, {"split": "random"}, "Hashtag, split at random"),
        (HASHTAG, {"remove_target": False}, "Hashtag, target left in"),
        (TOPIC, {"split": "author"}, "Topic, split by author"),
    ],
)
def test_controls_are_no_part_of_the_mean_of_their_family(corpus, base, change, family):
    run("one", task(base, **change))
    assert json.loads((LAYOUT.task("one") / "datasets.json").read_text())["one"]["family"] == family


def test_the_target_can_be_left_in_on_purpose(corpus):
    run("hashtag", task(HASHTAG, remove_target=False))
    description = json.loads((LAYOUT.task("hashtag") / "datasets.json").read_text())["hashtag"]
    assert all(description["classes"][row["labels"][0]] in keys(row, "hashtag") for row in rows_of("hashtag"))


def test_the_hashtag_vocabulary_comes_from_train_posts_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    posts = [post(i, f"see #tag{i % 12}", split=PARTS[i // 12 % 4]) for i in range(96)]
    posts += [post(200 + i, "see #later", split="test") for i in range(500)]
    write_corpus(posts)
    run("hashtag", task(HASHTAG))
    assert "later" not in json.loads((LAYOUT.task("hashtag") / "datasets.json").read_text())["hashtag"]["classes"]


TAGS = st.text(st.characters(categories=["L", "N", "M"]) | st.sampled_from("_·'"), min_size=1, max_size=6)


@given(TAGS, st.lists(st.text(max_size=6), max_size=3), st.sampled_from(["#", "＃", "##", "@#"]))
def test_no_hostile_hashtag_survives_in_text_or_ntus(tag, words, sign):
    target = normalise(tag)
    text = " ".join([f"{sign}{tag}", *words, f"x {sign}{tag.upper().lower()}", f"{sign}{tag}"])
    left = remove(text, tag).strip()
    fields: dict[str, list[Any]] = {
        "post_id": ["1"],
        "text": [left],
        "author": ["ann"],
        "hashtags": [[target, "other"]],
        "places": [[tag]],
    }
    posts = without_targets(labelled_posts(SCHEME, fields, ["train"], [[0]]), SCHEME, [target])
    left_ntus = [(ntu["role"], ntu["key"]) for ntu in posts.ntus[0].as_py()]
    assert [(role, key) for role, key in left_ntus if role in ("author", "hashtag", "place")] == [
        ("author", "ann"),
        *([("hashtag", "other")] if target != "other" else []),
    ]
    assert target not in [key for role, key in left_ntus if role in SCHEME.hashtag_roles]
    assert target not in extract(left)
    assert f"#{tag} " not in f"{left} "


def test_of_several_targets_the_one_that_lacks_posts_is_taken():
    posts = [post(0, "", hashtags=["a", "b"]), post(1, "", hashtags=["a"]), post(2, "", hashtags=["b", "a"])]
    assert targets(posts, ["a", "b"]) == ["b", "a", "a"]


def test_fill_gives_what_is_missing_to_the_other_classes():
    assert fill([10, 10, 10], 12) == 4
    assert fill([10, 1, 10], 13) == 6
    assert fill([2, 2], 100) == 2


MASK = Mask(True, ["$XOM", "Acme Motors Inc.", "Consumer Goods", "T", "the Blue Bank"])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("buy $AAPL, $brk.b and $５０ off", "buy , and $50 off"),
        ("XOM xom ＸＯＭ #XOM @xom 'xom' xom's", "' ' 's"),
        ("acme motors and Acme  Motors Inc. and #AcmeMotors", "and and"),
        ("consumer goods #consumergoods consumer-goods #consumer_goods 2", "2"),
        ("don't say T", "don't say"),
        ("xomething stays, so do axom and https://x.y/XOM", "xomething stays, so do axom and http"),
        ("a blue bank", "a"),
    ],
)
def test_masked_text(text, left):
    assert MASK.text(text) == left


def test_masked_ntus():
    fields: dict[str, list[Any]] = {
        "post_id": ["1"],
        "text": ["$oil"],
        "author": ["xom"],
        "mentions": [["xom", "bob"]],
        "hashtags": [["xom", "consumergoods", "consumer_goods", "oil", "xom_news", "xomnews"]],
        "places": [["T", "Texas"]],
        "urls": [["https://www.xom.com/a", "https://xomoil.com"]],
    }
    masked = MASK.ntus(labelled_posts(SCHEME, fields, ["train"], [[0]]), SCHEME)
    assert [(ntu["role"], ntu["key"]) for ntu in masked.ntus[0].as_py()] == [
        ("author", "xom"),  # who wrote it stays
        ("mention", "bob"),
        ("hashtag", "oil"),
        ("hashtag", "xomnews"),
        ("place", "texas"),
        ("url", "xomoil.com"),
    ]


@given(st.text(max_size=8), st.sampled_from(["xom", "XoM", "ＸＯＭ", "$XOM", "#xom"]), st.text(max_size=8))
def test_a_label_word_never_stands_alone_in_a_masked_text(before, word, after):
    left = MASK.text(f"{before} {word} {after}").casefold()
    assert "xom" not in "".join(c if c.isalnum() else " " for c in left).split()


def test_topic_groups_labels_from_files_and_masks_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ["Rigs of $AAA and AAA #aaa #rigs", "Bread from Best Bakery #food", "$AAA $BBB", "nothing known of CCC"]
    write_corpus([post(i, texts[i % 4], split=PARTS[i // 4 % 4]) for i in range(16)])
    source = tmp_path / "source"
    source.mkdir()
    labels = "id,stocks\n" + "".join(f"p{i},{('AAA', 'BBB', 'AAA BBB', 'CCC')[i % 4]}\n" for i in range(16))
    (source / "labels.csv.gz").write_bytes(gzip.compress(labels.encode()))
    (source / "table.tsv").write_text('Sector\tSymbol\tName\nOil\t$AAA\tAaa "A" Corp.\nFood\t$BBB\tBest Bakery Inc.\n')
    section = task(
        TOPIC,
        path=str(source),
        labels={"file": "labels.csv.gz", "id_column": "id", "label_column": "stocks", "separator": " "},
        groups={"file": "table.tsv", "label_column": "Symbol", "group_column": "Sector", "word_columns": ["Name"]},
        mask=["cashtags", "label_words"],
        mask_words=["bread"],
    )
    run("topic", section)
    rows = rows_of("topic")
    assert json.loads((LAYOUT.task("topic") / "datasets.json").read_text())["topic"]["classes"] == ["Food", "Oil"]
    assert {(row["text"], tuple(row["labels"]), tuple(keys(row, "hashtag"))) for row in rows} == {
        ("Rigs of and #rigs", (1,), ("rigs",)),
        ("from", (0,), ()),
    }
    dropped = json.loads(LAYOUT.metrics("tasks", "topic").read_text())["topic"]["dropped"]
    assert dropped == {"empty text": 4, "labels without a group": 4, "posts without a label": 4}


def test_labelled_takes_one_label_a_post(corpus):
    run("mine", task(LABELLED))
    description = json.loads((LAYOUT.task("mine") / "datasets.json").read_text())["mine"]
    assert (description["family"], description["kind"], description["metric"]) == ("mine", "single", "macro_f1")
    assert all(len(row["labels"]) == 1 for row in rows_of("mine"))


def expect(message, name, section):
    with pytest.raises(UserError, match=message) as caught:
        run(name, section)
    assert "\n" not in str(caught.value)
    assert not LAYOUT.task(name).exists()
    assert not LAYOUT.metrics("tasks", name).exists()


def test_mistakes_are_named_and_nothing_is_left_behind(corpus):
    expect(r"tasks\.topic: labels.field: 'sector' is not in .*; it has topic", "topic",
           task(TOPIC, labels={"file": "labels.parquet", "field": "sector"}))  # fmt: skip
    expect("path: nowhere: not found", "topic", task(TOPIC, path="nowhere"))
    expect("classes: 40, but the training posts use only 13", "hashtag", task(HASHTAG, classes=40))
    expect(r"max_posts\.train: 3 posts for 12 classes", "hashtag", task(HASHTAG, max_posts={**MAX, "train": 3}))
    Path("ids.csv").write_text("id,label\nother,x\n")
    csv = {"file": "ids.csv", "id_column": "id", "label_column": "label", "separator": None}
    expect("no label of . belongs to a post.*'other', here 'p0'", "mine", task(LABELLED, path=".", labels=csv))
    expect("ids.csv: no column 'topic'; it has id, label", "mine",
           task(LABELLED, path=".", labels={**csv, "label_column": "topic"}))  # fmt: skip
    Path("ids.csv").write_text("id,label\n" + "".join(f"p{i},x\n" for i in range(240)))
    expect("1 class .'x'.; a task needs at least two", "mine", task(LABELLED, path=".", labels=csv))


def test_a_missing_or_stale_corpus_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expect("run `ntulm corpus` first", "hashtag", task(HASHTAG))
    write_corpus([post(1, "x")])
    pq.write_table(pa.table({"post_id": ["other"], "split": ["train"]}), LAYOUT.splits)
    expect("run `ntulm corpus` again", "hashtag", task(HASHTAG))


def test_a_target_leaves_roles_that_write_hashtags_in_another_way():
    roles = {"raw": Role("tag", "hashtags"), "author": Role("user", "author")}
    scheme = NtuScheme({"tag": "verbatim", "user": "user"}, roles)
    fields: dict[str, list[Any]] = {"post_id": ["1"], "text": ["so"], "author": ["paris"], "hashtags": [["paris", "x"]]}
    posts = without_targets(labelled_posts(scheme, fields, ["train"], [[0]]), scheme, ["paris"])
    assert [(ntu["role"], ntu["key"]) for ntu in posts.ntus[0].as_py()] == [("raw", "x"), ("author", "paris")]


def made(splits, labels):
    """Posts with these splits and labels, numbered."""
    count = len(splits)
    fields: dict[str, list[Any]] = {
        "post_id": [str(i) for i in range(count)],
        "text": ["text"] * count,
        "author": [None] * count,
    }
    return labelled_posts(SCHEME, fields, splits, labels)


def dataset(rows, classes=("a", "b"), kind="single"):
    posts = made([split for split, _ in rows], [labels for _, labels in rows])
    return Dataset("F", kind, list(classes), ["macro_f1"], posts)


def row(split, *labels):
    return split, list(labels)


GOOD = [row("train", 0), row("train", 1), row("validation", 0), row("test", 1)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GOOD[:3], "no test posts"),
        ([], "no train posts"),
        ([*GOOD, row("test", 2)], r"post 4: labels \[2\]; expected 0 to 1"),
        ([*GOOD, row("test", -1)], "expected 0 to 1"),
        ([*GOOD, row("test")], r"labels \[\]"),
        ([*GOOD, row("test", 0, 1)], "2 labels"),
        (GOOD[1:], "all training posts are of class 'b'"),
    ],
)
def test_a_data_set_that_cannot_be_learnt_is_refused(rows, message):
    check("good", dataset(GOOD))
    with pytest.raises(UserError, match=message):
        check("bad", dataset(rows))


def test_sample_keeps_the_order_of_rows_and_of_splits():
    posts = made([PARTS[i % 4] for i in range(40)], [[0]] * 40)
    drawn = sample(posts, MaxPosts(train=5, validation=3, test=99), seed=3)
    assert isinstance(drawn, Posts)
    assert drawn.table["split"].to_pylist() == ["train"] * 5 + ["validation"] * 3 + ["test"] * 10
    ids = [int(post_id) for post_id in drawn.table["post_id"].to_pylist()[:5]]
    assert ids == sorted(ids)


def test_further_roles_come_from_the_fields_of_the_corpus_and_an_own_folder(tmp_path):
    layout = Layout(tmp_path / "project")
    fields = {"mentions": ["bob", "bob"], "urls": ["https://www.News.org/a?b", "http://news.org/c"]}
    posts = [post(i, f"$AAA #t{i % 2}", split=PARTS[i // 2 % 4], **fields) for i in range(16)]
    write_corpus(posts, [(p["post_id"], "topic", f"topic{i % 3}") for i, p in enumerate(posts)], layout)
    tasks.run("topic", task(TOPIC), SCHEME, layout)
    first = pq.read_table(layout.task("topic") / "topic.parquet").to_pylist()[0]
    assert [(ntu["role"], ntu["key"]) for ntu in first["ntus"]] == [
        ("author", "ann"),
        ("mention", "bob"),
        ("hashtag", "t0"),
        ("url", "news.org"),
        ("symbol", "aaa"),
    ]
    masked = task(TOPIC, mask=["cashtags"])
    tasks.run("topic", masked, SCHEME, layout)
    first = pq.read_table(layout.task("topic") / "topic.parquet").to_pylist()[0]
    assert keys(first, "symbol") == []
    assert keys(first, "url") == ["news.org"]
