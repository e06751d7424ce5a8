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

from ntulm.errors import UserError
from ntulm.graph import stage as graph
from ntulm.graph.config import Graph, Relation
from ntulm.graph.duckdb_engine import DuckDb
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme, Role, ntus_of

LAYOUT = Layout()
SCHEME = NtuScheme(
    {"user": "user", "hashtag": "hashtag", "domain": "domain", "cashtag": "cashtag", "place": "verbatim"},
    {
        "author": Role("user", "author"),
        "mention": Role("user", "mentions"),
        "hashtag": Role("hashtag", "hashtags"),
        "url": Role("domain", "urls"),
        "cashtag": Role("cashtag", "text"),
        "place": Role("place", "places"),
        "favoriter": Role("user", engagement="favorited"),
        "reposter": Role("user", engagement="reposted"),
    },
)
RELATIONS = {
    "authored": {"left": "author", "right": "hashtag"},
    "favorited": {"left": "favoriter", "right": "hashtag"},
    "reposted": {"left": "reposter", "right": "hashtag"},
    "co_mentioned": {"left": "mention", "right": "hashtag"},
}
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
        "engine": "duckdb",
        "relations": RELATIONS,
        "min_degree": dict.fromkeys(SCHEME.types, 1),
        "max_count": 2,
        "held_out_share": 0.0,
        "seed": 0,
        "memory_limit": "500MB",
    }
    values |= changes
    return Graph(**values | {"relations": {name: Relation(**sides) for name, sides in values["relations"].items()}})


def write_corpus(posts: list[tuple], engagements: Sequence[tuple] = ()) -> None:
    """Posts are (author, mentions, hashtags, in the graph window), one an hour; engagements user, post, kind, hour."""
    LAYOUT.corpus.mkdir(parents=True, exist_ok=True)
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
    pq.write_table(pa.table(table), LAYOUT.posts)
    graph_window = pa.array(columns[3], pa.bool_())
    pq.write_table(pa.table({"post_id": table["post_id"], "graph": graph_window}), LAYOUT.splits)
    users, whose, kinds, hours = list(zip(*engagements, strict=True)) or [()] * 4
    engaged = {
        "user": pa.array(users, pa.string()),
        "post_id": pa.array([str(place) for place in whose], pa.string()),
        "kind": pa.array(kinds, pa.string()),
        "created_at": pa.array([None if place is None else hour(place) for place in hours], times),
    }
    pq.write_table(pa.table(engaged), LAYOUT.engagements)


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
    return pq.read_table(LAYOUT.nodes).to_pylist()


def read_edges() -> Counter:
    keys = [node["key"] for node in read_nodes()]
    rows = pq.read_table(LAYOUT.edges).to_pylist()
    return Counter({(keys[row["lhs"]], row["rel"], keys[row["rhs"]]): row["count"] for row in rows})


def all_bytes() -> dict[str, bytes]:
    paths = [path for path in sorted(LAYOUT.graph.rglob("*")) if path.is_file()] + [LAYOUT.metrics("graph")]
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
    chosen = config(min_degree={"user": user, "hashtag": hashtag})
    if not expected:
        with pytest.raises(UserError, match="the graph has no edges"):
            graph.run(chosen, SCHEME, LAYOUT)
        return
    graph.run(chosen, SCHEME, LAYOUT)
    assert read_edges() == expected
    metrics = json.loads(LAYOUT.metrics("graph").read_text())
    assert metrics["edges"] == len(expected)
    assert metrics["dropped_by_degree"]["edges"] == len(plain_edges(posts, engagements, 1, 1)) - len(expected)
    assert sum(relation["total"] for relation in metrics["relations"].values()) == sum(expected.values())


def test_nodes_are_dense_and_ordered_by_type_degree_and_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus([("bob", [], ["b", "a", "x"], True), ("ada", ["eve"], ["x"], True)])
    graph.run(config(), SCHEME, LAYOUT)
    assert [(node["id"], node["type"], node["key"], node["degree"]) for node in read_nodes()] == [
        (0, "hashtag", "x", 3),
        (1, "hashtag", "a", 1),
        (2, "hashtag", "b", 1),
        (3, "user", "bob", 3),
        (4, "user", "ada", 1),
        (5, "user", "eve", 1),
    ]
    edges = pq.read_table(LAYOUT.edges).to_pylist()
    assert [(edge["lhs"], edge["rel"], edge["rhs"]) for edge in edges] == sorted(
        (edge["lhs"], edge["rel"], edge["rhs"]) for edge in edges
    )
    assert pq.read_schema(LAYOUT.edges).equals(graph.EDGES)
    assert pq.read_schema(LAYOUT.nodes).equals(graph.NODES)


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
    graph.run(config(), SCHEME, LAYOUT)
    assert {node["key"] for node in read_nodes()} == {"early", "ada", "bob", "in_time", "unknown_time"}


