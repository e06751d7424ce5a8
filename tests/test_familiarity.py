"""How far test posts are from the graph: the groups, the records of `evaluate`, and the report's tables."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fake_run import EVALUATE, HERE, SCHEME, run_of, write_all, write_corpus, write_embeddings, write_scores, write_task
from safetensors.numpy import load_file

from ntulm.evaluate import stage as evaluate
from ntulm.evaluate.familiarity import DAYS, GROUPS, POSTS, Graph
from ntulm.files import read_json
from ntulm.probe.metrics import metric
from ntulm.report.markdown import familiarity, results_page
from ntulm.report.plots import draw_figures
from ntulm.report.tables import load_paper, load_results

END = np.datetime64("2020-06-30T00:00:00", "us")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_posts_are_grouped_by_days_and_by_the_posts_of_their_author():
    days = {"a": 0, "b": 29, "c": 30, "d": 89, "e": 90, "f": 180, "g": 5000, "h": -1}
    written = {name: END + np.timedelta64(day, "D") for name, day in days.items()}
    graph = Graph(END, {"one": 1, "three": 3, "four": 4, "twenty": 20, "many": 21}, written)
    names = [*days, "of another source"]
    authors = ["one", "three", "four", "twenty", "many", "new", None, "new", None]
    found = graph.groups(pa.table({"post_id": names, "author": authors}))
    chosen = {key: [name for name, own in zip(names, mask, strict=True) if own] for key, mask in found.items()}
    assert chosen == {
        (DAYS, "under 30"): ["a", "b"],
        (DAYS, "30 to 89"): ["c", "d"],
        (DAYS, "90 to 179"): ["e"],
        (DAYS, "180 or more"): ["f", "g"],
        (POSTS, "none"): ["f", "h"],
        (POSTS, "1 to 3"): ["a", "b"],
        (POSTS, "4 to 20"): ["c", "d"],
        (POSTS, "21 or more"): ["e"],
    }


def test_the_graph_is_read_from_the_corpus():
    assert Graph.read(HERE) is None
    write_task("topic", {"topic": ("Topic", "macro_f1", ["macro_f1"], 4)})
    write_corpus()
    graph = Graph.read(HERE)
    assert graph is not None
    assert graph.end == np.datetime64("2020-12-31T00:00:00")
    assert graph.posts_of == {f"u{number}": 10 for number in range(40)}
    assert graph.written["g24"] == np.datetime64("2020-12-30T00:00:00")


def test_each_group_has_the_metric_of_its_posts():
    write_embeddings()
    write_task("topic", {"topic": ("Topic", "macro_f1", ["macro_f1", "accuracy"], 4)})
    write_scores("topic")
    write_corpus()
    evaluate.run(EVALUATE, run_of(["topic"]), SCHEME, HERE)
    records = read_json(HERE.evaluate / "tables.json")["familiarity"]
    assert {record["metric"] for record in records} == {"macro_f1"}
    test = pq.read_table(HERE.task("topic") / "topic.parquet").filter(pc.equal(pc.field("split"), "test"))
    labels = np.eye(4, dtype=bool)[[own[0] for own in test["labels"].to_pylist()]]
    authors = test["author"].to_pylist()
    known = [author is not None and int(author[1:]) < 40 for author in authors]
    [record] = [one for one in records if (one["group"], one["system"]) == ("4 to 20", "author")]
    scores = load_file(HERE.scores("author", 0, "topic") / "author.topic.safetensors")["scores"].astype(np.float32)
    assert record["posts"] == sum(known)
    assert record["value"] == pytest.approx(metric("macro_f1", labels[known], scores[known]))
    assert record["known"] == 1
    days = [one for one in records if (one["by"], one["system"]) == (DAYS, "author+hashtag")]
    assert [one["group"] for one in days] == [name for _, name in GROUPS[DAYS]]
    assert sum(one["posts"] for one in days) == len(test)
    assert all(one["verdict"] for one in days)


def test_the_report_shows_them_and_nothing_without_a_corpus(tmp_path):
    run = write_all(tmp_path)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    assert familiarity(load_results(HERE)) == []
    write_corpus()
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    results = load_results(HERE)
    page = results_page(results, load_paper(), [])
    table = page.split("## How long a graph keeps, and whom it serves")[1].split("##")[0]
    assert f"**By {DAYS}**" in table
    assert f"**By {POSTS}**" in table
    row = next(line for line in table.splitlines() if line.startswith("| Topic | topic | map | under 30 |"))
    assert row.count("|") == 10
    drawn = dict(draw_figures(results, [], tmp_path))
    assert {"keeping.png", "whom.png"} <= drawn.keys()
    assert (tmp_path / "keeping.png").stat().st_size > 10_000
