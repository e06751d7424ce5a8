"""The engine `spark` of the stage `graph` against the engine `duckdb`: the same posts, the same bytes."""

import hashlib
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spark_session import need_spark, small_spark
from test_graph import HOSTILE, LAYOUT, SCHEME, all_bytes, config, write_corpus, write_posts

from ntulm.errors import UserError
from ntulm.graph import stage as graph
from ntulm.graph.duckdb_engine import DuckDb

RELATIONS = {
    name: {"left": left, "right": right}
    for name, left, right in [
        ("authored", "author", "hashtag"),
        ("co_mentioned", "mention", "hashtag"),
        ("favored", "author", "favoriter"),
        ("favorited", "favoriter", "hashtag"),
        ("linked", "author", "url"),
        ("mentioned", "author", "mention"),
        ("reposted", "reposter", "hashtag"),
        ("spread", "reposter", "author"),
        ("together", "hashtag", "hashtag"),
        ("together_liked", "favoriter", "favoriter"),
        ("traded", "cashtag", "place"),
    ]
}
LEAST = {"user": 25, "hashtag": 25, "domain": 1, "cashtag": 1, "place": 1}
UGLY = [*HOSTILE, "a\0b", "\uffff", "\ue000", "Z", "a b", "ab", "`", "${spark.master}", "\u2028"]


@pytest.fixture(scope="module")
def session():
    with small_spark() as session:
        yield session


def write_all_kinds(count: int) -> None:
    """Posts with something for every relation, some of them behind the window, and engagements in and behind it."""
    random = np.random.default_rng(1)
    users = [*UGLY, *(f"u{place}" for place in range(60))]
    tags = [*UGLY, *(f"t{place}" for place in range(40))]

    def some(values: list[str], most: int) -> list[str]:
        return [values[place] for place in random.integers(len(values), size=random.integers(most + 1))]

    posts = [
        {
            "author": None if random.random() < 0.1 else users[random.integers(len(users))],
            "mentions": some(users, 3),
            "hashtags": sorted(set(some(tags, 3))),
            "urls": some(["https://www.A.example/x", "http://a.example/y", "b.example", "https://ä.example", ""], 2),
            "text": " ".join(some(["$AAPL", "$aapl", "$b", "nothing", "🙂"], 4)),
            "places": some(["Rome", "rome", "Ā"], 2),
        }
        for _ in range(count)
    ]
    kinds, hours = ["favorited", "reposted", "seen"], [None, *range(count)]
    engagements = [
        (
            None if random.random() < 0.1 else users[random.integers(len(users))],
            random.integers(count),
            kinds[random.integers(3)],
            hours[random.integers(len(hours))],
        )
        for _ in range(4 * count)
    ]
    write_posts(posts, engagements)
    splits = pq.read_table(LAYOUT.splits)
    in_window = pa.array([place < 0.7 * count for place in range(count)])
    pq.write_table(splits.set_column(1, "graph", in_window), LAYOUT.splits)


def test_both_engines_leave_the_same_bytes(tmp_path, monkeypatch, session):
    """In a folder whose name Spark could take for a pattern, and in more rows than a batch has."""
    folder = tmp_path / "a [b] {c} * d"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(graph, "BATCH_ROWS", 500)
    write_all_kinds(400)
    chosen = config(relations=RELATIONS, min_degree=LEAST, held_out_share=0.2, seed=3)
    graph.run(chosen, SCHEME, LAYOUT)
    expected = all_bytes()
    found = json.loads(LAYOUT.metrics("graph").read_text())
    assert all(relation["distinct"] > 0 for relation in found["relations"].values())
    assert found["held_out"] > 100
    assert found["dropped_by_degree"]["edges"] > 0
    graph.run(chosen.model_copy(update={"engine": "spark"}), SCHEME, LAYOUT)
    assert all_bytes() == expected
    assert not list(Path("data").glob(".partial-*"))


def test_null_in_a_list_and_posts_without_anything_count_for_neither_engine(tmp_path, monkeypatch, session):
    monkeypatch.chdir(tmp_path)
    write_corpus([("ada", ["bob", None, "bob"], ["nlp", None], True), ("bob", [], [None], True), (None, [], [], True)])
    chosen = config(held_out_share=0.0)
    graph.run(chosen, SCHEME, LAYOUT)
    expected = all_bytes()
    graph.run(chosen.model_copy(update={"engine": "spark"}), SCHEME, LAYOUT)
    assert all_bytes() == expected


def test_a_graph_without_edges_says_why_in_the_same_words(tmp_path, monkeypatch, session):
    monkeypatch.chdir(tmp_path)
    write_corpus([("ada", [], ["nlp"], True)], [("eve", 0, "favorited", 7)])
    said = []
    for engine in ("duckdb", "spark"):
        with pytest.raises(UserError, match="1 edges before the degree filter") as error:
            graph.run(config(engine=engine, min_degree={"user": 1, "hashtag": 2}), SCHEME, LAYOUT)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert not LAYOUT.graph.exists()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=200))
