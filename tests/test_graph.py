"""The graph against a plain Python extraction, what must not leak into it, and the bytes it leaves."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntulm import layout
from ntulm.errors import UserError
from ntulm.graph import stage as graph
from ntulm.graph.config import Graph, MinDegree

RELATIONS: list[Any] = ["authored", "favorited", "reposted", "co_mentioned"]
START = datetime(2020, 1, 1, tzinfo=UTC)
HOSTILE = [
    "'; DROP TABLE posts; --",
    '"',
    "a\nb",
    "\\",
    "$1",
    "%s",
    "🙂",
    "\U0010ffff",
    "ä",
    "a\u0308",
    "x" * 10_000,
    "NULL",
]
USERS, TAGS = st.sampled_from(["ada", "bob", "eve", "x"]), st.sampled_from(["nlp", "ml", "x"])
POSTS = st.lists(
    st.tuples(st.none() | USERS, st.lists(USERS, max_size=3), st.lists(TAGS, max_size=2, unique=True), st.booleans()),
    max_size=12,
)
ENGAGEMENTS = st.lists(
    st.tuples(USERS, st.integers(0, 13), st.sampled_from(["favorited", "reposted"]), st.none() | st.integers(0, 13)),
    max_size=12,
)


def config(**changes: Any) -> Graph:
    values: dict[str, Any] = {
        "relations": RELATIONS,
        "min_degree": MinDegree(user=1, hashtag=1),
        "max_count": 2,
        "held_out_share": 0.0,
        "seed": 0,
        "memory_limit": "500MB",
    }
    return Graph(**values | changes)


def write_corpus(posts: list[tuple], engagements: Sequence[tuple] = ()) -> None:
    """Posts are (author, mentions, hashtags, in the graph window), one an hour; engagements user, post, kind, hour."""
    layout.CORPUS.mkdir(parents=True, exist_ok=True)
    strings, times = pa.list_(pa.string()), pa.timestamp("us", "UTC")
    columns = list(zip(*posts, strict=True)) or [()] * 4
    ids = [str(place) for place in range(len(posts))]
    table = {
        "post_id": pa.array(ids, pa.string()),
        "created_at": pa.array([hour(place) for place in range(len(posts))], times),
        "author": pa.array(columns[0], pa.string()),
        "mentions": pa.array(columns[1], strings),
        "hashtags": pa.array(columns[2], strings),
    }
    pq.write_table(pa.table(table), layout.POSTS)
    graph_window = pa.array(columns[3], pa.bool_())
    pq.write_table(pa.table({"post_id": table["post_id"], "graph": graph_window}), layout.SPLITS)
    users, whose, kinds, hours = list(zip(*engagements, strict=True)) or [()] * 4
    engaged = {
        "user": pa.array(users, pa.string()),
        "post_id": pa.array([str(place) for place in whose], pa.string()),
        "kind": pa.array(kinds, pa.string()),
        "created_at": pa.array([None if place is None else hour(place) for place in hours], times),
    }
    pq.write_table(pa.table(engaged), layout.ENGAGEMENTS)


def hour(place: int) -> datetime:
    return START + timedelta(hours=place)


def plain_edges(posts: list[tuple], engagements: list[tuple], min_user: int, min_hashtag: int) -> Counter:
    window = [place for place, post in enumerate(posts) if post[3]]
    uses = [(posts[place][0], "authored", place) for place in window]
    uses += [(user, "co_mentioned", place) for place in window for user in set(posts[place][1])]
    timely = {
        (user, kind, post) for user, post, kind, time in engagements if time is None or (window and time <= window[-1])
    }
    uses += [(user, kind, post) for user, kind, post in timely if post in window]
    edges = Counter((user, kind, tag) for user, kind, post in uses for tag in posts[post][2] if user is not None)
    users, tags = Counter(edge[0] for edge in edges), Counter(edge[2] for edge in edges)
    return Counter({e: n for e, n in edges.items() if users[e[0]] >= min_user and tags[e[2]] >= min_hashtag})


def read_nodes() -> list[dict[str, Any]]:
    return pq.read_table(layout.NODES).to_pylist()


def read_edges() -> Counter:
    keys = [node["key"] for node in read_nodes()]
    rows = pq.read_table(layout.EDGES).to_pylist()
    return Counter({(keys[row["lhs"]], row["rel"], keys[row["rhs"]]): row["count"] for row in rows})


def all_bytes() -> dict[str, bytes]:
    paths = [path for path in sorted(layout.GRAPH.rglob("*")) if path.is_file()] + [layout.metrics("graph")]
    return {str(path): path.read_bytes() for path in paths}


def social_posts(count: int, seed: int = 0) -> list[tuple]:
    random = np.random.default_rng(seed)

    def draw(letter: str, most: int) -> list[str]:
        return [f"{letter}{place}" for place in set(random.integers(0, 40, random.integers(0, most)).tolist())]

    return [(f"u{random.integers(60)}", draw("u", 3), draw("t", 4), True) for _ in range(count)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(posts=POSTS, engagements=ENGAGEMENTS, user=st.integers(1, 3), hashtag=st.integers(1, 3))
def test_edges_equal_a_plain_extraction(tmp_path, monkeypatch, posts, engagements, user, hashtag):
    monkeypatch.chdir(tmp_path)
    write_corpus(posts, engagements)
    expected = plain_edges(posts, engagements, user, hashtag)
    chosen = config(min_degree=MinDegree(user=user, hashtag=hashtag))
    if not expected:
        with pytest.raises(UserError, match="the graph has no edges"):
            graph.run(chosen)
        return
    graph.run(chosen)
    assert read_edges() == expected
    metrics = json.loads(layout.metrics("graph").read_text())
    assert metrics["edges"] == len(expected)
    assert metrics["dropped_by_degree"]["edges"] == len(plain_edges(posts, engagements, 1, 1)) - len(expected)
    assert sum(relation["total"] for relation in metrics["relations"].values()) == sum(expected.values())


def test_nodes_are_dense_and_ordered_by_type_degree_and_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus([("bob", [], ["b", "a", "x"], True), ("ada", ["eve"], ["x"], True)])
    graph.run(config())
    assert [(node["id"], node["type"], node["key"], node["degree"]) for node in read_nodes()] == [
        (0, "hashtag", "x", 3),
        (1, "hashtag", "a", 1),
        (2, "hashtag", "b", 1),
        (3, "user", "bob", 3),
        (4, "user", "ada", 1),
        (5, "user", "eve", 1),
    ]
    edges = pq.read_table(layout.EDGES).to_pylist()
    assert [(edge["lhs"], edge["rel"], edge["rhs"]) for edge in edges] == sorted(
        (edge["lhs"], edge["rel"], edge["rhs"]) for edge in edges
    )
    assert pq.read_schema(layout.EDGES).equals(graph.EDGES)
    assert pq.read_schema(layout.NODES).equals(graph.NODES)


def test_nothing_after_the_window_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    posts = [("ada", [], ["early"], True), ("bob", [], ["early"], True), ("eve", ["ada"], ["late"], False)]
    engagements = [
        ("in_time", 0, "reposted", 1),
        ("unknown_time", 0, "favorited", None),
        ("too_late", 0, "reposted", 2),
        ("late_post", 2, "favorited", 1),
    ]
    write_corpus(posts, engagements)
    graph.run(config())
    assert {node["key"] for node in read_nodes()} == {"early", "ada", "bob", "in_time", "unknown_time"}


def test_hostile_keys_are_only_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus([(key, [], [key], True) for key in HOSTILE], [(key, 0, "favorited", None) for key in HOSTILE])
    graph.run(config(held_out_share=0.3))
    assert {node["key"] for node in read_nodes() if node["type"] == "user"} == set(HOSTILE)
    assert read_edges()[(HOSTILE[1], "favorited", HOSTILE[0])] == 1


def test_pbg_reads_its_input_and_counts_are_capped(tmp_path, monkeypatch):
    from torchbiggraph.graph_storages import FileEdgeStorage, FileEntityStorage

    monkeypatch.chdir(tmp_path)
    write_corpus([("ada", ["bob"], ["nlp"], True)] * 5 + [("bob", [], ["ml"], True)])
    graph.run(config(max_count=3))
    entities = FileEntityStorage(str(layout.PBG_INPUT))
    assert (entities.load_count("user", 0), entities.load_count("hashtag", 0)) == (2, 2)
    edges = FileEdgeStorage(str(layout.PBG_INPUT / "train")).load_edges(0, 0)
    names = json.loads((layout.PBG_INPUT / "relations.json").read_text())
    users, tags = ([n["key"] for n in read_nodes() if n["type"] == kind] for kind in ("user", "hashtag"))
    columns = (edges.lhs.tensor.tolist(), edges.rel.tolist(), edges.rhs.tensor.tolist())
    found = Counter((users[lhs], names[rel], tags[rhs]) for lhs, rel, rhs in zip(*columns, strict=True))
    assert found == {("ada", "authored", "nlp"): 3, ("bob", "co_mentioned", "nlp"): 3, ("bob", "authored", "ml"): 1}
    assert FileEdgeStorage(str(layout.PBG_INPUT / "held_out")).get_number_of_edges(0, 0) == 0


@pytest.mark.parametrize("share", [0.05, 0.49])
def test_held_out_pairs_leave_a_training_edge_to_both_nodes(tmp_path, monkeypatch, share):
    monkeypatch.chdir(tmp_path)
    write_corpus(social_posts(300), [(f"u{place % 70}", place, "reposted", None) for place in range(300)])
    graph.run(config(held_out_share=share))
    edges = pq.read_table(layout.EDGES).to_pylist()
    held_out = {(edge["lhs"], edge["rhs"]) for edge in edges if edge["held_out"]}
    trained = {(edge["lhs"], edge["rhs"]) for edge in edges if not edge["held_out"]}
    assert 0.5 * share < len(held_out) / len(held_out | trained) < 1.5 * share
    assert not held_out & trained
    assert {lhs for lhs, _ in held_out} <= {lhs for lhs, _ in trained}
    assert {rhs for _, rhs in held_out} <= {rhs for _, rhs in trained}
    with h5py.File(layout.PBG_INPUT / "held_out" / "edges_0_0.h5") as file:
        assert len(file["lhs"]) == sum(edge["held_out"] for edge in edges)
        assert file.attrs["format_version"] == 1


def test_the_draw_of_held_out_pairs_stays_the_same(tmp_path, monkeypatch):
    """A change here means that figures of link prediction can not be compared with those of earlier versions."""
    monkeypatch.chdir(tmp_path)
    write_corpus([(f"u{user}", [], [f"t{tag}"], True) for user in range(6) for tag in range(4)])
    graph.run(config(held_out_share=0.2, seed=1))
    keys = [node["key"] for node in read_nodes()]
    drawn = {f"{keys[e['lhs']]}/{keys[e['rhs']]}" for e in pq.read_table(layout.EDGES).to_pylist() if e["held_out"]}
    pairs = [f"u{user}/t{tag}" for user in range(6) for tag in range(4)]
    assert drawn == {pair for pair in pairs if share_of(f"1/{pair}") < 0.2}
    assert len(drawn) == 6


def share_of(text: str) -> float:
    return int.from_bytes(hashlib.md5(text.encode()).digest()[:8], "little") / 2**64


def test_bytes_do_not_depend_on_threads_memory_or_batches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus(social_posts(3000), [(f"u{place % 70}", place, "reposted", None) for place in range(3000)])
    connect = duckdb.connect
    results = []
    for threads, memory in ((1, "1GB"), (4, "50MB")):
        monkeypatch.setattr(
            duckdb, "connect", lambda path, config, t=threads: connect(path, config=config | {"threads": t})
        )
        graph.run(config(held_out_share=0.1, memory_limit=memory))
        results.append(all_bytes())
    assert results[0] == results[1]
    assert not list(Path("data").glob(".partial-*"))


def test_batches_have_a_fixed_size(monkeypatch):
    monkeypatch.setattr(graph, "BATCH_ROWS", 3000)
    with duckdb.connect(":memory:") as database:
        batches = list(graph._batches(database, "SELECT range AS id FROM range(10000) ORDER BY id"))
    assert [len(batch) for batch in batches] == [3000, 3000, 3000, 1000]
    assert pa.concat_tables(batches)["id"].to_pylist() == list(range(10000))


@pytest.mark.parametrize(
    ("posts", "changes", "message"),
    [
        ([("ada", [], ["nlp"], False)], {}, "0 posts in the graph window.*corpus.splits.graph_from"),
        ([("ada", [], [], True)], {}, "1 posts in the graph window, 0 of them with hashtags.*ntulm inspect"),
        ([(None, [], ["nlp"], True)], {}, "0 edges before the degree filter; add to graph.relations"),
        (
            [("ada", [], ["nlp"], True)],
            {"min_degree": MinDegree(user=1, hashtag=2)},
            "1 edges before.*lower graph.min_degree",
        ),
    ],
)
def test_a_graph_without_edges_says_why(tmp_path, monkeypatch, posts, changes, message):
    monkeypatch.chdir(tmp_path)
    write_corpus(posts)
    with pytest.raises(UserError, match=message):
        graph.run(config(**changes))
    assert not layout.GRAPH.exists()
    assert not layout.metrics("graph").exists()


def test_a_missing_corpus_and_too_little_memory_are_user_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"posts.parquet: not found; run `dvc repro corpus`"):
        graph.run(config())
    write_corpus(social_posts(3000))
    with pytest.raises(UserError, match=r"graph.memory_limit: 1MB is too small"):
        graph.run(config(memory_limit="1MB"))
