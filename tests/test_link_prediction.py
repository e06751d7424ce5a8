"""Ranks of held-out edges against a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntulm.embeddings import link_prediction as module
from ntulm.embeddings.link_prediction import Edges, Model, Relation, filtered_ranks, link_prediction

USERS, HASHTAGS = 5, 4
RELATIONS = [Relation("a", "user", "hashtag"), Relation("b", "user", "hashtag")]
TRIPLES = st.lists(
    st.tuples(st.integers(0, USERS - 1), st.integers(0, len(RELATIONS) - 1), st.integers(0, HASHTAGS - 1)),
    min_size=2,
    max_size=20,
    unique=True,
)


def edges_of(triples: list[tuple[int, int, int]]) -> Edges:
    return Edges(*np.array(triples, np.int64).reshape(-1, 3).T)


def small_model(seed: int) -> Model:
    random = np.random.default_rng(seed)  # small integers: exact scores, and ties
    users, hashtags, relations = (
        random.integers(-1, 2, (size, 3)).astype(np.float32) for size in (USERS, HASHTAGS, len(RELATIONS))
    )
    return Model({"user": users, "hashtag": hashtags}, relations)


def plain_rank(scores: list[float], answer: int, known: set[int]) -> float:
    others = [score for place, score in enumerate(scores) if place != answer and place not in known]
    return 1 + sum(score > scores[answer] for score in others) + sum(score == scores[answer] for score in others) / 2


@given(triples=TRIPLES, seed=st.integers(0, 9), cells=st.sampled_from([1, 7, 1000]))
def test_figures_equal_a_plain_loop(triples, seed, cells):
    model, held_out = small_model(seed), np.arange(len(triples)) % 2 == 0
    users, hashtags = model.nodes["user"], model.nodes["hashtag"]
    asked = np.flatnonzero(held_out)
    train = [triple for triple, held in zip(triples, held_out, strict=True) if not held]
    ranks: dict[str, list[float]] = {"hashtag": [], "user": [], "popular": []}
    for user, rel, tag in (triples[place] for place in asked):
        scores = [float(users[user] @ (hashtags[v] + model.relations[rel])) for v in range(HASHTAGS)]
        known = {v for u, r, v in triples if (u, r) == (user, rel)}
        ranks["hashtag"].append(plain_rank(scores, tag, known))
        popular: list[float] = [sum(r == rel and v == other for _, r, v in train) for other in range(HASHTAGS)]
        ranks["popular"].append(plain_rank(popular, tag, known))
        scores = [float(users[u] @ (hashtags[tag] + model.relations[rel])) for u in range(USERS)]
        ranks["user"].append(plain_rank(scores, user, {u for u, r, v in triples if (r, v) == (rel, tag)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SCORE_CELLS", cells)
        figures = link_prediction(model, edges_of(triples), held_out, asked, RELATIONS)
    reciprocal = {name: float(np.mean([1 / rank for rank in own])) for name, own in ranks.items()}
    sides = figures["sides"]
    assert sides["hashtag"]["mrr"] == pytest.approx(reciprocal["hashtag"])
    assert sides["hashtag"]["popularity"]["mrr"] == pytest.approx(reciprocal["popular"])
    assert sides["user"]["mrr"] == pytest.approx(reciprocal["user"])
    assert figures["mrr"] == pytest.approx((reciprocal["hashtag"] + reciprocal["user"]) / 2)
    assert figures["edges"] == len(asked) == sum(relation["edges"] for relation in figures["relations"].values())


def test_hits_at_10_counts_ranks_up_to_10():
    asked = edges_of([(0, 0, 9), (0, 0, 10)])
    ranks = filtered_ranks(
        asked, edges_of([]), lambda rows: -np.tile(np.arange(20, dtype=np.float32), (len(rows), 1)), 20
    )
    assert ranks.tolist() == [10, 11]
    figures = module.figures(np.stack([ranks, ranks]), 2)
    assert figures["hits@10"] == 0.5


def test_no_held_out_edge_has_no_figure():
    nothing = np.empty(0, np.int64)
    figures = link_prediction(small_model(0), edges_of([(0, 0, 0)]), np.array([False]), nothing, RELATIONS)
    assert figures["mrr"] is None
    assert figures["edges"] == 0
    assert figures["relations"]["b"] == {
        **dict.fromkeys(["mrr", "hits@10"]),
        "edges": 0,
        "popularity": {"mrr": None, "hits@10": None},
    }


MIXED = [Relation("links", "user", "hashtag"), Relation("likes", "hashtag", "user"), Relation("knows", "user", "user")]
MIXED_TRIPLES = st.lists(
    st.tuples(st.integers(0, HASHTAGS - 1), st.integers(0, len(MIXED) - 1), st.integers(0, HASHTAGS - 1)).filter(
        lambda triple: triple[1] != 2 or triple[0] != triple[2]
    ),
    min_size=2,
    max_size=20,
    unique=True,
)


@given(triples=MIXED_TRIPLES, seed=st.integers(0, 9))
def test_sides_are_those_of_the_type_of_the_answer(triples, seed):
    random = np.random.default_rng(seed)
    nodes = {name: random.integers(-1, 2, (size, 3)).astype(np.float32) for name, size in (("user", 5), ("hashtag", 4))}
    model = Model(nodes, random.integers(-1, 2, (3, 3)).astype(np.float32))
    held_out = np.arange(len(triples)) % 2 == 0
    expected: dict[str, list[float]] = {"user": [], "hashtag": []}
    for left, rel, right in (triples[place] for place in np.flatnonzero(held_out)):
        lefts, rights, moved = nodes[MIXED[rel].lhs], nodes[MIXED[rel].rhs], model.relations[rel]
        itself = {left} if MIXED[rel].lhs == MIXED[rel].rhs else set()
        known = {v for u, r, v in triples if (u, r) == (left, rel)} | itself
        scores = [float(lefts[left] @ (one + moved)) for one in rights]
        expected[MIXED[rel].rhs].append(plain_rank(scores, right, known))
        itself = {right} if itself else set()
        known = {u for u, r, v in triples if (r, v) == (rel, right)} | itself
        scores = [float(one @ (rights[right] + moved)) for one in lefts]
        expected[MIXED[rel].lhs].append(plain_rank(scores, left, known))
    figures = link_prediction(model, edges_of(triples), held_out, np.flatnonzero(held_out), MIXED)
    for name, ranks in expected.items():
        assert figures["sides"][name]["candidates"] == len(nodes[name])
        if ranks:
            assert figures["sides"][name]["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert figures["mrr"] == pytest.approx(np.mean([1 / rank for ranks in expected.values() for rank in ranks]))
    assert figures["edges"] == held_out.sum() == sum(one["edges"] for one in figures["relations"].values())


def test_neighbours_of_a_symmetric_relation_do_not_compete_whichever_side_they_stand_on():
    nodes = {"hashtag": np.eye(4, dtype=np.float32)[[0, 0, 0, 1]] * 2}
    model = Model(nodes, np.zeros((1, 4), np.float32))
    # 0-1 and 1-2 are true, each written once; 1 is asked about with the answer 2, which 0 would tie with
    edges = Edges(np.array([0, 1]), np.array([0, 0]), np.array([1, 2]))
    held_out, asked = np.array([False, True]), np.array([1])
    apart = link_prediction(model, edges, held_out, asked, [Relation("together", "hashtag", "hashtag")])
    both = link_prediction(model, edges, held_out, asked, [Relation("together", "hashtag", "hashtag", True)])
    assert both["mrr"] > apart["mrr"]