def test_hostile_keys_are_only_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus([(key, [], [key], True) for key in HOSTILE], [(key, 0, "favorited", None) for key in HOSTILE])
    graph.run(config(held_out_share=0.3), SCHEME, LAYOUT)
    assert {node["key"] for node in read_nodes() if node["type"] == "user"} == set(HOSTILE)
    assert read_edges()[(HOSTILE[1], "favorited", HOSTILE[0])] == 1


def test_pbg_reads_its_input_and_counts_are_capped(tmp_path, monkeypatch):
    from torchbiggraph.graph_storages import FileEdgeStorage, FileEntityStorage

    monkeypatch.chdir(tmp_path)
    write_corpus([("ada", ["bob"], ["nlp"], True)] * 5 + [("bob", [], ["ml"], True)])
    graph.run(config(max_count=3), SCHEME, LAYOUT)
    entities = FileEntityStorage(str(LAYOUT.pbg_input))
    assert (entities.load_count("user", 0), entities.load_count("hashtag", 0)) == (2, 2)
    edges = FileEdgeStorage(str(LAYOUT.pbg_input / "train")).load_edges(0, 0)
    relations = json.loads((LAYOUT.pbg_input / "relations.json").read_text())
    assert relations == [
        {"name": name, "lhs": "user", "rhs": "hashtag", "symmetric": False} for name in sorted(RELATIONS)
    ]
    names = [relation["name"] for relation in relations]
    users, tags = ([n["key"] for n in read_nodes() if n["type"] == kind] for kind in ("user", "hashtag"))
    columns = (edges.lhs.tensor.tolist(), edges.rel.tolist(), edges.rhs.tensor.tolist())
    found = Counter((users[lhs], names[rel], tags[rhs]) for lhs, rel, rhs in zip(*columns, strict=True))
    assert found == {("ada", "authored", "nlp"): 3, ("bob", "co_mentioned", "nlp"): 3, ("bob", "authored", "ml"): 1}
    assert FileEdgeStorage(str(LAYOUT.pbg_input / "held_out")).get_number_of_edges(0, 0) == 0


@pytest.mark.parametrize("share", [0.05, 0.49])
def test_held_out_pairs_leave_a_training_edge_to_both_nodes(tmp_path, monkeypatch, share):
    monkeypatch.chdir(tmp_path)
    write_corpus(social_posts(300), [(f"u{place % 70}", place, "reposted", None) for place in range(300)])
    graph.run(config(held_out_share=share), SCHEME, LAYOUT)
    edges = pq.read_table(LAYOUT.edges).to_pylist()
    held_out = {(edge["lhs"], edge["rhs"]) for edge in edges if edge["held_out"]}
    trained = {(edge["lhs"], edge["rhs"]) for edge in edges if not edge["held_out"]}
    assert 0.5 * share < len(held_out) / len(held_out | trained) < 1.5 * share
    assert not held_out & trained
    assert {lhs for lhs, _ in held_out} <= {lhs for lhs, _ in trained}
    assert {rhs for _, rhs in held_out} <= {rhs for _, rhs in trained}
    with h5py.File(LAYOUT.pbg_input / "held_out" / "edges_0_0.h5") as file:
        assert len(file["lhs"]) == sum(edge["held_out"] for edge in edges)
        assert file.attrs["format_version"] == 1


def test_the_draw_of_held_out_pairs_stays_the_same(tmp_path, monkeypatch):
    """A change here means that figures of link prediction cannot be compared with those of earlier versions."""
    monkeypatch.chdir(tmp_path)
    write_corpus([(f"u{user}", [], [f"t{tag}"], True) for user in range(6) for tag in range(4)])
    graph.run(config(held_out_share=0.2, seed=1), SCHEME, LAYOUT)
    keys = [node["key"] for node in read_nodes()]
    drawn = {f"{keys[e['lhs']]}/{keys[e['rhs']]}" for e in pq.read_table(LAYOUT.edges).to_pylist() if e["held_out"]}
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
        graph.run(config(held_out_share=0.1, memory_limit=memory), SCHEME, LAYOUT)
        results.append(all_bytes())
    assert results[0] == results[1]
    assert not list(Path("data").glob(".partial-*"))


def test_batches_have_a_fixed_size(monkeypatch):
    monkeypatch.setattr(graph, "BATCH_ROWS", 3000)
    with duckdb.connect(":memory:") as database:
        batches = list(graph._batches(DuckDb(database), "SELECT range AS id FROM range(10000) ORDER BY id"))
    assert [len(batch) for batch in batches] == [3000, 3000, 3000, 1000]
    assert pa.concat_tables(batches)["id"].to_pylist() == list(range(10000))


