"""Graphs in partitions: every edge once, every row in its place, and as good vectors as without."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted_graph import HASHTAGS, USERS, config, figures, write_planted

from benchmarks.synthetic_graph import write_pbg_input
from ntulm.embeddings import partitions, pbg
from ntulm.embeddings.link_prediction import Model, Relation
from ntulm.errors import UserError

RELATIONS = [Relation("authored", "user", "hashtag"), Relation("knows", "user", "user")]


@pytest.fixture(scope="module")
def pbg_input(tmp_path_factory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted"))


def read(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 1
        assert {file[name].dtype for name in partitions.COLUMNS} == {np.dtype(np.int64)}
        return np.stack([file[name][:] for name in partitions.COLUMNS])


@st.composite
def graphs(draw: Any) -> tuple[np.ndarray, dict[str, int]]:
    users, hashtags = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    rel = random.integers(2, size=draw(st.integers(0, 60)))
    right = np.where(rel == 0, random.integers(hashtags, size=len(rel)), random.integers(users, size=len(rel)))
    return np.stack([random.integers(users, size=len(rel)), rel, right]), {"user": users, "hashtag": hashtags}


@given(graphs(), st.integers(2, 5), st.integers(1, 70))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_edge_is_in_one_bucket_of_one_pass(tmp_path_factory, graph, count, at_once):
    edges, counts = graph
    folder, out = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    write_pbg_input(folder, list(edges), counts, RELATIONS)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "AT_ONCE", at_once)
        passes = partitions.split(folder, partitions.counts_of(folder, ["user", "hashtag"]), count, out)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    sizes = {kind: [int((out / f"entity_count_{kind}_{p}.txt").read_text()) for p in range(count)] for kind in counts}
    assert {kind: sum(own) for kind, own in sizes.items()} == counts
    assert max(max(own) - min(own) for own in sizes.values()) <= 1
    found: list[tuple[int, ...]] = []
    for left in range(count):
        for right in range(count):
            shares = [read(folder / f"edges_{left}_{right}.h5") for folder in passes]
            assert max(share.shape[1] for share in shares) - min(share.shape[1] for share in shares) <= 1
            lhs, rel, rhs = np.concatenate(shares, axis=1)
            assert (lhs < sizes["user"][left]).all()
            right_sizes = np.array([sizes["hashtag"][right], sizes["user"][right]])
            assert (rhs < right_sizes[rel]).all()
            ids = {kind: partitions.nodes_of(counts[kind], right, count) for kind in counts}
            ends = [ids[RELATIONS[one].rhs][row] for one, row in zip(rel, rhs, strict=True)]
            lefts = partitions.nodes_of(counts["user"], left, count)[lhs]
            found += zip(lefts.tolist(), rel.tolist(), map(int, ends), strict=True)
    assert sorted(found) == sorted(zip(*edges.tolist(), strict=True))
    assert len(passes) == partitions.PASSES


def test_rows_are_put_back_in_the_order_of_the_nodes():
    rows = np.arange(22, dtype=np.float32).reshape(11, 2)
    places = [partitions.nodes_of(11, number, 4) for number in range(4)]
    assert sorted(map(len, places)) == [2, 3, 3, 3]
    assert [len(own) for own in places] == [partitions.nodes_in(11, number, 4) for number in range(4)]
    assert [list(own // 4) for own in places] == [list(range(len(own))) for own in places]
    for number, own in enumerate(places):
        assert (partitions.partition_of(own, 4) == number).all()
    parts = (rows[own] for own in places)
    np.testing.assert_array_equal(partitions.joined(parts, rows.shape, 4), rows)
    np.testing.assert_array_equal(partitions.joined(iter([rows]), rows.shape, 1), rows)
    np.testing.assert_array_equal(partitions.in_order(np.concatenate([rows[own] for own in places]), 4), rows)
    assert partitions.in_order(rows, 1) is rows
    assert [partitions.size(11, number, 4) for number in range(4)] == [3, 3, 3, 2]


def test_a_pattern_in_the_numbers_is_none_of_the_partitions():
    for period in (2, 4, 8):
        ids = np.arange(4000) * period + 1
        shares = np.bincount(partitions.partition_of(ids, 4), minlength=4) / len(ids)
        assert (abs(shares - 0.25) < 0.05).all(), (period, shares)


def test_a_disk_without_room_is_told_before_anything_is_written(pbg_input, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise UserError("no room")

    monkeypatch.setattr(partitions, "require_space", refuse)
    with pytest.raises(UserError, match="no room"):
        partitions.split(pbg_input, {"user": USERS, "hashtag": HASHTAGS}, 2, tmp_path)
    assert not list(tmp_path.rglob("*.h5"))


def trained(pbg_input: Path, work: Path, **changes: Any) -> tuple[Model, list[float]]:
    work.mkdir()
    return pbg.train(config(**changes), pbg_input, work, lambda *_: None)


def test_biggraph_learns_in_partitions(pbg_input, tmp_path):
    reports: list[tuple[int, float]] = []
    (tmp_path / "work").mkdir()
    model, losses = pbg.train(config(), pbg_input, tmp_path / "work", lambda *found: reports.append(found))
    found = figures(model)
    assert found["mrr"] > 2 * found["popularity"]["mrr"]
    assert {kind: rows.shape for kind, rows in model.nodes.items()} == {"user": (80, 16), "hashtag": (48, 16)}
    assert losses[-1] < losses[0]
    assert reports == list(enumerate(losses, 1))


@pytest.mark.slow
def test_one_worker_gives_the_same_bytes_in_partitions(pbg_input, tmp_path):
    first, again, other = (
        trained(pbg_input, tmp_path / str(place), epochs=1, seed=seed, partitions=3)
        for place, seed in enumerate((0, 0, 1))
    )
    assert first[1] == again[1] != other[1]
    for kind in ("user", "hashtag"):
        assert first[0].nodes[kind].tobytes() == again[0].nodes[kind].tobytes() != other[0].nodes[kind].tobytes()
    assert first[0].relations.tobytes() == again[0].relations.tobytes()


def test_one_partition_is_trained_from_the_files_of_the_graph(pbg_input, tmp_path, monkeypatch):
    seen: dict[str, Any] = {}

    class Nothing:
        def __init__(self, found: dict[str, Any], ranks: range, count: int) -> None:
            seen.update(found, ranks=ranks, count=count)
            raise KeyboardInterrupt

    monkeypatch.setattr(pbg, "Trainers", Nothing)
    with pytest.raises(KeyboardInterrupt):
        trained(pbg_input, tmp_path / "work", partitions=1)
    assert (seen["ranks"], seen["count"], seen["passes"]) == (range(1), 1, 1)
    schema = seen["config"]
    assert (schema["entity_path"], schema["edge_paths"]) == (str(pbg_input), [str(pbg_input / "train")])
    assert schema["entities"] == {"user": {"num_partitions": 1}, "hashtag": {"num_partitions": 1}}
    assert "num_machines" not in schema
    assert not list((tmp_path / "work").iterdir())


def test_the_order_of_buckets_follows_from_the_seed():
    from torchbiggraph.config import BucketOrder

    from ntulm.embeddings.pbg_process import SeededBuckets

    def orders(seed: int) -> list[list[Any]]:
        found = []
        scheduler = SeededBuckets(3, 3, BucketOrder.INSIDE_OUT, seed=seed)
        for number in range(2):
            scheduler.new_pass(number == 0)
            found.append(list(scheduler.buckets))
        return found

    assert orders(0) == orders(0) != orders(1)
    assert all(sorted(one) == [(lhs, rhs) for lhs in range(3) for rhs in range(3)] for one in orders(0))


def test_several_trainers_get_each_bucket_once_and_none_that_is_new_on_both_sides():
    from torchbiggraph.bucket_scheduling import BucketStats
    from torchbiggraph.stats import Stats

    from ntulm.embeddings.pbg_process import Buckets

    server = Buckets(num_clients=2, nparts_lhs=4, nparts_rhs=4, lock_lhs=True, lock_rhs=True, init_tree=True)
    for first in (True, False):
        server.new_pass(first)
        held: dict[int, Any] = {}
        order: list[Any] = []
        left = 16
        while left or held:
            for rank in (0, 1):
                old = held.pop(rank, None)
                if old is not None:
                    server.release_bucket(old, BucketStats(old.lhs, old.rhs, 0, Stats(count=0)))
                bucket, left = server.acquire_bucket(rank, old)
                if bucket is not None:
                    assert all({bucket.lhs, bucket.rhs}.isdisjoint(one) for one in held.values())
                    held[rank] = bucket
                    order.append(bucket)
        assert sorted(order) == [(lhs, rhs) for lhs in range(4) for rhs in range(4)]
        lefts, rights = {0}, {0}
        for lhs, rhs in order if first else ():
            assert lhs in lefts or rhs in rights
            lefts.add(lhs)
            rights.add(rhs)
        assert (
            server.check_and_set_dirty("user", 0) is not first
        )  # where its rows are: with the process that keeps them


def test_the_loss_of_an_epoch_is_the_mean_per_edge():
    from torchbiggraph.stats import Stats

    from ntulm.embeddings.pbg_process import mean_loss

    assert mean_loss([Stats(count=1, loss=4.0), Stats(count=0), Stats(count=3, loss=2.0)]) == pytest.approx(2.5)
    assert mean_loss([Stats(count=7, loss=0.1 + 0.2)]) == 0.1 + 0.2