def test_a_text_is_drawn_alike(tmp_path_factory, session, texts):
    from ntulm.graph.spark_engine import Spark

    texts = [*texts, "", *UGLY]
    expected = [(int.from_bytes(hashlib.md5(text.encode()).digest()[:8], "little") >> 11) / 2**53 for text in texts]
    table = pa.table({"place": range(len(texts)), "text": pa.array(texts, pa.string())})
    with duckdb.connect() as connection:
        for database in (DuckDb(connection), Spark(session.newSession(), tmp_path_factory.mktemp("spark"))):
            database.add("texts", table)
            assert [draw for (draw,) in database.rows("SELECT draw(text) FROM texts ORDER BY place")] == expected


def test_numbers_are_places_in_an_order_across_partitions(tmp_path, session):
    from ntulm.graph.spark_engine import Spark

    random = np.random.default_rng(0)
    keys = [f"{place:x}" for place in random.permutation(5000)]
    database = Spark(session.newSession(), tmp_path)
    database.add("keys", pa.table({"key": keys, "degree": random.integers(50, size=5000)}))
    database.run(
        """CREATE TABLE nodes AS SELECT row_number() OVER (ORDER BY degree DESC, key) - 1 AS id, key, degree FROM keys;
        CREATE TABLE codes AS SELECT row_number() OVER () AS code, key FROM keys"""
    )
    rows = pa.Table.from_batches(database.batches("SELECT id, degree, key FROM nodes ORDER BY id", 1000)).to_pylist()
    assert [row["id"] for row in rows] == list(range(5000))
    assert rows == sorted(rows, key=lambda row: (-row["degree"], row["key"]))
    assert len(list((tmp_path / "nodes").glob("part-*"))) == 3
    assert database.rows("SELECT count(DISTINCT code), count(DISTINCT key) FROM codes") == [(5000, 5000)]


def test_the_sql_of_the_stage_is_translated_as_a_whole():
    pytest.importorskip("sqlglot", reason="the engine spark needs `pip install 'ntulm[spark]'`")
    from ntulm.graph import spark_sql

    variables = {"held_out_share": 0.1, "seed": 7}
    texts = [resources.files("ntulm.graph").joinpath(name).read_text("utf-8") for name in ("uses.sql", "nodes.sql")]
    found = [one for text in texts for one in spark_sql.statements(text, variables)]
    assert [(one.name, one.number, one.ordered) for one in found if one.number] == [
        ("node_keys", "code", False),
        ("nodes", "id", True),
    ]
    assert {one.name for one in found if one.does == "drop"} == {"raw_edges", "coded"}
    assert not [one for one in found if "getvariable" in one.query.lower() or "over (" in one.query.lower()]
    assert "CAST('0.1' AS DOUBLE)" in next(one.query for one in found if one.name == "coded")


def test_packages_that_are_missing_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    monkeypatch.delitem(sys.modules, "ntulm.graph.spark_engine", raising=False)
    monkeypatch.delattr("ntulm.graph.spark_engine", raising=False)
    write_corpus([("ada", [], ["nlp"], True)])
    with pytest.raises(UserError, match=r"graph.engine: spark needs .*sqlglot.*pip install 'ntulm\[spark\]'.*Java 17"):
        graph.run(config(engine="spark"), SCHEME, LAYOUT)
    assert not LAYOUT.graph.exists()


def test_java_that_is_missing_and_too_little_memory_are_told_in_one_line(tmp_path, monkeypatch):
    need_spark()
    from ntulm.graph import spark_engine

    for name in spark_engine.STARTED_OTHERWISE:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"graph.memory_limit: 100MB is too small; Spark needs 512MB"):
        spark_engine._start("100MB", tmp_path)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"spark needs Java, which is not found in JAVA_HOME, .*; install Java 17"):
        spark_engine._start("1GB", tmp_path)


def test_faults_of_java_are_told_in_one_line():
    need_spark()
    from py4j.protocol import Py4JError

    from ntulm.graph.spark_engine import _own_words

    with pytest.raises(UserError, match=r"graph.memory_limit: 1GB is too small for Spark"), _own_words("1GB"):
        raise Py4JError("java.lang.OutOfMemoryError: Java heap space")
    with pytest.raises(UserError, match="Spark's Java process has ended"), _own_words("1GB"):
        raise ConnectionRefusedError(111, "Connection refused")
    with pytest.raises(Py4JError, match="another"), _own_words("1GB"):
        raise Py4JError("another")


def test_the_engine_duckdb_loads_nothing_of_spark():
    program = "import sys, ntulm.graph.stage; print({'pyspark', 'sqlglot'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "set()"