@pytest.mark.parametrize(
    ("posts", "changes", "message"),
    [
        ([("ada", [], ["nlp"], False)], {}, "0 posts in the graph window.*corpus.splits.graph_from"),
        ([("ada", [], [], True)], {}, "1 posts in the graph window, .*author: 1, hashtag: 0, .*ntulm inspect"),
        ([(None, [], ["nlp"], True)], {}, "author: 0, hashtag: 1, .* 0 edges before .*or add to graph.relations"),
        (
            [("ada", [], ["nlp"], True)],
            {"min_degree": {"user": 1, "hashtag": 2}},
            "1 edges before.*lower graph.min_degree",
        ),
    ],
)
def test_a_graph_without_edges_says_why(tmp_path, monkeypatch, posts, changes, message):
    monkeypatch.chdir(tmp_path)
    write_corpus(posts)
    with pytest.raises(UserError, match=message):
        graph.run(config(**changes), SCHEME, LAYOUT)
    assert not LAYOUT.graph.exists()
    assert not LAYOUT.metrics("graph").exists()


def test_a_missing_corpus_and_too_little_memory_are_user_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"posts.parquet: not found; run `dvc repro corpus`"):
        graph.run(config(), SCHEME, LAYOUT)
    write_corpus(social_posts(3000))
    with pytest.raises(UserError, match=r"graph.memory_limit: 1MB is too small"):
        graph.run(config(memory_limit="1MB"), SCHEME, LAYOUT)


def write_posts(posts: list[dict[str, Any]], engagements: Sequence[tuple] = ()) -> None:
    """A corpus of posts with any fields, all in the window."""
    write_corpus(
        [(one.get("author"), one.get("mentions", []), one.get("hashtags", []), True) for one in posts], engagements
    )
    table = pq.read_table(LAYOUT.posts)
    for name in ("urls", "places"):
        table = table.append_column(name, pa.array([one.get(name, []) for one in posts], pa.list_(pa.string())))
    table = table.append_column("text", pa.array([one.get("text", "") for one in posts], pa.string()))
    pq.write_table(table, LAYOUT.posts)


def relate(**relations: tuple[str, str]) -> Graph:
    return config(relations={name: {"left": left, "right": right} for name, (left, right) in relations.items()})


def edges_by_type() -> Counter:
    """Edges as (type and key, relation, type and key)."""
    names = [(node["type"], node["key"]) for node in read_nodes()]
    rows = pq.read_table(LAYOUT.edges).to_pylist()
    return Counter({(names[row["lhs"]], row["rel"], names[row["rhs"]]): row["count"] for row in rows})


def test_a_type_and_a_relation_are_a_matter_of_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_posts(
        [
            {"author": "ada", "urls": ["https://www.A.example/x", "http://a.example/y", "https://b.example"]},
            {"author": "ada", "urls": ["https://a.example"], "text": "buy $AAPL, $aapl", "places": ["Rome"]},
            {"author": "bob", "urls": []},
        ]
    )
    graph.run(relate(linked=("author", "url"), traded=("cashtag", "place")), SCHEME, LAYOUT)
    assert edges_by_type() == {
        (("user", "ada"), "linked", ("domain", "a.example")): 2,
        (("user", "ada"), "linked", ("domain", "b.example")): 1,
        (("cashtag", "aapl"), "traded", ("place", "Rome")): 1,
    }
    assert [node["type"] for node in read_nodes()] == ["cashtag", "domain", "domain", "place", "user"]
    assert json.loads((LAYOUT.pbg_input / "relations.json").read_text()) == [
        {"name": "linked", "lhs": "user", "rhs": "domain", "symmetric": False},
        {"name": "traded", "lhs": "cashtag", "rhs": "place", "symmetric": False},
    ]
    with h5py.File(LAYOUT.pbg_input / "train" / "edges_0_0.h5") as file:
        triples = zip(*(file[name][:].tolist() for name in ("lhs", "rel", "rhs")), strict=True)
        assert sorted(triples) == [(0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0)]
    assert json.loads(LAYOUT.node_types.read_text()) == SCHEME.types
    metrics = json.loads(LAYOUT.metrics("graph").read_text())
    assert metrics["nodes"] == {"cashtag": 1, "domain": 2, "place": 1, "user": 1}
    assert (metrics["posts"], metrics["posts_that_relate"]) == (3, 2)


