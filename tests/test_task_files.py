"""Benchmarks that come as files: table, TweetEval and SemEval layouts, hand-made, and what is wrong with them."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter
from schemes import MORE

from ntulm.errors import UserError
from ntulm.files import write_json
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme, Role
from ntulm.report.tables import load_paper
from ntulm.tasks import socialmediaie
from ntulm.tasks import stage as tasks
from ntulm.tasks.config import Task
from ntulm.tasks.records import lines, records
from ntulm.tasks.semeval import Tweet, clean, decode
from ntulm.text import Reading, readable

LAYOUT = Layout()
SCHEME = NtuScheme(
    {"user": "user", "hashtag": "hashtag"},
    {"author": Role("user", "author"), "hashtag": Role("hashtag", "hashtags")},
)
READING = {"casefold_users": True, "mention_hosts": False, "html": False, "mentions_in_text": True}
MAX = {"train": 1000, "validation": 1000, "test": 1000}
TABLE = {
    "kind": "table",
    "path": "posts.csv",
    "text_column": "text",
    "label_column": "label",
    "author_column": None,
    "casefold_users": True,
    "split_column": None,
    "validation_share": 0.2,
    "test_share": 0.2,
    "seed": 0,
    "max_posts": MAX,
}
TWEETEVAL = {"kind": "tweeteval", "path": "te", "datasets": ["mood"], "seed": 0, "max_posts": MAX}
SOCIALMEDIAIE = {"kind": "socialmediaie", "path": "smie", "seed": 0, "max_posts": MAX}
SEMEVAL = {
    "kind": "semeval",
    "path": "se",
    "subtasks": ["A", "BD"],
    "validation_share": 0.5,
    "seed": 0,
    "max_posts": MAX,
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(LAYOUT.reading, READING)


def task(section, **changes):
    return TypeAdapter(Task).validate_python({**section, **changes})


def run(section, name="mine", **changes):
    """Run a task; its descriptions and, by data set, its rows."""
    tasks.run(name, task(section, **changes), SCHEME, LAYOUT)
    described = json.loads((LAYOUT.task(name) / "datasets.json").read_text())
    return described, {key: pq.read_table(LAYOUT.task(name) / f"{key}.parquet").to_pylist() for key in described}


def hashtags(row):
    return [ntu["key"] for ntu in row["ntus"] if ntu["role"] == "hashtag"]


def fails(message, section, **changes):
    with pytest.raises(UserError, match=message) as caught:
        tasks.run("mine", task(section, **changes), SCHEME, LAYOUT)
    assert "\n" not in str(caught.value)
    assert not LAYOUT.task("mine").exists()


def write_rows(header="text,label,who,part"):
    rows = [f'"words {i}, #Tag{i % 2}",{"yes" if i % 4 else "no"},w{i % 5},{("train", "dev", "test")[i % 3 - 1]}'
            for i in range(100)]  # fmt: skip
    Path("posts.csv").write_text("\n".join([header, *rows]))


def test_table_draws_splits_by_text_and_takes_hashtags_from_it():
    write_rows()
    with Path("posts.csv").open("a") as file:
        file.write("\n" + '"words 5,  #TAG1",no,w1,test\n"",yes,w1,test\nwords,,w1,test\n')
    described, rows = run(TABLE)
    assert described["mine"]["classes"] == ["no", "yes"]
    assert described["mine"]["family"] == "mine"
    assert 45 < described["mine"]["posts"]["train"] < 75
    copies = [row["split"] for row in rows["mine"] if row["text"].startswith("words 5,")]
    assert len(copies) == 2
    assert len(set(copies)) == 1
    assert {tuple(hashtags(row)) for row in rows["mine"]} == {("tag0",), ("tag1",)}
    assert {row["author"] for row in rows["mine"]} == {None}
    dropped = json.loads(LAYOUT.metrics("tasks", "mine").read_text())["mine"]["dropped"]
    assert dropped == {"no label": 1, "no text": 1}


def test_table_takes_authors_and_splits_from_columns():
    write_rows()
    _, rows = run(TABLE, author_column="who", split_column="part")
    assert Counter(row["split"] for row in rows["mine"]) == {"train": 33, "validation": 33, "test": 34}
    assert {row["author"] for row in rows["mine"]} == {f"w{i}" for i in range(5)}


@pytest.mark.parametrize(("casefold", "expected"), [(True, "alice"), (False, "Alice")])
def test_table_writes_authors_as_the_corpus_does(casefold, expected):
    rows = "".join(f"text {i},{'ab'[i % 2]}, @Alice \n" for i in range(40))
    Path("posts.csv").write_text("text,label,who\n" + rows)
    _, found = run(TABLE, author_column="who", casefold_users=casefold)
    assert {row["author"] for row in found["mine"]} == {expected}


def test_a_raw_post_is_read_as_a_new_one_is():
    html: dict[str, Any] = {**READING, "html": True}
    write_json(LAYOUT.reading, html)
    raw = "<p>Tom &amp; Jerry <a>#<b>cat</b></a> x &lt; y</p>"
    Path("posts.csv").write_text("text,label\n" + "".join(f'"{raw} {i}",{"ab"[i % 2]}\n' for i in range(40)))
    _, rows = run(TABLE)
    assert {row["text"] for row in rows["mine"]} == {readable(f"{raw} {i}", Reading(**html)) for i in range(40)}
    assert {tuple(hashtags(row)) for row in rows["mine"]} == {("cat",)}


@pytest.mark.parametrize("name", ["posts.jsonl", "posts.jsonl.gz", "posts.parquet", "posts.csv.gz", "posts.tsv"])
def test_every_kind_of_table_gives_the_same_rows(name):
    found = [{"text": f'say "x{i}"\u2028line', "label": "ab"[i % 2], "n": i} for i in range(40)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(found), name)
    else:
        quoted = [(str(row["text"]).replace('"', '""'), row["label"]) for row in found]
        content = {
            "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in found),
            "csv": "text,label\n" + "\n".join(f'"{text}",{label}' for text, label in quoted),
            "tsv": "text\tlabel\n" + "\n".join(f"{row['text']}\t{row['label']}" for row in found),
        }[name.split(".")[1]].encode()
        Path(name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    _, rows = run(TABLE, path=name)
    assert {row["text"] for row in rows["mine"]} == {row["text"] for row in found}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "a.csv: not found"),
        ("a.csv", b"", "a.csv: empty file"),
        ("a.csv", b"text,label\na,b,c\n", "a.csv:2: 3 fields; the header has 2"),
        ("a.csv", b'text,label\n"a,b\n', "a.csv:2: not valid CSV"),
        ("a.csv", b'"te"xt,label\na,b\n', "a.csv:1: not valid CSV"),
        ("a.csv", b"text,lab\na,b\n", "a.csv: no column 'label'; it has text, lab"),
        ("a.csv", b"text,label\n\xff,b\n", "a.csv:2: not UTF-8"),
        ("a.csv", b"text,label\nx,b\na\0,b\n", "a.csv:3: NUL byte"),
        ("a.csv.gz", gzip.compress(b"text,label\n" * 99, mtime=0)[:-12], "damaged or truncated gzip"),
        ("a.csv.gz", b"text,label\n", "damaged or truncated gzip"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text"\n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b"[1]\n", "a.jsonl:1: not an object"),
        ("a.parquet", b"PAR0", "not a readable Parquet file"),
        ("a.xlsx", b"x", "unknown kind of table"),
        ("a.csv", b"text,label\na,b\n", "1 class .'b'.; a task needs at least two"),
        ("a.csv", b"text,label\na,b\nb,c\n", "no (train|validation|test) posts"),
    ],
)
def test_bad_tables(name, content, message):
    if content is not None:
        Path(name).write_bytes(content)
    fails(message, TABLE, path=name)


def test_an_unknown_split_is_named_with_its_line():
    Path("posts.csv").write_text("text,label,part\na,b,train\na,c,practice\n")
    fails("posts.csv:3: part: 'practice'; expected one of train, validation", TABLE, split_column="part")


def test_lines_are_split_at_line_feeds_alone():
    Path("x").write_bytes("\ufeffa\u2028b\u0085c\x0bd\r\n\n e\n".encode())
    assert lines(Path("x")) == ["a\u2028b\u0085c\x0bd", "", " e"]


def test_a_record_says_where_it_stands():
    Path("x.csv").write_text('a,b\n"one\ntwo",3\nx,4\n')
    assert [(where, row["b"]) for where, row in records(Path("x.csv"), ["b"])] == [("x.csv:3", "3"), ("x.csv:4", "4")]


def write_tweeteval(folder="te/mood", mapping="0\tsad\n1\tglad\n", classes=2, posts=12):
    Path(folder).mkdir(parents=True)
    if mapping:
        (Path(folder) / "mapping.txt").write_text(mapping)
    for part in ("train", "val", "test"):
        (Path(folder) / f"{part}_text.txt").write_text("".join(f"{part}\u2028 {i} #Day{i}\n" for i in range(posts)))
        (Path(folder) / f"{part}_labels.txt").write_text("".join(f"{i % classes}\n" for i in range(posts)))


def write_socialmediaie(folder, labels=("yes", "no"), posts=12):
    for part in ("train", "dev", "test"):
        path = Path("smie") / folder / f"{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        objects = [{"text": f"{part} {i} #Day{i}", "label": labels[i % len(labels)], "id": i} for i in range(posts)]
        path.write_text("".join(json.dumps(one) + "\n" for one in objects))


def test_socialmediaie_sets_are_named_as_in_the_paper():
    write_socialmediaie("SENTIMENT/GOP")
    write_socialmediaie("ABUSIVE/WaseemSRW", labels=("none", "racism", "sexism"))
    described, rows = run(SOCIALMEDIAIE)
    assert set(described) == {"sentiment-3", "abusive-2"} < set(load_paper()["table3"]["SocialMediaIE"])
    assert described["abusive-2"]["classes"] == ["none", "racism", "sexism"]
    assert described["abusive-2"]["family"] == "SocialMediaIE"
    assert described["sentiment-3"]["posts"] == {"train": 12, "validation": 12, "test": 12}
    last = rows["sentiment-3"][-1]
    assert (last["text"], hashtags(last), last["labels"]) == ("test 11 #Day11", ["day11"], [0])
    assert set(socialmediaie.SETS) == set(load_paper()["table3"]["SocialMediaIE"])


def test_socialmediaie_mistakes():
    Path("smie").mkdir()
    with pytest.raises(UserError, match="none of ABUSIVE/Founta"):
        run(SOCIALMEDIAIE)
    write_socialmediaie("ABUSIVE/Founta", labels=("yes", ""))
    with pytest.raises(UserError, match=r"train\.json:2: no label"):
        run(SOCIALMEDIAIE)
    (Path("smie") / "ABUSIVE/Founta/train.json").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match="no column 'label'"):
        run(SOCIALMEDIAIE)


def test_tweeteval_layout():
    write_tweeteval()
    described, rows = run(TWEETEVAL)
    assert described["mood"]["family"] == "TweetEval"
    assert described["mood"]["classes"] == ["sad", "glad"]
    assert described["mood"]["metrics"] == ["macro_f1"]
    assert described["mood"]["posts"] == {"train": 12, "validation": 12, "test": 12}
    last = rows["mood"][-1]
    assert (last["text"], hashtags(last), last["labels"], last["author"]) == (
        "test\u2028 11 #Day11",
        ["day11"],
        [1],
        None,
    )


def test_tweeteval_official_metrics_and_one_data_set_a_target():
    stance = "0\tnone\n1\tagainst\n2\tfavor\n"
    write_tweeteval("te/stance/taxes", mapping="", classes=3)
    write_tweeteval("te/stance/trains", mapping="", classes=3)
    Path("te/stance/mapping.txt").write_text(stance)
    write_tweeteval("te/irony")
    write_tweeteval("te/sentiment", mapping=stance, classes=3)
    described, _ = run(TWEETEVAL, datasets=["stance", "irony", "sentiment"])
    assert {key: value["metrics"] for key, value in described.items()} == {
        "stance-taxes": ["stance_f1", "macro_f1"],
        "stance-trains": ["stance_f1", "macro_f1"],
        "irony": ["f1_1", "macro_f1"],
        "sentiment": ["macro_recall", "macro_f1"],
    }
    assert list(run(TWEETEVAL, datasets=["stance/taxes"])[0]) == ["stance-taxes"]


def test_tweeteval_lies_beside_the_project(tmp_path, monkeypatch):
    """As in the README: `ntulm configure ira data=../data`."""
    write_tweeteval()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    write_json(LAYOUT.reading, READING)
    described, rows = run(TWEETEVAL, path="../te")
    assert len(rows["mood"]) == 36
    assert list(described) == ["mood"]


def test_tweeteval_mistakes():
    fails("path: te: not a folder", TWEETEVAL)
    write_tweeteval()
    fails("'moods' is not a folder of te; it has mood", TWEETEVAL, datasets=["moods"])
    fails("is not a folder of te", TWEETEVAL, datasets=["../te/mood"])
    labels = Path("te/mood/test_labels.txt")
    labels.write_text("0\n1\n")
    fails("test_text.txt: 12 (lines|texts), but .*2", TWEETEVAL)
    for wrong in ("2", "-1", "x", "", "²"):
        labels.write_text("0\n" * 11 + f"{wrong}\n")
        fails(f"test_labels.txt:12: label '{wrong}'; expected a whole number from 0 to 1", TWEETEVAL)
    labels.write_text("0\n" * 12)
    Path("te/mood/train_labels.txt").write_text("1\n" * 12)
    fails("all training posts are of class 'glad'", TWEETEVAL)
    Path("te/mood/val_text.txt").unlink()
    fails("val_text.txt: not found", TWEETEVAL)
    Path("te/mood/mapping.txt").write_text("1\tglad\n")
    fails("mapping.txt:1: .*expected 0, a tab", TWEETEVAL)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (r"it\u2019s 1\u002c2", "it’s 1,2"),
        (r'"a \""b\"" &amp; c, d"', 'a "b" & c, d'),
        ("&amp;ldquo;x&amp;hellip; &lt;3", "“x… <3"),
        (r"\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        ("  a\u00a0 b \\u0000", "a b"),
        (r"\m/ 100% \(o_o)", r"\m/ 100% \(o_o)"),
    ],
)
def test_decode(raw, text):
    assert decode(raw) == text
    text.encode()


LABELS_A = ["negative", "neutral", "positive"]


def write_semeval(name, count, first, topics=False, labels=LABELS_A):
    path = Path("se") / name[-1] / f"twitter-{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for i in range(first, first + count):
            fields = [str(i), *(["the \\u002c topic"] if topics else []), labels[i % len(labels)], f"text {i} #Day", ""]
            file.write("\t".join(fields) + "\n")
    return path


def write_years():
    write_semeval("2013train-A", 30, 0)
    write_semeval("2013dev-A", 6, 100)
    write_semeval("2013test-A", 9, 200)
    write_semeval("2014sarcasm-A", 3, 300)
    write_semeval("2014test-A", 9, 400)
    write_semeval("2016train-BD", 40, 500, True, ["negative", "positive", "off topic", "neutral"])
    write_semeval("2016devtest-BD", 8, 600, True, ["negative", "positive"])
    write_semeval("2016test-BD", 8, 700, True, ["negative", "positive"])


def test_semeval_years_and_together():
    write_years()
    described, rows = run(SEMEVAL)
    assert {key: value["family"] for key, value in described.items()} == {
        "2013-A": "SemEval 1",
        "2014-A": "SemEval 1",
        "task-A": "SemEval 2",
        "2016-BD": "SemEval 1",
        "task-BD": "SemEval 2",
    }
    assert described["2013-A"]["posts"] == {"train": 30, "validation": 6, "test": 9}
    assert described["2014-A"]["posts"] == {"train": 30, "validation": 6, "test": 9}  # trained on 2013
    assert described["task-A"]["posts"] == {"train": 30, "validation": 6, "test": 18}
    assert described["2016-BD"]["posts"] == {"train": 20, "validation": 8, "test": 8}
    assert described["task-BD"]["classes"] == ["negative", "positive"]
    assert rows["2016-BD"][-1]["text"] == "text 707 #Day the , topic"
    assert hashtags(rows["2016-BD"][-1]) == ["day"]
    counts = json.loads(LAYOUT.metrics("tasks", "mine").read_text())
    assert counts["task-A"]["dropped"] == {"copies of other posts": 0, "part 2014sarcasm": 3}
    assert counts["task-BD"]["dropped"] == {
        "copies of other posts": 0,
        "label 'neutral'": 10,
        "label 'off topic'": 10,
    }


def test_five_points_of_semeval():
    write_semeval("2016train-CE", 40, 500, True, ["-2", "-1", "0", "1", "2"])
    write_semeval("2016dev-CE", 10, 600, True, ["-2", "-1", "0", "1", "2", "3"])
    write_semeval("2016test-CE", 10, 700, True, ["2", "1"])
    described, rows = run({**SEMEVAL, "subtasks": ["CE"]})
    assert {name: one["family"] for name, one in described.items()} == {"2016-CE": "SemEval 1", "task-CE": "SemEval 2"}
    assert described["2016-CE"]["posts"] == {"train": 40, "validation": 9, "test": 10}
    assert described["2016-CE"]["classes"] == ["-2", "-1", "0", "1", "2"]
    assert described["2016-CE"]["metric"] == "macro_f1"
    assert "macro_mae" in described["2016-CE"]["metrics"]
    assert [row["labels"] for row in rows["2016-CE"] if row["split"] == "test"][:2] == [[4], [3]]
    assert rows["2016-CE"][-1]["text"] == "text 709 #Day the , topic"


def test_a_topic_is_no_part_of_what_a_post_says():
    write_semeval("2016train-BD", 40, 500, topics=True, labels=["negative", "positive"])
    write_semeval("2016test-BD", 8, 700, topics=True, labels=["negative", "positive"])
    for path in Path("se").rglob("*.tsv"):
        path.write_text(path.read_text().replace("the \\u002c topic", "$AAPL").replace("#Day", "$MSFT"))
    tasks.run("mine", task(SEMEVAL, subtasks=["BD"]), MORE, LAYOUT)
    rows = pq.read_table(LAYOUT.task("mine") / "2016-BD.parquet").to_pylist()
    assert rows[-1]["text"] == "text 707 $MSFT $AAPL"
    assert {tuple(ntu["key"] for ntu in row["ntus"]) for row in rows} == {("msft",)}


def test_semeval_without_a_dev_part_takes_a_share_of_train():
    write_semeval("2015train-A", 60, 0)
    write_semeval("2015test-A", 9, 100)
    described, rows = run(SEMEVAL, subtasks=["A"])
    posts = described["2015-A"]["posts"]
    assert posts["train"] + posts["validation"] == 60
    assert 15 < posts["validation"] < 45
    assert described["task-A"]["posts"] == posts
    assert rows["task-A"] == rows["2015-A"]


def test_semeval_keeps_test_clean_of_what_was_seen():
    def tweet(post_id, text, topic=""):
        return Tweet(post_id, topic, "positive", text)

    parts = {
        "train": [tweet("1", "a"), tweet("2", "B  http://x/1"), tweet("3", "c"), tweet("4", "d"), tweet("3", "c")],
        "validation": [tweet("4", "other"), tweet("5", "e")],
        "test": [tweet("1", "z", "t1"), tweet("1", "z", "t2"), tweet("6", "b http://y/2")],
    }
    kept, dropped = clean(parts)
    assert [(t.post_id, t.topic) for t in kept["test"]] == [("1", "t1"), ("1", "t2"), ("6", "")]
    assert [t.post_id for t in kept["validation"]] == ["4", "5"]
    assert [t.post_id for t in kept["train"]] == ["3"]
    assert dropped == 4


def test_semeval_mistakes():
    fails("path: se: no file like twitter-2016train-A.tsv in it", SEMEVAL)
    path = write_semeval("2014test-A", 9, 0)
    fails("2014-A has test posts, but no train part of 2014 or before", SEMEVAL, subtasks=["A"])
    with path.open("a") as file:
        file.write("12 positive no tabs\n")
    fails("twitter-2014test-A.tsv:10: 1 fields; expected id, label, text", SEMEVAL, subtasks=["A"])
