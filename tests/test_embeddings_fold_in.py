"""Rows for nodes that came after the training: what they come to, and that nothing else changes."""

from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import h5py
import new_nodes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from new_nodes import HASHTAGS, SETTINGS, USERS, loaded, write_graph

from ntulm.embeddings import config, fold_in, newcomers, operators, stage
from ntulm.embeddings.fold_in import Edges, FoldIn, solve
from ntulm.embeddings.link_prediction import Model, Relation
from ntulm.embeddings.newcomers import Newcomers
from ntulm.embeddings.table import OVERLAY_FILE, EmbeddingTable, Later, write_overlay
from ntulm.errors import UserError
from ntulm.ntus import NtuScheme, Role
from ntulm.posts import Posts

SCHEME = NtuScheme(
    {"user": "user", "hashtag": "hashtag"},
    {
        "author": Role("user", "author"),
        "mention": Role("user", "mentions"),
        "hashtag": Role("hashtag", "hashtags"),
        "favoriter": Role("user", engagement="favorited"),
        "reposter": Role("user", engagement="reposted"),
    },
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    directory = tmp_path_factory.mktemp("graph")
    write_graph(directory)
    return directory


def posts_of(*given) -> Posts:
    """Posts from (author, mentions, hashtags)."""
    return Posts.of(
        SCHEME,
        {
            "post_id": [str(number) for number in range(len(given))],
            "text": ["we see"] * len(given),
            "author": [author for author, _, _ in given],
            "mentions": [list(mentions) for _, mentions, _ in given],
            "hashtags": [list(hashtags) for _, _, hashtags in given],
        },
    )


def gathered(directory, *parts, how=SETTINGS) -> Newcomers:
    table, relations = loaded(directory)
    found = Newcomers(table, SCHEME, relations, how)
    for posts in parts:
        found.add(posts)
    return found


def edges_of(found: Newcomers) -> set:
    """(new NTU, relation, side, row, count) of every edge."""
    names = {number: key for (_, key), number in found.numbers.items()}
    return {(names[number], *rest) for number, *rest in np.stack(found._unpacked(), axis=1).tolist()}


def one_node(*rows, relation=0, side=0, weight=1.0) -> Edges:
    size = len(rows)
    columns = (np.zeros(size, np.int64), np.full(size, relation), np.full(size, side), np.array(rows))
    return Edges(*columns, np.full(size, weight, np.float32))


@pytest.mark.parametrize(("ntu_type", "side", "first"), [("user", 0, 0), ("hashtag", 1, 8)])
def test_a_new_node_lies_on_the_side_of_its_edges(graph, ntu_type, side, first):
    table, relations = loaded(graph)
    left, right = (
        solve(table, relations, SETTINGS, ntu_type, one_node(start, start + 1, start + 2, side=side, weight=5.0))[0]
        for start in (first, first + 4)
    )
    own = table.vectors[8 - first : 16 - first]
    apart = own[4:].mean(axis=0) - own[:4].mean(axis=0)
    assert (right - left) @ apart > 0.8 * np.linalg.norm(right - left) * np.linalg.norm(apart)
    assert np.linalg.norm(right - left) > 0.3 * np.linalg.norm(apart)


@pytest.mark.parametrize(("ntu_type", "side", "rows"), [("user", 0, (0, 1, 5)), ("hashtag", 1, (8, 9, 13))])
def test_the_row_is_where_the_loss_that_is_written_down_is_least(graph, ntu_type, side, rows):
    table, relations = loaded(graph)
    edges = one_node(*rows, side=side, weight=2.0)
    terms = fold_in.shared_terms(table, relations, SETTINGS, ntu_type)
    t, o = fold_in.targets(table, relations, edges.relation, edges.side, edges.row)
    weights = fold_in.negative_weights(relations, terms, edges, 1)
    degree, popularity = 2.0 * len(rows), relations.edges[0] / 8
    assert weights[0, 0] == pytest.approx((2 * degree * 9 + popularity * 10) / 20)
    assert weights[0, 1] == pytest.approx(degree * 10 / 20)
    assert weights[0, 2] == pytest.approx(popularity * 10 / 20)  # of a relation without an edge of the node

    def loss(x):
        z = np.linalg.solve(terms.root.astype(np.float64), x - terms.mean)
        scores = terms.negatives @ z + terms.offsets
        kinds = np.logaddexp(0, scores).reshape(len(weights[0]), -1).mean(axis=1)
        return 4 * np.logaddexp(0, -(t @ x + o)).sum() + weights[0] @ kinds + SETTINGS.prior / 2 * z @ z

    (best,) = solve(table, relations, SETTINGS, ntu_type, edges).astype(np.float64)
    least = loss(best)
    for step in np.random.default_rng(1).standard_normal((30, 4)):
        for length in (0.01, 0.1, 1.0):
            assert loss(best + length * step) > least - 1e-5


def test_scores_are_those_of_an_edge(graph):
    table, relations = loaded(graph)
    x = np.random.default_rng(0).standard_normal(4).astype(np.float32)
    one = np.array([1])
    for side, expected in (
        (0, x @ (table.vectors[3] + relations.vectors[1])),
        (1, table.vectors[3] @ (x + relations.vectors[1])),
    ):
        t, o = fold_in.targets(table, relations, one, np.array([side]), np.array([3]))
        assert (t @ x + o)[0] == pytest.approx(expected, rel=1e-5)


def test_more_steps_change_nothing(graph):
    table, relations = loaded(graph)
    rows = [solve(table, relations, replace(SETTINGS, steps=n), "user", one_node(0, 1, 6)) for n in (100, 400)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)


def test_blocks_change_rounding_alone(graph, monkeypatch):
    table, relations = loaded(graph)
    owner = np.repeat(np.arange(20), 3)
    row = np.random.default_rng(0).integers(8, size=60)
    zeros = np.zeros(60, np.int64)
    edges = Edges(owner, zeros, zeros, row, np.ones(60, np.float32))
    whole = solve(table, relations, SETTINGS, "user", edges)
    monkeypatch.setattr(fold_in, "EDGE_CELLS", 4 * 7)
    np.testing.assert_allclose(solve(table, relations, SETTINGS, "user", edges), whole, atol=1e-4)
    assert list(fold_in.parts(np.array([3, 6, 20, 21]), 10, 7)) == [(0, 2), (2, 3), (3, 4)]
    assert list(fold_in.parts(np.array([1, 2, 3]), 2, 100)) == [(0, 2), (2, 3)]


def test_rows_of_one_place_give_that_place(tmp_path):
    write_graph(tmp_path)
    table, relations = loaded(tmp_path)
    flat = replace(table, base=replace(table.base, vectors=np.ones((16, 4), np.float32)))
    np.testing.assert_allclose(solve(flat, relations, SETTINGS, "user", one_node(0)), np.ones((1, 4)), atol=1e-3)


def test_edges_of_posts(graph):
    found = gathered(
        graph,
        posts_of(
            ("new", ["left0", "other"], ["ltag0", "ltag1", "fresh"]),
            ("new", [], ["ltag0"]),
            ("left1", [], ["fresh"]),
            (None, ["new"], ["rtag0"]),
        ),
    )
    authored, mentioned = 0, 1
    assert edges_of(found) == {
        ("new", authored, 0, 0, 2),
        ("new", authored, 0, 1, 1),
        ("other", mentioned, 0, 0, 1),
        ("other", mentioned, 0, 1, 1),
        ("new", mentioned, 0, 4, 1),
        ("fresh", mentioned, 1, 8, 1),
        ("fresh", authored, 1, 9, 1),
    }


def test_pairs_are_met_some_at_a_time(graph, monkeypatch):
    posts = posts_of(*((f"new{n % 7}", USERS[: n % 5], HASHTAGS[: n % 8]) for n in range(40)))
    expected = edges_of(gathered(graph, posts))
    monkeypatch.setattr(newcomers, "PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(newcomers, "WAITING", 5)
    assert edges_of(gathered(graph, posts)) == expected
    assert len(expected) > 20


def test_of_one_role_the_smaller_key_stands_on_the_left(tmp_path):
    write_graph(tmp_path)
    table, relations = loaded(tmp_path)
    relations = replace(relations, types=[("hashtag", "hashtag")] * 4)
    how = replace(SETTINGS, relations={"authored": ("hashtag", "hashtag")})
    found = Newcomers(table, SCHEME, relations, how)
    found.add(posts_of((None, [], ["a", "ltag0", "z"])))
    assert edges_of(found) == {("a", 0, 0, 0, 1), ("z", 0, 1, 0, 1)}


NAMES = st.sampled_from([*USERS[:3], "new", "newer", "é", "\x01"])
TAGS = st.lists(st.sampled_from([*HASHTAGS[::2], "fresh", "fresher"]), max_size=4)
POST = st.tuples(st.none() | NAMES, st.lists(NAMES, max_size=3), TAGS)


@settings(max_examples=25, deadline=None)
@given(st.lists(POST, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_posts_does_not_count_and_nothing_else_changes(graph, given, random):
    before = {path.name: path.read_bytes() for path in graph.iterdir()}
    shuffled = list(given)
    random.shuffle(shuffled)
    cut = random.randrange(len(given) + 1)
    one = gathered(graph, posts_of(*given))
    other = gathered(graph, posts_of(*shuffled[:cut]), posts_of(*shuffled[cut:]))
    found, few = one.solved({})
    again, also_few = other.solved({})
    assert sorted(few) == sorted(also_few)
    assert found.keys() == again.keys()
    for name, folded in found.items():
        assert folded.keys == again[name].keys == sorted(folded.keys)
        assert folded.vectors.tobytes() == again[name].vectors.tobytes()
        assert folded.edges.tolist() == again[name].edges.tolist()
        assert folded.edges.min() >= SETTINGS.min_edges
        assert np.isfinite(folded.vectors).all()
    known = {*USERS, *HASHTAGS}
    assert not known & {key for folded in found.values() for key in folded.keys}
    assert {path.name: path.read_bytes() for path in graph.iterdir()} == before


def test_who_has_a_row_needs_more_edges_than_it_rests_on(graph):
    found = gathered(graph, posts_of(("new", [], ["ltag0", "ltag1"]), ("few", [], ["ltag0"])))
    solved, few = found.solved({})
    assert (solved["user"].keys, solved["user"].edges.tolist(), few) == (["new"], [2], [("user", "few")])
    assert found.solved({("user", "new"): 2})[0] == {}
    assert found.solved({("user", "new"): 1})[0]["user"].keys == ["new"]


def test_an_overlay_says_what_its_rows_rest_on(tmp_path):
    write_graph(tmp_path)
    table = EmbeddingTable.load(tmp_path)
    later = Later(["user", "user"], ["eve", "\x01"], np.ones((2, 4), np.float32), np.array([3, 0]))
    write_overlay(tmp_path, table.with_overlay(later))
    read = EmbeddingTable.load(tmp_path)
    assert read.rows("user", ["eve", "left0", "nobody"]).tolist() == [16, 8, -1]
    assert (read.later().keys, read.later().edges.tolist()) == (["eve", "\x01"], [3, 0])
    np.testing.assert_array_equal(read.vectors, table.vectors)
    write_overlay(tmp_path, table)
    assert not (tmp_path / OVERLAY_FILE).exists()


@pytest.mark.parametrize("edges", [np.array([1]), np.array([-1, 2]), np.array([1, 2], np.int32)])
def test_an_overlay_with_other_numbers_of_edges_is_refused(tmp_path, edges):
    write_graph(tmp_path)
    later = Later(["user", "user"], ["a", "b"], np.ones((2, 4), np.float32), edges)
    write_overlay(tmp_path, EmbeddingTable.load(tmp_path).with_overlay(later))
    with pytest.raises(UserError, match=r"overlay\.safetensors: damaged"):
        EmbeddingTable.load(tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_file_of_relations_is_refused_or_read(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("damaged")
    write_graph(directory)
    path = directory / operators.OPERATORS_FILE
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:  # in the header or among the first values
        content[data.draw(st.integers(0, 1200))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    with suppress(UserError):  # and nothing else
        found = operators.Operators.load(directory)
        assert len(found.names) == len(found.vectors) == len(found.sampled)


def test_relations_of_another_table_are_refused(graph, tmp_path):
    write_graph(tmp_path, dimension=5)
    with pytest.raises(UserError, match="not of this embedding table"):
        Newcomers(loaded(graph)[0], SCHEME, loaded(tmp_path)[1], SETTINGS)
    how = replace(SETTINGS, relations={"liked": ("author", "hashtag")})
    with pytest.raises(UserError, match="'liked': not in relations"):
        gathered(graph, how=how)
    with pytest.raises(UserError, match="not found"):
        operators.Operators.load(tmp_path / "nothing")


def test_settings_are_read_back_and_other_ways_refused():
    value = {**SETTINGS.__dict__, "relations": {name: list(pair) for name, pair in new_nodes.RELATIONS.items()}}
    assert FoldIn.from_json(value) == SETTINGS
    with pytest.raises(ValueError, match=r"fold_in\.embed: 'off'; expected one of never, batch"):
        FoldIn.from_json(value | {"embed": "off"})
    assert config.MOST_NEGATIVES == operators.SAMPLED_EDGES


def test_the_stage_keeps_training_edges_as_rows_of_the_table(tmp_path):
    (tmp_path / "train").mkdir()
    with h5py.File(tmp_path / "train" / "edges_0_0.h5", "w") as file:
        file["lhs"], file["rel"], file["rhs"] = np.array([0, 1, 2]), np.array([0, 0, 2]), np.array([1, 0, 1])
    relations = [Relation("a", "user", "hashtag"), Relation("b", "user", "hashtag"), Relation("c", "hashtag", "user")]
    vectors = {"user": np.zeros((3, 4), np.float32), "hashtag": np.zeros((5, 4), np.float32)}
    about: Any = SimpleNamespace(seed=0, batch_negatives=50, uniform_negatives=40)
    made = stage.operators_of(about, Model(vectors, np.zeros((3, 4), np.float32)), relations, tmp_path)
    made.write(tmp_path)
    read = operators.Operators.load(tmp_path)
    assert (read.nodes, read.edges, read.rows) == ({"hashtag": (0, 5), "user": (5, 3)}, [2, 0, 1], 8)
    assert (read.batch_negatives, read.uniform_negatives) == (50, 40)
    assert set(zip(*read.sampled[0].tolist(), strict=True)) == {(5, 1), (6, 0)}
    assert set(zip(*read.sampled[2].tolist(), strict=True)) == {(2, 6)}
    assert (read.sampled[1] == -1).all()