def test_nodes_of_one_type_are_joined_to_others_and_pairs_stand_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_posts(
        [
            {"author": "ada", "mentions": ["bob", "ada"], "hashtags": ["b", "a"]},
            {"author": "bob", "mentions": ["ada"], "hashtags": ["a", "b", "c"]},
        ]
    )
    graph.run(relate(mentioned=("author", "mention"), together=("hashtag", "hashtag")), SCHEME, LAYOUT)
    assert edges_by_type() == {
        (("user", "ada"), "mentioned", ("user", "bob")): 1,
        (("user", "bob"), "mentioned", ("user", "ada")): 1,
        (("hashtag", "a"), "together", ("hashtag", "b")): 2,
        (("hashtag", "a"), "together", ("hashtag", "c")): 1,
        (("hashtag", "b"), "together", ("hashtag", "c")): 1,
    }
    assert {node["key"]: node["degree"] for node in read_nodes()} == {"a": 2, "b": 2, "c": 2, "ada": 2, "bob": 2}


def test_engagements_can_stand_on_either_side_and_on_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus(
        [("ada", [], ["t"], True), ("bob", [], [], True)],
        [("eve", 0, "favorited", None), ("bob", 0, "favorited", None), ("eve", 1, "reposted", None)],
    )
    relations = relate(
        favored=("author", "favoriter"), together=("favoriter", "favoriter"), spread=("reposter", "author")
    )
    graph.run(relations, SCHEME, LAYOUT)
    assert read_edges() == {
        ("ada", "favored", "eve"): 1,
        ("ada", "favored", "bob"): 1,
        ("bob", "together", "eve"): 1,
        ("eve", "spread", "bob"): 1,
    }


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    posts=st.lists(
        st.fixed_dictionaries(
            {
                "author": st.none() | USERS,
                "mentions": st.lists(USERS, max_size=3),
                "hashtags": st.lists(TAGS, max_size=3, unique=True),
                "urls": st.lists(st.sampled_from(["https://A.b/c", "http://www.a.b", "x.y", ""]), max_size=3),
                "text": st.sampled_from(["", "$a $B", "$A", "none"]),
            }
        ),
        max_size=6,
    ),
    names=st.tuples(*[st.sampled_from(["author", "mention", "hashtag", "url", "cashtag"])] * 2),
)
def test_any_relation_equals_a_plain_loop_over_the_ntus_of_posts(tmp_path, monkeypatch, posts, names):
    """The graph and the posts of the tasks must write the same keys."""
    monkeypatch.chdir(tmp_path)
    write_posts(posts)
    left, right = names
    expected: Counter = Counter()
    fields = {name: [one[name] for one in posts] for name in ("author", "mentions", "hashtags", "urls", "text")}
    for own in ntus_of(SCHEME, fields).to_pylist() if posts else []:
        keys = {role: [ntu["key"] for ntu in own if ntu["role"] == role] for role in names}
        for one, other in {(one, other) for one in keys[left] for other in keys[right]}:
            same_type = SCHEME.roles[left].type == SCHEME.roles[right].type
            if not (same_type and one == other) and not (left == right and one > other):
                expected[(SCHEME.roles[left].type, one), "it", (SCHEME.roles[right].type, other)] += 1
    if not expected:
        with pytest.raises(UserError, match="the graph has no edges"):
            graph.run(relate(it=names), SCHEME, LAYOUT)
        return
    graph.run(relate(it=names), SCHEME, LAYOUT)
    assert edges_by_type() == expected


def test_a_held_out_pair_is_held_out_in_both_directions_and_bytes_repeat(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    posts = [
        {
            "author": f"u{random.integers(20)}",
            "mentions": [f"u{user}" for user in set(random.integers(20, size=2).tolist())],
            "hashtags": [f"t{tag}" for tag in set(random.integers(15, size=3).tolist())],
        }
        for _ in range(300)
    ]
    write_posts(posts)
    relations = {
        "mentioned": {"left": "author", "right": "mention"},
        "together": {"left": "hashtag", "right": "hashtag"},
        "authored": {"left": "author", "right": "hashtag"},
        "used_by": {"left": "hashtag", "right": "author"},
    }
    graph.run(config(relations=relations, held_out_share=0.2), SCHEME, LAYOUT)
    before = all_bytes()
    edges = pq.read_table(LAYOUT.edges).to_pylist()
    held_out, trained = (
        {frozenset((edge["lhs"], edge["rhs"])) for edge in edges if edge["held_out"] is chosen}
        for chosen in (True, False)
    )
    assert {edge["rel"] for edge in edges if edge["held_out"]} == set(relations)
    assert not held_out & trained
    graph.run(config(relations=relations, held_out_share=0.2), SCHEME, LAYOUT)
    assert all_bytes() == before
